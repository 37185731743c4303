//! What nodes and devices have told with their births: names, types and aliases of metrics, and the sequence
//! that their messages follow (sections 4.3 and 6.4.5 to 6.4.7 of the specification).
//!
//! In memory only: after a restart nodes are asked for their births again. Bounded: see [`MAX_ENTRIES`] and
//! [`MAX_METRICS`]. A message that is delivered again must make the points that it made, so a birth is
//! remembered for a while after another has taken its place, and what is asked for a message that was seen
//! before is answered as it was then.

use std::collections::HashMap;
use std::sync::Arc;

use super::Topic;
use super::life::{History, Known, Life};
use super::metric::LeftOutCounts;
use super::table::MetricTable;

/// The most nodes and devices that a route remembers.
pub const MAX_ENTRIES: usize = 10_000;

/// The most metrics that a route remembers, of all nodes and devices together: some 100 bytes each.
pub const MAX_METRICS: usize = 200_000;

/// What one route knows of all nodes.
#[derive(Debug, Default)]
pub struct Births {
    groups: HashMap<Box<str>, HashMap<Box<str>, Node>>,
    entries: usize,
    metrics: usize,
    /// Whether the message that is being taken in was delivered before.
    repeated: bool,
    /// Whether it was taken in before, too, and so has changed here what it changes.
    was_seen: bool,
    /// Whether its node is to be asked for its births.
    pub(super) wants_birth: bool,
    /// How many of its metrics are left out.
    pub(super) left_out: LeftOutCounts,
}

/// What a node's death means.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Death {
    /// The node is dead, and so are these devices.
    Now(Vec<Box<str>>),
    /// It is the death of a session before the one that was born last.
    Stale,
}

#[derive(Debug, Default)]
struct Node {
    /// The stamp of the last message that changed anything here.
    latest: i64,
    seq: Option<u8>,
    /// The connection has been lost since its last message, and births may have been missed.
    is_unsure: bool,
    own: History,
    devices: HashMap<Box<str>, History>,
}

impl Node {
    fn of(&self, device: &str) -> Option<&History> {
        if device.is_empty() { Some(&self.own) } else { self.devices.get(device) }
    }

    /// All births are forgotten; how many metrics that are.
    fn end(&mut self, stamp: i64) -> isize {
        let devices = self.devices.values_mut();
        self.own.change(stamp, Life::Dead) + devices.map(|life| life.change(stamp, Life::Dead)).sum::<isize>()
    }

    /// Whether the number is not the next one, and messages were lost. The same again is a copy (section 6.4.5.1:
    /// it goes up by one from message to message, and 0 follows 255).
    fn skips(&mut self, seq: Option<u64>) -> bool {
        let Some(seq) = seq.map(|seq| seq as u8) else { return false };
        let skips = self.seq.is_some_and(|last| seq != last && seq != last.wrapping_add(1));
        self.seq = Some(seq);
        skips
    }
}

impl Births {
    /// A message begins.
    pub fn begin(&mut self, repeated: bool) {
        self.repeated = repeated;
        self.was_seen = false;
        self.wants_birth = false;
        self.left_out = LeftOutCounts::default();
    }

    /// Whether the message that was taken in shows that its node's birth is missing.
    pub fn wants_birth(&self) -> bool {
        self.wants_birth
    }

    /// How many metrics of the message that was taken in are left out.
    pub fn left_out(&self) -> LeftOutCounts {
        self.left_out
    }

    /// Its node is known. What was delivered again after a restart was not seen by this process.
    pub(super) fn meet(&mut self, topic: &Topic<'_>, stamp: i64) {
        self.was_seen = self.repeated && self.node(topic).is_some_and(|node| stamp <= node.latest);
    }

    fn node(&self, topic: &Topic<'_>) -> Option<&Node> {
        self.groups.get(topic.group)?.get(topic.node)
    }

    fn node_mut(&mut self, topic: &Topic<'_>) -> Option<&mut Node> {
        self.groups.get_mut(topic.group)?.get_mut(topic.node)
    }

    /// The connection is lost, and births may be missed: the next number of each node tells.
    pub fn disconnected(&mut self) {
        self.groups.values_mut().flat_map(HashMap::values_mut).for_each(|node| node.is_unsure = true);
    }

    /// A message that has a number but is no birth of a node: follows the number, and says what its metrics are
    /// looked up in.
    pub(super) fn follow(&mut self, topic: &Topic<'_>, seq: Option<u64>, stamp: i64) -> Known {
        if self.was_seen {
            let history = self.node(topic).and_then(|node| node.of(topic.device));
            return history.map(|history| history.then(stamp).known()).unwrap_or_default();
        }
        let Some(node) = self.node_mut(topic) else {
            self.wants_birth = true;
            return Known::default();
        };
        node.latest = stamp;
        let skips = node.skips(seq);
        // One message more or less on one connection is no birth that was missed. In the time between two
        // connections a node may have given its aliases to other metrics.
        let forgotten = if skips && node.is_unsure { node.end(stamp) } else { 0 };
        node.is_unsure = false;
        let known = node.of(topic.device).map(|history| history.now().known()).unwrap_or_default();
        let is_born = !topic.is_data() || known.table.is_some() || known.is_too_many;
        let wants_birth = skips || node.own.now().is_dead() || !is_born;
        self.wants_birth = wants_birth;
        self.grow(forgotten);
        known
    }

