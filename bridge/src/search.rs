//! Which points of a batch the database refuses, found in few writes. Whoever can be meant by its words is written
//! apart, and is convicted when the answer to that says that all were dropped; then the others are written again,
//! whole and in their order, until the database has nothing against them. That is harmless, as points are
//! overwritten with what they are, and needed, as a refusal is silent about other shards. Words that are not
//! understood lead to halving.
//!
//! Pure: the sink writes and tells the answers.

use std::borrow::Cow;

use crate::batch::Batch;
use crate::refusal::{Conflict, Refusal};

/// So many conflicts are remembered.
const MOST_KNOWN: usize = 16;
/// Forgotten after so many batches without one of them.
const IDLE: u32 = 1_000;

/// Conflicts that were met lately. A sensor that sends the wrong type goes on doing so: its points are set apart
/// beforehand, and the others need not be written twice.
#[derive(Debug, Default)]
pub struct Known {
    conflicts: Vec<Conflict>,
    idle: u32,
}

impl Known {
    fn learn(&mut self, conflict: &Conflict) {
        if !self.conflicts.contains(conflict) {
            if self.conflicts.len() == MOST_KNOWN {
                self.conflicts.remove(0);
            }
            self.conflicts.push(conflict.clone());
        }
    }

    fn suspects(&mut self, batch: &Batch) -> Vec<usize> {
        if self.conflicts.is_empty() {
            return Vec::new();
        }
        let is_met = |place: &usize| {
            let line = batch.lines(*place..place + 1);
            self.conflicts.iter().any(|conflict| conflict.is_in(line))
        };
        let suspects: Vec<_> = (0..batch.len()).filter(is_met).collect();
        self.idle = if suspects.is_empty() { self.idle + 1 } else { 0 };
        if self.idle > IDLE {
            *self = Self::default();
        }
        suspects
    }
}

/// A search in one batch.
#[derive(Debug)]
pub struct Search<'b> {
    batch: &'b Batch,
    known: Known,
    /// What is to be written, the last first.
    work: Vec<Part>,
    refused: Vec<(usize, String)>,
}

/// Points that are written together.
#[derive(Debug)]
struct Part {
    places: Vec<usize>,
    /// How many there were when suspects were last set apart. With as many, the words have led nowhere.
    before: usize,
    /// Suspected for what was met in other batches.
    is_known: bool,
}

impl Part {
    fn new(places: Vec<usize>) -> Self {
        Self { places, before: usize::MAX, is_known: false }
    }
}

impl<'b> Search<'b> {
    /// Nothing is written yet.
    pub fn new(batch: &'b Batch, mut known: Known) -> Self {
        let suspects = known.suspects(batch);
        let mut work = vec![Part::new((0..batch.len()).collect())];
        if (1..batch.len()).contains(&suspects.len()) {
            work.push(Part { is_known: true, ..Part::new(suspects) });
        }
        Self { batch, known, work, refused: Vec::new() }
    }

    /// The lines to be written next.
    pub fn lines(&self) -> Option<Cow<'b, [u8]>> {
        let places = &self.work.last()?.places;
        let (first, last) = (*places.first()?, *places.last()?);
        Some(match last + 1 - first == places.len() {
            true => self.batch.lines(first..last + 1).into(),
            false => {
                let lines = places.iter().map(|place| self.batch.lines(*place..place + 1));
                lines.collect::<Vec<_>>().concat().into()
            }
        })
    }

    /// They are stored.
    pub fn stored(&mut self) {
        if self.work.pop().is_some_and(|part| part.is_known) {
            self.known = Known::default();
        }
    }

    /// They are too many bytes.
    pub fn too_large(&mut self) {
        if let Some(part) = self.work.pop() {
            self.halve(part, "the database finds it too large");
        }
    }

    /// At least one of them is refused; the others may be stored or not.
    pub fn refused(&mut self, reason: String) {
        let Some(part) = self.work.pop() else { return };
        let refusal = Refusal::read(reason);
        let named = refusal.named(self.batch, &part.places);
        let suspects = refusal.suspects(self.batch, &part.places);
        let all = part.places.len();
        if !named.is_empty() {
            self.work.push(part);
            named.iter().for_each(|(places, reason)| self.convict(places, reason));
        } else if all == 1 || refusal.dropped == Some(all) {
            // Those that the reason does not mean are written again, and get their own.
            let guilty = if suspects.is_empty() { part.places.clone() } else { suspects };
            self.work.push(part);
            self.convict(&guilty, &refusal.reason);
            if let Some(conflict) = refusal.conflict() {
                self.known.learn(conflict);
            }
        } else if (1..all).contains(&suspects.len()) && all < part.before {
            self.work.push(Part { before: all, ..part });
            self.work.push(Part::new(suspects));
        } else {
            self.halve(part, &refusal.reason);
        }
    }

    /// Places of the points that the database refuses, in order, and why; and what is known now.
    pub fn end(mut self) -> (Vec<(usize, String)>, Known) {
        self.refused.sort_unstable();
        // One line that the database quotes twice is in two places, each of which was named twice.
        self.refused.dedup_by_key(|(place, _)| *place);
        (self.refused, self.known)
    }

    fn convict(&mut self, guilty: &[usize], reason: &str) {
        for part in &mut self.work {
            part.places.retain(|place| guilty.binary_search(place).is_err());
        }
        self.work.retain(|part| !part.places.is_empty());
        self.refused.extend(guilty.iter().map(|place| (*place, reason.to_owned())));
    }

    fn halve(&mut self, mut part: Part, reason: &str) {
        if part.places.len() == 1 {
            self.convict(&part.places, reason);
            return;
        }
        let second = part.places.split_off(part.places.len() / 2);
        // The first half is written first: points keep their order.
        self.work.extend([Part::new(second), Part::new(part.places)]);
    }
}

#[cfg(test)]
mod tests;
