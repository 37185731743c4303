//! What a payload holds, already written as line protocol has it: reused from message to message.

use std::ops::Range;

use crate::decode::DecodeError;
use crate::encode::EncodeError;
use crate::lines::Line;
use crate::sparkplug::Field;

/// The most points that one message makes on one route: the stamps of the next message begin after
/// as many nanoseconds.
pub const MAX_POINTS: usize = 1_000;

/// The most bytes of line protocol that one message makes on one route.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// The values of one payload. Reused from message to message.
#[derive(Debug, Default)]
pub struct Values {
    /// The written values, one after the other.
    pub(crate) text: Vec<u8>,
    /// First those that all points share, then as many for each point.
    slots: Vec<Slot>,
    layout: Layout,
    points: usize,
    /// Fields that the route does not name, in order of their points.
    pub(crate) found: Vec<Found>,
    /// Where those of the last point begin.
    found_start: usize,
    /// The keys that led to the points that begin next, for those that are tags.
    pub(crate) captures: Vec<Slot>,
    /// Why the message is refused, where that is found out in the middle of it.
    pub(crate) fault: Option<DecodeError>,
    /// The lines of a payload of line protocol.
    pub(crate) lines: Vec<Line>,
    /// Their tags: where name and value are in the text.
    pub(crate) line_tags: Vec<(Range<usize>, Range<usize>)>,
    /// Where the lines of the message's points end in the batch.
    pub(crate) ends: Vec<usize>,
    /// Metrics of Sparkplug that are no points yet, and then the fields of each point, where they are in the text.
    pub(crate) metrics: Vec<Field>,
    pub(crate) written: Vec<Range<usize>>,
    /// What stands for the last levels of the topic, for each point, where a message is about several topics.
    pub(crate) rests: Vec<Range<usize>>,
}

/// How many slots there are. Slots are numbered in this order too.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    /// For values that all points share.
    pub shared: usize,
    /// For the values of each point.
    pub own: usize,
}

/// One declared field or tag.
#[derive(Clone, Debug, Default)]
pub(crate) enum Slot {
    /// The payload has no such value.
    #[default]
    Absent,
    /// The value's place in the text.
    Written(Range<usize>),
    /// A time in nanoseconds.
    Time(i64),
    /// The value is refused.
    Refused(Refused),
}

/// A field that a wildcard has found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Which wildcard.
    pub wildcard: usize,
    pub point: usize,
    /// The key that the wildcard met, and the value.
    pub key: Range<usize>,
    pub value: Range<usize>,
}

/// Why one value is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// Another type; what was found.
    Type(String),
    /// Can't be written.
    Encode(EncodeError),
}

impl Values {
    /// Forgets the message before; room for the shared values.
    #[inline]
    pub(crate) fn reset(&mut self, layout: Layout) {
        self.text.clear();
        self.slots.clear();
        self.slots.extend((0..layout.shared).map(|_| Slot::Absent));
        self.layout = layout;
        self.points = 0;
        self.found.clear();
        self.found_start = 0;
        self.captures.clear();
        self.fault = None;
        self.lines.clear();
        self.line_tags.clear();
    }

    /// Forgets the Sparkplug message before.
    pub(crate) fn reset_metrics(&mut self) {
        self.metrics.clear();
        self.written.clear();
        self.rests.clear();
    }

    /// One point more. Its slots' numbers are to be raised by what is returned.
    #[inline]
    pub(crate) fn begin_point(&mut self) -> usize {
        let base = self.slots.len() - self.layout.shared;
        self.slots.extend((0..self.layout.own).map(|_| Slot::Absent));
        self.points += 1;
        self.found_start = self.found.len();
        base
    }

    /// Forgets the points after the first so many.
    pub(crate) fn truncate_points(&mut self, points: usize) {
        if points < self.points {
            self.points = points;
            self.slots.truncate(self.layout.shared + points * self.layout.own);
            self.found.retain(|found| found.point < points);
            self.found_start = self.found.len();
        }
    }

    /// Where the lines of the message's points end in the batch.
    pub(crate) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The number of points.
    #[inline]
    pub(crate) fn points(&self) -> usize {
        if self.lines.is_empty() { self.points } else { self.lines.len() }
    }

    /// A slot of one point, or one that all share.
    #[inline]
    pub(crate) fn slot(&self, point: usize, slot: usize) -> &Slot {
        let base = if slot < self.layout.shared { 0 } else { point * self.layout.own };
        &self.slots[base + slot]
    }

    /// A slot by its raised number.
    #[inline]
    pub(crate) fn slot_mut(&mut self, slot: usize) -> &mut Slot {
        &mut self.slots[slot]
    }

    /// The written value, if there is one.
    #[inline]
    pub(crate) fn get(&self, point: usize, slot: usize) -> Option<&[u8]> {
        match self.slot(point, slot) {
            Slot::Written(range) => Some(&self.text[range.clone()]),
            _ => None,
        }
    }

    /// The fields that wildcards have found for a point.
    pub(crate) fn found(&self, point: usize) -> &[Found] {
        let start = self.found.partition_point(|found| found.point < point);
        let end = self.found.partition_point(|found| found.point <= point);
        &self.found[start..end]
    }

    /// The fields that wildcards have found for the last point so far.
    pub(crate) fn last_found(&self) -> &[Found] {
        &self.found[self.found_start..]
    }

    /// Forgets what some wildcards have found for the last point: under one key, or under any.
    pub(crate) fn forget(&mut self, wildcards: &[usize], key: Option<&Range<usize>>) {
        let (text, start) = (&self.text, self.found_start);
        let is_gone = |found: &Found| {
            wildcards.contains(&found.wildcard)
                && key.is_none_or(|key| text[key.clone()] == text[found.key.clone()])
        };
        if self.found[start..].iter().any(is_gone) {
            let kept: Vec<Found> = self.found.drain(start..).filter(|found| !is_gone(found)).collect();
            self.found.extend(kept);
        }
    }

    /// Takes note of a field that a wildcard has found for the last point.
    pub(crate) fn push_found(&mut self, wildcard: usize, key: Range<usize>, value: Range<usize>) {
        self.found.push(Found { wildcard, point: self.points - 1, key, value });
    }
}
