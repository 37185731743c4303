//! The table for people: each figure beside the anchor's and its bar.

use super::report::{Anchor, Converged, Report, Settled};
use crate::stage;

/// What is measured, ours, the anchor's, and the bar.
struct Row {
    name: &'static str,
    ours: String,
    anchor: String,
    bar: String,
}

impl Report {
    /// How fast the operator was beside the bare client, which had to wait for the fakes as well.
    pub fn share_of_floor(&self) -> Option<f64> {
        self.floor.as_ref().map(|floor| 100.0 * floor.ready_seconds / self.converged.seconds)
    }

    /// For people.
    pub fn shown(&self) -> String {
        let mut rows = self.of_both();
        rows.extend(self.of_ours_alone());
        let anchor = self.anchor.as_ref().map_or("", |anchor| anchor.name.as_str());
        let mut text = format!("{} pipelines; {}\n\n", self.pipelines, stage::NAME);
        let heading = Row { name: "", ours: "ours".into(), anchor: anchor.into(), bar: "bar".into() };
        for Row { name, ours, anchor, bar } in [heading].into_iter().chain(rows) {
            let width = if self.anchor.is_some() { 26 } else { 0 };
            text.push_str(format!("{name:<24} {ours:<24} {anchor:<width$} {bar}").trim_end());
            text.push('\n');
        }
        text
    }

    fn of_both(&self) -> Vec<Row> {
        let memory = match self.pipelines {
            3_000 => self.bar("96", 3_000),
            _ => self.bar("48", 1_000),
        };
        vec![
            self.row("objects", |of| of.converged.objects.to_string(), String::new()),
            self.row(
                "created to ready, s",
                |of| format!("{:.1}", of.converged.seconds),
                self.bar("100", 1_000),
            ),
            self.row("requests for that", |of| of.converged.requests.to_string(), String::new()),
            self.row("peak memory, MiB", |of| format!("{:.1}", of.converged.peak_mib), memory.clone()),
            self.row(
                "settled: writes",
                |of| format!("{} in {:.0} s", of.settled.writes, of.settled.seconds),
                "0".into(),
            ),
            self.row(
                "settled: % of a core",
                |of| format!("{:.2}", of.settled.percent_of_a_core),
                self.bar("2", 1_000),
            ),
            self.row("settled: memory, MiB", |of| format!("{:.1}", of.settled.memory_mib), memory),
        ]
    }

    fn row(&self, name: &'static str, shown: fn(&Figures<'_>) -> String, bar: String) -> Row {
        let ours = shown(&Figures { converged: &self.converged, settled: &self.settled });
        let of_anchor =
            |anchor: &Anchor| shown(&Figures { converged: &anchor.converged, settled: &anchor.settled });
        Row { name, ours, anchor: self.anchor.as_ref().map(of_anchor).unwrap_or_default(), bar }
    }

    fn of_ours_alone(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut add = |name, ours, bar| rows.push(Row { name, ours, anchor: String::new(), bar });
        if let (Some(floor), Some(share)) = (&self.floor, self.share_of_floor()) {
            let both = format!("{:.1} ({:.1} to apply)", floor.ready_seconds, floor.applied_seconds);
            add("a bare client, s", both, String::new());
            add("share of its speed, %", format!("{share:.0}"), "at least 70".into());
        }
        if let Some(edits) = &self.edits {
            let p99 = edits.latency.latency_p99_milliseconds;
            add("an edit, p99, ms", format!("{p99:.0}"), self.bar("1000", 1_000));
        }
        if let Some(foreign) = &self.foreign {
            let bar = if foreign.secrets == 30_000 { "at most 3".into() } else { String::new() };
            add("foreign, MiB", format!("{:.1} by {} Secrets", foreign.added_mib, foreign.secrets), bar);
        }
        rows
    }

    /// A bar counts for its number of pipelines.
    fn bar(&self, at_most: &str, pipelines: usize) -> String {
        if self.pipelines == pipelines { format!("at most {at_most}") } else { String::new() }
    }
}

/// What both are measured by.
struct Figures<'a> {
    converged: &'a Converged,
    settled: &'a Settled,
}
