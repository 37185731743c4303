//! Compares what is stored with what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, bail};
use influxdb2::api::query::FluxRecord;

use crate::influx::{Influx, Value, text};
use crate::soak::load::{Account, Content};

/// What was found in InfluxDB after a run.
#[derive(Debug, Default)]
pub struct Stored {
    /// The numbers in each point, by its series and time: one, unless two messages have merged.
    pub points: BTreeMap<(String, i64), Vec<u64>>,
    /// How many points there are of what repeats itself.
    pub repeated: BTreeMap<Content, u64>,
    /// How often each number was in a dead letter.
    pub letters: BTreeMap<u64, u64>,
}

/// What came of a run, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// What the publishers saw acknowledged.
    pub acknowledged: u64,
    /// What is in InfluxDB, each message counted once.
    pub stored: u64,
    /// What became a dead letter, each message counted once.
    pub dead_lettered: u64,
    /// Dead letters beyond the first of a message: one that a connection's end left unanswered is sent again.
    pub letters_repeated: u64,
    /// Acknowledged and settled, but neither in InfluxDB nor a dead letter. Among messages of equal content, which can't be told
    /// apart, this includes those that merged.
    pub missing: u64,
    /// In InfluxDB under more than one time.
    pub duplicated: u64,
    /// In InfluxDB under one time with another message of their series.
    pub merged: u64,
    /// Acknowledged in the last moment of a broker that was killed: it may have lost them.
    pub unsettled: u64,
    /// Those among them that are not in InfluxDB.
    pub unsettled_lost: u64,
}

impl Verdict {
    /// Whether all that was acknowledged is stored once, or a dead letter if it can't be stored.
    pub fn is_good(&self) -> bool {
        self.missing == 0 && self.duplicated == 0 && self.merged == 0
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            acknowledged: self.acknowledged + other.acknowledged,
            stored: self.stored + other.stored,
            dead_lettered: self.dead_lettered + other.dead_lettered,
            letters_repeated: self.letters_repeated + other.letters_repeated,
            missing: self.missing + other.missing,
            duplicated: self.duplicated + other.duplicated,
            merged: self.merged + other.merged,
            unsettled: self.unsettled + other.unsettled,
            unsettled_lost: self.unsettled_lost + other.unsettled_lost,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged {}, stored {}, dead-lettered {}, missing {}, duplicated {}, merged {}",
            self.acknowledged, self.stored, self.dead_lettered, self.missing, self.duplicated, self.merged
        )
    }
}

/// Judges a run.
pub fn audit(account: &Account, stored: &Stored) -> Verdict {
    let mut verdict = Verdict {
        acknowledged: account.acknowledged() as u64,
        unsettled: account.unsettled.len() as u64,
        ..Verdict::default()
    };
    audit_numbers(account, stored, &mut verdict);
    audit_repeated(account, stored, &mut verdict);
    audit_poison(account, stored, &mut verdict);
    verdict
}

/// The numbers of messages that can't be stored.
pub fn poison(numbers: &[u64]) -> impl Iterator<Item = &u64> {
    numbers.iter().filter(|number| matches!(Content::of(**number), Content::Poison(_)))
}

/// What is poison can't be stored, and what is none must not be a dead letter: then it is missing above.
fn audit_poison(account: &Account, stored: &Stored, verdict: &mut Verdict) {
    let absent = |numbers: &[u64]| {
        poison(numbers).filter(|number| !stored.letters.contains_key(number)).count() as u64
    };
    verdict.missing += absent(&account.settled);
    verdict.unsettled_lost += absent(&account.unsettled);
    verdict.dead_lettered += stored.letters.len() as u64;
    verdict.letters_repeated += stored.letters.values().map(|count| count - 1).sum::<u64>();
}

fn audit_numbers(account: &Account, stored: &Stored, verdict: &mut Verdict) {
    let mut times: BTreeMap<u64, u64> = BTreeMap::new();
    for numbers in stored.points.values() {
        for number in numbers {
            *times.entry(*number).or_default() += 1;
        }
        verdict.merged += numbers.len() as u64 - 1;
    }
    verdict.stored += times.len() as u64;
    verdict.duplicated += times.values().filter(|times| **times > 1).count() as u64;
    let absent = |numbers: &[u64]| {
        let numbered = numbers.iter().filter(|number| matches!(Content::of(**number), Content::Numbered(_)));
        numbered.filter(|number| !times.contains_key(number)).count() as u64
    };
    verdict.missing += absent(&account.settled);
    verdict.unsettled_lost += absent(&account.unsettled);
}

/// Messages of equal content can't be told apart, so they are counted. A loss and a duplicate of one
/// content in one run would hide each other; those with numbers show both.
fn audit_repeated(account: &Account, stored: &Stored, verdict: &mut Verdict) {
    let count = |numbers: &[u64]| {
        let mut counts: BTreeMap<Content, u64> = BTreeMap::new();
        for content in numbers.iter().map(|number| Content::of(*number)) {
            if matches!(content, Content::Repeated(..)) {
                *counts.entry(content).or_default() += 1;
            }
        }
        counts
    };
    let [settled, unsettled, unknown] =
        [&account.settled, &account.unsettled, &account.unknown].map(|numbers| count(numbers));
    let contents: BTreeSet<&Content> =
        settled.keys().chain(unsettled.keys()).chain(stored.repeated.keys()).collect();
    for content in contents {
        let of = |counts: &BTreeMap<Content, u64>| counts.get(content).copied().unwrap_or_default();
        let (must, may, points) = (of(&settled), of(&unsettled), of(&stored.repeated));
        let most = must + may + of(&unknown);
        verdict.stored += points.min(most);
        verdict.missing += must.saturating_sub(points);
        verdict.duplicated += points.saturating_sub(most);
        verdict.unsettled_lost += (must + may).saturating_sub(points).min(may);
    }
}

