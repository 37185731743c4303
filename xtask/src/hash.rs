//! Keys of what is cached: a digest of everything that went into it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Result;

/// Collects inputs, each with its length, so that no two lists of inputs run together.
pub(crate) struct Key(Sha256);

impl Key {
    /// A key for one kind of artifact. Change `version` when the code that makes it changes.
    pub(crate) fn new(kind: &str, version: u32) -> Self {
        Self(Sha256::new()).text(kind).text(&version.to_string())
    }

    /// Adds a string.
    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds each string of a list.
    pub(crate) fn texts<S: AsRef<str>>(self, texts: &[S]) -> Self {
        texts.iter().fold(self, |key, text| key.text(text.as_ref()))
    }

    /// Adds a file's content.
    pub(crate) fn file(self, path: &Path) -> Result<Self> {
        let content = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Ok(self.bytes(&content))
    }

    /// Adds every file below a folder, with its path there; folders named in `except` are left out.
    pub(crate) fn tree(mut self, folder: &Path, except: &[&str]) -> Result<Self> {
        for file in files_below(folder, except)? {
            let inside = file.strip_prefix(folder)?.to_string_lossy().into_owned();
            self = self.text(&inside).file(&file)?;
        }
        Ok(self)
    }

    /// Twelve hexadecimal digits: enough among a few hundred artifacts, and short in a tag.
    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }
}

/// All files below a folder, sorted, so that the order of a directory's entries doesn't matter.
fn files_below(folder: &Path, except: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("cannot list {}: {e}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let excepted = except.iter().any(|name| entry.file_name() == *name);
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        } else if entry.file_type()?.is_dir() && !excepted {
            files.extend(files_below(&entry.path(), except)?);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_where_one_input_ends() {
        let key = |a: &str, b: &str| Key::new("test", 1).text(a).text(b).finish();
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_eq!(key("ab", "c"), key("ab", "c"));
        assert_eq!(key("ab", "c").len(), 12);
    }

    #[test]
    fn a_tree_s_key_changes_with_content_and_names_but_not_with_excepted_folders() {
        let folder = std::env::temp_dir().join(format!("xtask-hash-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("tests")).unwrap();
        std::fs::write(folder.join("a"), "1").unwrap();
        let key = || Key::new("test", 1).tree(&folder, &["tests"]).unwrap().finish();
        let first = key();
        std::fs::write(folder.join("tests/b"), "2").unwrap();
        assert_eq!(first, key());
        std::fs::rename(folder.join("a"), folder.join("c")).unwrap();
        assert_ne!(first, key());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
