//! MQTT 3.1.1 packets as bytes, built before they are sent: while a row is measured, the generator only
//! copies them to the broker.

use crate::bench::rows::{Payload, Poison, Row, sensor_name};

/// A publisher goes round this many packets. Fewer than there are packet ids, and with the others enough
/// for every topic of a row.
const ROUND: u64 = 32_768;

/// The packets of one publisher, one after the other; it goes round them.
pub struct Packets {
    bytes: Vec<u8>,
    /// Where each begins; and in the end, where the last one ends.
    starts: Vec<u32>,
}

impl Packets {
    /// Those of one of several publishers, who share the row's messages.
    pub fn of(row: &Row, run: &str, publisher: u64, publishers: u64) -> Self {
        let round = share(row.messages, publisher, publishers).min(ROUND);
        let mut packets = Self { bytes: Vec::new(), starts: vec![0] };
        for turn in 0..round {
            let number = turn * publishers + publisher;
            // Values that repeat seldom, and that compress as a sensor's do.
            let (topic, mut payload) =
                (row.topic(run, number), payload(row, run, number, number * 7_919 % 1_000));
            if let Some(poison) = row.poison
                && is_bad(turn)
            {
                payload = spoilt(&payload, poison);
            }
            publish(&mut packets.bytes, row.qos, turn as u16 + 1, &topic, &payload);
            packets.starts.push(packets.bytes.len() as u32);
        }
        packets
    }

