//! Names, ports and directories that nobody else uses.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A port that nobody listens on, and none of those that the kernel hands out (`ip_local_port_range`).
///
/// # Errors
/// If none is found.
pub fn free_port() -> Result<u16> {
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..30_000))
        .take(100)
        .find(is_free)
        .context("no port is free")
}

/// A name that nobody else uses.
pub(crate) fn unique(part: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("iotpipeline-e2e-{part}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A directory for a test's files. Removed when dropped.
pub struct Directory {
    path: PathBuf,
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).ok();
    }
}

impl Directory {
    /// Makes a directory that nobody else uses.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn new(part: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(unique(part));
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines of its file `log`; nothing if there is none.
    pub fn log(&self, lines: usize) -> String {
        let log = std::fs::read_to_string(self.path.join("log")).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Writes a file, as a whole or not at all, and returns its path.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        let new = self.path.join(format!(".{name}.new"));
        std::fs::write(&new, content).with_context(|| new.display().to_string())?;
        std::fs::rename(&new, &path)?;
        Ok(path)
    }
}
