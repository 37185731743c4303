//! Messages that can't be stored, alone and among others that can.

use std::collections::HashMap;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, PublishProperties};

use crate::fakes::{Peer, message};
use crate::{CONFLICT, NUMBERS, start};

/// Telegraf with mosquitto's window of 20: 20 messages that can't be stored, and nothing comes any more.
#[tokio::test]
async fn poison_wedge_more_bad_messages_than_the_window_holds_do_not_stop_delivery() {
    const WINDOW: u16 = 20;
    let (broker, influx, _bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.script(|lines| if lines.contains(" value=13") { (422, CONFLICT, None) } else { (204, "", None) });
    // Some are refused by their route, some by the database.
    for (round, payload) in ["no number", "13", "no number", "13"].into_iter().enumerate() {
        for id in 1..=WINDOW {
            peer.publish("n/a", payload, QoS::AtLeastOnce, id).await;
        }
        let acknowledged = bury(&mut peer, WINDOW).await;
        assert_eq!(acknowledged, (1..=WINDOW).collect::<Vec<_>>(), "round {round}");
    }
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
    assert_eq!(influx.stored(), ["numbers,x=a value=1"]);
}

/// Takes dead letters until so many messages are acknowledged.
pub(crate) async fn bury(peer: &mut Peer, count: u16) -> Vec<u16> {
    let mut acknowledged = Vec::new();
    while acknowledged.len() < count.into() {
        match peer.packet().await {
            Packet::Publish(letter) => peer.answer_letter(letter.pkid, PubAckReason::Success).await,
            Packet::PubAck(ack) => acknowledged.push(ack.pkid),
            other => panic!("{other:?}"),
        }
    }
    acknowledged
}

/// Topics and payloads, each of which its route's format can't read.
const UNREADABLE: [(&str, &[u8]); 8] = [
    ("p/boolean", b"maybe"),
    ("p/cbor", b"\xa1\x61v"),
    ("p/float", b"warm"),
    ("p/integer", b"1.5"),
    ("p/json", b"{\"v\": 1"),
    ("p/lineProtocol", b"m v="),
    ("p/messagePack", b"\xc1"),
    ("p/string", b"\xff\xfe"),
];

/// Telegraf acknowledges what it can't parse, and keeps nothing of it but a line in its log.
#[tokio::test]
async fn silent_drops_of_what_can_not_be_parsed_its_dead_letter_is_taken_before_it_is_acknowledged() {
    let object = "fields: [{path: v, type: float}]";
    let routes: String = UNREADABLE
        .iter()
        .map(|(topic, _)| {
            let format = &topic[2..];
            let settings = if matches!(format, "json" | "cbor" | "messagePack") { object } else { "" };
            format!(
                "- {{name: {}, topic: {topic}, payload: {{{format}: {{{settings}}}}}}}\n",
                format.to_lowercase()
            )
        })
        .collect();
    let (broker, influx, bridge) = start(&routes).await;
    let mut peer = broker.accept(false, &UNREADABLE.map(|(topic, _)| topic)).await;
    for (id, (topic, payload)) in (1..).zip(UNREADABLE) {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, None);
        publish.pkid = id;
        publish.properties =
            Some(PublishProperties { message_expiry_interval: Some(60), ..PublishProperties::default() });
        peer.send(Packet::Publish(publish)).await;
        let packet = peer.packet().await;
        let Packet::Publish(letter) = packet else { panic!("{topic}: no dead letter: {packet:?}") };
        let route = topic[2..].to_lowercase();
        assert_eq!(letter.topic, format!("iotpipeline/lab/dead-letter/{route}"));
        assert_eq!(letter.payload, payload, "{topic}");
        let properties = letter.properties.expect("a reason");
        let [(reason_key, reason), from] = &properties.user_properties[..] else { panic!("{properties:?}") };
        assert!(reason_key == "reason" && !reason.is_empty(), "{topic}: {properties:?}");
        assert_eq!(from, &("topic".to_owned(), topic.to_owned()));
        assert_eq!(properties.message_expiry_interval, None, "a dead letter waits for whoever reads it");
        peer.quiet().await;
        peer.answer_letter(letter.pkid, PubAckReason::Success).await;
        assert_eq!(peer.acknowledged(1).await, [id], "{topic}");
    }
    assert!(influx.stored().is_empty());
    let metrics = bridge.get("/metrics").await.1;
    for (topic, _) in UNREADABLE {
        let counted = format!("dead_letters_total{{route=\"{}\"}} 1\n", topic[2..].to_lowercase());
        assert!(metrics.contains(&counted), "{counted}{metrics}");
    }
}

/// Telegraf takes the whole batch for rejected. InfluxDB stores the good points of a batch at 422, and none at 400.
#[tokio::test]
async fn one_bad_point_that_the_database_refuses_is_a_dead_letter_and_the_others_are_stored() {
    for status in [422, 400] {
        one_of_ten_is_refused(status).await;
    }
}

