//! Run after run, and what came of all.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;

use crate::containers::Speaks;
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

/// Runs so many seeds from the first on, some at a time, each of these with a broker and a database of
/// its own that speaks this to the bridge. A line for each goes to `log`, and its plan if it went wrong.
///
/// # Errors
/// If the parts don't start, or the log can't be written.
pub async fn run_all(
    first: u64,
    count: u64,
    at_a_time: u64,
    speaks: Speaks,
    log: impl Write,
) -> Result<Summary> {
    let next = Cell::new(0);
    let seeds = || (next.get() < count).then(|| first.wrapping_add(next.replace(next.get() + 1)));
    let report = RefCell::new(Report { summary: Summary::default(), log });
    try_join_all((0..at_a_time.clamp(1, count.max(1))).map(async |_| {
        let parts = Parts::start(speaks).await?;
        while let Some(seed) = seeds() {
            let (plan, start) = (Plan::draw(seed), Instant::now());
            let verdict = run(&parts, &plan, &format!("seed-{seed}")).await;
            let came_back = verdict.is_ok();
            report.borrow_mut().add(&plan, verdict, start.elapsed())?;
            if !came_back {
                // A run must not suffer from the one before.
                parts.revive().await?;
            }
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(report.into_inner().summary)
}

struct Report<W> {
    summary: Summary,
    log: W,
}

impl<W: Write> Report<W> {
    fn add(&mut self, plan: &Plan, verdict: Result<Verdict>, took: Duration) -> Result<()> {
        let (seed, faults, seconds) = (plan.seed, plan.steps.len(), took.as_secs_f64());
        let log = &mut self.log;
        match verdict {
            Ok(verdict) => {
                self.summary.seeds += 1;
                self.summary.verdict = self.summary.verdict.plus(verdict);
                writeln!(log, "seed {seed}, faults {faults}, {verdict}, {seconds:.1} s")?;
                if !verdict.is_good() {
                    write!(log, "{plan}")?;
                }
            }
            Err(error) => {
                self.summary.broken += 1;
                write!(log, "seed {seed}, no verdict after {seconds:.1} s: {error:#}\n{plan}")?;
            }
        }
        Ok(log.flush()?)
    }
}

/// Says what came of all: the summary's line, and a line on what a killed broker may lose.
///
/// # Errors
/// If the output can't be written.
pub fn conclude(summary: &Summary, out: &mut impl Write) -> Result<()> {
    if summary.broken > 0 {
        writeln!(out, "{} seeds came to no verdict: see above", summary.broken)?;
    }
    let Verdict { unsettled, unsettled_lost, dead_lettered, letters_repeated, .. } = summary.verdict;
    writeln!(
        out,
        "{dead_lettered} messages that can't be stored became dead letters, {letters_repeated} letters came again"
    )?;
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
