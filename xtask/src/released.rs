//! The bridge or the operator, and a program of `e2e` that uses it, compiled as they are released: for what takes long, or
//! is measured.

use std::path::PathBuf;
use std::process::Command;

use crate::Result;
use crate::cargo::cargo;
use crate::context::Context;
use crate::process::Log;
use crate::progress::Outcome;

/// A program that is tried.
pub(crate) const BRIDGE: &str = "iotpipeline-bridge";

/// Another.
pub(crate) const OPERATOR: &str = "iotpipeline-operator";

/// Compiles one of them, and this program of `e2e`: each by itself, since what is compiled together has the features of
/// dependencies that any of it asks for.
pub(crate) fn compile(context: &Context, name: &str, tried: &str, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    let target = paths.cache.join("cargo");
    for (package, compiled) in [(tried, tried), ("iotpipeline-e2e", name)] {
        let mut build = cargo(paths);
        build.args(["build", "--release", "--package", package, "--bin", compiled, "--target-dir"]);
        log.run(build.arg(&target))?;
        let program = program(context, name, compiled);
        std::fs::create_dir_all(program.parent().ok_or("a program without a folder")?)?;
        // Copies: the next one to compile may be another checkout.
        std::fs::copy(target.join("release").join(compiled), program)?;
    }
    Ok(Outcome::Done(String::new()))
}

/// Where one of the two is: beside the other, in a folder called by the one of `e2e`.
pub(crate) fn program(context: &Context, name: &str, program: &str) -> PathBuf {
    context.paths.root.join("target").join(name).join(program)
}

/// The program, set to find the bridge, the broker and the database.
pub(crate) fn command(context: &Context, name: &str) -> Result<Command> {
    let parts = context.images()?;
    let mut command = Command::new(program(context, name, name));
    command
        .current_dir(&context.paths.root)
        .env("IOTPIPELINE_IMAGE_MOSQUITTO", &parts.mosquitto)
        .env("IOTPIPELINE_IMAGE_INFLUXDB", &parts.influxdb)
        .env("IOTPIPELINE_BRIDGE_BIN", program(context, name, BRIDGE));
    Ok(command)
}
