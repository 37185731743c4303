//! The soak: a program of `e2e` runs the bridge between a broker and a database in Docker, and lets
//! faults happen. Both are compiled as they are released.

use std::path::PathBuf;
use std::process::Command;

use crate::Result;
use crate::cargo::cargo;
use crate::context::Context;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};

/// Compiles both programs beforehand.
pub(crate) const COMPILE: Step = Step {
    name: "soak",
    about: "compiles the bridge and its faults, as released (5 min the first time, on 2 cores)",
    lock: Some(Lock::Images),
    work: compile,
};

fn compile(context: &mut Context, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    let mut build = cargo(paths);
    build.args(["build", "--release", "--package", "iotpipeline-bridge", "--package", "iotpipeline-e2e"]);
    build.args(["--bin", BRIDGE, "--bin", SOAK, "--target-dir"]);
    let target = paths.cache.join("cargo");
    log.run(build.arg(&target))?;
    for name in [BRIDGE, SOAK] {
        let program = program(context, name);
        std::fs::create_dir_all(program.parent().ok_or("a program without a folder")?)?;
        // Copies: the next one to compile may be another checkout.
        std::fs::copy(target.join("release").join(name), program)?;
    }
    Ok(Outcome::Done(String::new()))
}

/// A run mostly waits: two of them keep two cores busy.
const AT_A_TIME: &str = "2";

const BRIDGE: &str = "iotpipeline-bridge";
const SOAK: &str = "soak";

fn program(context: &Context, name: &str) -> PathBuf {
    context.paths.root.join("target/soak").join(name)
}

/// Runs it, on the terminal itself.
pub(crate) fn run(context: &Context, seeds: u64, seed: Option<u64>) -> Result<()> {
    let parts = context.images()?;
    let mut command = Command::new(program(context, SOAK));
    command
        .current_dir(&context.paths.root)
        .env("IOTPIPELINE_IMAGE_MOSQUITTO", &parts.mosquitto)
        .env("IOTPIPELINE_IMAGE_INFLUXDB", &parts.influxdb)
        .env("IOTPIPELINE_BRIDGE_BIN", program(context, BRIDGE))
        .args(["--seeds", &seeds.to_string(), "--at-a-time", AT_A_TIME]);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    match command.status()?.success() {
        true => Ok(()),
        false => Err("the soak failed: its output above says where".into()),
    }
}
