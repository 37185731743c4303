//! The results, for people.

use std::fmt::Write;

use crate::bench::bars::Bar;
use crate::bench::report::{Report, RowReport, Sample};
use crate::bench::subjects::Subject;

/// A column: its head, a sample's figure, and whether more of it is better.
struct Column {
    head: &'static str,
    figure: fn(&Sample) -> Option<f64>,
    more_is_better: bool,
}

const COLUMNS: [Column; 6] = [
    Column { head: "messages/s", figure: |sample| Some(sample.messages_per_second), more_is_better: true },
    Column { head: "CPU µs each", figure: |sample| Some(sample.cpu_microseconds), more_is_better: false },
    Column { head: "peak MiB", figure: |sample| Some(sample.peak_memory_mib), more_is_better: false },
    Column {
        head: "p50 ms",
        figure: |sample| Some(sample.latency?.latency_p50_milliseconds),
        more_is_better: false,
    },
    Column {
        head: "p99 ms",
        figure: |sample| Some(sample.latency?.latency_p99_milliseconds),
        more_is_better: false,
    },
    // In the broker, for each message that waits.
    Column { head: "queue B", figure: |sample| sample.broker_bytes, more_is_better: false },
];

/// Two figures nearer to each other than this are called equal: rounds differ by more.
const EQUAL: f64 = 1.03;

/// The whole result: the table, where Telegraf is better, and the bars.
pub fn shown(report: &Report) -> String {
    let mut out = format!("{:<16}{:<12}", "row", "");
    COLUMNS.iter().for_each(|column| cell(&mut out, column.head));
    out.push_str("   lost\n");
    report.rows.iter().for_each(|row| add_row(&mut out, row));
    let better: Vec<String> = report.rows.iter().flat_map(telegraf_is_better).collect();
    out.push_str(if better.is_empty() {
        "\nTelegraf is better nowhere.\n"
    } else {
        "\nTelegraf is better:\n"
    });
    better.iter().for_each(|line| line_of(&mut out, format_args!("  {line}")));
    out.push_str("\nbars:\n");
    report.bars.iter().for_each(|bar| add_bar(&mut out, bar));
    let reached = report.bars.iter().filter(|bar| bar.reached).count();
    line_of(&mut out, format_args!("\n{reached} of {} bars reached", report.bars.len()));
    out
}

fn add_row(out: &mut String, row: &RowReport) {
    let mut name = row.name.as_str();
    for (subject, sample) in &row.subjects {
        let _ = write!(out, "{name:<16}{:<12}", subject.name());
        name = "";
        COLUMNS.iter().for_each(|column| cell(out, &(column.figure)(sample).map(digits).unwrap_or_default()));
        let lost = sample.published.saturating_sub(sample.stored) as f64 / sample.published as f64;
        line_of(out, format_args!("{:>6.1} %", lost * 100.0));
        if *subject == Subject::Telegraf
            && let Some((ours, theirs)) = row.pair()
        {
            let _ = write!(out, "{:<16}{:<12}", "", "bridge is");
            for column in &COLUMNS {
                let factor = factor(column, ours, theirs);
                let text = factor.map(|factor| match factor >= 1.0 {
                    true => format!("{} better", times(factor)),
                    false => format!("{} worse", times(1.0 / factor)),
                });
                cell(out, &text.unwrap_or_default());
            }
            out.push('\n');
        }
    }
}

/// How many times better the bridge is.
fn factor(column: &Column, ours: &Sample, theirs: &Sample) -> Option<f64> {
    let (ours, theirs) = ((column.figure)(ours)?, (column.figure)(theirs)?);
    Some(if column.more_is_better { ours / theirs } else { theirs / ours })
}

fn telegraf_is_better(row: &RowReport) -> Vec<String> {
    let Some((ours, theirs)) = row.pair() else { return Vec::new() };
    let is_better =
        |column: &&Column| factor(column, ours, theirs).is_some_and(|factor| 1.0 / factor > EQUAL);
    let line = |column: &Column| {
        let [ours, theirs] =
            [ours, theirs].map(|sample| (column.figure)(sample).map(digits).unwrap_or_default());
        format!("{}, {}: {theirs}, the bridge {ours}", row.name, column.head)
    };
    COLUMNS.iter().filter(is_better).map(line).collect()
}

fn add_bar(out: &mut String, bar: &Bar) {
    let Bar { row, what, measured, bound, reached } = bar;
    let word = if *reached { "reached" } else { "MISSED" };
    let bound = digits(*bound);
    line_of(out, format_args!("  {word:<8}{row:<16}{:>9} {what} (bar: {bound})", digits(*measured)));
}

fn cell(out: &mut String, text: &str) {
    let _ = write!(out, "{text:>14}");
}

fn line_of(out: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

/// Three digits are more than rounds agree on.
fn digits(figure: f64) -> String {
    match figure.abs() {
        large if large >= 1_000.0 => {
            let whole = (figure / 10.0).round() as i64 * 10;
            format!("{},{:03}", whole / 1_000, whole.abs() % 1_000)
        }
        large if large >= 100.0 => format!("{figure:.0}"),
        large if large >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

fn times(factor: f64) -> String {
    format!("{}×", digits(factor))
}

/// A measurement's figures in one line.
pub fn line(sample: &Sample) -> String {
    let figures = COLUMNS.iter().filter_map(|column| Some((column, (column.figure)(sample)?)));
    figures
        .map(|(column, figure)| format!("{} {}", digits(figure), column.head))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn sample(rate: u64, cost: u64) -> Vec<Sample> {
        let (second, cost) = (Duration::from_secs(1), Duration::from_micros(cost * rate));
        vec![Sample::new(rate, rate, second, cost, 8 << 10, None)]
    }

    #[test]
    fn the_table_says_who_is_better_and_by_how_much() {
        let samples =
            BTreeMap::from([(Subject::Bridge, sample(40_000, 2)), (Subject::Telegraf, sample(50_000, 22))]);
        let report = Report::new(3, false, vec![RowReport::new("number-qos1", &samples)]);
        let shown = shown(&report);
        assert!(shown.contains("11.0× better"), "{shown}");
        assert!(shown.contains("1.25× worse"), "{shown}");
        assert!(shown.contains("  number-qos1, messages/s: 50,000, the bridge 40,000\n"), "{shown}");
        assert!(shown.contains("MISSED  number-qos1          1.00 times less memory"), "{shown}");
        assert!(shown.ends_with("2 of 3 bars reached\n"), "{shown}");
    }

    #[test]
    fn figures_have_three_digits() {
        let shown: Vec<_> = [0.123, 1.834, 21.64, 105.4, 24_513.0, 240_120.0].map(digits).into();
        assert_eq!(shown, ["0.12", "1.83", "21.6", "105", "24,510", "240,120"]);
    }
}
