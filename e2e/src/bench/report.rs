//! What comes of the measurements: medians for each row and subject, as a table and as a file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::bench::bars::{Bar, bars};
use crate::bench::subjects::Subject;

/// What one measurement, or the median of several, came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Messages that were published, and can be stored.
    pub published: u64,
    /// Those that were stored, or by the floor read.
    pub stored: u64,
    /// Stored, or read, in a second: from the first publishing to the last storing.
    pub messages_per_second: f64,
    /// Processor time for each that was stored or read, in microseconds.
    pub cpu_microseconds: f64,
    /// The most memory that the process ever had.
    pub peak_memory_mib: f64,
    /// From publishing to storing, where messages were paced.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// The broker's memory for each message that waited there, in bytes, where the database was away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_bytes: Option<f64>,
}

/// From publishing to storing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the messages took no longer, in milliseconds.
    pub latency_p50_milliseconds: f64,
    /// 99 in 100 took no longer.
    pub latency_p99_milliseconds: f64,
}

impl Latency {
    /// Of so many messages; there must be one.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |hundredth: usize| {
            times[(times.len() * hundredth / 100).min(times.len() - 1)].as_secs_f64() * 1e3
        };
        Self { latency_p50_milliseconds: at(50), latency_p99_milliseconds: at(99) }
    }
}

impl Sample {
    /// From what was counted.
    pub fn new(
        published: u64,
        stored: u64,
        took: Duration,
        cost: Duration,
        peak_memory_kib: u64,
        latency: Option<Latency>,
    ) -> Self {
        let messages = stored.max(1) as f64;
        Self {
            published,
            stored,
            messages_per_second: messages / took.as_secs_f64(),
            cpu_microseconds: cost.as_secs_f64() * 1e6 / messages,
            peak_memory_mib: peak_memory_kib as f64 / 1_024.0,
            latency,
            broker_bytes: None,
        }
    }

    /// Each figure's median, but the most of `broker_bytes`; there must be a sample.
    fn median(samples: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(samples.iter().map(figure).collect());
        let latency = |figure: fn(&Latency) -> f64| {
            median(samples.iter().filter_map(|sample| sample.latency.as_ref().map(figure)).collect())
        };
        Self {
            published: samples[0].published,
            stored: of(|sample| sample.stored as f64) as u64,
            messages_per_second: of(|sample| sample.messages_per_second),
            cpu_microseconds: of(|sample| sample.cpu_microseconds),
            peak_memory_mib: of(|sample| sample.peak_memory_mib),
            latency: samples[0].latency.map(|_| Latency {
                latency_p50_milliseconds: latency(|all| all.latency_p50_milliseconds),
                latency_p99_milliseconds: latency(|all| all.latency_p99_milliseconds),
            }),
            // The most: the broker keeps the memory of one round, and the next then seems to need little.
            broker_bytes: samples.iter().filter_map(|sample| sample.broker_bytes).max_by(f64::total_cmp),
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) }
}

/// A row's medians.
#[derive(Clone, Debug, Serialize)]
pub struct RowReport {
    /// The row.
    pub name: String,
    /// Who was measured.
    #[serde(flatten)]
    pub subjects: BTreeMap<Subject, Sample>,
}

impl RowReport {
    /// Of all rounds; each subject must have a sample.
    pub fn new(name: &str, samples: &BTreeMap<Subject, Vec<Sample>>) -> Self {
        let medians = samples.iter().map(|(subject, samples)| (*subject, Sample::median(samples)));
        Self { name: name.to_owned(), subjects: medians.collect() }
    }

    /// The bridge and Telegraf, if both were measured.
    pub fn pair(&self) -> Option<(&Sample, &Sample)> {
        Some((self.subjects.get(&Subject::Bridge)?, self.subjects.get(&Subject::Telegraf)?))
    }
}

/// All of it: what is written to the file.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How often each was measured.
    pub rounds: u32,
    /// A quick look, with few messages.
    pub quick: bool,
    /// The rows, in their order.
    pub rows: Vec<RowReport>,
    /// What the bridge is meant to reach, and whether it does.
    pub bars: Vec<Bar>,
}

impl Report {
    /// Of these rows.
    pub fn new(rounds: u32, quick: bool, rows: Vec<RowReport>) -> Self {
        let bars = bars(&rows);
        Self { rounds, quick, rows, bars }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let sample = |rate: u64, cost: u64| {
            Sample::new(10, rate, Duration::from_secs(1), Duration::from_micros(cost), 2_048, None)
        };
        let median = Sample::median(&[sample(10, 30), sample(20, 20), sample(15, 90)]);
        assert_eq!((median.messages_per_second, median.cpu_microseconds), (15.0, 3.0));
        assert_eq!((median.peak_memory_mib, median.latency), (2.0, None));
    }

    #[test]
    fn a_percentile_is_a_message_s_own_time() {
        let latency = Latency::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!((latency.latency_p50_milliseconds, latency.latency_p99_milliseconds), (101.0, 199.0));
        assert_eq!(Latency::of(vec![Duration::from_millis(7)]).latency_p99_milliseconds, 7.0);
    }

    #[test]
    fn a_file_s_row_has_its_name_and_its_subjects() {
        let sample = Sample::new(10, 10, Duration::from_secs(1), Duration::from_micros(30), 2_048, None);
        let row = RowReport::new("number-qos1", &BTreeMap::from([(Subject::Bridge, vec![sample])]));
        let written = serde_json::to_value(&row).expect("JSON");
        assert_eq!(written["name"], "number-qos1");
        assert_eq!(written["bridge"]["cpu_microseconds"], 3.0);
        assert_eq!(written["telegraf"], serde_json::Value::Null);
    }
}
