//! Dead letters: messages that can't be stored, published for someone to look at. The original is
//! acknowledged only when the broker has taken the dead letter, or has refused it for good.
//!
//! In MQTT 5 a dead letter is the message's payload, with the reason as a property. 3.1.1 has none, so there it
//! is a JSON object of all: what belongs together stays together.

use std::collections::{HashMap, VecDeque};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use serde_json::json;

use crate::ack::Sequence;
use crate::version::Version;

/// Sent and not yet acknowledged by the broker; more wait here.
const WINDOW: usize = 100;
/// As many bytes of payload, but for the last one's.
const WINDOW_BYTES: usize = 4 << 20;
/// When there are more, messages are left with the broker. A broker may be slow to take them, and each may have two
/// megabytes.
const MANY_BYTES: usize = 16 << 20;
/// Dead letters of QoS 0 messages, which nobody will send again, may take this much memory.
const QOS_0_BYTES: usize = 1 << 20;

/// A message that can't be stored.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The message.
    pub sequence: Sequence,
    /// The route that it came by.
    pub route: String,
    /// Where the dead letter goes.
    pub destination: String,
    /// The message's own topic.
    pub topic: String,
    /// The message's payload.
    pub payload: Bytes,
    /// Why it can't be stored.
    pub reason: String,
}

/// What the broker allows a client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What it speaks.
    pub version: Version,
    /// Messages sent and not acknowledged.
    pub receive_maximum: usize,
    /// Bytes of one packet.
    pub packet_size: usize,
}

/// Packet ids for what the bridge itself sends.
#[derive(Debug, Default)]
pub struct PacketIds {
    last: u16,
}

impl PacketIds {
    /// The next id that is not in use.
    pub fn next(&mut self, is_used: impl Fn(u16) -> bool) -> u16 {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !is_used(self.last) {
                return self.last;
            }
        }
    }
}

/// Dead letters on their way.
#[derive(Debug, Default)]
pub struct DeadLetters {
    waiting: VecDeque<DeadLetter>,
    sent: HashMap<u16, DeadLetter>,
    bytes: usize,
    qos_0_bytes: usize,
}

impl DeadLetters {
    /// Takes one; hands it back if it is of QoS 0 and there are too many.
    pub fn push(&mut self, letter: DeadLetter) -> Option<DeadLetter> {
        if letter.sequence == Sequence::NONE {
            if self.qos_0_bytes > QOS_0_BYTES {
                return Some(letter);
            }
            self.qos_0_bytes += letter.payload.len();
        }
        self.bytes += letter.payload.len();
        self.waiting.push_back(letter);
        None
    }

    /// Whether a packet id is in use.
    pub fn uses(&self, packet_id: u16) -> bool {
        self.sent.contains_key(&packet_id)
    }

    /// Whether none is on its way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    /// Whether there are so many that no message should be taken that might become another one.
    pub fn are_many(&self) -> bool {
        self.bytes > MANY_BYTES
    }

    /// Appends as many as the broker allows; returns those that are too large for it.
    pub fn write(
        &mut self,
        limits: Limits,
        next_id: &mut impl FnMut(&Self) -> u16,
        out: &mut BytesMut,
    ) -> Vec<DeadLetter> {
        let mut too_large = Vec::new();
        let mut sent_bytes: usize = self.sent.values().map(|letter| letter.payload.len()).sum();
        while self.sent.len() < limits.receive_maximum.min(WINDOW)
            && sent_bytes < WINDOW_BYTES
            && let Some(letter) = self.waiting.pop_front()
        {
            let packet_id = next_id(self);
            let publish = letter.publish(packet_id, limits.version);
            let is_too_large = publish.size() > limits.packet_size;
            if is_too_large || limits.version.write(Packet::Publish(publish), out).is_err() {
                too_large.push(self.forget(letter));
            } else {
                sent_bytes += letter.payload.len();
                self.sent.insert(packet_id, letter);
            }
        }
        too_large
    }

    /// The broker has answered one.
    pub fn answered(&mut self, packet_id: u16) -> Option<DeadLetter> {
        let letter = self.sent.remove(&packet_id)?;
        Some(self.forget(letter))
    }

    fn forget(&mut self, letter: DeadLetter) -> DeadLetter {
        self.bytes = self.bytes.saturating_sub(letter.payload.len());
        if letter.sequence == Sequence::NONE {
            self.qos_0_bytes = self.qos_0_bytes.saturating_sub(letter.payload.len());
        }
        letter
    }

    /// The connection has gone: what was sent and not answered must be sent again.
    pub fn disconnect(&mut self) {
        for (_, letter) in self.sent.drain() {
            self.waiting.push_front(letter);
        }
    }
}

impl DeadLetter {
    fn publish(&self, packet_id: u16, version: Version) -> Publish {
        let property = |name: &str, value: &str| (name.to_owned(), cut(value).to_owned());
        let properties = PublishProperties {
            user_properties: vec![property("reason", &self.reason), property("topic", &self.topic)],
            ..PublishProperties::default()
        };
        let (payload, properties) = match version {
            Version::V5 => (self.payload.clone(), Some(properties)),
            Version::V311 => (self.envelope(), None),
        };
        let mut publish = Publish::new(self.destination.clone(), QoS::AtLeastOnce, payload, properties);
        publish.pkid = packet_id;
        publish
    }

