//! Run after run, and what came of all.

use std::fmt;
use std::io::Write;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::soak::audit::Verdict;
use crate::soak::plan::Plan;
use crate::soak::rig::Parts;
use crate::soak::run::run;

/// What came of many runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// How many runs came to a verdict.
    pub seeds: u64,
    /// All verdicts together.
    pub verdict: Verdict,
    /// How many runs did not come to a verdict.
    pub broken: u64,
}

impl Summary {
    /// Whether every run came to a verdict, and every verdict is good.
    pub fn is_good(&self) -> bool {
        self.broken == 0 && self.verdict.is_good()
    }
}

impl fmt::Display for Summary {
    /// Without the unsettled, which are said apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { acknowledged, missing, duplicated, merged, .. } = self.verdict;
        let seeds = self.seeds;
        write!(
            f,
            "seeds {seeds}, acknowledged {acknowledged}, missing {missing}, duplicated {duplicated}, \
             merged {merged}"
        )
    }
}

/// Runs so many seeds from the first on. A line for each goes to `log`, and its plan if it went wrong.
///
/// # Errors
/// If the parts don't start, or the log can't be written.
pub async fn run_all(first: u64, count: u64, log: &mut impl Write) -> Result<Summary> {
    let parts = Parts::start().await?;
    let mut summary = Summary::default();
    for seed in (0..count).map(|place| first.wrapping_add(place)) {
        let (plan, start) = (Plan::draw(seed), Instant::now());
        let verdict = run(&parts, &plan, &format!("seed-{seed}")).await;
        let (faults, seconds) = (plan.steps.len(), start.elapsed().as_secs_f64());
        match verdict {
            Ok(verdict) => {
                summary.seeds += 1;
                summary.verdict = summary.verdict.plus(verdict);
                writeln!(log, "seed {seed}, faults {faults}, {verdict}, {seconds:.1} s")?;
                if !verdict.is_good() {
                    write!(log, "{plan}")?;
                }
            }
            Err(error) => {
                summary.broken += 1;
                write!(log, "seed {seed}, no verdict after {seconds:.1} s: {error:#}\n{plan}")?;
                // A run must not suffer from the one before.
                parts.revive().await?;
            }
        }
        log.flush()?;
    }
    Ok(summary)
}

/// Says what came of all: the summary's line, and a line on what a killed broker may lose.
///
/// # Errors
/// If the output can't be written.
pub fn conclude(summary: &Summary, out: &mut impl Write) -> Result<()> {
    if summary.broken > 0 {
        writeln!(out, "{} seeds came to no verdict: see above", summary.broken)?;
    }
    let Verdict { unsettled, unsettled_lost, .. } = summary.verdict;
    writeln!(
        out,
        "of {unsettled} messages that a broker acknowledged in its last moment before SIGKILL, \
         {unsettled_lost} were lost with it (not counted as missing)"
    )?;
    writeln!(out, "{summary}")?;
    Ok(())
}

/// As a test does: an error unless all is good.
///
/// # Errors
/// If something is missing, duplicated or merged, or a run broke off.
pub fn must_be_good(summary: &Summary) -> Result<()> {
    ensure!(summary.is_good(), "{summary}; {} without a verdict", summary.broken);
    Ok(())
}
