//! Where things are: in the checkout, and in the user's cache directory.

use std::path::{Path, PathBuf};

use crate::Result;

/// The two places that commands write to: the checkout's `target/`, and the cache.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// What every checkout on this machine shares: built parts, keyed by their inputs.
    pub(crate) cache: PathBuf,
}

impl Paths {
    /// Finds both. The checkout is that of the manifest Cargo runs, not of the one it compiled.
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let manifest = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        let root = manifest.parent().ok_or("xtask lies in no workspace")?.canonicalize()?;
        let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
            Some(cache) => PathBuf::from(cache),
            None => PathBuf::from(std::env::var_os("HOME").ok_or("HOME is not set")?).join(".cache"),
        };
        let paths = Self { root, cache: cache.join("iotpipeline") };
        std::fs::create_dir_all(&paths.cache)?;
        std::fs::create_dir_all(paths.cluster_tools())?;
        Ok(paths)
    }

    /// The files that the cluster is built from.
    pub(crate) fn recipes(&self) -> PathBuf {
        self.root.join("e2e/cluster")
    }

    /// What a developer's shell needs to use the cluster.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.root.join("target/cluster")
    }

    /// kubectl, helm and kind, for people and tests.
    pub(crate) fn cluster_tools(&self) -> PathBuf {
        self.cluster().join("bin")
    }

    /// Logs of the steps of one command.
    pub(crate) fn logs(&self, command: &str) -> PathBuf {
        self.root.join("target/xtask").join(command)
    }
}

/// Writes a file so that it is there whole or not at all, however the command ends.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let parent = path.parent().ok_or("a file without a folder")?;
    std::fs::create_dir_all(parent)?;
    let unfinished = path.with_extension(format!("unfinished-{}", std::process::id()));
    std::fs::write(&unfinished, content)?;
    Ok(std::fs::rename(&unfinished, path)?)
}

/// An empty folder for unfinished work, on the same file system as what it is moved to.
pub(crate) fn empty_folder(path: &Path) -> Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    Ok(std::fs::create_dir_all(path)?)
}
