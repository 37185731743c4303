//! The benches: programs of `e2e`. One measures the bridge beside Telegraf, between the same broker and the
//! same database, in Docker; the other the operator on a control plane without a cluster. All are compiled as
//! they are released.

use crate::context::Context;
use crate::parts::{go, prometheus_operator, telegraf};
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

/// Compiles the operator and what measures it beforehand.
pub(crate) const COMPILE_OPERATOR: Step = Step {
    name: "bench-operator",
    about: "compiles the operator and what measures it, as released (5 min the first time, on 2 cores)",
    lock: Some(Lock::Images),
    work: compile_operator,
};

const BENCH: &str = "bench";

const BENCH_OPERATOR: &str = "bench-operator";

fn compile(context: &mut Context, log: &Log) -> Result<Outcome> {
    released::compile(context, BENCH, released::BRIDGE, log)
}

fn compile_operator(context: &mut Context, log: &Log) -> Result<Outcome> {
    released::compile(context, BENCH_OPERATOR, released::OPERATOR, log)
}

/// Runs the operator's, on the terminal itself; with another operator beside it, the anchor.
pub(crate) fn run_operator(context: &Context, pipelines: u64, settle: u64, anchor: bool) -> Result<()> {
    let program = |name| released::program(context, BENCH_OPERATOR, name);
    let mut command = std::process::Command::new(program(BENCH_OPERATOR));
    command.current_dir(&context.paths.root).env("IOTPIPELINE_OPERATOR_BIN", program(released::OPERATOR));
    go::tell_control_plane(&context.paths, &mut command)?;
    if anchor {
        prometheus_operator::tell(&context.paths, &mut command)?;
    }
    command.args((!anchor).then_some("--no-anchor"));
    command.args(["--pipelines", &pipelines.to_string(), "--settle", &settle.to_string()]);
    match command.args(["--file", "target/bench/operator.json"]).status()?.success() {
        true => Ok(()),
        false => Err("the bench failed: its output above says where".into()),
    }
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
