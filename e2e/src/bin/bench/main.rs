//! The bench: run by `cargo xtask bench`. Measures the bridge beside Telegraf, prints a table, and writes
//! the same to a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use iotpipeline_e2e::bench::floor;
use iotpipeline_e2e::bench::report::{Report, RowReport};
use iotpipeline_e2e::bench::rows::{ROWS, Row};
use iotpipeline_e2e::bench::run::Bench;
use iotpipeline_e2e::bench::subjects::{FLOOR, floor_task};
use iotpipeline_e2e::bench::table::{line, shown};

/// What is to be measured.
#[derive(Debug, PartialEq)]
struct Arguments {
    rounds: u32,
    row: Option<String>,
    quick: bool,
    /// Where the results go.
    file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        // Without a runtime, whose threads would be counted.
        Some((first, rest)) if first == FLOOR => read_floor(rest),
        _ => parse(arguments.into_iter()).and_then(|arguments| measure(&arguments)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read_floor(arguments: &[String]) -> Result<()> {
    let counted = floor::read(&floor_task(arguments).context("not a floor's arguments")?)?;
    println!("{}", serde_json::to_string(&counted)?);
    Ok(())
}

#[tokio::main]
async fn measure(arguments: &Arguments) -> Result<()> {
    tokio::select! {
        outcome = run(arguments) => outcome,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let rows = rows(arguments)?;
    let start = Instant::now();
    let mut bench = Bench::start().await?;
    let mut reports = Vec::new();
    for row in rows {
        let mut samples = BTreeMap::<_, Vec<_>>::new();
        for round in 0..arguments.rounds {
            // Who comes first takes turns: what the machine does beside comes and goes.
            let mut subjects = row.subjects.to_vec();
            let places = subjects.len();
            subjects.rotate_left(round as usize % places);
            for subject in subjects {
                let sample = bench.measure(subject, &row).await?;
                let (name, subject_name, round) = (row.name, subject.name(), round + 1);
                println!("{name} {round}/{} {subject_name}: {}", arguments.rounds, line(&sample));
                samples.entry(subject).or_default().push(sample);
            }
        }
        reports.push(RowReport::new(row.name, &samples));
    }
    let report = Report::new(arguments.rounds, arguments.quick, reports);
    println!("\n{}", shown(&report));
    if let Some(file) = &arguments.file {
        std::fs::create_dir_all(file.parent().context("a file without a folder")?)?;
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
        println!("{} has the same, after {:.0} s.", file.display(), start.elapsed().as_secs_f64());
    }
    if arguments.quick {
        println!("This was a quick look: few messages, and figures that differ from one time to the next.");
    }
    Ok(())
}

fn rows(arguments: &Arguments) -> Result<Vec<Row>> {
    // A name, or the part of it that several have in common.
    let is = |row: &str, name: &str| {
        row.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let wanted = |row: &&Row| arguments.row.as_ref().is_none_or(|name| is(row.name, name));
    let rows: Vec<Row> = ROWS.iter().filter(wanted).copied().collect();
    let names = ROWS.map(|row| row.name).join(", ");
    ensure!(!rows.is_empty(), "no such row; there are {names}");
    Ok(if arguments.quick { rows.into_iter().map(Row::quick).collect() } else { rows })
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut parsed = Arguments { rounds: 1, row: None, quick: false, file: None };
    while let Some(argument) = arguments.next() {
        if argument == "--quick" {
            parsed.quick = true;
            continue;
        }
        let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--rounds" => {
                parsed.rounds = value.parse().with_context(|| format!("--rounds {value}: not a number"))?;
                ensure!(parsed.rounds > 0, "--rounds 0: one is the least");
            }
            "--row" => parsed.row = Some(value),
            "--file" => parsed.file = Some(value.into()),
            other => {
                bail!("no such option: {other}; there are --rounds N, --row NAME, --quick and --file FILE")
            }
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
    fn rows_and_rounds_are_chosen() {
        let chosen = parsed("--rounds 5 --row json4-qos1 --quick").expect("arguments");
        assert_eq!((chosen.rounds, chosen.quick), (5, true));
        let rows = rows(&chosen).expect("a row");
        assert_eq!(rows.iter().map(|row| row.name).collect::<Vec<_>>(), ["json4-qos1"]);
        let routes = super::rows(&parsed("--row routes").expect("arguments")).expect("rows");
        assert_eq!(routes.iter().map(|row| row.name).collect::<Vec<_>>(), ["routes-1", "routes-1000"]);
        for wrong in ["--rounds", "--rounds 0", "--speed 1"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
