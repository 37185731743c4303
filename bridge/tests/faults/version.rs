//! A broker of MQTT 3.1.1 only, and what its version doesn't have: properties, a receive maximum, options.

use std::time::Duration;

use bytes::BytesMut;
use iotpipeline_bridge::packet::frame_length;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fakes::{Bridge, FakeBroker, FakeInflux, within};

const NUMBERS: &str = "- {name: numbers, topic: 'n/{x}', payload: {float: {}}}\n";
/// What must not come has not come within this.
const QUIET: Duration = Duration::from_millis(150);

/// One connection of the bridge in 3.1.1, as the fake broker sees it.
struct OldPeer {
    stream: TcpStream,
    input: BytesMut,
    pings: u32,
}

impl OldPeer {
    /// Refuses MQTT 5 on one connection, and takes the next, which is in 3.1.1.
    async fn answer(broker: &FakeBroker, session_present: bool) -> (Self, Connect) {
        refuse(broker, &[0x20, 2, 0, 1]).await;
        let mut peer = Self { stream: broker.connection().await, input: BytesMut::new(), pings: 0 };
        let Packet::Connect(connect) = peer.packet().await else { panic!("no CONNECT") };
        peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, session_present))).await;
        (peer, connect)
    }

    /// A new session, in which the bridge subscribes.
    async fn subscribed(broker: &FakeBroker) -> Self {
        let (mut peer, connect) = Self::answer(broker, false).await;
        assert!(!connect.clean_session, "the session is to be kept");
        assert_eq!(peer.grant().await, "n/+");
        peer
    }

    async fn grant(&mut self) -> String {
        let packet = self.packet().await;
        let Packet::Subscribe(mut subscribe) = packet else { panic!("no SUBSCRIBE: {packet:?}") };
        let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
        self.send(Packet::SubAck(SubAck::new(subscribe.pkid, codes))).await;
        subscribe.filters.remove(0).path
    }

    async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).expect("a packet");
        self.stream.write_all(&bytes).await.expect("the bridge reads");
    }

    async fn publish(&mut self, payload: &str, packet_id: u16, dup: bool) {
        let mut publish = Publish::new("n/a", QoS::AtLeastOnce, payload);
        (publish.pkid, publish.dup) = (packet_id, dup);
        self.send(Packet::Publish(publish)).await;
    }

    /// The next packet but pings, which are counted and answered.
    async fn packet(&mut self) -> Packet {
        within("a packet", self.read()).await
    }

    async fn read(&mut self) -> Packet {
        loop {
            if let Some(length) = frame_length(&self.input, 1 << 20).expect("a packet")
                && length <= self.input.len()
            {
                let mut frame = self.input.split_to(length);
                match Packet::read(&mut frame, usize::MAX).expect("a packet of 3.1.1") {
                    Packet::PingReq => {
                        self.pings += 1;
                        self.send(Packet::PingResp).await;
                    }
                    packet => return packet,
                }
            } else {
                let read = self.stream.read_buf(&mut self.input).await.expect("the bridge writes");
                assert_ne!(read, 0, "the bridge closed the connection");
            }
        }
    }

    async fn quiet(&mut self) {
        if let Ok(packet) = timeout(QUIET, self.read()).await {
            panic!("an unexpected packet: {packet:?}");
        }
    }

    async fn pinged(&mut self, times: u32) {
        let before = self.pings;
        while self.pings < before + times {
            self.quiet().await;
        }
    }

    async fn acknowledged(&mut self, ids: impl IntoIterator<Item = u16>) {
        for id in ids {
            assert_eq!(self.packet().await, Packet::PubAck(PubAck::new(id)));
        }
    }
}

/// Takes a connection in MQTT 5 and answers it with these bytes.
async fn refuse(broker: &FakeBroker, answer: &[u8]) {
    let mut stream = broker.connection().await;
    assert_eq!(level(&mut stream).await, 5);
    stream.write_all(answer).await.expect("the bridge reads");
}

