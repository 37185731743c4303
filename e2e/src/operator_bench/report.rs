//! What comes of the measurements: lines for people, and a file.

use serde::Serialize;

use super::floor::Took;
use crate::bench::report::Latency;
use crate::stage;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How many pipelines there were.
    pub pipelines: usize,
    /// From nothing to all of them ready.
    pub converged: Converged,
    /// After that.
    pub settled: Settled,
    /// One edit at a time.
    pub edits: Option<Edits>,
    /// Secrets of others.
    pub foreign: Option<Foreign>,
    /// The same objects by a bare client.
    pub floor: Option<Floor>,
}

/// From nothing to all ready.
#[derive(Debug, Serialize)]
pub struct Converged {
    /// Pipelines, and what they became; the fakes' pods apart.
    pub objects: usize,
    /// How long it took, from the first creation on.
    pub seconds: f64,
    /// What the operator asked the API server.
    pub requests: usize,
    /// Its memory before.
    pub idle_mib: f64,
    /// The most memory that it ever had.
    pub peak_mib: f64,
}

/// All are ready, and nothing changes.
#[derive(Debug, Serialize)]
pub struct Settled {
    /// For how long.
    pub seconds: f64,
    /// What the operator has written, its Lease apart.
    pub writes: usize,
    /// What it has asked in all.
    pub requests: usize,
    /// Processor time.
    pub percent_of_a_core: f64,
    /// Its memory in the end.
    pub memory_mib: f64,
}

/// One edit at a time.
#[derive(Debug, Serialize)]
pub struct Edits {
    /// How many.
    pub count: usize,
    /// From sending the edit to seeing the bridge's configuration change.
    #[serde(flatten)]
    pub latency: Latency,
}

/// Secrets of others.
#[derive(Debug, Serialize)]
pub struct Foreign {
    /// How many.
    pub secrets: usize,
    /// By how much the operator's memory has grown.
    pub added_mib: f64,
}

/// The same objects by a bare client.
#[derive(Debug, Serialize)]
pub struct Floor {
    /// Until the last one was applied.
    pub applied_seconds: f64,
    /// Until the fakes had made their workloads ready as well, which the operator waits for too.
    pub ready_seconds: f64,
}

impl From<Took> for Floor {
    fn from(took: Took) -> Self {
        Self { applied_seconds: took.applied.as_secs_f64(), ready_seconds: took.ready.as_secs_f64() }
    }
}

impl Converged {
    /// Says it at once.
    pub fn tell(&self) {
        let Self { objects, seconds, requests, idle_mib, peak_mib } = self;
        println!(
            "converged: {objects} objects in {seconds:.1} s, {requests} requests; memory {idle_mib:.1} MiB before, {peak_mib:.1} MiB at most"
        );
    }
}

impl Settled {
    /// Says it at once.
    pub fn tell(&self) {
        let Self { seconds, writes, requests, percent_of_a_core, memory_mib } = self;
        println!(
            "settled: {writes} writes and {requests} requests in {seconds:.0} s, {percent_of_a_core:.2} % of a core, {memory_mib:.1} MiB"
        );
    }
}

impl Edits {
    /// Says it at once.
    pub fn tell(&self) {
        let Latency { latency_p50_milliseconds, latency_p99_milliseconds } = self.latency;
        println!(
            "edits: {}, applied after {latency_p50_milliseconds:.0} ms (p50), {latency_p99_milliseconds:.0} ms (p99)",
            self.count
        );
    }
}

impl Foreign {
    /// Says it at once.
    pub fn tell(&self) {
        println!("foreign: {} Secrets added {:.1} MiB", self.secrets, self.added_mib);
    }
}

impl Report {
    /// How fast the operator was beside the bare client, which had to wait for the fakes as well.
    pub fn share_of_floor(&self) -> Option<f64> {
        self.floor.as_ref().map(|floor| 100.0 * floor.ready_seconds / self.converged.seconds)
    }

    /// For people: each figure beside its bar.
    pub fn shown(&self) -> String {
        let mut rows = vec![
            ("objects", format!("{}", self.converged.objects), String::new()),
            ("created to ready, s", format!("{:.1}", self.converged.seconds), self.bar("100", 1_000)),
        ];
        if let (Some(floor), Some(share)) = (&self.floor, self.share_of_floor()) {
            rows.push((
                "a bare client, s",
                format!("{:.1} ({:.1} to apply)", floor.ready_seconds, floor.applied_seconds),
                String::new(),
            ));
            rows.push(("share of its speed, %", format!("{share:.0}"), "at least 70".into()));
        }
        let settled = &self.settled;
        let memory = match self.pipelines {
            3_000 => self.bar("96", 3_000),
            _ => self.bar("48", 1_000),
        };
        rows.extend([
            ("settled: writes", format!("{} in {:.0} s", settled.writes, settled.seconds), "0".into()),
            ("settled: % of a core", format!("{:.2}", settled.percent_of_a_core), self.bar("2", 1_000)),
            ("settled: memory, MiB", format!("{:.1}", settled.memory_mib), memory.clone()),
            ("peak memory, MiB", format!("{:.1}", self.converged.peak_mib), memory),
        ]);
        if let Some(edits) = &self.edits {
            let p99 = edits.latency.latency_p99_milliseconds;
            rows.push(("an edit, p99, ms", format!("{p99:.0}"), self.bar("1000", 1_000)));
        }
        if let Some(foreign) = &self.foreign {
            let bar = if foreign.secrets == 30_000 { "at most 3".into() } else { String::new() };
            let added = format!("{:.1} by {} Secrets", foreign.added_mib, foreign.secrets);
            rows.push(("foreign, MiB", added, bar));
        }
        let mut text = format!("{} pipelines; {}\n\n", self.pipelines, stage::NAME);
        for (name, value, bar) in rows {
            text.push_str(format!("{name:<24} {value:<24} {bar}").trim_end());
            text.push('\n');
        }
        text
    }

    /// A bar counts for its number of pipelines.
    fn bar(&self, at_most: &str, pipelines: usize) -> String {
        if self.pipelines == pipelines { format!("at most {at_most}") } else { String::new() }
    }
}