    fn envelope(&self) -> Bytes {
        let (reason, topic) = (cut(&self.reason), &self.topic);
        let envelope = match str::from_utf8(&self.payload) {
            Ok(text) => json!({"reason": reason, "topic": topic, "payload": text}),
            Err(_) => {
                let bytes = STANDARD.encode(&self.payload);
                json!({"reason": reason, "topic": topic, "payloadBase64": bytes})
            }
        };
        envelope.to_string().into()
    }
}

/// A property has at most 65,535 bytes, and a reason is for people.
fn cut(text: &str) -> &str {
    const LONGEST: usize = 1_024;
    let end = (0..=text.len().min(LONGEST)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ack::Acks;
    use crate::packet::{self, Incoming};

    const LIMITS: Limits = Limits { version: Version::V5, receive_maximum: 2, packet_size: 1_000 };

    fn letter(sequence: Sequence, payload: usize) -> DeadLetter {
        DeadLetter {
            sequence,
            route: "r".into(),
            destination: "iotpipeline/lab/dead-letter/r".into(),
            topic: "a/b".into(),
            payload: vec![b'x'; payload].into(),
            reason: "not a number".into(),
        }
    }

    fn write(letters: &mut DeadLetters, ids: &mut PacketIds, out: &mut BytesMut) -> usize {
        letters.write(LIMITS, &mut |letters| ids.next(|id| letters.uses(id)), out).len()
    }

    #[test]
    fn no_more_are_sent_than_the_broker_allows() {
        let (mut letters, mut ids, mut out) = Default::default();
        for _ in 0..3 {
            assert!(DeadLetters::push(&mut letters, letter(Sequence::NONE, 1)).is_none());
        }
        assert_eq!(write(&mut letters, &mut ids, &mut out), 0);
        assert!(letters.uses(1) && letters.uses(2) && !letters.uses(3));
        assert!(letters.answered(1).is_some() && letters.answered(1).is_none());
        write(&mut letters, &mut ids, &mut out);
        assert!(letters.uses(3));
        assert!(out.windows(12).any(|text| text == b"not a number"));
    }

    #[test]
    fn large_ones_are_sent_a_few_at_a_time_and_when_there_are_many_that_is_known() {
        let limits = Limits { version: Version::V5, receive_maximum: 100, packet_size: 2 << 20 };
        let (mut letters, mut ids, mut out) = <(DeadLetters, PacketIds, BytesMut)>::default();
        for _ in 0..17 {
            assert!(!letters.are_many());
            assert!(letters.push(letter(Acks::default().next(), 1 << 20)).is_none());
        }
        assert!(letters.are_many());
        letters.write(limits, &mut |letters| ids.next(|id| letters.uses(id)), &mut out);
        assert!(letters.uses(4) && !letters.uses(5));
        assert!(letters.answered(1).is_some() && !letters.are_many());
    }

    #[test]
    fn one_that_the_broker_would_not_take_is_handed_back() {
        let (mut letters, mut ids, mut out) = Default::default();
        assert!(DeadLetters::push(&mut letters, letter(Sequence::NONE, 2_000)).is_none());
        assert_eq!(write(&mut letters, &mut ids, &mut out), 1);
        assert!(letters.is_empty() && out.is_empty());
    }

    #[test]
    fn without_properties_it_holds_reason_topic_and_payload_also_if_that_is_no_text() {
        let limits = Limits { version: Version::V311, ..LIMITS };
        for (payload, key, value) in [(&b"warm"[..], "payload", "warm"), (b"\xff", "payloadBase64", "/w==")] {
            let (mut letters, mut ids, mut out) = <(DeadLetters, PacketIds, BytesMut)>::default();
            let letter = DeadLetter { payload: payload.into(), ..letter(Sequence::NONE, 0) };
            assert!(letters.push(letter).is_none());
            letters.write(limits, &mut |letters| ids.next(|id| letters.uses(id)), &mut out);
            let Ok(Incoming::Publish(publish)) = packet::parse(&out, Version::V311) else {
                panic!("{out:?}")
            };
            assert_eq!(publish.topic, b"iotpipeline/lab/dead-letter/r");
            let envelope: serde_json::Value = serde_json::from_slice(publish.payload).expect("JSON");
            assert_eq!(envelope, json!({"reason": "not a number", "topic": "a/b", key: value}));
        }
    }

    #[test]
    fn after_a_reconnect_those_that_were_not_answered_are_sent_again() {
        let (mut letters, mut ids, mut out) = Default::default();
        assert!(DeadLetters::push(&mut letters, letter(Sequence::NONE, 1)).is_none());
        assert!(letters.push(letter(Acks::default().next(), 1)).is_none());
        write(&mut letters, &mut ids, &mut out);
        letters.disconnect();
        write(&mut letters, &mut ids, &mut out);
        assert!(letters.uses(3) && letters.uses(4));
    }
}
