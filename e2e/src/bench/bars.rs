//! What the bridge is meant to reach.

use serde::Serialize;

use crate::bench::report::{RowReport, Sample};
use crate::bench::subjects::Subject;

/// One of them, and whether it is reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// The row, or the pair of rows.
    pub row: String,
    /// What is meant.
    pub what: String,
    /// What was measured.
    pub measured: f64,
    /// What it is to be at most; or at least, where more is better.
    pub bound: f64,
    /// Whether it is.
    pub reached: bool,
}

impl Bar {
    fn at_most(row: &str, what: &str, measured: f64, bound: f64) -> Self {
        Self { row: row.into(), what: what.into(), measured, bound, reached: measured <= bound }
    }

    fn at_least(row: &str, what: &str, measured: f64, bound: f64) -> Self {
        Self { row: row.into(), what: what.into(), measured, bound, reached: measured >= bound }
    }
}

/// CPU for a message, as a part of Telegraf's.
const CPU: [(&str, f64); 3] = [("number-qos1", 10.0), ("json4-qos1", 10.0), ("number-qos0", 12.0)];
const FASTER: (&str, f64) = ("number-qos0", 2.4);
const MEMORY_PART: f64 = 5.0;
const MEMORY_MIB: f64 = 16.0;
const LATENCY: (&str, f64) = ("latency-1000", 100.0);
/// How fast is stored what has gathered during an outage, or what is good among bad messages, as a part of what is
/// stored without.
const NEARLY: [(&str, &str, f64); 3] = [
    ("outage", "number-qos1", 0.8),
    ("poison-decode", "poison-clean", 0.9),
    ("poison-refused", "poison-clean", 0.9),
];
/// Pairs of rows that should cost the same, but for a fifth.
const GROWTH: [(&str, &str); 2] = [("routes-1", "routes-1000"), ("topics-10", "topics-100000")];
const GROWS: f64 = 20.0;

/// All that these rows say something about.
pub fn bars(rows: &[RowReport]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for row in rows {
        let name = row.name.as_str();
        if let Some((ours, theirs)) = row.pair() {
            for (_, part) in CPU.iter().filter(|(of, _)| *of == name) {
                let measured = theirs.cpu_microseconds / ours.cpu_microseconds;
                bars.push(Bar::at_least(name, "times less CPU a message than Telegraf", measured, *part));
            }
            if name == FASTER.0 {
                let measured = ours.messages_per_second / theirs.messages_per_second;
                bars.push(Bar::at_least(name, "times the messages a second of Telegraf", measured, FASTER.1));
            }
            let measured = theirs.peak_memory_mib / ours.peak_memory_mib;
            bars.push(Bar::at_least(name, "times less memory than Telegraf", measured, MEMORY_PART));
        }
        let Some(ours) = row.subjects.get(&Subject::Bridge) else { continue };
        bars.push(Bar::at_most(name, "MiB of memory", ours.peak_memory_mib, MEMORY_MIB));
        if let Some(latency) = ours.latency.filter(|_| name == LATENCY.0) {
            let measured = latency.latency_p99_milliseconds;
            bars.push(Bar::at_most(name, "ms from publishing to storing, 99 in 100", measured, LATENCY.1));
        }
    }
    for (name, other, part) in NEARLY {
        if let (Some(with), Some(without)) = (ours(rows, name), ours(rows, other)) {
            let measured = with.messages_per_second / without.messages_per_second;
            bars.push(Bar::at_least(
                name,
                &format!("times the messages a second of {other}"),
                measured,
                part,
            ));
        }
    }
    for (small, large) in GROWTH {
        if let (Some(few), Some(many)) = (ours(rows, small), ours(rows, large)) {
            let measured = (many.cpu_microseconds / few.cpu_microseconds - 1.0) * 100.0;
            bars.push(Bar::at_most(large, &format!("% more CPU than {small}"), measured, GROWS));
        }
    }
    bars
}

fn ours<'r>(rows: &'r [RowReport], name: &str) -> Option<&'r Sample> {
    rows.iter().find(|row| row.name == name)?.subjects.get(&Subject::Bridge)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::bench::rows::ROWS;

    fn row(name: &str, subjects: &[(Subject, u64)]) -> RowReport {
        let sample = |cost: u64| {
            let memory = cost * 1_024;
            vec![Sample::new(1, 1, Duration::from_micros(cost), Duration::from_micros(cost), memory, None)]
        };
        let samples: BTreeMap<_, _> =
            subjects.iter().map(|(subject, cost)| (*subject, sample(*cost))).collect();
        RowReport::new(name, &samples)
    }

    fn missed(rows: &[RowReport]) -> Vec<(String, String)> {
        bars(rows).into_iter().filter(|bar| !bar.reached).map(|bar| (bar.row, bar.what)).collect()
    }

    #[test]
    fn a_tenth_of_telegraf_s_cost_is_enough_and_less_is_not() {
        assert_eq!(missed(&[row("number-qos1", &[(Subject::Bridge, 2), (Subject::Telegraf, 20)])]), []);
        let missed = missed(&[row("number-qos1", &[(Subject::Bridge, 2), (Subject::Telegraf, 19)])]);
        assert_eq!(missed, [("number-qos1".into(), "times less CPU a message than Telegraf".into())]);
    }

    #[test]
    fn growth_is_judged_when_both_rows_of_a_pair_are_there() {
        let few = row("routes-1", &[(Subject::Bridge, 10)]);
        let many = |cost| row("routes-1000", &[(Subject::Bridge, cost)]);
        assert_eq!(missed(&[few.clone(), many(12)]), []);
        assert_eq!(missed(&[few, many(13)]), [("routes-1000".into(), "% more CPU than routes-1".into())]);
        assert_eq!(missed(&[many(13)]), []);
    }

    #[test]
    fn with_poison_nine_tenths_are_enough_and_less_is_not() {
        // What costs more microseconds in these samples takes as much longer.
        let clean = row("poison-clean", &[(Subject::Bridge, 10)]);
        let poisoned = |cost| row("poison-refused", &[(Subject::Bridge, cost)]);
        assert_eq!(missed(&[clean.clone(), poisoned(11)]), []);
        let what = "times the messages a second of poison-clean".to_owned();
        assert_eq!(missed(&[clean, poisoned(12)]), [("poison-refused".into(), what)]);
    }

    #[test]
    fn every_bar_is_of_a_row_that_there_is() {
        let all = CPU.iter().map(|(name, _)| *name).chain([FASTER.0, LATENCY.0]);
        let pairs = NEARLY.into_iter().map(|(name, other, _)| (name, other)).chain(GROWTH);
        for name in all.chain(pairs.flat_map(|(one, other)| [one, other])) {
            assert!(ROWS.iter().any(|row| row.name == name), "{name}");
        }
    }
}
