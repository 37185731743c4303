//! Takes a message in: routes it, decodes it, and writes its points into the open batch, in one go
//! and from borrowed bytes.

use std::sync::Arc;

use crate::ack::Sequence;
use crate::batch::Batches;
use crate::decode::Values;
use crate::packet::Publish;
use crate::route::Levels;
use crate::table::{Message, Table};

/// Waiting points of QoS 0, which nobody will send again, may take this much memory.
const QOS_0_BYTES: usize = 8 << 20;

/// The first stage, and its reused buffers.
#[derive(Debug, Default)]
pub struct Intake {
    levels: Levels,
    found: Vec<usize>,
    values: Values,
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
}

impl Intake {
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
        let message = Message { topic, levels: &self.levels, payload: publish.payload };
        for &route in &self.found {
            let batch = batches.open(table);
            match table.routes()[route].write_point(message, stamp, &mut self.values, batch.lines_mut()) {
                Ok(()) => {
                    batch.push(sequence, route, publish.topic, publish.payload);
                    taken.points += 1;
                }
                Err(error) => taken.refusals.push(Refusal { route, reason: error.to_string() }),
            }
        }
        taken
    }
}
