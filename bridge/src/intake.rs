//! Takes a message in: routes it, decodes it, and writes its points into the open batch, in one go
//! and from borrowed bytes.

use std::sync::Arc;

use api::route::Overflow;

use crate::ack::Sequence;
use crate::batch::Batches;
use crate::decode::DecodeError;
use crate::packet::Publish;
use crate::route::Levels;
use crate::series::AllSeries;
use crate::table::{Message, Table, Written};
use crate::values::Values;

/// Waiting points of QoS 0, which nobody will send again, may take this much memory.
const QOS_0_BYTES: usize = 8 << 20;

/// The first stage, and its reused buffers.
#[derive(Debug, Default)]
pub struct Intake {
    levels: Levels,
    found: Vec<usize>,
    values: Values,
    series: AllSeries,
    /// Payloads of more bytes are refused.
    largest: Option<u32>,
}

/// What became of a message.
#[derive(Debug, Default)]
pub struct Taken {
    /// Points that were written into the batch.
    pub points: u32,
    /// Routes that refused the message.
    pub refusals: Vec<Refusal>,
    /// Dropped, since it is of QoS 0 and the database does not keep up.
    pub dropped: bool,
    /// Routes that skipped it, since it was retained.
    pub skipped: u32,
    /// Routes, by their place in the table, that had no room for a series of it, and what came of it.
    pub overflows: Vec<(usize, Overflow)>,
}

/// One route's refusal of a message.
#[derive(Debug)]
pub struct Refusal {
    /// The route's place in the table.
    pub route: usize,
    /// Why.
    pub reason: String,
}

impl Taken {
    /// How many parts must end before the message is acknowledged.
    pub fn parts(&self) -> u32 {
        self.points + self.refusals.len() as u32
    }

    /// Whether a route has the message, whatever it makes of it.
    pub fn is_routed(&self) -> bool {
        self.parts() > 0 || self.skipped > 0 || !self.overflows.is_empty()
    }
}

impl Intake {
    /// Refuses payloads of more bytes than `largest`.
    pub fn new(largest: Option<u32>) -> Self {
        Self { largest, ..Self::default() }
    }

    /// Other routes, and another bound, from now on.
    pub fn reconfigure(&mut self, table: &Table, largest: Option<u32>) {
        self.series.retain(table);
        self.largest = largest;
    }

    /// How many series a route with a bound has made.
    pub fn series(&self, route: &str) -> usize {
        self.series.count(route)
    }

    /// Takes one message in that was received at `stamp`.
    pub fn accept(
        &mut self,
        publish: &Publish<'_>,
        stamp: i64,
        sequence: Sequence,
        table: &Arc<Table>,
        batches: &mut Batches,
    ) -> Taken {
        let mut taken = Taken::default();
        // A topic that is no text, or deeper than any, matches no route.
        let Ok(topic) = std::str::from_utf8(publish.topic) else { return taken };
        if !self.levels.split(topic) {
            return taken;
        }
        table.matches(topic, &self.levels, publish.subscriptions.ids(), &mut self.found);
        if publish.qos == 0 && !self.found.is_empty() && batches.bytes() > QOS_0_BYTES {
            taken.dropped = true;
            return taken;
        }
        let Publish { payload, properties, retained, .. } = *publish;
        if let Some(largest) = self.largest.filter(|&largest| payload.len() > largest as usize) {
            let length = payload.len();
            let reason = format!("the payload has {length} bytes, and bridge.maxMessageSize is {largest}");
            let refusal = |&route| Refusal { route, reason: reason.clone() };
            taken.refusals = self.found.iter().map(refusal).collect();
            return taken;
        }
        let message = Message { topic, levels: &self.levels, payload, properties, retained };
        for &place in &self.found {
            let batch = batches.open(table);
            let route = &table.routes()[place];
            let series = route.has_bound().then(|| self.series.of(&route.name));
            let written = route.write_points(message, stamp, &mut self.values, series, batch.lines_mut());
            match written {
                Ok(Written::Points { overflowed }) => {
                    let ends = self.values.ends();
                    batch.push_all(sequence, place, publish.topic, payload, ends);
                    taken.points += ends.len() as u32;
                    if overflowed {
                        taken.overflows.push((place, Overflow::Other));
                    }
                }
                Ok(Written::Dropped) => taken.overflows.push((place, Overflow::Drop)),
                Ok(Written::Skipped) => taken.skipped += 1,
                Err(error) => {
                    if matches!(error, DecodeError::TooManySeries(_)) {
                        taken.overflows.push((place, Overflow::DeadLetter));
                    }
                    taken.refusals.push(Refusal { route: place, reason: error.to_string() });
                }
            }
        }
        taken
    }
}
