//! cyclonus, from its Go module: it says what network policies admit, beside our own reading of them.

use std::process::Command;

use super::module::Module;
use crate::Result;
use crate::context::Context;
use crate::paths::Paths;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "cyclonus",
    about: "cyclonus from source: what network policies admit (3 min the first time, on 2 cores)",
    lock: Some(Lock::Parts),
    work: build,
};

fn module() -> Module {
    let done = String::new();
    Module { name: "cyclonus", folder: "e2e/cyclonus", package: ".", linker_flags: "-s -w".into(), done }
}

/// Tells a test where the program is.
pub(crate) fn tell(paths: &Paths, command: &mut Command) -> Result<()> {
    command.env("IOTPIPELINE_CYCLONUS_BIN", module().program(paths)?);
    Ok(())
}

fn build(context: &mut Context, log: &Log) -> Result<Outcome> {
    module().build(&context.paths, log)
}
