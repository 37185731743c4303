//! A database that is away, or slower than what comes.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};

use crate::fakes::message;
use crate::{NUMBERS, start};

/// Telegraf, when the outage lasts: the oldest messages make room for new ones.
#[tokio::test]
async fn full_buffer_drops_oldest_here_none_is_dropped_however_many_wait() {
    const MESSAGES: u16 = 20_000;
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    let mut bytes = BytesMut::new();
    for id in 1..=MESSAGES {
        message("n/a", &id.to_string(), QoS::AtLeastOnce, id).write(&mut bytes).expect("a message");
    }
    peer.send_raw(&bytes).await;
    influx.asked(1).await;
    peer.quiet().await;
    influx.open(true);
    assert_eq!(peer.acknowledged(MESSAGES.into()).await, (1..=MESSAGES).collect::<Vec<_>>());
    let lines: Vec<String> = (1..=MESSAGES).map(|id| format!("numbers,x=a value={id}")).collect();
    assert_eq!(influx.stored(), lines);
    assert!(!bridge.get("/metrics").await.1.contains("messages_dropped_total{"), "something was dropped");
}

/// Best effort is that: what the database can't take is dropped, but counted, and memory is bounded.
#[tokio::test]
async fn full_buffer_of_qos_0_is_bounded_and_each_drop_is_counted() {
    const MESSAGES: usize = 400;
    let routes = "- {name: words, topic: 'w/{x}', qos: 0, payload: {string: {}}}\n";
    let (broker, influx, bridge) = start(routes).await;
    let mut peer = broker.accept(false, &["w/+"]).await;
    influx.open(false);
    let word = "x".repeat(60_000);
    let mut bytes = BytesMut::new();
    for _ in 0..MESSAGES {
        message("w/a", &word, QoS::AtMostOnce, 0).write(&mut bytes).expect("a message");
    }
    peer.send_raw(&bytes).await;
    // Behind all of them, and never dropped.
    peer.publish("w/a", "last", QoS::AtLeastOnce, 1).await;
    influx.asked(1).await;
    influx.open(true);
    assert_eq!(peer.acknowledged(1).await, [1]);
    let metrics = bridge.get("/metrics").await.1;
    let counted = metrics.lines().find_map(|line| {
        line.split_once("messages_dropped_total{reason=\"DatabaseTooSlow\"} ")?.1.parse::<usize>().ok()
    });
    let (stored, dropped) = (influx.stored().len() - 1, counted.expect("drops are counted"));
    assert_eq!(stored + dropped, MESSAGES);
    // 8 MiB may wait, beside what the first write took and one read brought.
    assert!((1..=2 * (8 << 20) / word.len() + 10).contains(&stored), "{stored} were kept");
}

/// EMQX acknowledges what its database does not take, and lets it expire in a queue of its own.
#[tokio::test]
async fn qos_1_loss_of_what_waits_longer_than_its_expiry_here_it_is_held_and_stored_in_the_end() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.script(|_| (503, "busy", None));
    for id in 1..=3 {
        let mut publish = message("n/a", &id.to_string(), QoS::AtLeastOnce, id);
        let expiry = PublishProperties { message_expiry_interval: Some(1), ..PublishProperties::default() };
        publish.properties = Some(expiry);
        peer.send(Packet::Publish(publish)).await;
    }
    bridge.status("a report", |status| status.database.reason == "Unavailable").await;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        peer.quiet().await;
    }
    influx.script(|_| (204, "", None));
    assert_eq!(peer.acknowledged(3).await, [1, 2, 3]);
    assert_eq!(influx.stored(), ["numbers,x=a value=1", "numbers,x=a value=2", "numbers,x=a value=3"]);
}
