//! Times of reception, and the memory of them that turns at-least-once delivery into exactly-once storage:
//! InfluxDB overwrites a point of the same series and time, so a message that comes again gets the time
//! that it had.
//!
//! What comes again is decided by order, not by the DUP flag, which a broker that was restarted leaves
//! out (mosquitto 2.1 does). A resumed session begins with what the broker believes to be
//! unacknowledged, in the order in which it was sent first and under the same packet ids. So the first
//! messages of a connection are compared with the memory, each with what came later than the one before:
//! the first that is not in it, by packet id and content, ends the repetition, and all others are new.
//!
//! Sensors repeat themselves, and packet ids come round: after 65,535 messages, or at once when
//! mosquitto was restarted with nothing in flight. So what the broker has certainly forgotten must not
//! be compared with. That is what was acknowledged two pings ago: the answer to the first ping says
//! that the broker has read the acknowledgement, and the answer to the second that it has finished the
//! turn of its loop in which it did, and saved. A resumed session forgot whatever is older than the first
//! message that it repeats, and all if it answers a ping before it repeats any. Nor can what is older than half a
//! round of packet ids come again, since the receive maximum allows no more in flight.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use twox_hash::XxHash3_64;

/// How many messages are remembered: as many as can come again, which is the largest receive maximum.
pub const CAPACITY: usize = 32_768;

/// A message gets a microsecond of its own; the nanoseconds within are for its points.
const STEP: i64 = 1_000;

/// Bridges that share the load must not give two messages one time. So there is a microsecond in sixteen for
/// each of them.
const LANES: u32 = 16;

/// If the clock is set back by more than this, stamps follow it: it was wrong before.
const LARGEST_STEP_BACK: Duration = Duration::from_secs(3_600);

/// A message as it is remembered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record {
    /// Its place among all that were ever remembered.
    pub position: u64,
    /// Its time of reception, in nanoseconds since 1970.
    pub stamp: i64,
    /// Of its topic and payload.
    pub hash: u64,
    /// Under which it came.
    pub packet_id: u16,
}

/// A record without its position: that follows from its place.
#[derive(Clone, Copy, Debug)]
struct Kept {
    stamp: i64,
    hash: u64,
    packet_id: u16,
}

impl Kept {
    /// MQTT has no packet id 0.
    const NONE: Self = Self { stamp: 0, hash: 0, packet_id: 0 };
}

/// What the memory says of a received message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// Its place in the memory.
    pub position: u64,
    /// Its time of reception, in nanoseconds since 1970: a whole microsecond that no other message has.
    pub stamp: i64,
    /// Whether it is a repetition.
    pub repeated: bool,
}

/// The clock, and the memory of one session.
#[derive(Debug)]
pub struct Stamps {
    window: u64,
    last: i64,
    /// Stamps are this far apart at least, and are multiples of it, but for the lane.
    step: i64,
    lane: i64,
    /// What may come again, in order of position.
    kept: VecDeque<Kept>,
    /// The position of the first of these.
    first: u64,
    /// The position that the next new message gets.
    next: u64,
    /// What is before this position is forgotten by the broker, or was never in this session.
    settled: u64,
    /// What is before this position is acknowledged.
    acknowledged: u64,
    /// Those whose answer is due.
    pings: VecDeque<Ping>,
    /// The same, of the last ping that was answered.
    answered: u64,
    repetition: Option<Repetition>,
    /// Nothing has come on this connection yet.
    unheard: bool,
}

/// What was known when a ping went out.
#[derive(Clone, Copy, Debug)]
struct Ping {
    /// What was acknowledged: the broker has read that when it answers.
    acknowledged: u64,
    /// What an answer before had confirmed: the broker has saved that when it answers. Another ping that was on its way
    /// at the same time may be answered in the same turn, and confirms nothing of the kind.
    answered: u64,
}