/// The version that a connection begins with.
async fn level(stream: &mut TcpStream) -> u8 {
    let mut bytes = [0; 9];
    within("a CONNECT", stream.read_exact(&mut bytes)).await.expect("a CONNECT");
    assert_eq!(&bytes[4..8], b"MQTT");
    bytes[8]
}

async fn start(settings: &str) -> (FakeBroker, FakeInflux, Bridge) {
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let mqtt = format!("url: 'mqtt://{}'{settings}", broker.address());
    let bridge = Bridge::connect(&mqtt, &influx, NUMBERS).await;
    (broker, influx, bridge)
}

#[tokio::test]
async fn a_broker_that_refuses_mqtt_5_in_either_version_is_spoken_to_in_3_1_1() {
    for refusal in [&[0x20, 2, 0, 1][..], &[0x20, 3, 0, 0x84, 0]] {
        let (broker, _influx, bridge) = start("").await;
        refuse(&broker, refusal).await;
        let mut stream = broker.connection().await;
        assert_eq!(level(&mut stream).await, 4);
        drop(stream);
        let _peer = OldPeer::subscribed(&broker).await;
        let status = bridge.status("ready", |status| status.ready()).await;
        assert_eq!(status.broker.message, "connected in MQTT 3.1.1 and subscribed to 1 topic filters");
    }
}

/// Whatever else a broker of MQTT 5 says in a bad hour, or doesn't say.
#[tokio::test]
async fn no_other_refusal_and_no_end_makes_the_bridge_fall_back() {
    let (broker, _influx, bridge) = start("").await;
    let unavailable = [0x20, 3, 0, 0x88, 0];
    for answer in [&[][..], &unavailable, &[0x20, 2, 0, 3], &[0x20, 2, 0, 0]] {
        refuse(&broker, answer).await;
    }
    drop(broker.accept(false, &["n/+"]).await);
    let _peer = broker.accept(true, &["n/+"]).await;
    let status = bridge.status("ready", |status| status.ready()).await;
    assert_eq!(status.broker.message, "connected in MQTT 5 and subscribed to 1 topic filters");
}

#[tokio::test]
async fn a_resumed_session_is_not_subscribed_to_again_and_what_comes_again_is_stored_once() {
    let (broker, influx, mut bridge) = start("").await;
    let mut peer = OldPeer::subscribed(&broker).await;
    peer.pinged(2).await;
    for crash in [false, true] {
        influx.open(false);
        peer.publish("1", 7, false).await;
        peer.publish("1", 8, false).await;
        influx.asked(1).await;
        drop(peer);
        influx.open(true);
        if crash {
            bridge.crash_and_start().await;
        }
        (peer, _) = OldPeer::answer(&broker, true).await;
        peer.publish("1", 7, true).await;
        peer.publish("1", 8, true).await;
        // A SUBSCRIBE would come first, and bring what is retained.
        peer.acknowledged([7, 8]).await;
        peer.pinged(2).await;
        assert_eq!(influx.points().len(), if crash { 4 } else { 2 });
    }
}

#[tokio::test]
async fn what_a_broker_sends_again_on_one_connection_is_stored_once() {
    let (broker, influx, _bridge) = start("").await;
    let mut peer = OldPeer::subscribed(&broker).await;
    influx.open(false);
    peer.publish("1", 7, false).await;
    influx.asked(1).await;
    peer.publish("1", 7, true).await;
    peer.publish("1", 8, false).await;
    influx.open(true);
    peer.acknowledged([7, 8]).await;
    peer.quiet().await;
    assert_eq!(influx.points().len(), 2);
}

#[tokio::test]
async fn no_more_messages_are_taken_than_may_be_unacknowledged() {
    let (broker, influx, bridge) = start(", receiveMaximum: 10").await;
    let mut peer = OldPeer::subscribed(&broker).await;
    influx.open(false);
    for id in 1..=100 {
        peer.publish(&id.to_string(), id, false).await;
    }
    influx.asked(1).await;
    peer.pinged(1).await;
    let metrics = bridge.get("/metrics").await.1;
    assert!(metrics.contains("messages_received_total 10\n"), "{metrics}");
    influx.open(true);
    peer.acknowledged(1..=100).await;
    assert_eq!(influx.stored().len(), 100);
}

