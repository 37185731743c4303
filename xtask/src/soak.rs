//! The soak: a program of `e2e` runs the bridge between a broker and a database in Docker, and lets
//! faults happen. Both are compiled as they are released.

use crate::context::Context;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};
use crate::{Result, released};

/// Compiles both programs beforehand.
pub(crate) const COMPILE: Step = Step {
    name: "soak",
    about: "compiles the bridge and its faults, as released (5 min the first time, on 2 cores)",
    lock: Some(Lock::Images),
    work: compile,
};

fn compile(context: &mut Context, log: &Log) -> Result<Outcome> {
    released::compile(context, SOAK, released::BRIDGE, log)
}

/// A run mostly waits: two of them keep two cores busy.
const AT_A_TIME: &str = "2";

const SOAK: &str = "soak";

/// Runs it, on the terminal itself.
pub(crate) fn run(context: &Context, seeds: u64, seed: Option<u64>) -> Result<()> {
    let mut command = released::command(context, SOAK)?;
    command.args(["--seeds", &seeds.to_string(), "--at-a-time", AT_A_TIME]);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    match command.status()?.success() {
        true => Ok(()),
        false => Err("the soak failed: its output above says where".into()),
    }
}