    /// A node or a device is born. Of a node, all devices are to be born again (section 5.4).
    pub(super) fn born(
        &mut self,
        topic: &Topic<'_>,
        seq: Option<u64>,
        bd_seq: Option<u64>,
        table: MetricTable,
        stamp: i64,
    ) {
        if self.was_seen {
            return;
        }
        let has_room = self.make_room(topic, table.weight());
        let Some(node) = self.entry(topic) else { return };
        let mut grown = 0;
        if !topic.is_of_device() {
            grown += node.devices.values_mut().map(|life| life.change(stamp, Life::Dead)).sum::<isize>();
            (node.seq, node.is_unsure) = (seq.map(|seq| seq as u8), false);
        }
        node.latest = stamp;
        let history = if topic.is_of_device() {
            node.devices.entry(topic.device.into()).or_default()
        } else {
            &mut node.own
        };
        let life = match (history.same(&table), has_room) {
            (Some(table), _) => Life::Born { bd_seq, table },
            (None, true) => Life::Born { bd_seq, table: Arc::new(table) },
            (None, false) => Life::TooMany,
        };
        grown += history.change(stamp, life);
        self.grow(grown);
    }

    /// A birth that can't be read: what was known before doesn't hold any more.
    pub(super) fn unborn(&mut self, topic: &Topic<'_>, stamp: i64) {
        self.end(topic, stamp);
    }

    /// A device is dead.
    pub(super) fn device_died(&mut self, topic: &Topic<'_>, stamp: i64) {
        self.end(topic, stamp);
    }

    /// A node's will (section 6.4.8): it counts if it is of the session that was born last, or if nobody knows.
    pub(super) fn node_died(&mut self, topic: &Topic<'_>, bd_seq: Option<u64>, stamp: i64) -> Death {
        let Some(node) = self.node(topic) else { return Death::Now(Vec::new()) };
        let life = |history: &'_ History| match self.was_seen {
            // Before it changed anything.
            true => history.then(stamp - 1).clone(),
            false => history.now().clone(),
        };
        if let (Some(died), Life::Born { bd_seq: Some(born), .. }) = (bd_seq, life(&node.own))
            && died != born
        {
            return Death::Stale;
        }
        let alive = node.devices.iter().filter(|(_, history)| !life(history).is_dead());
        let mut devices: Vec<Box<str>> = alive.map(|(device, _)| device.clone()).collect();
        devices.sort_unstable();
        self.end(topic, stamp);
        Death::Now(devices)
    }

    /// The end of a node with all its devices, or of a device.
    fn end(&mut self, topic: &Topic<'_>, stamp: i64) {
        let was_seen = self.was_seen;
        let Some(node) = self.node_mut(topic).filter(|_| !was_seen) else { return };
        node.latest = stamp;
        let grown = if topic.is_of_device() {
            node.devices.get_mut(topic.device).map_or(0, |life| life.change(stamp, Life::Dead))
        } else {
            node.seq = None;
            node.end(stamp)
        };
        self.grow(grown);
    }

    fn grow(&mut self, by: isize) {
        self.metrics = self.metrics.saturating_add_signed(by);
    }

    /// Whether so many metrics more may be remembered. What is dead makes room first.
    fn make_room(&mut self, topic: &Topic<'_>, metrics: usize) -> bool {
        // A birth makes at most two entries: a device's, and its node's.
        if self.entries + 2 > MAX_ENTRIES || self.metrics + metrics > MAX_METRICS {
            self.forget_dead(topic);
        }
        self.metrics + metrics <= MAX_METRICS
    }

    /// Forgets the dead, but for the node whose message it is.
    fn forget_dead(&mut self, topic: &Topic<'_>) {
        let (mut entries, mut metrics) = (0, 0);
        for (group, nodes) in &mut self.groups {
            nodes.retain(|name, node| {
                node.devices.retain(|_, history| !history.now().is_dead());
                let is_own = **group == *topic.group && **name == *topic.node;
                let stays = is_own || !node.devices.is_empty() || !node.own.now().is_dead();
                if stays {
                    entries += 1 + node.devices.len();
                    metrics += node.own.weight() + node.devices.values().map(History::weight).sum::<usize>();
                }
                stays
            });
        }
        self.groups.retain(|_, nodes| !nodes.is_empty());
        (self.entries, self.metrics) = (entries, metrics);
    }

    /// The node of a birth; nothing if there is none and no room for one.
    fn entry(&mut self, topic: &Topic<'_>) -> Option<&mut Node> {
        let Self { groups, entries, .. } = self;
        let is_known = |nodes: &HashMap<Box<str>, Node>| {
            nodes.get(topic.node).map(|node| node.of(topic.device).is_some())
        };
        let new = match groups.get(topic.group).and_then(is_known) {
            Some(true) => 0,
            Some(false) => 1,
            None => 1 + usize::from(topic.is_of_device()),
        };
        if new > 0 && *entries + new > MAX_ENTRIES {
            return None;
        }
        *entries += new;
        Some(groups.entry(topic.group.into()).or_default().entry(topic.node.into()).or_default())
    }
}
