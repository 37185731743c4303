//! cyclonus and kstatus, from their Go modules: they read network policies and statuses, beside ourselves.

use std::process::Command;

use super::module::Module;
use crate::Result;
use crate::context::Context;
use crate::paths::Paths;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "witness",
    about: "cyclonus and kstatus from source: they read policies and statuses (3 min the first time, on 2 cores)",
    lock: Some(Lock::Parts),
    work: build,
};

fn module() -> Module {
    let done = String::new();
    Module { name: "witness", folder: "e2e/witness", package: ".", linker_flags: "-s -w".into(), done }
}

/// Tells a test where the program is.
pub(crate) fn tell(paths: &Paths, command: &mut Command) -> Result<()> {
    command.env("IOTPIPELINE_WITNESS_BIN", module().program(paths)?);
    Ok(())
}

fn build(context: &mut Context, log: &Log) -> Result<Outcome> {
    module().build(&context.paths, log)
}
