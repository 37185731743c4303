//! The bench: a program of `e2e` measures the bridge beside Telegraf, between the same broker and the
//! same database, in Docker. All are compiled as they are released.

use crate::context::Context;
use crate::parts::telegraf;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};
use crate::{Result, released};

/// Compiles the bridge and what measures it beforehand.
pub(crate) const COMPILE: Step = Step {
    name: "bench",
    about: "compiles the bridge and what measures it, as released (5 min the first time, on 2 cores)",
    lock: Some(Lock::Images),
    work: compile,
};

const BENCH: &str = "bench";

fn compile(context: &mut Context, log: &Log) -> Result<Outcome> {
    released::compile(context, BENCH, log)
}

/// Runs it, on the terminal itself.
pub(crate) fn run(context: &Context, rounds: u64, row: Option<&str>, quick: bool) -> Result<()> {
    let mut command = released::command(context, BENCH)?;
    command.env("IOTPIPELINE_TELEGRAF_BIN", telegraf::program(&context.paths)?);
    command.args(["--rounds", &rounds.to_string(), "--file"]);
    command.arg("target/bench/bridge.json");
    command.args(row.map(|name| ["--row", name]).into_iter().flatten());
    command.args(quick.then_some("--quick"));
    match command.status()?.success() {
        true => Ok(()),
        false => Err("the bench failed: its output above says where".into()),
    }
}
