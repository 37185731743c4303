//! A program of a Go module of ours in `e2e`, which pins what it is made of in go.sum.

use std::path::PathBuf;

use super::go::{go, require_go};
use crate::Result;
use crate::hash::Key;
use crate::paths::{Paths, empty_folder};
use crate::process::Log;
use crate::progress::Outcome;

/// One of them.
pub(super) struct Module {
    /// The program's name.
    pub(super) name: &'static str,
    /// Where the module is in the repository.
    pub(super) folder: &'static str,
    /// The package that it is compiled from: `.`, or a tool that go.mod names.
    pub(super) package: &'static str,
    /// What the linker is told.
    pub(super) linker_flags: String,
    /// What the step says when it has been compiled.
    pub(super) done: String,
}

/// The files that decide on the program; for a tool there is no main.go. What else is in the folder, such as its
/// configuration, does not.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];

impl Module {
    /// Where the program is; the name is a hash of what decides on its content.
    pub(super) fn program(&self, paths: &Paths) -> Result<PathBuf> {
        let mut key = Key::new(self.name, 1).text(&self.linker_flags);
        for file in SOURCES.map(|file| paths.root.join(self.folder).join(file)) {
            if file.exists() {
                key = key.file(&file)?;
            }
        }
        let folder = format!("{}-{}", self.name, key.finish());
        Ok(paths.cache.join("programs").join(folder).join(self.name))
    }

    /// Compiles it, unless it is there already.
    pub(super) fn build(&self, paths: &Paths, log: &Log) -> Result<Outcome> {
        let program = self.program(paths)?;
        if program.exists() {
            return Ok(Outcome::Unchanged(String::new()));
        }
        require_go()?;
        let folder = program.parent().ok_or("a program without a folder")?;
        let unfinished = folder.join("unfinished");
        empty_folder(&unfinished)?;
        let mut build = go(&paths.root.join(self.folder));
        build.env("CGO_ENABLED", "0").args([
            "build",
            "-v",
            "-trimpath",
            "-ldflags",
            &self.linker_flags,
            "-o",
        ]);
        log.run(build.arg(unfinished.join(self.name)).arg(self.package))?;
        std::fs::rename(unfinished.join(self.name), &program)?;
        std::fs::remove_dir(&unfinished)?;
        Ok(Outcome::Done(self.done.clone()))
    }
}