/// Reads what is stored of a run, by the names of its measurements.
///
/// # Errors
/// If the database doesn't answer, or holds something else.
pub async fn read(influx: &Influx, numbered: &str, repeated: &str) -> Result<Stored> {
    let mut stored = Stored::default();
    let all = |measurement: &str, rest: &str| {
        let bucket = influx.bucket();
        format!(
            "from(bucket: {bucket:?}) |> range(start: -1d, stop: 1d) \
             |> filter(fn: (r) => r._measurement == {measurement:?}) {rest}"
        )
    };
    let keep = r#"|> keep(columns: ["series", "_time", "_value"])"#;
    for record in influx.query(&all(numbered, keep)).await? {
        let Some(Value::Long(number)) = record.values.get("_value") else { bail!("no number: {record:?}") };
        let point = (text(&record, "series").to_owned(), time(&record)?);
        stored.points.entry(point).or_default().push(number.unsigned_abs());
    }
    let count = "|> duplicate(column: \"_value\", as: \"reading\") \
                 |> group(columns: [\"series\", \"reading\"]) |> count()";
    for record in influx.query(&all(repeated, count)).await? {
        let (Some(Value::Double(reading)), Some(Value::Long(count))) =
            (record.values.get("reading"), record.values.get("_value"))
        else {
            bail!("no reading, or no count: {record:?}")
        };
        let content = Content::repeated(text(&record, "series"), reading.0);
        stored.repeated.insert(content.context("a reading of nobody")?, count.unsigned_abs());
    }
    Ok(stored)
}

fn time(record: &FluxRecord) -> Result<i64> {
    let Some(Value::TimeRFC(time)) = record.values.get("_time") else { bail!("no time: {record:?}") };
    time.timestamp_nanos_opt().context("a time out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0, 1, 2, 5 and 6 have numbers; 3 and 33 repeat each other.
    fn account() -> Account {
        assert_eq!(Content::of(3), Content::of(33));
        Account { settled: vec![0, 1, 2, 3], unsettled: vec![5], unknown: vec![6, 33] }
    }

    fn stored(points: &[(&str, i64, &[u64])], repeated: u64) -> Stored {
        Stored {
            points: points.iter().map(|(s, t, n)| (((*s).to_owned(), *t), n.to_vec())).collect(),
            repeated: BTreeMap::from([(Content::of(3), repeated)]),
            letters: BTreeMap::new(),
        }
    }

    const WHOLE: [(&str, i64, &[u64]); 4] =
        [("s0", 1, &[0]), ("s1", 1, &[1]), ("s2", 1, &[2]), ("s0", 2, &[5])];

    #[test]
    fn all_stored_once_is_good_whatever_became_of_the_unknown() {
        for repeated in [1, 2] {
            let verdict = audit(&account(), &stored(&WHOLE, repeated));
            assert!(verdict.is_good(), "{verdict}");
            assert_eq!((verdict.acknowledged, verdict.stored), (5, 4 + repeated));
            assert_eq!((verdict.unsettled, verdict.unsettled_lost), (1, 0));
        }
    }

    #[test]
    fn what_is_missing_is_counted_and_what_a_killed_broker_may_lose_is_counted_apart() {
        let verdict = audit(&account(), &stored(&WHOLE[1..3], 0));
        assert_eq!((verdict.missing, verdict.unsettled_lost), (2, 1));
        assert!(!verdict.is_good());
    }

    #[test]
    fn what_is_stored_under_two_times_is_duplicated_even_if_nobody_saw_it_acknowledged() {
        let twice = [&WHOLE[..], &[("s1", 9, &[1]), ("s1", 10, &[6]), ("s1", 11, &[6])]].concat();
        let verdict = audit(&account(), &stored(&twice, 3));
        assert_eq!((verdict.missing, verdict.duplicated, verdict.merged), (0, 3, 0));
    }

    #[test]
    fn two_numbers_in_one_point_have_merged() {
        let merged: [(&str, i64, &[u64]); 3] = [("s0", 1, &[0, 5]), ("s1", 1, &[1]), ("s2", 1, &[2])];
        let verdict = audit(&account(), &stored(&merged, 1));
        assert_eq!((verdict.missing, verdict.duplicated, verdict.merged), (0, 0, 1));
    }

    #[test]
    fn poison_without_a_dead_letter_is_missing_and_with_several_is_dead_lettered_once() {
        let numbers: Vec<u64> = (0..3_000).collect();
        let poison: Vec<u64> = poison(&numbers).copied().take(4).collect();
        let account =
            Account { settled: poison[..2].to_vec(), unsettled: poison[2..].to_vec(), unknown: vec![] };
        let letters = BTreeMap::from([(poison[0], 3), (poison[2], 1)]);
        let verdict = audit(&account, &Stored { letters, ..Stored::default() });
        assert_eq!((verdict.acknowledged, verdict.dead_lettered, verdict.letters_repeated), (4, 2, 2));
        assert_eq!((verdict.missing, verdict.unsettled_lost), (1, 1));
    }
}
