//! Telegraf, from its Go module, with the plugins that the bench needs: what the bridge is measured beside.

use std::path::PathBuf;

use super::go::compile_module;
use crate::Result;
use crate::context::Context;
use crate::hash::Key;
use crate::paths::Paths;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "telegraf",
    about: "Telegraf from source, to compare with (3 min the first time, on 2 cores)",
    lock: Some(Lock::Parts),
    work: build,
};

/// As in its module's go.mod.
const VERSION: &str = "1.37.2";

/// As its makers build it: optimised, and without what is for a debugger.
fn linker_flags() -> String {
    format!("-s -w -X github.com/influxdata/telegraf/internal.Version={VERSION}")
}

/// The files that decide on the program. Its configuration, in the same folder, does not.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];

fn module(paths: &Paths) -> PathBuf {
    paths.root.join("e2e/bench/telegraf")
}

/// Where the program is; the name is a hash of what decides on its content.
pub(crate) fn program(paths: &Paths) -> Result<PathBuf> {
    let mut key = Key::new("telegraf", 1).text(&linker_flags());
    for file in SOURCES {
        key = key.file(&module(paths).join(file))?;
    }
    Ok(paths.cache.join("programs").join(format!("telegraf-{}", key.finish())).join("telegraf"))
}

fn build(context: &mut Context, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    compile_module(&module(paths), ".", &program(paths)?, &linker_flags(), log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telegraf_is_told_the_version_that_the_module_pins() {
        let module = include_str!("../../../e2e/bench/telegraf/go.mod");
        assert!(module.contains(&format!("github.com/influxdata/telegraf v{VERSION}")));
    }
}