async fn one_of_ten_is_refused(status: u16) {
    let (broker, influx, _bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.script(move |lines| match lines.contains("value=13 ") {
        true => (status, CONFLICT, None),
        false => (204, "", None),
    });
    for id in 10..20 {
        peer.publish("n/a", &id.to_string(), QoS::AtLeastOnce, id).await;
    }
    let mut acknowledged = Vec::new();
    let letter = loop {
        match peer.packet().await {
            Packet::PubAck(ack) => acknowledged.push(ack.pkid),
            Packet::Publish(letter) => break letter,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(&letter.topic[..], b"iotpipeline/lab/dead-letter/numbers");
    assert_eq!(&letter.payload[..], b"13");
    let properties = letter.properties.expect("a reason").user_properties;
    assert_eq!(properties[0], ("reason".into(), "partial write: field type conflict".into()));
    assert_eq!(properties[1], ("topic".into(), "n/a".into()));
    while acknowledged.len() < 3 {
        acknowledged.extend(peer.acknowledged(1).await);
    }
    peer.quiet().await;
    peer.answer_letter(letter.pkid, PubAckReason::Success).await;
    acknowledged.extend(peer.acknowledged(7).await);
    assert_eq!(acknowledged, (10..20).collect::<Vec<u16>>());
    assert_eq!(influx.stored().len(), 9);
}

/// EMQX fails the batch in which a message lacks a field.
#[tokio::test]
async fn one_bad_point_that_lacks_a_field_leaves_the_batch_whole() {
    let (broker, influx, _bridge) =
        start("- {name: o, topic: 'o/{x}', payload: {json: {fields: [{path: v, type: float}]}}}\n").await;
    let mut peer = broker.accept(false, &["o/+"]).await;
    let mut bytes = bytes::BytesMut::new();
    for (id, payload) in [(1, r#"{"v": 1}"#), (2, r#"{"w": 2}"#), (3, r#"{"v": 3}"#)] {
        message("o/a", payload, QoS::AtLeastOnce, id).write(&mut bytes).expect("a message");
    }
    peer.send_raw(&bytes).await;
    assert_eq!(bury(&mut peer, 3).await, [1, 2, 3]);
    assert_eq!(influx.stored(), ["o,x=a v=1", "o,x=a v=3"]);
}

/// As InfluxDB does: a field keeps the type of its first value.
fn typed() -> impl FnMut(&str) -> (u16, &'static str, Option<&'static str>) + Send + 'static {
    let mut known = HashMap::new();
    move |lines| {
        for line in lines.lines() {
            let (series, rest) = line.split_once(' ').expect("fields");
            let measurement = series.split(',').next().expect("a measurement");
            let (field, value) =
                rest.split(' ').next().and_then(|field| field.split_once('=')).expect("a field");
            let is_integer = value.ends_with('i');
            let known = known.entry((measurement.to_owned(), field.to_owned())).or_insert(is_integer);
            if *known != is_integer {
                return (422, CONFLICT, None);
            }
        }
        (204, "", None)
    }
}

/// Bridges that guess: 341.7 makes a float of a field, 360 comes as an integer, and is refused for ever.
#[tokio::test]
async fn int_float_conflicts_360_after_341_7_and_a_whole_number_in_json_are_floats_too() {
    let routes = "
- {name: any, topic: f/any, payload: {json: {fields: [{path: '*', type: float}]}}}
- {name: bare, topic: f/bare, payload: {float: {}}}
- {name: count, topic: f/count, payload: {integer: {}}}
- {name: json, topic: f/json, payload: {json: {fields: [{path: v, type: float}]}}}
";
    let (broker, influx, _bridge) = start(routes).await;
    let mut peer = broker.accept(false, &["f/any", "f/bare", "f/count", "f/json"]).await;
    influx.script(typed());
    let messages = [
        ("bare", "341.7", "bare value=341.7"),
        ("bare", "360", "bare value=360"),
        ("json", r#"{"v": 341.7}"#, "json v=341.7"),
        ("json", r#"{"v": 360}"#, "json v=360"),
        ("any", r#"{"v": 1.5}"#, "any v=1.5"),
        ("any", r#"{"v": 2}"#, "any v=2"),
        ("count", "12", "count value=12i"),
        ("count", "12.0", "count value=12i"),
    ];
    for (id, (topic, payload, _)) in (1..).zip(messages) {
        peer.publish(&format!("f/{topic}"), payload, QoS::AtLeastOnce, id).await;
    }
    assert_eq!(peer.acknowledged(8).await, (1..=8).collect::<Vec<_>>(), "none is refused");
    assert_eq!(influx.stored(), messages.map(|(.., line)| line));
}
