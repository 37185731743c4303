//! Brokers that are reached over WebSocket: a server of it in front of the fake broker.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use crate::NUMBERS;
use crate::certificates::{Authority, Files};
use crate::fakes::{Bridge, FakeBroker, FakeInflux, message};

/// How a server treats who asks for a WebSocket.
#[derive(Clone, Copy)]
enum Server {
    /// Gives one for MQTT, at this path.
    Mqtt(&'static str),
    /// Gives one for anything.
    Other,
    /// Says text.
    Text,
}

impl Callback for Server {
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        const PROTOCOL: &str = "sec-websocket-protocol";
        assert_eq!(request.headers().get(PROTOCOL).expect("a subprotocol"), "mqtt");
        let mqtt = HeaderValue::from_static("mqtt");
        match self {
            Self::Mqtt(path) if request.uri().path() != path => {
                let mut refusal = ErrorResponse::new(None);
                *refusal.status_mut() = StatusCode::NOT_FOUND;
                return Err(refusal);
            }
            Self::Mqtt(_) | Self::Text => drop(response.headers_mut().insert(PROTOCOL, mqtt)),
            Self::Other => {}
        }
        Ok(response)
    }
}

impl Server {
    /// Passes on what is said over a WebSocket.
    async fn before(self, broker: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                // A client that is refused is what some tests are about.
                let Ok(mut socket) = accept_hdr_async(stream, self).await else { continue };
                if matches!(self, Self::Text) {
                    socket.send(Message::text("hello")).await.expect("the bridge reads");
                }
                let broker = TcpStream::connect(broker).await.expect("the fake broker");
                tokio::spawn(pass_on(socket, broker));
            }
        });
        address
    }
}

/// Breaks packets apart, as it may, and pings in between.
async fn pass_on(mut socket: WebSocketStream<TcpStream>, mut broker: TcpStream) {
    const PIECE: usize = 5;
    let mut input = BytesMut::new();
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => broker.write_all(&bytes).await.expect("the fake reads"),
                Some(Ok(Message::Text(_))) => panic!("MQTT is binary"),
                Some(Ok(_)) => {}
                // The broker is told by the end of its connection.
                None | Some(Err(_)) => return,
            },
            read = broker.read_buf(&mut input) => {
                // A bridge that has gone is noticed above.
                if !matches!(read, Ok(1..)) {
                    drop(socket.close(None).await);
                    return;
                }
                for piece in input.split().chunks(PIECE) {
                    drop(socket.feed(Message::binary(piece.to_vec())).await);
                }
                drop(socket.send(Message::Ping(Bytes::new())).await);
            }
        }
    }
}

#[tokio::test]
async fn a_broker_behind_a_websocket_is_served_as_any_other() {
    const MESSAGES: u16 = 500;
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let server = Server::Mqtt("/mqtt").before(broker.address()).await;
    let mut bridge = Bridge::connect(&format!("url: 'ws://{server}'"), &influx, NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    bridge.status("ready", |status| status.ready()).await;
    let mut bytes = BytesMut::new();
    for id in 1..=MESSAGES {
        message("n/a", &id.to_string(), QoS::AtLeastOnce, id).write(&mut bytes).expect("a message");
    }
    peer.send_raw(&bytes).await;
    assert_eq!(peer.acknowledged(MESSAGES.into()).await, (1..=MESSAGES).collect::<Vec<_>>());
    assert_eq!(influx.stored().len(), usize::from(MESSAGES));
    // A dead letter goes the other way.
    peer.publish("n/a", &"no number ".repeat(10_000), QoS::AtLeastOnce, 1).await;
    let (id, _, payload, _) = peer.dead_letter().await;
    assert_eq!(payload.len(), 100_000);
    peer.answer_letter(id, PubAckReason::Success).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    bridge.stop();
    assert!(matches!(peer.packet().await, Packet::Disconnect(_)));
    bridge.ended().await;
}

#[tokio::test]
async fn a_websocket_within_tls_shows_the_client_certificate() {
    iotpipeline_bridge::source::install_crypto();
    let authority = Authority::new();
    let files = Files::of(&authority, "websocket");
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let server = Server::Mqtt("/some/where").before(broker.address()).await;
    let guard = authority.guard(server).await;
    let settings = files.settings(&format!("wss://{guard}/some/where"));
    let _bridge = Bridge::connect(&settings, &influx, NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
}

#[tokio::test]
async fn what_is_no_websocket_for_mqtt_is_reported_with_what_to_check() {
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let cases = [
        (
            Server::Mqtt("/elsewhere"),
            "ConnectionRefused",
            "with 404 Not Found: check the path, port and scheme",
        ),
        (Server::Other, "ConnectionRefused", "it has a WebSocket there, but not for MQTT: check the path"),
        (Server::Text, "Disconnected", "the broker sent text by WebSocket: MQTT is binary"),
    ];
    for (server, reason, expected) in cases {
        let server = server.before(broker.address()).await;
        let bridge = Bridge::connect(&format!("url: 'ws://{server}/mqtt'"), &influx, NUMBERS).await;
        let status = bridge.status("a refusal", |status| status.broker.reason == reason).await;
        assert!(status.broker.message.contains(expected), "{}", status.broker.message);
    }
}
