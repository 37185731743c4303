//! Takes a message in: routes it, decodes it, and writes its points into the open batch, in one go
//! and from borrowed bytes.

use std::sync::Arc;

use api::route::Overflow;

use crate::ack::Sequence;
use crate::batch::Batches;
use crate::decode::DecodeError;
use crate::memory::Memories;
use crate::packet::Publish;
use crate::route::Levels;
use crate::sparkplug::{Ignored, LeftOutCounts};
use crate::table::{Message, Table, Written};
use crate::values::Values;

/// Waiting points of QoS 0, which nobody will send again, may take this much memory. Only a database that is
/// away comes to it: for one that is slow, reading pauses before.
const QOS_0_BYTES: usize = 8 << 20;

/// The first stage, and its reused buffers.
#[derive(Debug, Default)]
pub struct Intake {
    levels: Levels,
    found: Vec<usize>,
    values: Values,
    memories: Memories,
    discarded: Vec<u8>,
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
    /// Why routes found nothing in it to store.
    pub ignored: Vec<Ignored>,
    /// What routes noticed beside.
    pub asides: Vec<Aside>,
}

/// What a route noticed in a message of Sparkplug's, whatever became of it.
#[derive(Debug)]
pub struct Aside {
    /// The route's place in the table.
    pub route: usize,
    /// How many metrics were left out, by their reasons.
    pub left_out: LeftOutCounts,
    /// Whether the node's birth is missing.
    pub wants_birth: bool,
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
        self.parts() > 0 || self.skipped > 0 || !self.overflows.is_empty() || !self.ignored.is_empty()
    }
}

impl Intake {
    /// Refuses payloads of more bytes than `largest`.
    pub fn new(largest: Option<u32>) -> Self {
        Self { largest, ..Self::default() }
    }

    /// Other routes, and another bound, from now on.
    pub fn reconfigure(&mut self, tables: &[&Table], largest: Option<u32>) {
        self.memories.retain(tables);
        self.largest = largest;
    }

    /// How many series a route with a bound has made.
    pub fn series(&self, route: &str) -> usize {
        self.memories.series(route)
    }

    /// The connection is lost, and messages may be missed.
    pub fn disconnected(&mut self) {
        self.memories.disconnected();
    }

    fn too_large(&self, publish: &Publish<'_>) -> Option<String> {
        let length = publish.payload.len() + publish.unread;
        if publish.unread > 0 {
            return Some(format!(
                "the payload has {length} bytes, more than the bridge takes: it is not kept"
            ));
        }
        let largest = self.largest.filter(|&largest| length > largest as usize)?;
        Some(format!("the payload has {length} bytes, and bridge.maxMessageSize is {largest}"))
    }

    /// Takes one message in that was received at `stamp`; `repeated` if that was before.
    pub fn accept(
        &mut self,
        publish: &Publish<'_>,
        stamp: i64,
        repeated: bool,
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
        let Publish { payload, properties, retained, .. } = *publish;
        let message = Message { topic, levels: &self.levels, payload, properties, retained };
        let too_large = self.too_large(publish);
        let is_dropped = publish.qos == 0 && !self.found.is_empty() && batches.bytes() > QOS_0_BYTES;
        if too_large.is_some() || is_dropped {
            // What a birth tells must be known later, though its points are not stored.
            let routes = self.found.iter().map(|&place| &table.routes()[place]);
            for route in routes.filter(|route| route.is_sparkplug()) {
                let memory = Some(self.memories.of(&route.name, repeated));
                drop(route.write_points(message, stamp, &mut self.values, memory, &mut self.discarded));
                self.discarded.clear();
            }
        }
        if let Some(reason) = too_large {
            let refusal = |&route| Refusal { route, reason: reason.clone() };
            taken.refusals = self.found.iter().map(refusal).collect();
            return taken;
        }
        if is_dropped {
            taken.dropped = true;
            return taken;
        }
        for &place in &self.found {
            let batch = batches.open(table);
            let route = &table.routes()[place];
            let mut memory = route.has_memory().then(|| self.memories.of(&route.name, repeated));
            let written = route.write_points(
                message,
                stamp,
                &mut self.values,
                memory.as_deref_mut(),
                batch.lines_mut(),
            );
            if let Some(memory) = memory.filter(|_| route.is_sparkplug()) {
                let (left_out, wants_birth) = (memory.births.left_out(), memory.births.wants_birth());
                if wants_birth || left_out.iter().any(|count| *count > 0) {
                    taken.asides.push(Aside { route: place, left_out, wants_birth });
                }
            }
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
                Ok(Written::Ignored(ignored)) => taken.ignored.push(ignored),
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
