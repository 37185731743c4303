//! What is shown while one waits, on a terminal and elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::pipeline::{Pipeline, is_ready, summary};

const READY: Duration = Duration::from_secs(300);

/// The steps so far, and their clock.
pub(crate) struct Steps {
    began: Instant,
    terminal: bool,
}

impl Steps {
    /// Starts the clock.
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), terminal: std::io::stdout().is_terminal() }
    }

    /// Says that a step is done.
    pub(crate) fn done(&self, what: &str) {
        println!("{} ✓ {what}", self.clock());
    }

    /// Says what happens meanwhile.
    pub(crate) fn meanwhile(&self, what: &str) {
        println!("{} · {what}", self.clock());
    }

    /// Shows how far a long step is: in place on a terminal.
    pub(crate) fn progress(&self, count: usize, total: usize, what: &str) {
        const WIDTH: usize = 30;
        let full = (count * WIDTH / total.max(1)).min(WIDTH);
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(WIDTH - full));
        let line = format!("{} {bar} {count} of {total} {what}", self.clock());
        if self.terminal {
            print!("\r{line}");
            if count >= total {
                println!();
            }
            std::io::stdout().flush().ok();
        } else {
            println!("{line}");
        }
    }

    /// Whether progress can be shown often.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Waits until the pipeline is ready, and tells of every condition that changes.
    pub(crate) async fn conditions_until_ready(&self, pipeline: &Pipeline) -> Result<()> {
        let mut told = BTreeMap::new();
        eventually("the pipeline is ready", READY, async || {
            let now = pipeline.get().await?;
            for condition in now.status.iter().flat_map(|status| &status.conditions) {
                let state = (condition.status.clone(), condition.reason.clone());
                if told.insert(condition.type_.clone(), state.clone()) != Some(state) {
                    let mark = if condition.status == "True" { "yes" } else { "no" };
                    self.meanwhile(&format!(
                        "{:15} {mark:3} {}: {}",
                        condition.type_, condition.reason, condition.message
                    ));
                }
            }
            Ok(if is_ready(&now) { Probe::Found(()) } else { Probe::NotYet(summary(&now)) })
        })
        .await
    }

    fn clock(&self) -> String {
        format!("  {:6.1} s", self.began.elapsed().as_secs_f64())
    }
}