    /// How many there are in a round.
    pub fn len(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those from a turn on: at most so many, and none from the next round; with how many these are.
    pub fn from(&self, turn: u64, most: u64) -> (&[u8], u64) {
        let first = turn % self.len();
        let count = most.min(self.len() - first);
        let [start, end] = [first, first + count].map(|place| self.starts[place as usize] as usize);
        (&self.bytes[start..end], count)
    }
}

/// Whether the packet of a turn is spoilt, where one in a hundred is.
fn is_bad(turn: u64) -> bool {
    turn % 100 == 37
}

/// A line that can't be stored.
fn spoilt(line: &str, poison: Poison) -> String {
    match poison {
        Poison::Undecodable => line.replace('=', ":"),
        // The only whole number becomes a fraction.
        Poison::WrongType => line.trim_end_matches('i').to_owned(),
    }
}

/// How many of a row's messages are spoilt.
pub fn bad(row: &Row, publishers: u64) -> u64 {
    let of_publisher = |publisher| {
        let messages = share(row.messages, publisher, publishers);
        (0..messages).filter(|sent| is_bad(sent % messages.min(ROUND))).count() as u64
    };
    row.poison.map_or(0, |_| (0..publishers).map(of_publisher).sum())
}

/// How many of the messages are one publisher's.
pub fn share(messages: u64, publisher: u64, publishers: u64) -> u64 {
    (messages + publishers - 1 - publisher) / publishers
}

/// What the message of a number holds. `hundredths` makes the fractions.
pub fn payload(row: &Row, run: &str, number: u64, hundredths: u64) -> String {
    let (whole, part) = (20 + hundredths / 100, hundredths % 100);
    match row.payload {
        Payload::Number => format!("{whole}.{part:02}"),
        Payload::Json => {
            let (humidity, battery, open) =
                (hundredths % 70, 100 - hundredths % 90, hundredths.is_multiple_of(2));
            format!(
                r#"{{"temperature":{whole}.{part:02},"humidity":{humidity}.{part:02},"battery":{battery},"open":{open}}}"#
            )
        }
        Payload::Line => {
            let sensor = sensor_name(number % row.topics);
            format!("{run},sensor={sensor} temperature={whole}.{part:02},battery={}i", 100 - hundredths % 90)
        }
    }
}

/// Appends a PUBLISH.
pub fn publish(out: &mut Vec<u8>, qos: u8, packet_id: u16, topic: &str, payload: &str) {
    const PUBLISH: u8 = 0x30;
    let id_length = if qos > 0 { 2 } else { 0 };
    out.push(PUBLISH | qos << 1);
    remaining_length(out, 2 + topic.len() + id_length + payload.len());
    text(out, topic);
    if qos > 0 {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    out.extend_from_slice(payload.as_bytes());
}

/// A CONNECT without a user. A session that is not clean outlives its connection.
pub fn connect(client_id: &str, clean: bool) -> Vec<u8> {
    const CONNECT: u8 = 0x10;
    const LEVEL: u8 = 4;
    const KEEP_ALIVE: u16 = 600;
    let mut out = vec![CONNECT];
    remaining_length(&mut out, 10 + 2 + client_id.len());
    text(&mut out, "MQTT");
    out.extend_from_slice(&[LEVEL, if clean { 2 } else { 0 }]);
    out.extend_from_slice(&KEEP_ALIVE.to_be_bytes());
    text(&mut out, client_id);
    out
}

/// A SUBSCRIBE to one filter.
pub fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    const SUBSCRIBE: u8 = 0x82;
    let mut out = vec![SUBSCRIBE];
    remaining_length(&mut out, 2 + 2 + filter.len() + 1);
    out.extend_from_slice(&1_u16.to_be_bytes());
    text(&mut out, filter);
    out.push(qos);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn remaining_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::BytesMut;
    use rumqttc::mqttbytes::v4::Packet;

    use super::*;
    use crate::bench::rows::ROWS;

    fn parsed(bytes: &[u8]) -> Vec<Packet> {
        let mut bytes = BytesMut::from(bytes);
        let mut packets = Vec::new();
        while !bytes.is_empty() {
            packets.push(Packet::read(&mut bytes, 10_000).expect("a packet"));
        }
        packets
    }

    #[test]
    fn a_round_has_every_topic_of_the_row_and_no_packet_id_twice() {
        for row in ROWS {
            let mut topics = BTreeSet::new();
            for publisher in 0..4 {
                let packets = Packets::of(&row, "run", publisher, 4);
                let mut ids = BTreeSet::new();
                for packet in parsed(packets.from(0, u64::MAX).0) {
                    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                    assert_eq!(publish.qos as u8, row.qos);
                    assert!(row.qos == 0 || ids.insert(publish.pkid), "{}", publish.pkid);
                    topics.insert(publish.topic);
                }
            }
            assert_eq!(topics.len() as u64, row.topics, "{}", row.name);
        }
    }

    #[test]
    fn one_message_in_a_hundred_of_a_poisoned_row_is_spoilt() {
        for row in ROWS.iter().filter(|row| row.poison.is_some()) {
            let mut spoilt = 0;
            for publisher in 0..4 {
                let packets = Packets::of(row, "run", publisher, 4);
                let messages = share(row.messages, publisher, 4);
                let first = packets.from(0, u64::MAX).0;
                let rest = packets.from(0, messages - packets.len()).0;
                let is_bad = |packet: &Packet| {
                    let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                    !(publish.payload.ends_with(b"i") && publish.payload.contains(&b'='))
                };
                spoilt += [first, rest].iter().flat_map(|bytes| parsed(bytes)).filter(is_bad).count();
            }
            assert_eq!(spoilt as u64, bad(row, 4), "{}", row.name);
            assert!((row.messages / 101..=row.messages / 99).contains(&bad(row, 4)), "{}", row.name);
        }
        assert_eq!(bad(&ROWS[0], 4), 0);
    }

    #[test]
    fn publishers_go_round_and_share_all_messages() {
        let packets = Packets::of(&ROWS[0], "run", 0, 4);
        let (first, count) = packets.from(0, 3);
        assert_eq!((count, parsed(first).len()), (3, 3));
        assert_eq!(packets.from(packets.len(), 3), (first, 3));
        assert_eq!(packets.from(packets.len() - 1, 3).1, 1);
        assert_eq!((0..4).map(|publisher| share(10, publisher, 4)).collect::<Vec<_>>(), [3, 3, 2, 2]);
    }

    #[test]
    fn a_client_s_packets_are_read_by_another_codec() {
        let Packet::Connect(connect) = &parsed(&connect("me", false))[0] else { panic!("no CONNECT") };
        assert_eq!((connect.client_id.as_str(), connect.clean_session), ("me", false));
        let Packet::Subscribe(subscribe) = &parsed(&subscribe("a/#", 1))[0] else { panic!("no SUBSCRIBE") };
        assert_eq!((subscribe.filters[0].path.as_str(), subscribe.filters[0].qos as u8), ("a/#", 1));
    }
}
