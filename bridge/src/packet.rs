//! MQTT packets: framing and PUBLISH, which are hot, are read here from borrowed bytes; all others
//! go through rumqttc's codecs ([`crate::version`]), one whole frame at a time.
//!
//! Whole frames only, because those codecs say "more bytes needed" of a malformed packet too.
//! <https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html>

use rumqttc::v5::mqttbytes::v5::Packet;

use crate::properties::{self, Properties, Property};
use crate::version::Version;

const PUBLISH: u8 = 3;

/// Bytes from the broker that are no packet, or one that a broker must not send.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum PacketError {
    /// The length's four bytes all say that more follow.
    #[error("the broker sent a malformed packet length")]
    Length,
    /// More than was announced as acceptable.
    #[error("the broker sent a packet of {size} bytes, but only {max} were allowed: raise maxPacketSize")]
    TooLarge {
        /// The packet's size.
        size: usize,
        /// What was announced.
        max: usize,
    },
    /// Not a packet.
    #[error("the broker sent a malformed packet: {0}")]
    Malformed(String),
    /// A packet of the bridge's own that is none.
    #[error("a packet can't be written: {0}")]
    Unwritable(String),
    /// An alias, though none was allowed.
    #[error("the broker used a topic alias, though the bridge allows none")]
    TopicAlias,
}

/// One packet from the broker.
#[derive(Debug)]
pub enum Incoming<'f> {
    /// A message.
    Publish(Publish<'f>),
    /// Any other.
    Other(Box<Packet>),
    /// The broker closes the connection and gives no reason.
    Disconnect,
}

/// A message, borrowed from the read buffer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Publish<'f> {
    /// The broker says that it has sent it before.
    pub dup: bool,
    /// Quality of service: 0, 1 or 2.
    pub qos: u8,
    /// The packet id; 0 for QoS 0.
    pub packet_id: u16,
    /// The topic's bytes; not checked to be UTF-8.
    pub topic: &'f [u8],
    /// What was published.
    pub payload: &'f [u8],
    /// Bytes of the payload that are not read, since the packet is too large.
    pub unread: usize,
    /// Which subscriptions this copy is for.
    pub subscriptions: Subscriptions,
    /// Whether the broker had retained it, and delivers it because the subscription is new. Brokers clear
    /// the flag of what they deliver as it is published, since the bridge does not ask for it as published.
    pub retained: bool,
    /// What else came with it.
    pub properties: Properties<'f>,
}

/// Subscription identifiers of one message; nearly always one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Subscriptions {
    ids: [u32; 8],
    count: usize,
    /// More than there is room for: then they tell nothing.
    overflow: bool,
}

impl Subscriptions {
    fn push(&mut self, id: u32) {
        match self.ids.get_mut(self.count) {
            Some(slot) => {
                *slot = id;
                self.count += 1;
            }
            None => self.overflow = true,
        }
    }

    /// The identifiers; empty if the broker told none.
    pub fn ids(&self) -> &[u32] {
        if self.overflow { &[] } else { &self.ids[..self.count] }
    }
}

/// The length of the frame at the start of the bytes, or nothing if more bytes are needed to know it.
///
/// # Errors
/// If it is malformed, or longer than `max`.
pub fn frame_length(bytes: &[u8], max: usize) -> Result<Option<usize>, PacketError> {
    let Some((length, header)) = variable_integer(bytes.get(1..).unwrap_or_default())? else {
        return Ok(None);
    };
    let size = 1 + header + length as usize;
    if size > max { Err(PacketError::TooLarge { size, max }) } else { Ok(Some(size)) }
}

/// A number of up to four bytes and how many it took, or nothing if it goes on after the end.
pub(crate) fn variable_integer(bytes: &[u8]) -> Result<Option<(u32, usize)>, PacketError> {
    let mut value = 0;
    for (place, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((value, place + 1)));
        }
    }
    if bytes.len() >= 4 { Err(PacketError::Length) } else { Ok(None) }
}

/// Reads one whole frame.
///
/// # Errors
/// If it is malformed.
pub fn parse(frame: &[u8], version: Version) -> Result<Incoming<'_>, PacketError> {
    const DISCONNECT: u8 = 14;
    match frame {
        [first, ..] if first >> 4 == PUBLISH => publish(frame, version).map(Incoming::Publish),
        // rumqttc's codec refuses the short form, which the specification allows (section 3.14.2.1).
        [first, 0] if first >> 4 == DISCONNECT => Ok(Incoming::Disconnect),
        _ => version.read(frame).map(|packet| Incoming::Other(packet.into())),
    }
}

