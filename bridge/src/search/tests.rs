//! Searches in a database of a few lines, which refuses as InfluxDB does.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::ack::Sequence;
use crate::batch::Batches;

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Good,
    /// The field `v` is a float, and comes as an integer.
    Integer,
    /// The field `w` is an integer, and comes as a text.
    Text,
    /// Before 1970, which is what retention keeps.
    Old,
    /// No line at all.
    Broken,
    /// Refused in words that nobody knows.
    Strange,
}

/// The line of a point: a series of a few, at a time of a few, with a value of its own.
fn line(kind: Kind, place: usize) -> String {
    let (series, time) = (place % 3, place % 5);
    match kind {
        Kind::Good => format!("m,s={series} v={place}.5 {time}\n"),
        Kind::Integer => format!("m,s={series} v={place}i {time}\n"),
        Kind::Text => format!("m,s={series} w=\"{place}, v=1i\" {time}\n"),
        Kind::Old => format!("m,s={series} v={place}.5 -{}\n", place + 1),
        Kind::Broken => format!("m,s={series} v=,x={place} {time}\n"),
        Kind::Strange => format!("strange,s={series} v={place}.5 {time}\n"),
    }
}

fn batch(kinds: &[Kind]) -> Batch {
    let lines: Vec<_> = kinds.iter().enumerate().map(|(place, kind)| line(*kind, place)).collect();
    batch_of(&lines)
}

fn batch_of(lines: &[String]) -> Batch {
    let (mut batches, table) = (Batches::default(), Arc::default());
    for line in lines {
        let batch = batches.open(&table);
        batch.lines_mut().extend_from_slice(line.as_bytes());
        batch.push(Sequence::NONE, 0, b"t", b"p");
    }
    batches.take().expect("a batch")
}

#[derive(Default)]
struct Database {
    /// The last value of each series and time.
    points: BTreeMap<String, String>,
    writes: usize,
    /// Lines of all writes.
    lines: usize,
    /// It has no words for what it refuses.
    is_terse: bool,
    /// Even times are of one shard, odd ones of another, and it tells of one only.
    has_shards: bool,
    most_lines: Option<usize>,
}

enum Said {
    Stored,
    Refused(String),
    TooLarge,
}

impl Database {
    fn write(&mut self, lines: &str) -> Said {
        self.writes += 1;
        self.lines += lines.lines().count();
        if self.most_lines.is_some_and(|most| lines.lines().count() > most) {
            return Said::TooLarge;
        }
        let broken: Vec<_> = lines
            .lines()
            .filter(|line| line.contains(" v=,"))
            .map(|line| format!("unable to parse '{line}': missing field value"))
            .collect();
        if !broken.is_empty() {
            return Said::Refused(if self.is_terse { "no".into() } else { broken.join("\n") });
        }
        // By shard: how many, and why the first.
        let mut dropped: BTreeMap<i64, (usize, &str)> = BTreeMap::new();
        for line in lines.lines() {
            let (key, time) = line.rsplit_once(' ').expect("a time");
            let time: i64 = time.parse().expect("a number");
            match reason(line, time) {
                None => {
                    let (series, value) = key.split_once(' ').expect("a field");
                    self.points.insert(format!("{series} {time}"), value.into());
                }
                Some(reason) => {
                    let shard = if self.has_shards { time.rem_euclid(2) } else { 0 };
                    dropped.entry(shard).or_insert((0, reason)).0 += 1;
                }
            }
        }
        match dropped.into_values().next() {
            None => Said::Stored,
            Some(_) if self.is_terse => Said::Refused("partial write".into()),
            Some((count, reason)) => Said::Refused(format!("partial write: {reason} dropped={count}")),
        }
    }

    /// Stores a batch; the places that are refused.
    fn store(&mut self, batch: &Batch, known: &mut Known) -> Vec<(usize, String)> {
        let mut search = Search::new(batch, std::mem::take(known));
        while let Some(lines) = search.lines() {
            match self.write(std::str::from_utf8(&lines).expect("text")) {
                Said::Stored => search.stored(),
                Said::Refused(reason) => search.refused(reason),
                Said::TooLarge => search.too_large(),
            }
            assert!(self.writes < 10_000, "it does not end");
        }
        let (refused, now) = search.end();
        *known = now;
        refused
    }
}

fn reason(line: &str, time: i64) -> Option<&'static str> {
    const OLD: &str = "dropped 1 points outside retention policy of duration 1h0m0s - oldest point m at \
        1970-01-01T00:00:00Z dropped because it violates a Retention Policy Lower Bound at 1970-01-01T00:00:00Z";
    if time < 0 {
        // The count in front is told apart in the test of the words.
        Some(OLD.strip_prefix("dropped 1").expect("a count"))
    } else if line.contains(" w=\"") {
        Some(
            "field type conflict: input field \"w\" on measurement \"m\" is type string, already exists as type integer",
        )
    } else if line.contains("i ") {
        Some(
            "field type conflict: input field \"v\" on measurement \"m\" is type integer, already exists as type float",
        )
    } else if line.starts_with("strange") {
        Some("nobody knows why")
    } else {
        None
    }
}

#[test]
fn a_line_that_the_database_quotes_twice_is_refused_once_in_each_of_its_places() {
    let lines = [line(Kind::Broken, 0), line(Kind::Broken, 0), line(Kind::Good, 1), line(Kind::Text, 2)];
    let refused = Database::default().store(&batch_of(&lines), &mut Known::default());
    assert_eq!(refused.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 1, 3]);
}