/// The first messages of a resumed session.
#[derive(Debug)]
struct Repetition {
    by_packet_id: HashMap<u16, Record>,
    /// Only what is at this position or after can still come.
    from: u64,
}

/// Identifies two byte strings together, such as a message's topic and payload.
pub fn hash_of(first: &[u8], second: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(first), second)
}

impl Default for Stamps {
    fn default() -> Self {
        Self::restore(Vec::new(), 0)
    }
}

impl Stamps {
    /// With the memory of an earlier process.
    pub fn restore(mut records: Vec<Record>, settled: u64) -> Self {
        records.sort_unstable_by_key(|record| record.position);
        let next = records.last().map_or(settled, |record| record.position + 1).max(settled);
        let last = records.iter().map(|record| record.stamp).max().unwrap_or_default();
        let mut stamps = Self {
            window: CAPACITY as u64,
            last,
            step: STEP,
            lane: 0,
            kept: VecDeque::new(),
            first: next,
            next,
            settled,
            acknowledged: settled,
            pings: VecDeque::new(),
            answered: settled,
            repetition: None,
            unheard: false,
        };
        let oldest = stamps.oldest();
        for record in records.into_iter().filter(|record| record.position >= oldest) {
            stamps.store(record);
        }
        stamps
    }

    /// From now on for one of several bridges that share the load, or for one that is alone.
    pub fn share(&mut self, member: Option<u32>) {
        (self.step, self.lane) = match member {
            None => (STEP, 0),
            Some(member) => (STEP * i64::from(LANES), STEP * i64::from(member % LANES)),
        };
        self.last = self.in_lane(self.last + self.step);
    }

    fn in_lane(&self, nanoseconds: i64) -> i64 {
        nanoseconds - nanoseconds % self.step + self.lane
    }

    /// Moves on to this time, unless the stamps are ahead of it already.
    pub fn tick(&mut self, now: SystemTime) {
        let nanoseconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let now = self.in_lane(nanoseconds);
        if now > self.last || self.last - now > LARGEST_STEP_BACK.as_nanos() as i64 {
            self.last = now;
        }
    }

    /// The stamp of a message that is not remembered: one of QoS 0.
    pub fn fresh(&mut self) -> i64 {
        self.last += self.step;
        self.last
    }

    /// The stamp of a message that the broker may deliver again.
    pub fn receive(&mut self, packet_id: u16, hash: u64) -> Received {
        let received = self.repeated(packet_id, hash).unwrap_or_else(|| self.remember(packet_id, hash));
        if std::mem::take(&mut self.unheard) {
            // It begins with the oldest that it has not forgotten.
            self.settled = self.settled.max(received.position);
        }
        received
    }

    /// A message came that the broker may deliver again, and it is left with the broker. So the repetition has begun, and
    /// the answer to a ping does not say that there is none.
    pub fn left(&mut self) {
        self.unheard = false;
    }

    /// The last step goes out of a message of QoS 2 that came by a connection before. Until that is saved the
    /// broker has not forgotten it, though what it repeats begins with a younger one; nor need it have room to
    /// repeat that at once. All before it are acknowledged, if nothing else waits on this connection.
    pub fn released(&mut self, packet_id: u16, nothing_waits: bool) {
        self.unheard = false;
        let known = self.repetition.as_ref().and_then(|repetition| repetition.by_packet_id.get(&packet_id));
        if let Some(position) = known.map(|record| record.position).filter(|_| nothing_waits) {
            self.acknowledge(position);
        }
    }

    fn repeated(&mut self, packet_id: u16, hash: u64) -> Option<Received> {
        let repetition = self.repetition.as_mut()?;
        let known = repetition.by_packet_id.get(&packet_id);
        let Some(record) = known.filter(|known| known.hash == hash && known.position >= repetition.from)
        else {
            self.repetition = None;
            return None;
        };
        repetition.from = record.position + 1;
        Some(Received { position: record.position, stamp: record.stamp, repeated: true })
    }

