//! Gathers points until they are worth a write: lines for the database, and with each the message
//! that it came from, in case the database refuses the point.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::ack::Sequence;
use crate::table::{CompiledRoute, Table};

/// As many lines as InfluxDB's makers advise for one write.
pub const MAX_LINES: usize = 5_000;

/// A batch that takes this much memory is closed. Enough for as many numbers; the rest of what is read waits with the
/// broker, or in the socket's buffers.
pub const MAX_BYTES: usize = 640 << 10;

/// How long the first point of a batch waits for others at most. A write costs as much as a hundred messages.
const LINGER: Duration = Duration::from_millis(32);

/// When nothing came for so long, it waits for no others: a broker that hands out few messages at a time waits
/// for their acknowledgements.
const QUIET: Duration = Duration::from_millis(10);

/// Points of one route table, in order of receipt.
#[derive(Debug)]
pub struct Batch {
    /// The table that the entries' routes are places in.
    pub table: Arc<Table>,
    lines: Vec<u8>,
    messages: Vec<u8>,
    entries: Vec<Entry>,
    /// When the first point came.
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sequence: Sequence,
    /// Where the line ends; it starts where that of the entry before ends.
    line_end: u32,
    /// Where the message starts: its topic, then its payload. Points of one message share it.
    message_start: u32,
    topic_length: u16,
    payload_length: u32,
    route: u32,
}

/// One point of a batch, with the message that it came from.
#[derive(Clone, Copy, Debug)]
pub struct Point<'b> {
    /// The message.
    pub sequence: Sequence,
    /// The route's place in the batch's table.
    pub route: usize,
    /// The same for all points that one message made on one route, and for no others of the batch.
    pub message: usize,
    /// The message's topic.
    pub topic: &'b [u8],
    /// The message's payload.
    pub payload: &'b [u8],
}

impl Batch {
    /// Has room for as much as it takes. What is never touched of that takes no memory, and buffers that grow would
    /// leave holes.
    fn new(table: Arc<Table>) -> Self {
        Self {
            table,
            lines: Vec::with_capacity(MAX_BYTES),
            messages: Vec::with_capacity(MAX_BYTES),
            entries: Vec::with_capacity(MAX_LINES),
            since: Instant::now(),
        }
    }

    /// Where the next line goes. What is written here counts once [`Batch::push`] was called.
    pub fn lines_mut(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }

    /// Takes note of the line that was written, and of the message that it came from.
    pub fn push(&mut self, sequence: Sequence, route: usize, topic: &[u8], payload: &[u8]) {
        self.push_all(sequence, route, topic, payload, &[self.lines.len()]);
    }

    /// Takes note of the lines that were written, which end at `ends`, and of the one message that they
    /// came from.
    pub fn push_all(
        &mut self,
        sequence: Sequence,
        route: usize,
        topic: &[u8],
        payload: &[u8],
        ends: &[usize],
    ) {
        if self.entries.is_empty() {
            self.since = Instant::now();
        }
        let message_start = self.messages.len() as u32;
        self.messages.extend_from_slice(topic);
        self.messages.extend_from_slice(payload);
        self.entries.extend(ends.iter().map(|end| Entry {
            sequence,
            line_end: *end as u32,
            message_start,
            topic_length: topic.len() as u16,
            payload_length: payload.len() as u32,
            route: route as u32,
        }));
    }

    /// The number of points.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no point.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The lines of some points, as they go into a write.
    pub fn lines(&self, points: Range<usize>) -> &[u8] {
        let start = points.start.checked_sub(1).map_or(0, |before| self.entries[before].line_end as usize);
        let end = points.end.checked_sub(1).map_or(0, |last| self.entries[last].line_end as usize);
        &self.lines[start..end]
    }

    /// One point.
    pub fn point(&self, place: usize) -> Point<'_> {
        let entry = self.entries[place];
        let start = entry.message_start as usize;
        let (topic, rest) = self.messages[start..].split_at(usize::from(entry.topic_length));
        let payload = &rest[..entry.payload_length as usize];
        Point { sequence: entry.sequence, route: entry.route as usize, message: start, topic, payload }
    }

    /// All points.
    pub fn points(&self) -> impl Iterator<Item = Point<'_>> {
        (0..self.len()).map(|place| self.point(place))
    }

    /// The route that a point came by.
    pub fn route(&self, point: &Point<'_>) -> &CompiledRoute {
        &self.table.routes()[point.route]
    }

    /// How much memory the points take, roughly.
    fn bytes(&self) -> usize {
        self.lines.len() + self.messages.len() + self.entries.len() * size_of::<Entry>()
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= MAX_LINES || self.bytes() >= MAX_BYTES
    }
}

/// Batches that wait for the database; the last one is still open.
#[derive(Debug, Default)]
pub struct Batches {
    waiting: VecDeque<Batch>,
    /// When messages came last.
    received: Option<Instant>,
    /// A batch that was written, kept for its memory.
    spare: Option<Batch>,
}

impl Batches {
    /// The batch that the next point goes into. One that was opened for a message which then made no point is
    /// used, whatever table it was for: nothing is due while the first batch is empty.
    pub fn open(&mut self, table: &Arc<Table>) -> &mut Batch {
        if let Some(unused) = self.waiting.back_mut().filter(|batch| batch.is_empty()) {
            unused.table = Arc::clone(table);
        }
        let fits = |batch: &Batch| !batch.is_full() && Arc::ptr_eq(&batch.table, table);
        if !self.waiting.back().is_some_and(fits) {
            let batch = match self.spare.take() {
                Some(spare) => Batch { table: Arc::clone(table), ..spare },
                None => Batch::new(Arc::clone(table)),
            };
            self.waiting.push_back(batch);
        }
        self.waiting.back_mut().expect("one was pushed")
    }

