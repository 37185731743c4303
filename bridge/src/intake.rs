//! Takes a message in: routes it, decodes it, and writes its points into the open batch, in one go
//! and from borrowed bytes.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

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
    stamps: Stamps,
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
    /// Reads the clock, once for all messages that were read together.
    pub fn tick(&mut self) {
        self.stamps.tick(SystemTime::now());
    }

    /// Takes one message in.
    pub fn accept(
        &mut self,
        publish: &Publish<'_>,
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
        let stamp = self.stamps.next();
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

/// Times of reception in nanoseconds, strictly increasing, so that no two messages of one series merge.
#[derive(Debug, Default)]
pub struct Stamps {
    last: i64,
}

impl Stamps {
    /// Moves on to this time, unless the stamps are ahead of it already.
    pub fn tick(&mut self, now: SystemTime) {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        self.last = self.last.max(now);
    }

    fn next(&mut self) -> i64 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn stamps_increase_even_if_the_clock_is_set_back() {
        let mut stamps = Stamps::default();
        stamps.tick(UNIX_EPOCH + Duration::from_secs(10));
        assert_eq!([stamps.next(), stamps.next()], [10_000_000_001, 10_000_000_002]);
        stamps.tick(UNIX_EPOCH + Duration::from_secs(9));
        assert_eq!(stamps.next(), 10_000_000_003);
    }
}