/// 5,000 points, of which 50 are of these kinds.
fn poisoned(poison: &[Kind]) -> Vec<Kind> {
    let kind = |place: usize| match place % 100 {
        37 => poison[place / 100 % poison.len()],
        _ => Kind::Good,
    };
    (0..5_000).map(kind).collect()
}

/// How many writes and lines it takes to store a batch, again and again.
fn costs(kinds: &[Kind], times: usize) -> Vec<(usize, usize)> {
    let (batch, mut known) = (batch(kinds), Known::default());
    let guilty: Vec<_> = (0..kinds.len()).filter(|place| kinds[*place] != Kind::Good).collect();
    (0..times)
        .map(|_| {
            let mut database = Database::default();
            let refused = database.store(&batch, &mut known);
            assert_eq!(refused.iter().map(|(place, _)| *place).collect::<Vec<_>>(), guilty);
            (database.writes, database.lines)
        })
        .collect()
}

#[test]
fn fifty_culprits_among_5000_take_three_writes_and_two_when_they_were_met_before() {
    assert_eq!(costs(&poisoned(&[Kind::Integer]), 3), [(3, 10_000), (2, 5_000), (2, 5_000)]);
}

#[test]
fn culprits_of_several_kinds_take_two_writes_more_for_each() {
    let kinds = poisoned(&[Kind::Integer, Kind::Text, Kind::Old]);
    assert_eq!(costs(&kinds, 1)[0].0, 7);
}

#[test]
fn lines_that_are_quoted_are_cut_out_at_once() {
    assert_eq!(costs(&poisoned(&[Kind::Broken]), 2), [(2, 9_950), (2, 9_950)]);
}

#[test]
fn words_that_nobody_knows_lead_to_halving() {
    let mut kinds = vec![Kind::Good; 5_000];
    kinds[1_234] = Kind::Strange;
    let (writes, _) = costs(&kinds, 1)[0];
    assert!((20..=27).contains(&writes), "{writes}");
    assert_eq!(costs(&[Kind::Strange; 50], 1)[0].0, 1, "all that were written were dropped");
}

#[test]
fn each_culprit_has_the_reason_that_is_its_own() {
    let kinds = [Kind::Broken, Kind::Text, Kind::Good, Kind::Integer, Kind::Old, Kind::Broken, Kind::Strange];
    let refused = Database::default().store(&batch(&kinds), &mut Known::default());
    let has = |place: usize, words: &str| {
        let (_, reason) = refused.iter().find(|(refused, _)| *refused == place).expect("refused");
        assert!(reason.contains(words), "{place}: {reason}");
    };
    has(0, "'m,s=0 v=,x=0 0'");
    has(1, "is type string");
    has(3, "is type integer");
    has(4, "retention");
    has(5, "'m,s=2 v=,x=5 0'");
    has(6, "nobody knows");
    assert_eq!(refused.len(), 6);
}

#[test]
fn what_was_met_before_is_forgotten_when_it_is_stored() {
    let batch = batch(&[Kind::Good, Kind::Integer]);
    let mut known = Known::default();
    Database::default().store(&batch, &mut known);
    let mut search = Search::new(&batch, known);
    assert_eq!(search.lines().as_deref(), Some(line(Kind::Integer, 1).as_bytes()));
    search.stored();
    assert_eq!(search.lines().as_deref(), Some(batch.lines(0..2)), "all of them, in their order");
    search.stored();
    let (refused, known) = search.end();
    assert!(refused.is_empty() && known.conflicts.is_empty());
}

#[test]
fn what_a_line_quotes_itself_convicts_no_other() {
    let (mut batches, table) = (Batches::default(), Arc::default());
    let lines = ["m v=1 1\n", "m v=\"\nunable to parse 'm v=1 1': no\" x\n"];
    for line in lines {
        let batch = batches.open(&table);
        batch.lines_mut().extend_from_slice(line.as_bytes());
        batch.push(Sequence::NONE, 0, b"t", b"p");
    }
    let batch = batches.take().expect("a batch");
    let mut search = Search::new(&batch, Known::default());
    search.refused(format!("unable to parse '{}': bad timestamp", lines[1].trim_end()));
    assert_eq!(search.lines().as_deref(), Some(lines[0].as_bytes()));
    search.stored();
    assert_eq!(search.end().0.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1]);
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let kind = prop_oneof![
        6 => Just(Kind::Good),
        1 => Just(Kind::Integer),
        1 => Just(Kind::Text),
        1 => Just(Kind::Old),
        1 => Just(Kind::Broken),
        1 => Just(Kind::Strange),
    ];
    prop::collection::vec(kind, 1..60)
}

proptest! {
    #[test]
    fn exactly_the_culprits_are_refused_and_of_two_points_in_one_place_the_last_is_stored(
        batches in prop::collection::vec(kinds(), 1..4),
        is_terse in any::<bool>(), has_shards in any::<bool>(), most_lines in prop::option::of(1..80_usize),
    ) {
        let mut database = Database { is_terse, has_shards, most_lines, ..Database::default() };
        let (mut known, mut expected) = (Known::default(), Database::default());
        for kinds in batches {
            let refused = database.store(&batch(&kinds), &mut known);
            let (good, guilty): (Vec<_>, Vec<_>) =
                (0..kinds.len()).partition(|place| kinds[*place] == Kind::Good);
            prop_assert_eq!(refused.into_iter().map(|(place, _)| place).collect::<Vec<_>>(), guilty);
            for place in good {
                expected.write(&line(Kind::Good, place));
            }
            prop_assert_eq!(&database.points, &expected.points);
        }
    }
}
