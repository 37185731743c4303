//! What topics and properties say, and what they may cost.

use std::collections::BTreeSet;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};

use crate::fakes::{message, within};
use crate::start;

/// Telegraf keeps a pattern's literals by their text, so that of `a/+/a` only the last `a` is looked at.
#[tokio::test]
async fn topic_rules_with_a_literal_that_comes_twice_look_at_both() {
    let routes = "
- {name: named, topic: '{x}/b/{y}/b', payload: {float: {}}}
- {name: ends, topic: 'a/+/a', payload: {float: {}}}
- {name: twice, topic: 'a/a/{x}', payload: {float: {}}}
";
    let (broker, influx, bridge) = start(routes).await;
    let mut peer = broker.accept(false, &["+/b/+/b", "a/+/a", "a/a/+"]).await;
    // As a broker delivers that knows no subscription identifiers: the bridge alone decides.
    let topics = ["a/x/a", "a/x/b", "b/x/a", "a/a/a", "a/a/b", "b/b/c/b", "b/b/c/a", "b/a/c/b"];
    for (id, topic) in (1..).zip(topics) {
        peer.publish(topic, "1", QoS::AtLeastOnce, id).await;
    }
    assert_eq!(peer.acknowledged(topics.len()).await, (1..=8).collect::<Vec<_>>());
    let lines =
        ["ends value=1", "ends value=1", "twice,x=a value=1", "twice,x=b value=1", "named,x=b,y=c value=1"];
    assert_eq!(influx.stored(), lines);
    let metrics = bridge.get("/metrics").await.1;
    assert!(metrics.contains("messages_unrouted_total 4\n"), "{metrics}");
}

/// Telegraf stores at each start what the broker has retained, as if it were new.
#[tokio::test]
async fn topic_rules_for_retained_messages_with_skip_a_replay_is_not_stored_as_new() {
    let (broker, influx, bridge) =
        start("- {name: live, topic: 'r/{x}', retained: skip, payload: {float: {}}}\n").await;
    for (id, session) in [(1, false), (2, true)] {
        let mut peer = broker.accept(session, &["r/+"]).await;
        let mut replay = message("r/a", "20.5", QoS::AtLeastOnce, 1);
        replay.retain = true;
        peer.send(Packet::Publish(replay)).await;
        peer.publish("r/a", "21", QoS::AtLeastOnce, 2).await;
        assert_eq!(peer.acknowledged(2).await, [1, 2]);
        assert_eq!(influx.stored(), vec!["live,x=a value=21"; id]);
    }
    let metrics = bridge.get("/metrics").await.1;
    assert!(metrics.contains("messages_dropped_total{reason=\"Retained\"} 2\n"), "{metrics}");
}

/// Telegraf speaks MQTT 3.1.1, and reads none.
#[tokio::test]
async fn topic_rules_read_user_properties_and_the_content_type() {
    let routes = "- {name: m, topic: 'm/{x}', payload: {float: {}}, tags: [
        {name: sender, userProperty: sender-id}, {name: type, from: contentType}]}\n";
    let (broker, influx, _bridge) = start(routes).await;
    let mut peer = broker.accept(false, &["m/+"]).await;
    let mut publish = message("m/a", "1", QoS::AtLeastOnce, 1);
    publish.properties = Some(PublishProperties {
        user_properties: vec![("other".into(), "x".into()), ("sender-id".into(), "s 1".into())],
        content_type: Some("text/plain".into()),
        ..PublishProperties::default()
    });
    peer.send(Packet::Publish(publish)).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
    assert_eq!(influx.stored(), ["m,sender=s\\ 1,type=text/plain,x=a value=1"]);
}

/// InfluxDB, whose memory grows with each series until there is none left.
#[tokio::test]
async fn cardinality_in_a_flood_of_random_tag_values_series_stop_at_the_bound_and_so_does_their_memory() {
    const LIMIT: usize = 100;
    const MESSAGES: u16 = 10_000;
    let routes = format!(
        "- {{name: c, topic: 'c/{{id}}', series: {{limit: {LIMIT}, overflow: other}}, payload: {{float: {{}}}}}}\n"
    );
    let (broker, influx, bridge) = start(&routes).await;
    let mut peer = broker.accept(false, &["c/+"]).await;
    let (mut random, mut bytes) = (fastrand::Rng::with_seed(1), BytesMut::new());
    for id in 1..=MESSAGES {
        let topic = format!("c/{:016x}", random.u64(..));
        message(&topic, "1", QoS::AtLeastOnce, id).write(&mut bytes).expect("a message");
    }
    peer.send_raw(&bytes).await;
    assert_eq!(peer.acknowledged(MESSAGES.into()).await.len(), usize::from(MESSAGES));
    let stored = influx.stored();
    assert_eq!(stored.len(), usize::from(MESSAGES), "none is lost for it");
    let series: BTreeSet<_> = stored.iter().map(|line| line.split(' ').next()).collect();
    assert_eq!(series.len(), LIMIT + 1);
    assert!(series.contains(&Some("c,id=__other__")));
    // What the bridge remembers is what it counts; what that takes is tested beside `Series`.
    let over = usize::from(MESSAGES) - LIMIT;
    let metrics = bridge.get("/metrics").await.1;
    assert!(metrics.contains(&format!("series_overflows_total{{route=\"c\"}} {over}\n")), "{metrics}");
    // Counted now and then.
    let count = format!("series{{route=\"c\"}} {LIMIT}\n");
    within("the count of series", async {
        while !bridge.get("/metrics").await.1.contains(&count) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
