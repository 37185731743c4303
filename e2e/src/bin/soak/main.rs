//! Faults at random, seed after seed: run by `cargo xtask soak`. Prints a line for each seed, and in
//! the end `seeds N, acknowledged A, missing M, duplicated D, merged G`.

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use iotpipeline_e2e::containers::Speaks;
use iotpipeline_e2e::soak::series::{conclude, run_all};

/// What is to be run.
#[derive(Debug, PartialEq)]
struct Arguments {
    seeds: u64,
    /// The first; otherwise one from the clock.
    seed: Option<u64>,
    at_a_time: u64,
    speaks: Speaks,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match parse(std::env::args().skip(1)) {
        Ok(arguments) => tokio::select! {
            outcome = soak(&arguments) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        },
        Err(error) => Err(error),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(arguments: &Arguments) -> Result<bool> {
    let (seeds, start) = (arguments.seeds, Instant::now());
    let first = match arguments.seed {
        Some(seed) => seed,
        // Six digits are enough to differ from yesterday's, and can be typed.
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % 1_000_000,
    };
    println!("{seeds} seeds from {first} on; one of them again: cargo xtask soak --seeds 1 --seed SEED");
    let summary = run_all(first, seeds, arguments.at_a_time, arguments.speaks, std::io::stdout()).await?;
    println!("{seeds} seeds from {first} on took {:.0} s", start.elapsed().as_secs_f64());
    conclude(&summary, &mut std::io::stdout())?;
    Ok(summary.is_good())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut parsed = Arguments { seeds: 20, seed: None, at_a_time: 1, speaks: Speaks::Mqtt5 };
    while let Some(argument) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{argument} needs a number"))?;
        if (argument.as_str(), value.as_str()) == ("--mqtt", "3.1.1") {
            parsed.speaks = Speaks::Mqtt311;
            continue;
        }
        let number = value.parse().with_context(|| format!("{argument} {value}: not a number"))?;
        match argument.as_str() {
            "--seeds" => parsed.seeds = number,
            "--seed" => parsed.seed = Some(number),
            "--at-a-time" => parsed.at_a_time = number,
            other => bail!(
                "no such option: {other}; there are --seeds N, --seed S, --at-a-time K and --mqtt 3.1.1"
            ),
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<Arguments> {
        parse(line.split_whitespace().map(str::to_owned)).ok()
    }

    #[test]
    fn a_run_is_replayed_by_its_seed() {
        let replay = Arguments { seeds: 1, seed: Some(4711), at_a_time: 1, speaks: Speaks::Mqtt311 };
        assert_eq!(parsed("--seeds 1 --seed 4711 --mqtt 3.1.1"), Some(replay));
        for wrong in ["--seeds", "--seeds many", "--speed 1", "--mqtt 4"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
