//! Routes that change while sessions and messages are there.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, SubscribeReasonCode};

use crate::{NUMBERS, start};

/// Telegraf, whose session persists: new topics are not subscribed to, and old ones go on.
#[tokio::test]
async fn reload_under_a_persistent_session_subscribes_and_unsubscribes_what_changed_and_nothing_else() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let before = bridge.status("ready", |status| status.ready()).await;
    let words = "- {name: words, topic: 'w/#', payload: {string: {}}}\n";
    bridge.set_routes(&format!("{NUMBERS}{words}"));
    assert_eq!(peer.grant().await, "w/#");
    let after = bridge.status("the new hash", |status| status.config_hash != before.config_hash).await;
    assert_eq!(after.config_error, None);
    peer.publish("w/x", "hello", QoS::AtLeastOnce, 1).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
    assert_eq!(influx.stored(), ["words value=\"hello\""]);
    bridge.set_routes(words);
    assert_eq!(peer.ungrant().await, "n/+");
    peer.publish("n/a", "1", QoS::AtLeastOnce, 2).await;
    assert_eq!(peer.acknowledged(1).await, [2]);
    assert_eq!(influx.stored()[1..], ["numbers,x=a value=1"], "it was queued for the route that has gone");
    peer.publish("elsewhere", "1", QoS::AtLeastOnce, 3).await;
    assert_eq!(peer.acknowledged(1).await, [3], "a message of no route is acknowledged");
    let metrics = bridge.get("/metrics").await.1;
    assert!(metrics.contains("messages_unrouted_total 1"), "{metrics}");
    peer.quiet().await;
}

/// The same, where the change meets no connection, or no process.
#[tokio::test]
async fn reload_while_disconnected_or_down_unsubscribes_from_the_route_that_has_gone() {
    let (broker, _influx, mut bridge) = start(NUMBERS).await;
    let before = bridge.status("a status", |_| true).await.config_hash;
    drop(broker.accept(false, &["n/+"]).await);
    bridge.set_routes("- {name: words, topic: 'w/#', payload: {string: {}}}\n");
    bridge.status("the new hash", |status| status.config_hash != before).await;
    // The way back may have begun before the change.
    let mut peer = broker.answer(ConnectReturnCode::Success, true).await;
    let mut packets = vec![peer.packet().await, peer.packet().await];
    if !packets.iter().any(|packet| matches!(packet, Packet::Unsubscribe(_))) {
        packets.push(peer.packet().await);
    }
    assert!(
        packets.iter().any(|packet| matches!(packet, Packet::Unsubscribe(end) if end.filters == ["n/+"]))
    );
    bridge.set_routes(NUMBERS);
    bridge.crash_and_start().await;
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    assert_eq!(peer.ungrant().await, "w/#");
}

/// Telegraf restarts its plugins, and what they had in memory is gone.
#[tokio::test]
async fn reload_with_messages_waiting_stores_them_by_the_routes_that_they_came_by() {
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    influx.open(false);
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    influx.asked(1).await;
    peer.publish("n/a", "2", QoS::AtLeastOnce, 2).await;
    peer.quiet().await;
    bridge.set_routes("- {name: words, topic: 'w/#', payload: {string: {}}}\n");
    let mut changed = Vec::new();
    while changed.len() < 2 {
        match peer.packet().await {
            Packet::Subscribe(subscribe) => {
                changed.push(subscribe.filters[0].path.clone());
                peer.granted(subscribe.pkid, SubscribeReasonCode::Success(QoS::AtLeastOnce)).await;
            }
            Packet::Unsubscribe(unsubscribe) => {
                changed.push(unsubscribe.filters[0].clone());
                peer.ungranted(unsubscribe.pkid).await;
            }
            other => panic!("{other:?}"),
        }
    }
    changed.sort();
    assert_eq!(changed, ["n/+", "w/#"]);
    peer.publish("w/a", "hello", QoS::AtLeastOnce, 3).await;
    peer.quiet().await;
    influx.open(true);
    assert_eq!(peer.acknowledged(3).await, [1, 2, 3]);
    assert_eq!(influx.stored(), ["numbers,x=a value=1", "numbers,x=a value=2", "words value=\"hello\""]);
}