    /// When the first batch should be written: nothing if there is none.
    pub fn due(&self) -> Option<Instant> {
        let first = self.waiting.front().filter(|batch| !batch.is_empty())?;
        let closed = self.waiting.len() > 1 || first.is_full();
        if closed {
            return Some(first.since);
        }
        let quiet = self.received.unwrap_or(first.since) + QUIET;
        Some(quiet.min(first.since + LINGER))
    }

    /// Messages came, however many; some may have become points.
    pub fn received(&mut self, now: Instant) {
        self.received = Some(now);
    }

    /// Takes the first batch.
    pub fn take(&mut self) -> Option<Batch> {
        self.waiting.pop_front().filter(|batch| !batch.is_empty())
    }

    /// Gives a written batch's memory back.
    pub fn recycle(&mut self, mut batch: Batch) {
        batch.lines.clear();
        batch.messages.clear();
        batch.entries.clear();
        // One message can make more than a batch should have.
        batch.lines.shrink_to(MAX_BYTES);
        batch.messages.shrink_to(MAX_BYTES);
        batch.entries.shrink_to(MAX_LINES);
        self.spare = Some(batch);
    }

    /// Whether no point waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.iter().all(Batch::is_empty)
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.waiting.iter().map(Batch::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batches: &mut Batches, table: &Arc<Table>, sequence: Sequence, line: &str) {
        let batch = batches.open(table);
        batch.lines_mut().extend_from_slice(line.as_bytes());
        batch.push(sequence, 0, b"topic", line.as_bytes());
    }

    #[tokio::test]
    async fn points_keep_their_lines_and_messages() {
        let (mut batches, table) = (Batches::default(), Arc::default());
        for line in ["a\n", "bb\n", "ccc\n"] {
            push(&mut batches, &table, Sequence::NONE, line);
        }
        let batch = batches.take().expect("a batch");
        assert_eq!(batch.lines(0..3), b"a\nbb\nccc\n");
        assert_eq!(batch.lines(1..2), b"bb\n");
        assert_eq!(batch.lines(1..1), b"");
        assert_eq!((batch.point(2).topic, batch.point(2).payload), (&b"topic"[..], &b"ccc\n"[..]));
    }

    #[tokio::test]
    async fn points_of_one_message_share_it() {
        let (mut batches, table) = (Batches::default(), Arc::default());
        push(&mut batches, &table, Sequence::NONE, "a\n");
        let batch = batches.open(&table);
        batch.lines_mut().extend_from_slice(b"b\ncc\n");
        batch.push_all(Sequence::NONE, 1, b"t", b"bc", &[4, 7]);
        let batch = batches.take().expect("a batch");
        assert_eq!((batch.lines(1..2), batch.lines(2..3)), (&b"b\n"[..], &b"cc\n"[..]));
        assert_eq!((batch.point(1).topic, batch.point(2).payload), (&b"t"[..], &b"bc"[..]));
        assert_eq!(batch.point(1).message, batch.point(2).message);
        assert_ne!(batch.point(0).message, batch.point(1).message);
    }

    #[tokio::test]
    async fn a_full_batch_is_due_at_once_and_another_opened() {
        let (mut batches, table) = (Batches::default(), Arc::default());
        push(&mut batches, &table, Sequence::NONE, "a\n");
        assert!(batches.due().expect("due") > Instant::now());
        for _ in 0..MAX_LINES {
            push(&mut batches, &table, Sequence::NONE, "a\n");
        }
        assert!(batches.due().expect("due") <= Instant::now());
        assert_eq!(batches.take().map(|batch| batch.len()), Some(MAX_LINES));
        assert_eq!(batches.take().map(|batch| batch.len()), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn points_wait_for_others_while_messages_come_but_not_for_long() {
        let (mut batches, table) = (Batches::default(), Arc::default());
        let start = Instant::now();
        push(&mut batches, &table, Sequence::NONE, "a\n");
        assert_eq!(batches.due(), Some(start + QUIET));
        batches.received(start + QUIET / 2);
        assert_eq!(batches.due(), Some(start + QUIET / 2 + QUIET));
        batches.received(start + LINGER - QUIET / 2);
        assert_eq!(batches.due(), Some(start + LINGER));
    }

    #[tokio::test]
    async fn a_batch_that_was_opened_for_nothing_holds_up_no_other() {
        let (mut batches, refused, table) = (Batches::default(), Arc::default(), Arc::default());
        batches.open(&refused);
        push(&mut batches, &table, Sequence::NONE, "a\n");
        assert!(batches.due().is_some());
        let batch = batches.take().expect("a batch");
        assert!(Arc::ptr_eq(&batch.table, &table));
        assert_eq!(batch.lines(0..1), b"a\n");
    }

    #[tokio::test]
    async fn a_new_table_opens_a_new_batch() {
        let mut batches = Batches::default();
        push(&mut batches, &Arc::default(), Sequence::NONE, "a\n");
        push(&mut batches, &Arc::default(), Sequence::NONE, "b\n");
        assert_eq!(batches.take().map(|batch| batch.lines(0..1).to_vec()), Some(b"a\n".to_vec()));
    }
}
