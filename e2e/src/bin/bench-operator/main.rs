//! The operator's bench: run by `cargo xtask bench operator`. Prints each figure as it comes, a table in the
//! end, and writes the same to a file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use iotpipeline_e2e::operator_bench::run::{Plan, run};

/// All of it takes this long at most.
const LIMIT: Duration = Duration::from_secs(3_600);

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match parse(std::env::args().skip(1)) {
        Ok((plan, file)) => tokio::select! {
            outcome = measure(&plan, file) => outcome,
            () = tokio::time::sleep(LIMIT) => Err(anyhow::anyhow!("not within {} s", LIMIT.as_secs())),
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        },
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(plan: &Plan, file: Option<PathBuf>) -> Result<()> {
    let report = run(plan).await?;
    println!("\n{}", report.shown());
    if let Some(file) = file {
        std::fs::create_dir_all(file.parent().context("a file without a folder")?)?;
        std::fs::write(&file, serde_json::to_string_pretty(&report)? + "\n")?;
        println!("{} has the same.", file.display());
    }
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Plan, Option<PathBuf>)> {
    let mut plan = Plan {
        pipelines: 1_000,
        settle: Duration::from_secs(600),
        edits: 100,
        foreign: 30_000,
        floor: true,
        anchor: true,
    };
    let mut file = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--no-floor" => {
                plan.floor = false;
                continue;
            }
            "--no-anchor" => {
                plan.anchor = false;
                continue;
            }
            _ => {}
        }
        let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
        let number = || value.parse::<usize>().with_context(|| format!("{argument} {value}: not a number"));
        match argument.as_str() {
            "--pipelines" => plan.pipelines = number()?,
            "--settle" => plan.settle = Duration::from_secs(number()?.try_into()?),
            "--edits" => plan.edits = number()?,
            "--foreign" => plan.foreign = number()?,
            "--file" => file = Some(value.into()),
            other => bail!(
                "no such option: {other}; there are --pipelines N, --settle SECONDS, --edits N, --foreign N, --no-floor, --no-anchor and --file FILE"
            ),
        }
    }
    ensure!(plan.pipelines > 0, "--pipelines 0: one is the least");
    Ok((plan, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_can_be_chosen() {
        let parsed = |line: &str| parse(line.split_whitespace().map(str::to_owned)).ok();
        let (plan, file) =
            parsed("--pipelines 3000 --settle 30 --no-floor --no-anchor --file x.json").expect("arguments");
        assert_eq!((plan.pipelines, plan.settle), (3_000, Duration::from_secs(30)));
        assert_eq!((plan.floor, plan.anchor), (false, false));
        assert_eq!(file, Some("x.json".into()));
        for wrong in ["--pipelines", "--pipelines 0", "--settle soon", "--speed 1"] {
            assert!(parsed(wrong).is_none(), "{wrong}");
        }
    }
}
