//! Sparkplug's nodes are asked for their births where one was missed.

use prost::Message as _;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish};

use crate::fakes::Peer;
use crate::start;

const ROUTE: &str =
    "- {name: plant, topic: 'spBv1.0/{group}/+/{node}/{device...}', payload: {sparkplug: {}}}\n";
const FILTER: &str = "spBv1.0/+/+/+/#";

/// What the bridge asks, as prost reads it: field numbers of `sparkplug_b.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(uint64, optional, tag = "1")]
    timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    seq: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    alias: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    datatype: Option<u32>,
    #[prost(double, optional, tag = "13")]
    double: Option<f64>,
    #[prost(bool, optional, tag = "14")]
    boolean: Option<bool>,
}

/// A payload with one metric of the alias 1: with its name in a birth.
fn payload(seq: u64, name: Option<&str>, value: f64) -> Vec<u8> {
    let metric = Metric {
        name: name.map(Into::into),
        alias: Some(1),
        datatype: name.map(|_| 10),
        double: Some(value),
        ..Metric::default()
    };
    Payload { timestamp: Some(1_000), metrics: vec![metric], seq: Some(seq) }.encode_to_vec()
}

async fn publish(peer: &mut Peer, kind: &str, payload: Vec<u8>, packet_id: u16) {
    let mut publish = Publish::new(format!("spBv1.0/g/{kind}/n"), QoS::AtLeastOnce, payload, None);
    publish.pkid = packet_id;
    peer.send(Packet::Publish(publish)).await;
}

fn is_request(publish: &Publish) -> bool {
    let Ok(asked) = Payload::decode(&publish.payload[..]) else { return false };
    let [metric] = &asked.metrics[..] else { return false };
    assert_eq!(metric.name.as_deref(), Some("Node Control/Rebirth"));
    assert_eq!((metric.datatype, metric.boolean, asked.seq), (Some(11), Some(true), None));
    assert!(asked.timestamp.is_some_and(|time| time > 1_700_000_000_000), "milliseconds of now");
    assert_eq!((publish.qos, publish.retain), (QoS::AtMostOnce, false));
    &publish.topic[..] == b"spBv1.0/g/NCMD/n"
}

/// Takes dead letters, acknowledgements and requests, in any order: which ids are acknowledged, and how many
/// dead letters and requests there were.
async fn take(peer: &mut Peer, acknowledged: usize) -> (Vec<u16>, usize, usize) {
    let (mut ids, mut letters, mut requests) = (Vec::new(), 0, 0);
    while ids.len() < acknowledged {
        match peer.packet().await {
            Packet::PubAck(ack) => ids.push(ack.pkid),
            Packet::Publish(publish) if publish.topic.starts_with(b"spBv1.0") => {
                assert!(is_request(&publish), "{publish:?}");
                requests += 1;
            }
            Packet::Publish(letter) => {
                letters += 1;
                peer.answer_letter(letter.pkid, PubAckReason::Success).await;
            }
            other => panic!("{other:?}"),
        }
    }
    (ids, letters, requests)
}

#[tokio::test]
async fn a_node_whose_birth_is_missing_is_asked_once_and_read_once_it_is_born() {
    let (broker, influx, bridge) = start(ROUTE).await;
    let mut peer = broker.accept(false, &[FILTER]).await;
    for id in 1..=3 {
        publish(&mut peer, "NDATA", payload(id.into(), None, 1.5), id).await;
    }
    assert_eq!(take(&mut peer, 3).await, (vec![1, 2, 3], 3, 1), "each is a dead letter, and one request");
    publish(&mut peer, "NBIRTH", payload(0, Some("load"), 1.0), 4).await;
    publish(&mut peer, "NDATA", payload(1, None, 2.5), 5).await;
    assert_eq!(take(&mut peer, 2).await, (vec![4, 5], 0, 0));
    assert_eq!(influx.stored(), ["plant,group=g,node=n load=1,online=true", "plant,group=g,node=n load=2.5"]);
    publish(&mut peer, "NCMD", payload(0, None, 1.0), 6).await;
    assert_eq!(take(&mut peer, 1).await, (vec![6], 0, 0));
    let metrics = bridge.get("/metrics").await.1;
    for counted in [
        "sparkplug_rebirths_requested_total 1",
        "messages_dropped_total{reason=\"SparkplugCommand\"} 1",
        "dead_letters_total{route=\"plant\"} 3",
    ] {
        assert!(metrics.contains(counted), "{counted}: {metrics}");
    }
}

#[tokio::test]
async fn after_a_reconnect_a_gap_asks_again_and_what_comes_again_makes_the_same_points() {
    let (broker, influx, _bridge) = start(ROUTE).await;
    let mut peer = broker.accept(false, &[FILTER]).await;
    publish(&mut peer, "NBIRTH", payload(0, Some("load"), 1.0), 1).await;
    publish(&mut peer, "NDATA", payload(1, None, 2.0), 2).await;
    assert_eq!(take(&mut peer, 2).await, (vec![1, 2], 0, 0));
    drop(peer);
    // The broker has read neither acknowledgement.
    let mut peer = broker.accept(true, &[FILTER]).await;
    publish(&mut peer, "NBIRTH", payload(0, Some("load"), 1.0), 1).await;
    publish(&mut peer, "NDATA", payload(1, None, 2.0), 2).await;
    assert_eq!(take(&mut peer, 2).await, (vec![1, 2], 0, 0), "nothing was missed so far");
    let stored = influx.stored();
    assert_eq!(stored[..2], stored[2..]);
    // 2 to 6 were of QoS 0, and lost with the connection: a birth may have been among them.
    publish(&mut peer, "NDATA", payload(7, None, 3.0), 3).await;
    assert_eq!(take(&mut peer, 1).await, (vec![3], 1, 1));
    assert_eq!(influx.stored().len(), 4);
}

#[tokio::test]
async fn a_restart_forgets_births_and_asks_for_them() {
    let (broker, influx, mut bridge) = start(ROUTE).await;
    let mut peer = broker.accept(false, &[FILTER]).await;
    publish(&mut peer, "NBIRTH", payload(0, Some("load"), 1.0), 1).await;
    assert_eq!(take(&mut peer, 1).await, (vec![1], 0, 0));
    bridge.crash_and_start().await;
    let mut peer = broker.accept(true, &[FILTER]).await;
    publish(&mut peer, "NDATA", payload(1, None, 2.0), 2).await;
    assert_eq!(take(&mut peer, 1).await, (vec![2], 1, 1));
    assert_eq!(influx.stored().len(), 1);
}
