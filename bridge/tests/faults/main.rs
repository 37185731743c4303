//! What goes wrong between a bridge, a broker and a database, one test a fault.

#![allow(missing_docs)]

mod certificates;
mod complaints;
mod fakes;
mod holding;
mod rebirth;
mod refusals;
mod repetition;
mod version;
mod websockets;

use std::time::{Duration, Instant};

use fakes::{Bridge, FakeBroker, FakeInflux, message};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason, SubscribeReasonCode};

const NUMBERS: &str = "- {name: numbers, topic: 'n/{x}', qos: 2, payload: {float: {}}}\n";
const CONFLICT: &str = r#"{"code": "unprocessable entity", "message": "partial write: field type conflict"}"#;

async fn start(routes: &str) -> (FakeBroker, FakeInflux, Bridge) {
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let bridge = Bridge::start(&broker, &influx, routes).await;
    (broker, influx, bridge)
}

#[tokio::test]
async fn a_message_is_acknowledged_after_it_is_stored_and_not_before() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    peer.publish("n/a", "1", QoS::AtLeastOnce, 7).await;
    peer.publish("n/b", "2", QoS::AtLeastOnce, 3).await;
    influx.asked(1).await;
    peer.quiet().await;
    influx.open(true);
    assert_eq!(peer.acknowledged(2).await, [7, 3], "in order of receipt");
    assert_eq!(influx.stored(), ["numbers,x=a value=1", "numbers,x=b value=2"]);
    bridge.status("ready", |status| status.ready()).await;
    assert_eq!(bridge.get("/readyz").await, (200, "ok\n".into()));
}

