//! Connections that are kept, lost and made again.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Connect, Packet};

use crate::fakes::{Peer, message};
use crate::{NUMBERS, start};

/// Clients whose handlers block while the database is slow: they stop pinging, and the broker cuts them.
#[tokio::test]
async fn backpressure_kills_keep_alive_not_even_when_nothing_more_is_read() {
    const MESSAGES: u16 = 1_200;
    let routes = "- {name: words, topic: 'w/{x}', qos: 1, payload: {string: {}}}\n";
    let (broker, influx, bridge) = start(routes).await;
    let mut peer = broker.accept(false, &["w/+"]).await;
    influx.open(false);
    // More than the bridge keeps in memory, so it stops reading; what the socket does not take waits here.
    let word = "x".repeat(60_000);
    let mut bytes = BytesMut::new();
    for id in 1..=MESSAGES {
        message("w/a", &word, QoS::AtLeastOnce, id).write(&mut bytes).expect("a message");
    }
    // No answer to a ping can be put between: it would be part of a message.
    peer.answers_pings = false;
    let rest = peer.send_and_listen(&bytes, Duration::from_secs(6)).await;
    assert!(!rest.is_empty(), "the bridge read everything");
    peer.quiet().await;
    assert!(peer.pings >= 6, "{} pings", peer.pings);
    bridge.status("a report", |status| status.broker.ready).await;
    peer.answers_pings = true;
    influx.open(true);
    peer.send_raw(rest).await;
    assert_eq!(peer.acknowledged(MESSAGES.into()).await, (1..=MESSAGES).collect::<Vec<_>>());
    assert_eq!(influx.stored().len(), usize::from(MESSAGES));
}

/// Telegraf from 1.32 to 1.37, and others: connected again, but subscribed no more.
#[tokio::test]
async fn reconnect_without_resubscribing_a_session_that_the_broker_forgot_is_subscribed_anew() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    for (round, present) in [false, false, true, false].into_iter().enumerate() {
        let mut peer = broker.accept(present, &["n/+"]).await;
        peer.publish("n/a", &round.to_string(), QoS::AtLeastOnce, 1).await;
        assert_eq!(peer.acknowledged(1).await, [1]);
        bridge.status("ready", |status| status.ready()).await;
    }
    assert_eq!(influx.stored().len(), 4);
}

/// Vector dials without a pause, and each of its starts leaves a session behind that nobody empties.
#[tokio::test]
async fn reconnect_storm_and_orphaned_queues_it_waits_longer_each_time_and_keeps_its_name() {
    let (broker, _influx, mut bridge) = start(NUMBERS).await;
    let mut names = Vec::new();
    let mut waits = Vec::new();
    for _ in 0..5 {
        let since = Instant::now();
        let peer = broker.accept(true, &["n/+"]).await;
        waits.push(since.elapsed());
        names.push(connect(&peer).client_id.clone());
    }
    bridge.crash_and_start().await;
    names.push(connect(&broker.accept(true, &["n/+"]).await).client_id.clone());
    assert!(names.iter().all(|name| name == "lab-bridge"), "{names:?}");
    // Each wait is between half and all of 100 ms, 200 ms, 400 ms, 800 ms.
    assert!(waits[4] >= Duration::from_millis(390), "{waits:?}");
}

fn connect(peer: &Peer) -> &Connect {
    peer.asked.as_ref().expect("it has connected")
}

/// Vector: acknowledgements in another order than the messages', or of the connection before.
#[tokio::test]
async fn ack_races_a_message_between_two_batches_and_two_connections_is_acknowledged_once_and_in_order() {
    let (broker, influx, _bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    for id in 1..=3 {
        peer.publish("n/a", &id.to_string(), QoS::AtLeastOnce, id).await;
    }
    influx.asked(1).await;
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    // Redelivered, and a new one behind, while the answer to the first write is still awaited.
    for id in 1..=4 {
        let mut again = message("n/a", &id.to_string(), QoS::AtLeastOnce, id);
        again.dup = id < 4;
        peer.send(Packet::Publish(again)).await;
    }
    peer.quiet().await;
    influx.open(true);
    assert_eq!(peer.acknowledged(4).await, [1, 2, 3, 4]);
    peer.quiet().await;
}

/// rumqttc and Vector take 10 KiB by default: a larger message ends the connection, comes again, ends it.
#[tokio::test]
async fn oversize_loop_the_largest_packet_is_told_to_the_broker_and_up_to_it_all_is_taken() {
    let (broker, influx, _bridge) =
        start("- {name: big, topic: 'b/{x}', payload: {json: {fields: [{path: v, type: float}]}}}\n").await;
    let mut peer = broker.accept(false, &["b/+"]).await;
    let told = connect(&peer).properties.as_ref().and_then(|all| all.max_packet_size).expect("a limit");
    assert_eq!(told, 2_000_000);
    let frame = r#"{"v": 1, "padding": ""}"#.len() + "b/a".len() + 20;
    let padding = "x".repeat(told as usize - frame);
    for id in 1..=3 {
        let payload = format!(r#"{{"v": {id}, "padding": "{padding}"}}"#);
        peer.publish("b/a", &payload, QoS::AtLeastOnce, id).await;
        assert_eq!(peer.acknowledged(1).await, [id]);
    }
    assert_eq!(influx.stored().len(), 3);
}