/// The answers to dead letters come behind messages for which there is no room.
#[tokio::test]
async fn dead_letters_that_fill_all_room_do_not_stop_the_bridge_and_lose_nothing() {
    let (broker, influx, _bridge) = start(", receiveMaximum: 4").await;
    let mut peer = OldPeer::subscribed(&broker).await;
    for id in 1..=4 {
        peer.publish("cold", id, false).await;
    }
    for id in 5..=8 {
        peer.publish(&id.to_string(), id, false).await;
    }
    for _ in 1..=4 {
        let packet = peer.packet().await;
        let Packet::Publish(letter) = packet else { panic!("no dead letter: {packet:?}") };
        let envelope: serde_json::Value = serde_json::from_slice(&letter.payload).expect("JSON");
        let reason = "the payload is \"cold\", and the route expects a finite number";
        let expected = serde_json::json!({"topic": "n/a", "payload": "cold", "reason": reason});
        assert_eq!((letter.topic.as_str(), envelope), ("iotpipeline/lab/dead-letter/numbers", expected));
        peer.send(Packet::PubAck(PubAck::new(letter.pkid))).await;
    }
    peer.acknowledged(1..=4).await;
    assert_eq!(peer.packet().await, Packet::Disconnect, "to have the others again");
    drop(peer);
    let (mut peer, _) = OldPeer::answer(&broker, true).await;
    for id in 5..=8 {
        peer.publish(&id.to_string(), id, true).await;
    }
    loop {
        match peer.packet().await {
            Packet::Subscribe(_) => {}
            first => {
                assert_eq!(first, Packet::PubAck(PubAck::new(5)));
                break;
            }
        }
    }
    peer.acknowledged(6..=8).await;
    let lines: Vec<String> = (5..=8).map(|id| format!("numbers,x=a value={id}")).collect();
    assert_eq!(influx.stored(), lines);
}

#[tokio::test]
async fn oversize_loop_in_mqtt_3_1_1_what_is_too_large_becomes_a_dead_letter_and_blocks_nothing() {
    let (broker, influx, _bridge) = start(", maxPacketSize: 1024").await;
    let mut peer = OldPeer::subscribed(&broker).await;
    peer.publish(&"9".repeat(300_000), 1, false).await;
    peer.publish("2", 2, false).await;
    let packet = peer.packet().await;
    let Packet::Publish(letter) = packet else { panic!("no dead letter: {packet:?}") };
    let envelope: serde_json::Value = serde_json::from_slice(&letter.payload).expect("JSON");
    let reason = "the payload has 300000 bytes, more than the bridge takes: it is not kept";
    assert_eq!(envelope, serde_json::json!({"topic": "n/a", "payload": "", "reason": reason}));
    peer.send(Packet::PubAck(PubAck::new(letter.pkid))).await;
    peer.acknowledged([1, 2]).await;
    assert_eq!(influx.stored(), ["numbers,x=a value=2"]);
}

#[tokio::test]
async fn bridges_that_are_to_share_the_load_say_that_the_broker_can_not_divide_it() {
    let (broker, _influx, bridge) = start("").await;
    let mut peer = OldPeer::subscribed(&broker).await;
    bridge.status("ready", |status| status.ready()).await;
    bridge.set_routes(&format!("{NUMBERS}sharing: {{group: lab, members: 2}}\n"));
    let status = bridge.status("a refusal", |status| status.broker.reason == "Misconfigured").await;
    assert!(status.broker.message.contains("no shared subscriptions"), "{status:?}");
    within("the end", async { while peer.stream.read_u8().await.is_ok() {} }).await;
    bridge.set_routes(NUMBERS);
    let _peer = OldPeer::answer(&broker, true).await;
    bridge.status("the routes are back", |status| status.broker.reason != "Misconfigured").await;
}