    fn remember(&mut self, packet_id: u16, hash: u64) -> Received {
        let record = Record { position: self.next, stamp: self.fresh(), hash, packet_id };
        self.next += 1;
        self.store(record);
        Received { position: record.position, stamp: record.stamp, repeated: false }
    }

    /// A connection begins: of the same session, or of a new one.
    pub fn connected(&mut self, resumed: bool) {
        if !resumed {
            self.forget();
        }
        let from = self.settled.max(self.next.saturating_sub(self.window));
        let by_packet_id = self.records(from).map(|record| (record.packet_id, record)).collect();
        self.repetition = Some(Repetition { by_packet_id, from });
        self.unheard = true;
    }

    /// The connection has gone, and with it the answers to its pings.
    pub fn disconnected(&mut self) {
        self.pings.clear();
        self.answered = self.settled;
        self.acknowledged = self.settled;
        self.repetition = None;
    }

    /// Nothing that was received before can come again.
    pub fn forget(&mut self) {
        self.settled = self.next;
        self.acknowledged = self.next;
        self.answered = self.next;
        self.pings.clear();
    }

    /// The acknowledgement of a message, and of all that came before it, is on its way: of QoS 2 its last step, since
    /// mosquitto saves none before.
    pub fn acknowledge(&mut self, position: u64) {
        self.acknowledged = self.acknowledged.max(position + 1);
    }

    /// A ping goes out, after all acknowledgements so far.
    pub fn pinged(&mut self) {
        self.pings.push_back(Ping { acknowledged: self.acknowledged, answered: self.answered });
    }

    /// A ping was answered.
    pub fn ping_answered(&mut self) {
        let Some(ping) = self.pings.pop_front() else { return };
        self.settled = self.settled.max(ping.answered);
        self.answered = ping.acknowledged;
        if std::mem::take(&mut self.unheard) {
            // It would have come before the answer.
            self.settled = self.next;
        }
    }

    /// Whether a ping would be of use, to settle what is not, and none is on its way.
    pub fn wants_ping(&self) -> bool {
        let unsettled = self.settled < self.acknowledged || self.unheard && self.settled < self.next;
        self.pings.is_empty() && unsettled
    }

    /// Whether nothing that was acknowledged on this connection can come again.
    pub fn is_settled(&self) -> bool {
        self.settled >= self.acknowledged
    }

    /// What is before this position can't come again.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// The position that the next new message gets.
    pub fn next_position(&self) -> u64 {
        self.next
    }

    /// What is remembered from a position on, in order. What is settled is not, but for the last.
    pub fn records(&self, from: u64) -> impl Iterator<Item = Record> {
        (from.max(self.oldest())..self.next).filter_map(|position| {
            let place = position.checked_sub(self.first)?;
            let Kept { stamp, hash, packet_id } = *self.kept.get(place as usize)?;
            (packet_id != Kept::NONE.packet_id).then_some(Record { position, stamp, hash, packet_id })
        })
    }

    /// What is before this position can't come again; but the last one is kept, since its stamp is the last that was
    /// given.
    fn oldest(&self) -> u64 {
        self.settled.min(self.next.saturating_sub(1)).max(self.next.saturating_sub(CAPACITY as u64))
    }

    fn store(&mut self, record: Record) {
        let Record { position, stamp, hash, packet_id } = record;
        while self.first < self.oldest() && self.kept.pop_front().is_some() {
            self.first += 1;
        }
        if self.kept.is_empty() {
            self.first = position;
        }
        while self.first + (self.kept.len() as u64) < position {
            // Only after a start with gaps is there one to fill: with what is never found.
            self.kept.push_back(Kept::NONE);
        }
        self.kept.push_back(Kept { stamp, hash, packet_id });
    }
}

