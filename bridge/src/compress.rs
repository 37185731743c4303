//! Compresses what goes to the database: lines of few series repeat themselves, and become a fifth or less.

use libdeflater::{CompressionLvl, Compressor};

/// Below this, compressing costs more than it saves.
const COMPRESS_FROM: usize = 1_024;

/// gzip at its lowest level, reused from write to write.
pub struct Gzip {
    compressor: Compressor,
    /// Has room for the worst case, of which hardly more than a fifth is ever touched, and so takes memory.
    room: Vec<u8>,
}

impl Default for Gzip {
    fn default() -> Self {
        let level = CompressionLvl::new(1).expect("libdeflater has a level 1");
        Self { compressor: Compressor::new(level), room: Vec::new() }
    }
}

impl Gzip {
    /// The lines as gzip, if that is worth it.
    pub fn compress(&mut self, lines: &[u8]) -> Option<Vec<u8>> {
        if lines.len() < COMPRESS_FROM {
            return None;
        }
        let bound = self.compressor.gzip_compress_bound(lines.len());
        if self.room.len() < bound {
            self.room = vec![0; bound];
        }
        let length = self.compressor.gzip_compress(lines, &mut self.room).ok()?;
        Some(self.room[..length].to_vec())
    }
}
