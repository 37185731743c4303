//! A server that speaks S3, from its Go module: what backups are tested with. It keeps objects as files.

use std::path::PathBuf;
use std::process::Command;

use super::go::compile_module;
use crate::Result;
use crate::context::Context;
use crate::hash::Key;
use crate::paths::Paths;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "s3",
    about: "Versity's S3 gateway from source, for the test of backups (3 min the first time, on 2 cores)",
    lock: Some(Lock::Parts),
    work: build,
};

const PACKAGE: &str = "github.com/versity/versitygw/cmd/versitygw";

const LINKER_FLAGS: &str = "-s -w";

fn module(paths: &Paths) -> PathBuf {
    paths.recipes().join("s3")
}

fn program(paths: &Paths) -> Result<PathBuf> {
    let key = Key::new("versitygw", 1).tree(&module(paths), &[])?.text(LINKER_FLAGS).finish();
    Ok(paths.cache.join("programs").join(format!("versitygw-{key}")).join("versitygw"))
}

fn build(context: &mut Context, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    compile_module(&module(paths), PACKAGE, &program(paths)?, LINKER_FLAGS, log)
}

/// Tells a test of `e2e` where it is.
pub(crate) fn tell(paths: &Paths, command: &mut Command) -> Result<()> {
    command.env("IOTPIPELINE_S3_BIN", program(paths)?);
    Ok(())
}