#[tokio::test]
async fn an_acknowledgement_does_not_cross_a_reconnect() {
    let (broker, influx, _bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    influx.asked(1).await;
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    influx.open(true);
    peer.quiet().await;
    peer.publish("n/b", "2", QoS::AtLeastOnce, 1).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
    assert_eq!(influx.stored().last().expect("a line"), "numbers,x=b value=2");
}

#[tokio::test]
async fn what_waits_when_the_broker_goes_is_stored_whether_it_comes_again_or_not() {
    for resumed in [true, false] {
        let (broker, influx, _bridge) = start(NUMBERS).await;
        let mut peer = broker.accept(false, &["n/+"]).await;
        influx.open(false);
        peer.publish("n/first", "1", QoS::AtLeastOnce, 1).await;
        influx.asked(1).await;
        peer.publish("n/waiting", "2", QoS::AtLeastOnce, 2).await;
        peer.send_raw(&[0xE0, 0]).await;
        let mut peer = broker.accept(resumed, &["n/+"]).await;
        peer.publish("n/last", "3", QoS::AtLeastOnce, 3).await;
        influx.open(true);
        assert_eq!(peer.acknowledged(1).await, [3]);
        // A broker that was killed may have acknowledged it and not saved it.
        assert!(influx.stored().contains(&"numbers,x=waiting value=2".into()), "resumed: {resumed}");
    }
}

#[tokio::test]
async fn pings_go_out_while_the_database_is_stalled() {
    let (broker, influx, _bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    influx.asked(1).await;
    let before = peer.pings;
    while peer.pings < before + 3 {
        peer.quiet().await;
    }
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_reported_and_left() {
    let (broker, _influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    bridge.status("ready", |status| status.ready()).await;
    peer.answers_pings = false;
    let silent = Instant::now();
    bridge.status("a report", |status| status.broker.reason == "Unresponsive").await;
    assert!(silent.elapsed() < Duration::from_secs(5));
    let _peer = broker.accept(true, &["n/+"]).await;
    bridge.status("ready", |status| status.ready()).await;
}

#[tokio::test]
async fn a_dead_letter_that_the_broker_refuses_is_counted_and_blocks_nothing() {
    let (broker, _influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    peer.publish("n/a", "no number", QoS::AtLeastOnce, 5).await;
    let (id, topic, payload, reason) = peer.dead_letter().await;
    assert_eq!((topic.as_str(), payload.as_str()), ("iotpipeline/lab/dead-letter/numbers", "no number"));
    assert_eq!(reason, "the payload is \"no number\", and the route expects a finite number");
    peer.quiet().await;
    peer.answer_letter(id, PubAckReason::NotAuthorized).await;
    assert_eq!(peer.acknowledged(1).await, [5]);
    let metrics = bridge.get("/metrics").await.1;
    assert!(metrics.contains("dead_letters_dropped_total{route=\"numbers\"} 1"), "{metrics}");
}

#[tokio::test]
async fn more_large_dead_letters_than_fit_into_memory_leave_messages_with_the_broker() {
    const MESSAGES: u16 = 20;
    let (broker, _influx, _bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let large = "x".repeat(1_500_000);
    for id in 1..=MESSAGES {
        peer.publish("n/a", &large, QoS::AtLeastOnce, id).await;
    }
    // No letter is answered before.
    let mut acknowledged = Vec::new();
    loop {
        match peer.packet().await {
            Packet::Publish(letter) => peer.answer_letter(letter.pkid, PubAckReason::Success).await,
            Packet::PubAck(ack) => acknowledged.push(ack.pkid),
            Packet::Disconnect(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acknowledged, (1..=12).collect::<Vec<_>>(), "16 MiB and the last one");
    let mut peer = broker.accept(true, &["n/+"]).await;
    for id in 13..=MESSAGES {
        peer.publish("n/a", &large, QoS::AtLeastOnce, id).await;
    }
    while acknowledged.len() < MESSAGES.into() {
        match peer.packet().await {
            Packet::Publish(letter) => peer.answer_letter(letter.pkid, PubAckReason::Success).await,
            Packet::PubAck(ack) => acknowledged.push(ack.pkid),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acknowledged, (1..=MESSAGES).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refused_message_before_a_change_of_routes_holds_up_nothing_after_it() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let before = bridge.status("ready", |status| status.ready()).await;
    peer.publish("n/a", "no number", QoS::AtLeastOnce, 1).await;
    let (letter, ..) = peer.dead_letter().await;
    peer.answer_letter(letter, PubAckReason::Success).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
    bridge.set_routes(&NUMBERS.replace("numbers", "figures"));
    bridge.status("the new hash", |status| status.config_hash != before.config_hash).await;
    peer.publish("n/a", "2", QoS::AtLeastOnce, 2).await;
    assert_eq!(peer.acknowledged(1).await, [2]);
    assert_eq!(influx.stored(), ["figures,x=a value=2"]);
}

#[tokio::test]
async fn a_bad_configuration_is_refused_and_the_one_before_stays() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let before = bridge.status("ready", |status| status.ready()).await;
    bridge.set_routes("- {name: r, topic: 'a/#/b', payload: {float: {}}}\n");
    let refused = bridge.status("a refusal", |status| status.config_error.is_some()).await;
    assert_eq!(refused.config_hash, before.config_hash);
    let error = refused.config_error.expect("an error");
    assert!(error.contains("it must be the last"), "{error}");
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
    assert_eq!(influx.stored().len(), 1);
    bridge.set_routes(NUMBERS);
    bridge.status("no refusal", |status| status.config_error.is_none()).await;
}

#[tokio::test]
async fn told_to_stop_it_stores_and_acknowledges_what_it_has_and_leaves_the_rest() {
    let (broker, influx, mut bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    influx.asked(1).await;
    bridge.stop();
    peer.quiet().await;
    peer.publish("n/b", "2", QoS::AtLeastOnce, 2).await;
    peer.quiet().await;
    influx.open(true);
    assert_eq!(peer.acknowledged(1).await, [1]);
    assert!(matches!(peer.packet().await, Packet::Disconnect(_)));
    bridge.ended().await;
    assert_eq!(influx.stored(), ["numbers,x=a value=1"]);
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_reported_and_a_new_one_used_at_once() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.set_token("another");
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    let status = bridge.status("a report", |status| status.database.reason == "NotAuthorized").await;
    assert!(!status.ready() && !status.database.message.contains("secret"));
    assert_eq!(bridge.get("/readyz").await.0, 503);
    peer.quiet().await;
    bridge.set_token("another");
    assert_eq!(peer.acknowledged(1).await, [1]);
    bridge.status("ready", |status| status.ready()).await;
}

#[tokio::test]
async fn a_wait_that_the_database_asks_for_is_kept() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let mut first = None;
    influx.script(move |_| match first {
        Some(at) if Instant::elapsed(&at) >= Duration::from_secs(2) => (204, "", None),
        Some(_) => panic!("too early"),
        None => {
            first = Some(Instant::now());
            (503, "busy", Some("2"))
        }
    });
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    bridge.status("a report", |status| status.database.reason == "Unavailable").await;
    assert_eq!(peer.acknowledged(1).await, [1]);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_written_in_parts() {
    let (broker, influx, _bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.script(|lines| if lines.lines().count() > 2 { (413, "", None) } else { (204, "", None) });
    let mut bytes = bytes::BytesMut::new();
    for id in 1..=9 {
        message("n/a", &id.to_string(), QoS::AtLeastOnce, id).write(&mut bytes).expect("a message");
    }
    peer.send_raw(&bytes).await;
    assert_eq!(peer.acknowledged(9).await, (1..=9).collect::<Vec<u16>>());
    assert_eq!(influx.stored().len(), 9);
}

#[tokio::test]
async fn a_broker_that_refuses_says_why_in_the_status() {
    let (broker, _influx, bridge) = start(NUMBERS).await;
    broker.answer(ConnectReturnCode::NotAuthorized, false).await.closed().await;
    let status = bridge.status("a report", |status| status.broker.reason == "NotAuthorized").await;
    assert!(!status.ready());
    let mut peer = broker.answer(ConnectReturnCode::Success, false).await;
    peer.answer_subscribe(SubscribeReasonCode::NotAuthorized).await;
    let status = bridge.status("a report", |status| status.broker.reason == "SubscriptionRefused").await;
    assert!(status.broker.message.contains("n/+"), "{}", status.broker.message);
    peer.grant().await;
    bridge.status("ready", |status| status.ready()).await;
}

#[tokio::test]
async fn packets_may_come_in_any_pieces() {
    let (broker, influx, _bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let mut bytes = bytes::BytesMut::new();
    for id in 1..=3 {
        message("n/é", &id.to_string(), QoS::AtLeastOnce, id).write(&mut bytes).expect("a message");
    }
    for byte in bytes {
        peer.send_raw(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(peer.acknowledged(3).await, [1, 2, 3]);
    assert_eq!(influx.stored().len(), 3);
}

#[tokio::test]
async fn a_broker_that_breaks_the_protocol_is_left_and_tried_again() {
    let (broker, _influx, bridge) = start(NUMBERS).await;
    for garbage in [&[0x30, 0xff, 0xff, 0xff, 0xff][..], &[0x36, 5, 0, 1, b'a', 0, 1], &[0x90, 1, 0]] {
        let mut peer = broker.accept(false, &["n/+"]).await;
        peer.send_raw(garbage).await;
        peer.closed().await;
    }
    let _peer = broker.accept(false, &["n/+"]).await;
    bridge.status("ready", |status| status.ready()).await;
}

#[tokio::test]
async fn a_payload_above_the_bound_is_a_dead_letter_and_the_others_are_stored() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let before = bridge.status("ready", |status| status.ready()).await;
    bridge.set_routes(&format!("{NUMBERS}maxMessageSize: 4\n"));
    bridge.status("the bound", |status| status.config_hash != before.config_hash).await;
    peer.publish("n/a", "1.25", QoS::AtLeastOnce, 1).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
    peer.publish("n/a", "1.125", QoS::AtLeastOnce, 2).await;
    let (id, _, payload, reason) = peer.dead_letter().await;
    assert_eq!(payload, "1.125");
    assert_eq!(reason, "the payload has 5 bytes, and bridge.maxMessageSize is 4");
    peer.answer_letter(id, PubAckReason::Success).await;
    assert_eq!(peer.acknowledged(1).await, [2]);
    assert_eq!(influx.stored(), ["numbers,x=a value=1.25"]);
}
