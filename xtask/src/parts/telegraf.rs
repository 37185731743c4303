//! Telegraf, from its Go module, with the plugins that the bench needs: what the bridge is measured beside.

use std::path::PathBuf;

use super::module::Module;
use crate::Result;
use crate::context::Context;
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

/// Linked as its makers do it: without what is for a debugger.
fn module() -> Module {
    let linker_flags = format!("-s -w -X github.com/influxdata/telegraf/internal.Version={VERSION}");
    let done = format!("Telegraf {VERSION}");
    Module { name: "telegraf", folder: "e2e/bench/telegraf", package: ".", linker_flags, done }
}

/// Where the program is.
pub(crate) fn program(paths: &Paths) -> Result<PathBuf> {
    module().program(paths)
}

fn build(context: &mut Context, log: &Log) -> Result<Outcome> {
    module().build(&context.paths, log)
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
