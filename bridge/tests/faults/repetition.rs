//! What a broker delivers again makes the point that it made before. The sensor says the same every time.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason, PubRel};

use crate::fakes::{Bridge, FakeBroker, FakeInflux, Peer, within};
use crate::{NUMBERS, start};

const POINT: &str = "numbers,x=a value=1";

/// Three messages of one content; the broker has read the acknowledgement of none.
async fn three() -> (FakeBroker, FakeInflux, Bridge, Peer) {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    publish(&mut peer, 1..=3).await;
    peer.acknowledged(3).await;
    assert_eq!(influx.points(), [POINT; 3]);
    (broker, influx, bridge, peer)
}

async fn publish(peer: &mut Peer, ids: impl IntoIterator<Item = u16>) {
    for id in ids {
        peer.publish("n/a", "1", QoS::AtLeastOnce, id).await;
    }
}

#[tokio::test]
async fn what_comes_again_after_a_reconnect_is_stored_once() {
    let (broker, influx, _bridge, peer) = three().await;
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    publish(&mut peer, 2..=4).await;
    assert_eq!(peer.acknowledged(3).await, [2, 3, 4]);
    assert_eq!(influx.points(), [POINT; 4]);
}

#[tokio::test]
async fn what_comes_again_after_a_crash_is_stored_once() {
    let (broker, influx, mut bridge, _peer) = three().await;
    bridge.crash_and_start().await;
    let mut peer = broker.accept(true, &["n/+"]).await;
    publish(&mut peer, 1..=4).await;
    assert_eq!(peer.acknowledged(4).await, [1, 2, 3, 4]);
    assert_eq!(influx.points(), [POINT; 4]);
    let metrics = bridge.get("/metrics").await.1;
    assert!(metrics.contains("messages_repeated_total 3"), "{metrics}");
}

#[tokio::test]
async fn what_was_received_and_not_stored_before_a_crash_is_stored_once() {
    let (broker, influx, mut bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    publish(&mut peer, 1..=2).await;
    influx.asked(1).await;
    bridge.crash_and_start().await;
    influx.open(true);
    let mut peer = broker.accept(true, &["n/+"]).await;
    publish(&mut peer, 1..=3).await;
    assert_eq!(peer.acknowledged(3).await, [1, 2, 3]);
    assert_eq!(influx.points(), [POINT; 3]);
}

#[tokio::test]
async fn equal_messages_of_a_new_session_are_new() {
    let (broker, influx, mut bridge, _peer) = three().await;
    bridge.crash_and_start().await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    publish(&mut peer, 1..=3).await;
    peer.acknowledged(3).await;
    assert_eq!(influx.points(), [POINT; 6]);
}

#[tokio::test]
async fn what_comes_again_after_its_route_was_changed_makes_the_point_that_it_made() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let before = bridge.status("ready", |status| status.ready()).await;
    influx.open(false);
    publish(&mut peer, 1..=2).await;
    influx.asked(1).await;
    bridge.set_routes(&NUMBERS.replace("numbers", "figures"));
    bridge.status("the new hash", |status| status.config_hash != before.config_hash).await;
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    publish(&mut peer, 1..=3).await;
    influx.open(true);
    assert_eq!(peer.acknowledged(3).await, [1, 2, 3]);
    assert_eq!(influx.points(), [POINT, POINT, "figures,x=a value=1"]);
}

/// mosquitto counts packet ids from 1 again when it restarts with nothing in flight.
#[tokio::test]
async fn an_equal_message_under_a_packet_id_that_the_broker_has_settled_is_new() {
    let (broker, influx, _bridge, mut peer) = three().await;
    let pings = peer.pings;
    while peer.pings < pings + 2 {
        peer.quiet().await;
    }
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    publish(&mut peer, 1..=3).await;
    peer.acknowledged(3).await;
    assert_eq!(influx.points(), [POINT; 6]);
}

