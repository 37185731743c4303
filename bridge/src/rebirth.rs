//! Asks Sparkplug's nodes for their births, where one was missed: a command to the node, at most one in ten
//! seconds (sections 6.4.21 and 5.12 of the specification).

use std::collections::HashMap;

use api::route::command_topic;
use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};

use crate::dead::Limits;

/// A node that was asked is not asked again before this, in nanoseconds: a birth of many metrics takes a while.
const PAUSE: u64 = 10_000_000_000;

/// How many nodes are remembered to have been asked; above that, others are asked later.
const MOST: usize = 10_000;

/// Which nodes were asked, and which are to be.
#[derive(Debug, Default)]
pub struct Rebirths {
    /// By the topic of the command: when, by the stamp of the message that showed the need.
    asked: HashMap<String, i64>,
    waiting: Vec<Publish>,
}

impl Rebirths {
    /// A message that was received at `stamp` shows that a node's birth is missing. Whether the node is asked.
    pub fn ask(&mut self, group: &str, node: &str, stamp: i64) -> bool {
        let is_recent = |asked: i64| stamp.abs_diff(asked) < PAUSE;
        let topic = command_topic(group, node);
        if self.asked.get(&topic).is_some_and(|asked| is_recent(*asked)) {
            return false;
        }
        if self.asked.len() >= MOST {
            self.asked.retain(|_, asked| is_recent(*asked));
            if self.asked.len() >= MOST {
                return false;
            }
        }
        let payload = Bytes::from(command(stamp / 1_000_000));
        // As section 6.4.21 has it: of QoS 0, not retained. If it is lost, the next message asks again.
        self.waiting.push(Publish::new(topic.clone(), QoS::AtMostOnce, payload, None));
        self.asked.insert(topic, stamp);
        true
    }

    /// Appends what is to be sent. A broker that takes no packet of this size gets none.
    pub fn write(&mut self, limits: Limits, out: &mut BytesMut) {
        for publish in self.waiting.drain(..) {
            let fits = publish.size() <= limits.packet_size;
            if fits && limits.version.write(Packet::Publish(publish), out).is_err() {
                tracing::warn!("a request for a birth can't be written");
            }
        }
    }

    /// The connection has gone, perhaps because the broker forbids such a command: who was asked is not asked
    /// again at once, or nothing else would come through.
    pub fn disconnect(&mut self) {
        self.waiting.clear();
    }
}

/// The payload: `Node Control/Rebirth` = true, without a sequence number. Field numbers: `sparkplug::wire`.
fn command(milliseconds: i64) -> Vec<u8> {
    const NAME: &[u8] = b"Node Control/Rebirth";
    const BOOLEAN: u8 = 11;
    let timestamp = varint(milliseconds.max(0) as u64);
    let mut metric = vec![1 << 3 | 2, NAME.len() as u8];
    metric.extend_from_slice(NAME);
    metric.push(3 << 3);
    metric.extend_from_slice(&timestamp);
    metric.extend_from_slice(&[4 << 3, BOOLEAN, 14 << 3, 1]);
    let mut payload = vec![1 << 3];
    payload.extend_from_slice(&timestamp);
    payload.extend_from_slice(&[2 << 3 | 2, metric.len() as u8]);
    payload.append(&mut metric);
    payload
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Version;

    const LIMITS: Limits = Limits { version: Version::V5, receive_maximum: 1, packet_size: usize::MAX };
    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_node_is_asked_once_in_ten_seconds_and_others_are_asked_too() {
        let mut rebirths = Rebirths::default();
        assert!(rebirths.ask("g", "one", SECOND) && rebirths.ask("g", "two", SECOND));
        assert!(!rebirths.ask("g", "one", 10 * SECOND));
        assert!(rebirths.ask("g", "one", 11 * SECOND));
        rebirths.disconnect();
        assert!(!rebirths.ask("g", "one", 12 * SECOND), "the command may be what the broker hung up for");
        assert!(rebirths.ask("g", "one", 21 * SECOND));
        let mut out = BytesMut::new();
        rebirths.write(LIMITS, &mut out);
        assert!(out.windows(18).any(|text| text == b"spBv1.0/g/NCMD/one"));
        out.clear();
        rebirths.write(LIMITS, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nobody_from_being_asked() {
        let mut rebirths = Rebirths::default();
        assert!(rebirths.ask("g", "n", 9_000 * SECOND) && rebirths.ask("g", "n", 1_000 * SECOND));
    }

    #[test]
    fn the_nodes_that_are_remembered_are_bounded() {
        let mut rebirths = Rebirths::default();
        let asked = (0..MOST + 5).filter(|node| rebirths.ask("g", &node.to_string(), SECOND)).count();
        assert_eq!(asked, MOST);
        assert!(rebirths.ask("g", "another", 20 * SECOND));
    }
}