fn publish(frame: &[u8], version: Version) -> Result<Publish<'_>, PacketError> {
    let malformed = |what: &str| PacketError::Malformed(format!("{what} in PUBLISH"));
    let qos = (frame[0] >> 1) & 3;
    if qos == 3 {
        return Err(malformed("quality of service 3"));
    }
    let (_, header) = variable_integer(&frame[1..])?.ok_or(PacketError::Length)?;
    let mut rest = &frame[1 + header..];
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at_checked(count).ok_or_else(|| malformed("too few bytes"))?;
        rest = tail;
        Ok::<_, PacketError>(head)
    };
    let topic_length = usize::from(u16_of(take(2)?));
    let topic = take(topic_length)?;
    let packet_id = if qos == 0 { 0 } else { u16_of(take(2)?) };
    if qos > 0 && packet_id == 0 {
        return Err(malformed("packet id 0"));
    }
    let (properties, payload) = match version {
        Version::V311 => (&[][..], rest),
        Version::V5 => {
            let (length, header) = variable_integer(rest)?.ok_or_else(|| malformed("too few bytes"))?;
            let split = rest[header..].split_at_checked(length as usize);
            split.ok_or_else(|| malformed("properties longer than the packet"))?
        }
    };
    let subscriptions = subscriptions(properties)?;
    let (retained, dup) = (frame[0] & 1 == 1, frame[0] & 8 == 8);
    let properties = Properties::new(properties);
    if topic.is_empty() {
        // In 3.1.1 there are no aliases, and no empty topics either.
        return Err(match version {
            Version::V5 => PacketError::TopicAlias,
            Version::V311 => malformed("an empty topic"),
        });
    }
    Ok(Publish { dup, qos, packet_id, topic, payload, unread: 0, subscriptions, retained, properties })
}

/// The beginning of a message of 3.1.1 that is larger than packets may be, and the beginning's length; nothing if
/// more bytes are needed to know it. In 3.1.1 no broker is told how large packets may be, and one that ended
/// the connection for it would be sent the same again, for ever.
///
/// # Errors
/// If it is no message, or malformed.
pub fn oversized(bytes: &[u8], size: usize, max: usize) -> Result<Option<(Publish<'_>, usize)>, PacketError> {
    if bytes.first().is_none_or(|first| first >> 4 != PUBLISH) {
        return Err(PacketError::TooLarge { size, max });
    }
    let (_, header) = variable_integer(&bytes[1..])?.ok_or(PacketError::Length)?;
    let Some(topic) = bytes.get(1 + header..3 + header) else { return Ok(None) };
    let length = (3 + header + usize::from(u16_of(topic)) + 2).min(size);
    let Some(beginning) = bytes.get(..length) else { return Ok(None) };
    let message = publish(beginning, Version::V311)?;
    Ok(Some((Publish { unread: size - length + message.payload.len(), payload: &[], ..message }, length)))
}