/// Where a position is in the file's ring.
pub fn slot(position: u64) -> usize {
    (position % CAPACITY as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Stamps after so many messages of one content, with the packet ids 1, 2, 3.
    fn received(count: u16) -> (Stamps, Vec<i64>) {
        let mut stamps = Stamps::default();
        stamps.tick(seconds(10));
        stamps.connected(false);
        let given = (1..=count).map(|id| stamps.receive(id, 7).stamp).collect();
        (stamps, given)
    }

    fn reconnect(stamps: &mut Stamps) {
        stamps.disconnected();
        stamps.connected(true);
    }

    fn ping(stamps: &mut Stamps) {
        stamps.pinged();
        stamps.ping_answered();
    }

    #[test]
    fn each_message_gets_a_microsecond_of_its_own_though_the_clock_is_set_back() {
        let mut stamps = Stamps::default();
        stamps.tick(seconds(10) + Duration::from_nanos(1_999));
        assert_eq!([stamps.fresh(), stamps.receive(1, 0).stamp], [10_000_002_000, 10_000_003_000]);
        stamps.tick(seconds(9));
        assert_eq!(stamps.fresh(), 10_000_004_000);
    }

    #[test]
    fn a_clock_that_was_far_ahead_is_not_followed_for_ever() {
        let mut stamps = Stamps::default();
        stamps.tick(seconds(1_000_000));
        stamps.tick(seconds(1_000_000 - 3_600));
        assert_eq!(stamps.fresh(), 1_000_000_000_001_000);
        stamps.tick(seconds(10));
        assert_eq!(stamps.fresh(), 10_000_001_000);
    }

    #[test]
    fn what_comes_again_gets_the_time_that_it_had() {
        let (mut stamps, given) = received(3);
        reconnect(&mut stamps);
        let again: Vec<Received> = (2..=3).map(|id| stamps.receive(id, 7)).collect();
        assert_eq!(again[0], Received { position: 1, stamp: given[1], repeated: true });
        assert_eq!(again[1], Received { position: 2, stamp: given[2], repeated: true });
    }

    #[test]
    fn the_first_new_message_ends_the_repetition() {
        let (mut stamps, given) = received(3);
        reconnect(&mut stamps);
        assert_eq!(stamps.receive(3, 7).stamp, given[2]);
        assert!(!stamps.receive(4, 7).repeated);
        assert!(!stamps.receive(2, 7).repeated, "though it looks like one that came before");
    }

    #[test]
    fn another_content_under_a_known_packet_id_is_new_and_so_is_all_that_follows() {
        let (mut stamps, _) = received(3);
        reconnect(&mut stamps);
        assert!(!stamps.receive(2, 8).repeated);
        assert!(!stamps.receive(3, 7).repeated);
    }

    #[test]
    fn a_repetition_does_not_go_back() {
        let (mut stamps, _) = received(3);
        reconnect(&mut stamps);
        assert!(stamps.receive(2, 7).repeated);
        assert!(!stamps.receive(2, 7).repeated);
    }

    #[test]
    fn a_session_that_was_not_resumed_repeats_nothing() {
        let (mut stamps, _) = received(3);
        stamps.disconnected();
        stamps.connected(false);
        assert!(!stamps.receive(1, 7).repeated);
        let (mut stamps, _) = received(3);
        stamps.forget();
        reconnect(&mut stamps);
        assert!(!stamps.receive(1, 7).repeated);
    }

    #[test]
    fn what_was_acknowledged_two_answered_pings_ago_is_not_taken_for_what_comes() {
        let (mut stamps, _) = received(3);
        assert!(!stamps.wants_ping(), "nothing is acknowledged");
        stamps.acknowledge(1);
        for _ in 0..2 {
            assert!(stamps.wants_ping());
            stamps.pinged();
            assert!(!stamps.wants_ping(), "one is on its way");
            stamps.ping_answered();
        }
        assert_eq!(stamps.settled(), 2);
        assert!(!stamps.wants_ping());
        reconnect(&mut stamps);
        assert!(!stamps.receive(2, 7).repeated);
    }

    #[test]
    fn two_pings_that_are_on_their_way_together_may_be_answered_in_one_turn() {
        let (mut stamps, _) = received(3);
        stamps.acknowledge(1);
        stamps.pinged();
        stamps.pinged();
        stamps.ping_answered();
        stamps.ping_answered();
        assert_eq!(stamps.settled(), 0);
        ping(&mut stamps);
        assert_eq!(stamps.settled(), 2);
    }

    #[test]
    fn bridges_that_share_the_load_never_give_the_same_stamp() {
        let now = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let mut seen = std::collections::HashSet::new();
        for member in [None, Some(1), Some(2), Some(15)] {
            let mut stamps = Stamps::default();
            stamps.tick(now);
            stamps.share(member);
            for _ in 0..100 {
                let stamp = stamps.fresh();
                stamps.tick(now);
                assert_eq!(stamp % STEP, 0);
                assert!(member.is_none() || seen.insert(stamp), "{member:?}: {stamp}");
            }
        }
    }

    #[test]
    fn a_bridge_that_takes_part_goes_on_in_its_lane_after_the_stamps_that_it_gave() {
        let mut stamps = Stamps::default();
        stamps.tick(seconds(10));
        assert_eq!(stamps.fresh(), 10_000_001_000);
        // There are sixteen lanes, and 10 s is a multiple of sixteen microseconds.
        stamps.share(Some(17));
        assert_eq!([stamps.fresh(), stamps.fresh()], [10_000_033_000, 10_000_049_000]);
        stamps.share(None);
        assert_eq!(stamps.fresh(), 10_000_051_000);
    }

    #[test]
    fn a_resumed_session_has_forgotten_what_is_older_than_what_it_repeats_first() {
        let (mut stamps, _) = received(3);
        reconnect(&mut stamps);
        assert!(stamps.receive(2, 7).repeated);
        assert_eq!(stamps.settled(), 1);
        let (mut stamps, _) = received(3);
        reconnect(&mut stamps);
        stamps.receive(9, 7);
        assert_eq!(stamps.settled(), 3);
    }

    #[test]
    fn a_resumed_session_that_answers_a_ping_first_repeats_nothing() {
        let (mut stamps, _) = received(3);
        reconnect(&mut stamps);
        assert!(stamps.wants_ping());
        ping(&mut stamps);
        assert_eq!(stamps.settled(), 3);
        assert!(!stamps.wants_ping());
        reconnect(&mut stamps);
        assert!(!stamps.wants_ping(), "there is nothing to settle");
        assert!(!stamps.receive(1, 7).repeated);
    }

    #[test]
    fn a_message_of_qos_2_is_not_forgotten_before_its_last_step_is_saved() {
        let (mut stamps, given) = received(3);
        reconnect(&mut stamps);
        stamps.released(1, true);
        assert_eq!(stamps.receive(2, 7).stamp, given[1]);
        ping(&mut stamps);
        assert_eq!(stamps.settled(), 0);
        // The broker was killed, and is where it was before the step.
        reconnect(&mut stamps);
        let again: Vec<i64> = (1..=3).map(|id| stamps.receive(id, 7).stamp).collect();
        assert_eq!(again, given);
        reconnect(&mut stamps);
        (1..=3).for_each(|id| stamps.released(id, true));
        ping(&mut stamps);
        assert_eq!(stamps.settled(), 0);
        ping(&mut stamps);
        assert_eq!(stamps.settled(), 3);
    }

    #[test]
    fn a_resumed_session_whose_first_message_is_left_with_the_broker_repeats_it() {
        let (mut stamps, given) = received(3);
        reconnect(&mut stamps);
        stamps.left();
        assert!(!stamps.wants_ping() && stamps.is_settled(), "nothing was acknowledged on this connection");
        ping(&mut stamps);
        ping(&mut stamps);
        reconnect(&mut stamps);
        assert_eq!(stamps.receive(1, 7).stamp, given[0]);
        stamps.acknowledge(0);
        assert!(!stamps.is_settled());
        ping(&mut stamps);
        assert!(!stamps.is_settled());
        ping(&mut stamps);
        assert!(stamps.is_settled());
    }

    #[test]
    fn what_was_acknowledged_one_answered_ping_ago_may_come_again() {
        let (mut stamps, given) = received(3);
        stamps.acknowledge(2);
        ping(&mut stamps);
        stamps.pinged();
        reconnect(&mut stamps);
        assert_eq!(stamps.receive(1, 7).stamp, given[0]);
        // The answer to a ping of the connection before doesn't count for this one.
        stamps.ping_answered();
        assert_eq!(stamps.settled(), 0);
    }

    #[test]
    fn another_process_remembers() {
        let (stamps, given) = received(3);
        let mut other = Stamps::restore(stamps.records(0).collect(), 1);
        other.tick(seconds(9));
        other.connected(true);
        let again = other.receive(3, 7);
        assert_eq!((again.position, again.stamp, again.repeated), (2, given[2], true));
        let new = other.receive(4, 7);
        assert_eq!((new.position, new.repeated), (3, false));
        assert!(new.stamp > given[2]);
        assert_eq!(other.settled(), 2);
    }

    #[test]
    fn a_memory_with_gaps_finds_what_it_has() {
        let record = |position, packet_id| Record { position, stamp: position as i64, hash: 7, packet_id };
        let mut stamps = Stamps::restore(vec![record(9, 3), record(5, 1)], 2);
        stamps.connected(true);
        assert_eq!(stamps.receive(1, 7), Received { position: 5, stamp: 5, repeated: true });
        assert_eq!(stamps.receive(3, 7), Received { position: 9, stamp: 9, repeated: true });
        assert_eq!(stamps.next_position(), 10);
    }

    #[test]
    fn what_fell_out_of_the_ring_is_forgotten() {
        let mut stamps = Stamps::default();
        stamps.connected(false);
        for number in 0..=CAPACITY as u64 {
            stamps.receive((number % 65_535) as u16 + 1, number);
        }
        assert_eq!(stamps.records(0).count(), CAPACITY);
        assert_eq!(stamps.records(0).next().map(|record| record.position), Some(1));
        assert_eq!(slot(CAPACITY as u64 + 3), 3);
    }

    #[test]
    fn what_cannot_come_again_takes_no_memory() {
        let (mut stamps, _) = received(100);
        stamps.acknowledge(99);
        ping(&mut stamps);
        stamps.receive(101, 7);
        assert_eq!(stamps.kept.len(), 101);
        ping(&mut stamps);
        stamps.receive(102, 7);
        assert_eq!(stamps.kept.len(), 2);
        let positions: Vec<u64> = stamps.records(0).map(|record| record.position).collect();
        assert_eq!(positions, [100, 101]);
    }

    #[test]
    fn what_came_a_round_of_packet_ids_ago_is_not_taken_for_what_comes() {
        let (mut stamps, _) = received(65_535);
        reconnect(&mut stamps);
        assert!(!stamps.receive(1, 7).repeated, "nothing was in flight, and ids go on with 1");
    }

    #[test]
    fn content_is_topic_and_payload() {
        let hashes = [(&b"a"[..], &b"bc"[..]), (b"ab", b"c"), (b"a", b"bd"), (b"b", b"bc")];
        let hashes = hashes.map(|(topic, payload)| hash_of(topic, payload));
        for (place, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..place].contains(hash));
        }
    }

    /// A broker as MQTT has it: it repeats what it holds to be unacknowledged, and then goes on.
    #[derive(Default)]
    struct Broker {
        last_id: u16,
        in_flight: VecDeque<(u16, usize)>,
        messages: usize,
    }

    impl Broker {
        fn publish(&mut self) -> (u16, usize) {
            self.last_id = self.last_id % 40 + 1;
            self.messages += 1;
            self.in_flight.push_back((self.last_id, self.messages));
            (self.last_id, self.messages)
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Publish,
        Store,
        BrokerReads,
        Ping,
        Reconnect { delivered: usize },
        KillBridge,
        RestartBroker,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Publish),
            4 => Just(Step::Store),
            3 => Just(Step::BrokerReads),
            2 => Just(Step::Ping),
            1 => (0..6_usize).prop_map(|delivered| Step::Reconnect { delivered }),
            1 => Just(Step::KillBridge),
            1 => Just(Step::RestartBroker),
        ]
    }

    proptest! {
        /// Sensors that always say the same, packet ids that come round after 40, connections and
        /// processes that end at any time: each message has one stamp, and no two have the same.
        #[test]
        fn each_message_has_one_stamp_of_its_own(steps in prop::collection::vec(step(), 0..120)) {
            let (mut stamps, mut broker) = (Stamps { window: 20, ..Stamps::default() }, Broker::default());
            stamps.connected(false);
            let mut by_message: HashMap<usize, i64> = HashMap::new();
            // Received on this connection: what is acknowledged goes over to the broker's input.
            let mut received: VecDeque<(u16, u64)> = VecDeque::new();
            let mut acknowledged: VecDeque<u16> = VecDeque::new();
            for step in steps {
                let mut reconnects = None;
                match step {
                    // As the receive maximum has it.
                    Step::Publish if broker.in_flight.len() < 15 => {
                        let (id, message) = broker.publish();
                        let given = stamps.receive(id, 7);
                        prop_assert!(!given.repeated);
                        by_message.insert(message, given.stamp);
                        received.push_back((id, given.position));
                    }
                    Step::Store => if let Some((id, position)) = received.pop_front() {
                        stamps.acknowledge(position);
                        acknowledged.push_back(id);
                    },
                    Step::BrokerReads => if acknowledged.pop_front().is_some() {
                        broker.in_flight.pop_front();
                    },
                    Step::Ping => {
                        broker.in_flight.drain(..acknowledged.drain(..).count());
                        ping(&mut stamps);
                    }
                    Step::Reconnect { delivered } => reconnects = Some(delivered),
                    Step::KillBridge => {
                        let records = stamps.records(0).collect();
                        stamps = Stamps { window: 20, ..Stamps::restore(records, stamps.settled()) };
                        reconnects = Some(usize::MAX);
                    }
                    // It counts its ids from the last in flight, or from nothing. In the moment before it
                    // has confirmed acknowledgements, a new message can then look like an old one.
                    Step::RestartBroker
                        if stamps.settled() + broker.in_flight.len() as u64 >= stamps.next_position() =>
                    {
                        broker.last_id = broker.in_flight.back().map_or(0, |(id, _)| *id);
                        reconnects = Some(usize::MAX);
                    }
                    Step::Publish | Step::RestartBroker => {}
                }
                if let Some(delivered) = reconnects {
                    acknowledged.clear();
                    received.clear();
                    reconnect(&mut stamps);
                    for (id, message) in broker.in_flight.iter().take(delivered) {
                        let given = stamps.receive(*id, 7);
                        prop_assert_eq!(Some(&given.stamp), by_message.get(message));
                        received.push_back((*id, given.position));
                    }
                    if delivered < broker.in_flight.len() {
                        // It breaks again before the rest has come.
                        received.clear();
                        reconnect(&mut stamps);
                        for (id, message) in &broker.in_flight {
                            let given = stamps.receive(*id, 7);
                            prop_assert_eq!(Some(&given.stamp), by_message.get(message));
                            received.push_back((*id, given.position));
                        }
                    }
                }
            }
            let mut all: Vec<i64> = by_message.values().copied().collect();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), by_message.len());
        }
    }
}
