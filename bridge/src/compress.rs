//! Compresses what goes to the database: lines of few series repeat themselves, and become a fifth or less.

use libdeflater::{CompressionLvl, Compressor};

/// Below this, compressing costs more than it saves.
const COMPRESS_FROM: usize = 1_024;

/// gzip at its lowest level, reused from write to write.
pub struct Gzip {
    compressor: Compressor,
}

impl Default for Gzip {
    fn default() -> Self {
        Self { compressor: Compressor::new(CompressionLvl::new(1).expect("libdeflater has a level 1")) }
    }
}

impl Gzip {
    /// The lines as gzip, if that is worth it.
    pub fn compress(&mut self, lines: &[u8]) -> Option<Vec<u8>> {
        if lines.len() < COMPRESS_FROM {
            return None;
        }
        let mut body = vec![0; self.compressor.gzip_compress_bound(lines.len())];
        let length = self.compressor.gzip_compress(lines, &mut body).ok()?;
        body.truncate(length);
        Some(body)
    }
}
