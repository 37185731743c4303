//! What comes of the measurements: lines for people, and a file.

use serde::Serialize;

use super::floor::Took;
use crate::bench::report::Latency;

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
    /// Another operator with as many resources.
    pub anchor: Option<Anchor>,
}

/// Another operator with as many resources of its own, on a control plane of its own.
#[derive(Debug, Serialize)]
pub struct Anchor {
    /// Its name and version.
    pub name: String,
    /// From nothing to all of them available.
    pub converged: Converged,
    /// After that.
    pub settled: Settled,
}

/// From nothing to all ready.
#[derive(Debug, Serialize)]
pub struct Converged {
    /// Resources, and what they became; the fakes' pods apart.
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
    pub fn tell(&self, what: &str) {
        let Self { objects, seconds, requests, idle_mib, peak_mib } = self;
        println!(
            "{what}: {objects} objects in {seconds:.1} s, {requests} requests; memory {idle_mib:.1} MiB before, {peak_mib:.1} MiB at most"
        );
    }
}

impl Settled {
    /// Says it at once.
    pub fn tell(&self, what: &str) {
        let Self { seconds, writes, requests, percent_of_a_core, memory_mib } = self;
        println!(
            "{what}: {writes} writes and {requests} requests in {seconds:.0} s, {percent_of_a_core:.2} % of a core, {memory_mib:.1} MiB"
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

/// Of what the kernel counts in KiB.
#[expect(clippy::cast_precision_loss, reason = "no process has 2^53 KiB")]
pub(super) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