fn u16_of(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// Walks over a message's properties (section 3.3.2.3) and picks the subscription identifiers.
fn subscriptions(mut properties: &[u8]) -> Result<Subscriptions, PacketError> {
    let mut found = Subscriptions::default();
    while let Some(property) = properties::next(&mut properties) {
        match property {
            Ok(Property::Subscription(id)) => found.push(id),
            Ok(Property::TopicAlias) => return Err(PacketError::TopicAlias),
            Ok(_) => {}
            Err(_) => return Err(PacketError::Malformed("a malformed property in PUBLISH".into())),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Publish as TheirPublish, PublishProperties};

    use super::*;

    #[test]
    fn a_frame_is_known_by_its_length_alone() {
        assert_eq!(frame_length(&[], 100), Ok(None));
        assert_eq!(frame_length(&[0x30], 100), Ok(None));
        assert_eq!(frame_length(&[0x30, 0x80], 100), Ok(None));
        assert_eq!(frame_length(&[0x30, 0x80, 0x01], 200), Ok(Some(131)));
        assert_eq!(
            frame_length(&[0x30, 0x80, 0x01], 130),
            Err(PacketError::TooLarge { size: 131, max: 130 })
        );
        assert_eq!(frame_length(&[0x30, 0xff, 0xff, 0xff, 0xff], 100), Err(PacketError::Length));
    }

    #[test]
    fn the_beginning_of_a_message_that_is_too_large_tells_its_topic_and_packet_id() {
        let frame = [&[0x32, 0xe8, 0x07, 0, 1, b'a', 0, 9][..], &[b'x'; 995]].concat();
        for known in 3..8 {
            assert_eq!(oversized(&frame[..known], 1_003, 1_000), Ok(None));
        }
        let (message, length) = oversized(&frame, 1_003, 1_000).expect("a message").expect("enough");
        assert_eq!((message.topic, message.packet_id, message.payload), (&b"a"[..], 9, &b""[..]));
        assert_eq!((message.unread, length), (995, 8));
        let error = PacketError::TooLarge { size: 1_003, max: 1_000 };
        assert_eq!(oversized(&[0x90, 0xe8, 0x07], 1_003, 1_000), Err(error));
    }

    #[test]
    fn the_short_disconnect_is_one() {
        assert!(matches!(parse(&[0xe0, 0], Version::V5), Ok(Incoming::Disconnect)));
    }

    #[test]
    fn a_topic_alias_is_refused() {
        let frame = [0x30, 7, 0, 0, 3, 0x23, 0, 1, b'x'];
        assert_eq!(publish(&frame, Version::V5), Err(PacketError::TopicAlias));
        assert!(matches!(publish(&[0x30, 2, 0, 0], Version::V311), Err(PacketError::Malformed(_))));
    }

    fn properties() -> impl Strategy<Value = Option<PublishProperties>> {
        prop::option::of(
            (any::<bool>(), prop::collection::vec(1..268_435_455_usize, 0..4), "[a-é]{0,9}").prop_map(
                |(full, subscription_identifiers, text)| PublishProperties {
                    payload_format_indicator: full.then_some(1),
                    message_expiry_interval: full.then_some(70_000),
                    response_topic: full.then(|| text.clone()),
                    correlation_data: full.then(|| text.clone().into()),
                    user_properties: if full { vec![(text.clone(), "v".into())] } else { vec![] },
                    content_type: full.then_some(text),
                    topic_alias: None,
                    subscription_identifiers,
                },
            ),
        )
    }

    proptest! {
        #[test]
        fn a_message_reads_as_rumqttc_wrote_it(
            topic in "[a-zé/]{1,20}", payload in prop::collection::vec(any::<u8>(), 0..200),
            qos in 0..3_u8, packet_id in 1..=u16::MAX, properties in properties(),
            retain in any::<bool>(), dup in any::<bool>(),
        ) {
            let level = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)];
            let mut theirs = TheirPublish::new(topic.clone(), level, payload.clone(), properties.clone());
            theirs.pkid = packet_id;
            theirs.retain = retain;
            theirs.dup = dup;
            let mut frame = BytesMut::new();
            theirs.write(&mut frame).expect("they can write it");
            prop_assert_eq!(frame_length(&frame, usize::MAX), Ok(Some(frame.len())));
            let ours = publish(&frame, Version::V5).expect("we can read it");
            prop_assert_eq!(ours.topic, topic.as_bytes());
            prop_assert_eq!(ours.payload, &payload[..]);
            prop_assert_eq!(ours.qos, qos);
            prop_assert_eq!(ours.packet_id, if qos == 0 { 0 } else { packet_id });
            prop_assert_eq!((ours.retained, ours.dup), (retain, dup));
            let content_type = properties.as_ref().and_then(|all| all.content_type.as_deref());
            prop_assert_eq!(ours.properties.content_type(), content_type.map(str::as_bytes));
            for (name, value) in properties.iter().flat_map(|all| &all.user_properties) {
                prop_assert_eq!(ours.properties.user(name), Some(value.as_bytes()));
            }
            let ids: Vec<usize> = ours.subscriptions.ids().iter().map(|id| *id as usize).collect();
            prop_assert_eq!(ids, properties.map(|all| all.subscription_identifiers).unwrap_or_default());
        }

        #[test]
        fn a_message_of_3_1_1_reads_as_rumqttc_wrote_it(
            topic in "[a-zé/]{1,20}", payload in prop::collection::vec(any::<u8>(), 0..200),
            qos in 0..3_u8, packet_id in 1..=u16::MAX, retain in any::<bool>(), dup in any::<bool>(),
        ) {
            use rumqttc::mqttbytes::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
            let level = [AtMostOnce, AtLeastOnce, ExactlyOnce][usize::from(qos)];
            let mut theirs = rumqttc::mqttbytes::v4::Publish::new(topic.clone(), level, payload.clone());
            (theirs.retain, theirs.dup) = (retain, dup);
            theirs.pkid = if qos == 0 { 0 } else { packet_id };
            let mut frame = BytesMut::new();
            theirs.write(&mut frame).expect("they can write it");
            let ours = publish(&frame, Version::V311).expect("we can read it");
            let expected = Publish {
                dup, qos, packet_id: theirs.pkid, topic: topic.as_bytes(), payload: &payload, retained: retain,
                ..Publish::default()
            };
            prop_assert_eq!(ours, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(Some(length)) = frame_length(&bytes, 1_000) && let Some(frame) = bytes.get(..length) {
                drop((parse(frame, Version::V5), parse(frame, Version::V311)));
            }
        }
    }
}