#[tokio::test]
async fn a_qos_2_message_is_stored_once_through_reconnects_and_crashes() {
    let (broker, influx, mut bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    for crash in [false, false, true] {
        peer.publish("n/a", "1", QoS::ExactlyOnce, 4).await;
        assert!(matches!(peer.packet().await, Packet::PubRec(rec) if rec.pkid == 4));
        drop(peer);
        if crash {
            bridge.crash_and_start().await;
        }
        peer = broker.accept(true, &["n/+"]).await;
    }
    peer.publish("n/a", "1", QoS::ExactlyOnce, 4).await;
    assert!(matches!(peer.packet().await, Packet::PubRec(rec) if rec.pkid == 4));
    peer.send(Packet::PubRel(PubRel::new(4, None))).await;
    assert!(matches!(peer.packet().await, Packet::PubComp(comp) if comp.pkid == 4));
    peer.send(Packet::PubRel(PubRel::new(9, None))).await;
    assert!(matches!(peer.packet().await, Packet::PubComp(comp) if comp.pkid == 9), "an id of a past life");
    peer.publish("n/a", "1", QoS::ExactlyOnce, 4).await;
    assert!(matches!(peer.packet().await, Packet::PubRec(rec) if rec.pkid == 4));
    assert_eq!(influx.points(), [POINT; 2]);
}

/// A connection that repeats at once, as a broker does: before it answers anything.
async fn resume(broker: &FakeBroker, ids: impl IntoIterator<Item = u16>) -> Peer {
    let mut peer = broker.answer(ConnectReturnCode::Success, true).await;
    publish(&mut peer, ids).await;
    assert_eq!(peer.grant().await, "n/+");
    peer
}

/// Told to stop while the connection is lost, the bridge connects again, for what it may still have to say. What the broker
/// repeats then is left with it, and comes again to the next process.
#[tokio::test]
async fn what_comes_again_to_a_bridge_that_is_stopping_is_stored_once() {
    let (broker, influx, mut bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    publish(&mut peer, 1..=2).await;
    influx.asked(1).await;
    drop(peer);
    bridge.stop();
    let mut peer = resume(&broker, 1..=2).await;
    let pings = peer.pings;
    while peer.pings < pings + 2 {
        peer.quiet().await;
    }
    influx.open(true);
    peer.closed().await;
    drop(peer);
    bridge.crash_and_start().await;
    let mut peer = resume(&broker, 1..=3).await;
    assert_eq!(peer.acknowledged(3).await, [1, 2, 3]);
    assert_eq!(influx.points(), [POINT; 3]);
}

/// As many dead letters as fit into memory wait when the connection is lost: what the broker repeats then is left with
/// it, until there is room.
#[tokio::test]
async fn what_comes_again_while_dead_letters_fill_the_memory_is_stored_once() {
    const LARGE: u16 = 12;
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    publish(&mut peer, 1..=3).await;
    influx.asked(1).await;
    let large = "x".repeat(1_500_000);
    for id in 4..4 + LARGE {
        peer.publish("n/a", &large, QoS::AtLeastOnce, id).await;
    }
    let received = format!("messages_received_total {}", 3 + LARGE);
    within("all are received", async {
        while !bridge.get("/metrics").await.1.contains(&received) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(peer);
    influx.open(true);
    let mut peer = resume(&broker, 1..=3).await;
    // So many are sent before one is answered.
    let mut letters =
        vec![peer.dead_letter().await.0, peer.dead_letter().await.0, peer.dead_letter().await.0];
    let pings = peer.pings;
    while peer.pings < pings + 2 {
        peer.quiet().await;
    }
    loop {
        for letter in letters.drain(..) {
            peer.answer_letter(letter, PubAckReason::Success).await;
        }
        match peer.packet().await {
            Packet::Publish(letter) => letters.push(letter.pkid),
            Packet::Disconnect(_) => break,
            other => panic!("{other:?}"),
        }
    }
    drop(peer);
    let mut peer = resume(&broker, 1..=3).await;
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 3 {
        match peer.packet().await {
            Packet::Publish(_) => {}
            Packet::PubAck(ack) => acknowledged.push(ack.pkid),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(influx.points(), [POINT; 3]);
}

/// mosquitto saves of QoS 2 that a message was sent, and that it has ended, and no step between: after `kill -9` it
/// begins again with what it had in the middle.
#[tokio::test]
async fn a_message_of_qos_2_that_comes_again_after_its_last_step_was_begun_is_stored_once() {
    let (broker, influx, _bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let publish = async |peer: &mut Peer, id| {
        peer.publish("n/a", "1", QoS::ExactlyOnce, id).await;
        assert!(matches!(peer.packet().await, Packet::PubRec(received) if received.pkid == id));
    };
    for id in 1..=3 {
        publish(&mut peer, id).await;
    }
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    peer.send(Packet::PubRel(PubRel::new(1, None))).await;
    assert!(matches!(peer.packet().await, Packet::PubComp(complete) if complete.pkid == 1));
    let pings = peer.pings;
    publish(&mut peer, 2).await;
    while peer.pings == pings {
        peer.quiet().await;
    }
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    for id in 1..=3 {
        publish(&mut peer, id).await;
    }
    assert_eq!(influx.points(), [POINT; 3]);
}
