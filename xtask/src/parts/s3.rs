//! A server that speaks S3, from its Go module: what backups are tested with. It keeps objects as files.

use std::process::Command;

use super::module::Module;
use crate::Result;
use crate::context::Context;
use crate::paths::Paths;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "s3",
    about: "Versity's S3 gateway from source, for the test of backups (3 min the first time, on 2 cores)",
    lock: Some(Lock::Parts),
    work: build,
};

fn module() -> Module {
    Module {
        name: "versitygw",
        folder: "e2e/cluster/s3",
        package: "github.com/versity/versitygw/cmd/versitygw",
        linker_flags: "-s -w".into(),
        done: String::new(),
    }
}

/// Tells a test of `e2e` where it is.
pub(crate) fn tell(paths: &Paths, command: &mut Command) -> Result<()> {
    command.env("IOTPIPELINE_S3_BIN", module().program(paths)?);
    Ok(())
}

fn build(context: &mut Context, log: &Log) -> Result<Outcome> {
    module().build(&context.paths, log)
}
