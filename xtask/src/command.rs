//! The commands, as lists of steps.

use std::process::ExitCode;

use crate::args::{ClusterAction, Command};
use crate::context::Context;
use crate::parts::{self, go, prometheus_operator, s3, telegraf, witness};
use crate::paths::Paths;
use crate::progress::{Progress, Step};
use crate::{Result, bench, chart, checks, cluster, demo, images, nodes, soak};

/// What is said before the first step that may take long.
const NEEDS: &str = "\
It needs: a network; Docker, or root on a Debian machine, where it installs and starts it; 20 GB of disk.
The first time takes minutes where public images can be pulled. Where they can't, everything is built from
source: 15 to 30 minutes on 2 cores. Afterwards only what has changed is done: about 2 minutes.
It can be interrupted, and goes on where it was.";

/// Runs a command, and says how it ended.
pub(crate) fn run(command: &Command) -> ExitCode {
    let done = match command {
        Command::Test { fast, .. } => return test(command, *fast),
        Command::Cluster { action: ClusterAction::Status, .. } => {
            context(command).and_then(|context| cluster::status(&context))
        }
        Command::Demo { down: false, .. } => show(command),
        Command::Soak { seeds, seed } => endure(command, *seeds, *seed),
        Command::BenchOperator { pipelines, settle, anchor } => scale(command, *pipelines, *settle, *anchor),
        Command::Bench { rounds, row, quick } => compare(command, *rounds, row.as_deref(), *quick),
        other => list(other),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn context(command: &Command) -> Result<Context> {
    Ok(Context::new(Paths::find()?, command.cluster_name(), command.workers()))
}

/// A command's name, which is also its folder of logs, and its steps.
fn steps(command: &Command) -> (&'static str, Vec<&'static Step>) {
    let with_parts = |rest: &[&'static Step]| [&parts::STEPS, rest].concat();
    let installed = [&images::BUILD, &cluster::UP, &images::LOAD, &chart::INSTALL];
    match command {
        Command::Cluster { action: ClusterAction::Up { .. }, .. } => ("cluster", with_parts(&[&cluster::UP])),
        Command::Cluster { .. } | Command::Demo { down: true, .. } => ("cluster", vec![&cluster::DOWN]),
        Command::Images { .. } => ("images", with_parts(&[&images::BUILD, &images::LOAD])),
        Command::Install { .. } => ("install", with_parts(&installed)),
        Command::Nodes { .. } => ("nodes", with_parts(&[&images::BUILD, &nodes::STEP])),
        Command::Demo { .. } => ("demo", [with_parts(&installed), vec![&demo::COMPILE]].concat()),
        Command::Soak { .. } => ("soak", with_parts(&[&soak::COMPILE])),
        Command::Bench { .. } => ("bench", with_parts(&[&telegraf::STEP, &bench::COMPILE])),
        Command::BenchOperator { anchor: false, .. } => {
            ("bench-operator", vec![&go::CONTROL_PLANE, &bench::COMPILE_OPERATOR])
        }
        Command::BenchOperator { anchor: true, .. } => {
            let steps = vec![&go::CONTROL_PLANE, &prometheus_operator::STEP, &bench::COMPILE_OPERATOR];
            ("bench-operator", steps)
        }
        Command::Generate => ("generate", vec![&checks::GENERATE]),
        Command::Test { fast: true, .. } => ("test", fast_checks()),
        Command::Test { fast: false, .. } => ("test", [fast_checks(), with_parts(&full_checks())].concat()),
        Command::Help => ("help", Vec::new()),
    }
}

fn fast_checks() -> Vec<&'static Step> {
    vec![&checks::FORMAT, &checks::CLIPPY, &checks::UNIT, &checks::DENY]
}

fn full_checks() -> [&'static Step; 12] {
    [
        &witness::STEP,
        &checks::WITNESSED,
        &go::CONTROL_PLANE,
        &s3::STEP,
        &images::BUILD,
        &checks::LOOPBACK,
        &checks::CONTROL_PLANE,
        &cluster::UP,
        &checks::CHART,
        &images::LOAD,
        &chart::INSTALL,
        &checks::IN_CLUSTER,
    ]
}

/// Runs a command that is a list and no more.
fn list(command: &Command) -> Result<()> {
    let mut context = context(command)?;
    let (name, steps) = steps(command);
    match steps.len() > parts::STEPS.len() {
        true => println!("cargo xtask {name}\n{NEEDS}\n"),
        false => println!("cargo xtask {name}\n"),
    }
    let mut progress = Progress::new(context.paths.logs(name));
    progress.run(&mut context, &steps)?;
    println!("\nDone in {}.", progress.elapsed());
    Ok(())
}

fn show(command: &Command) -> Result<()> {
    println!(
        "cargo xtask demo: a sensor, a broker, a database and a dashboard in a local cluster.\n{NEEDS}\n"
    );
    let mut context = context(command)?;
    let (name, steps) = steps(command);
    let mut progress = Progress::new(context.paths.logs(name));
    progress.run(&mut context, &steps)?;
    println!("\nReady after {}. Now the demonstration.\n", progress.elapsed());
    demo::run(&context)?;
    println!("\nThe demo took {} in all.", progress.elapsed());
    Ok(())
}

/// The last line is `seeds N, acknowledged A, missing M, duplicated D, merged G`.
fn endure(command: &Command, seeds: u64, seed: Option<u64>) -> Result<()> {
    println!("cargo xtask soak: faults at random while messages flow, seed after seed.\n{NEEDS}\n");
    let mut context = context(command)?;
    let (name, steps) = steps(command);
    let mut progress = Progress::new(context.paths.logs(name));
    progress.run(&mut context, &steps)?;
    println!("\nReady after {}. A seed takes about 3 s, and two run at a time.\n", progress.elapsed());
    soak::run(&context, seeds, seed)
}

/// Prints a table, and writes it to a file.
fn compare(command: &Command, rounds: u64, row: Option<&str>, quick: bool) -> Result<()> {
    println!("cargo xtask bench: the bridge and Telegraf in turn, under the same load.\n{NEEDS}\n");
    let mut context = context(command)?;
    let (name, steps) = steps(command);
    let mut progress = Progress::new(context.paths.logs(name));
    progress.run(&mut context, &steps)?;
    println!("\nReady after {}. All rows take about 2 minutes a round on 2 cores.\n", progress.elapsed());
    bench::run(&context, rounds, row, quick)
}

/// Prints each figure as it comes, and a table.
fn scale(command: &Command, pipelines: u64, settle: u64, anchor: bool) -> Result<()> {
    println!(
        "cargo xtask bench operator: {pipelines} pipelines on a real kube-apiserver and etcd.\n\
         It needs: a network, Go, and 10 minutes the first time. Fakes play what would run in pods.\n"
    );
    let mut context = context(command)?;
    let (name, steps) = steps(command);
    let mut progress = Progress::new(context.paths.logs(name));
    progress.run(&mut context, &steps)?;
    println!("\nReady after {}.\n", progress.elapsed());
    bench::run_operator(&context, pipelines, settle, anchor)
}

/// The last line is `N passed, N failed`, whatever happened before.
fn test(command: &Command, fast: bool) -> ExitCode {
    match fast {
        true => println!(
            "cargo xtask test --fast: all that needs no Docker. It needs: a network, and 10 minutes the first time."
        ),
        false => println!(
            "cargo xtask test: every test there is.\n{NEEDS}\nOn 2 cores all of it takes about 25 minutes, if the parts are there.\n"
        ),
    }
    let mut context = match context(command) {
        Ok(context) => context,
        Err(problem) => {
            eprintln!("{problem}\n0 passed, 1 failed");
            return ExitCode::FAILURE;
        }
    };
    let (name, steps) = steps(command);
    let mut progress = Progress::new(context.paths.logs(name));
    let result = progress.run(&mut context, &steps);
    progress.summary();
    let counts = context.counts;
    // A step that fails without a test, such as clippy, counts as one.
    let failed = if result.is_err() { counts.failed.max(1) } else { counts.failed };
    println!("\n{} passed, {failed} failed", counts.passed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
