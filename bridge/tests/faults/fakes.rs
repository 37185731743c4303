//! A fake broker and a fake InfluxDB: they do on demand what real ones do rarely. Real ones are
//! tested against in the workspace's e2e crate.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::bridge_status::BridgeStatus;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{BufMut, BytesMut};
use iotpipeline_bridge::packet::frame_length;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, PubAckReason, Publish, PublishProperties, SubAck,
    SubscribeReasonCode, UnsubAck, UnsubAckReason,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Whatever is waited for comes within this, or the test fails.
const DEADLINE: Duration = Duration::from_secs(15);
/// What must not come has not come within this.
const QUIET: Duration = Duration::from_millis(150);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Listens as a broker would.
pub(crate) struct FakeBroker {
    listener: TcpListener,
}

/// One connection of the bridge, as the fake broker sees it.
pub(crate) struct Peer {
    stream: TcpStream,
    input: BytesMut,
    pub(crate) pings: u32,
    pub(crate) answers_pings: bool,
    /// What the bridge asked for when it connected.
    pub(crate) asked: Option<Connect>,
}

impl FakeBroker {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a port") }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    /// Takes a connection.
    pub(crate) async fn connection(&self) -> TcpStream {
        within("a connection", self.listener.accept()).await.expect("a connection").0
    }

    /// Takes a connection up to its CONNECT, and answers that.
    pub(crate) async fn answer(&self, code: ConnectReturnCode, session_present: bool) -> Peer {
        let stream = self.connection().await;
        let mut peer = Peer { stream, input: BytesMut::new(), pings: 0, answers_pings: true, asked: None };
        let Packet::Connect(connect, ..) = peer.packet().await else { panic!("no CONNECT") };
        assert!(!connect.clean_start, "the session is to be kept");
        peer.asked = Some(connect);
        peer.send(Packet::ConnAck(ConnAck { session_present, code, properties: None })).await;
        peer
    }

    /// Takes a connection and grants its subscriptions.
    pub(crate) async fn accept(&self, session_present: bool, filters: &[&str]) -> Peer {
        let mut peer = self.answer(ConnectReturnCode::Success, session_present).await;
        let mut asked = Vec::new();
        for _ in filters {
            asked.push(peer.grant().await);
        }
        assert_eq!(asked, filters);
        peer
    }
}

impl Peer {
    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).expect("a packet");
        self.stream.write_all(&bytes).await.expect("the bridge reads");
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the bridge reads");
    }

    /// Sends as much as the bridge takes within the span, while it listens. Returns what is left.
    pub(crate) async fn send_and_listen<'b>(&mut self, mut bytes: &'b [u8], span: Duration) -> &'b [u8] {
        let (mut reader, mut writer) = self.stream.split();
        let exchange = async {
            loop {
                tokio::select! {
                    sent = writer.write(bytes), if !bytes.is_empty() => {
                        bytes = &bytes[sent.expect("the bridge reads")..];
                    }
                    read = reader.read_buf(&mut self.input) => {
                        assert_ne!(read.expect("the bridge writes"), 0, "the bridge closed the connection");
                    }
                }
            }
        };
        drop(timeout(span, exchange).await);
        bytes
    }

    /// The next packet but pings, which are counted and answered.
    pub(crate) async fn packet(&mut self) -> Packet {
        within("a packet", self.read()).await
    }

    async fn read(&mut self) -> Packet {
        loop {
            if let Some(length) = frame_length(&self.input, 2 << 20).expect("a packet")
                && length <= self.input.len()
            {
                let mut frame = self.input.split_to(length);
                if frame[..] == [0xE0, 0] {
                    // The codec does not know the short form.
                    frame.clear();
                    frame.put_slice(&[0xE0, 2, 0, 0]);
                }
                match Packet::read(&mut frame, None).expect("a packet") {
                    Packet::PingReq(_) => {
                        self.pings += 1;
                        if self.answers_pings {
                            self.stream.write_all(&[0xD0, 0]).await.expect("the bridge reads");
                        }
                    }
                    packet => return packet,
                }
            } else {
                let read = self.stream.read_buf(&mut self.input).await.expect("the bridge writes");
                assert_ne!(read, 0, "the bridge closed the connection");
            }
        }
    }

    /// Nothing but pings comes.
    pub(crate) async fn quiet(&mut self) {
        if let Ok(packet) = timeout(QUIET, self.read()).await {
            panic!("an unexpected packet: {packet:?}");
        }
    }

    /// Reads until the bridge has closed the connection.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end too.
        drop(within("the end", self.stream.read_to_end(&mut rest)).await);
    }

    /// Grants the next subscription; its filter.
    pub(crate) async fn grant(&mut self) -> String {
        self.answer_subscribe(SubscribeReasonCode::Success(QoS::ExactlyOnce)).await
    }

    pub(crate) async fn answer_subscribe(&mut self, code: SubscribeReasonCode) -> String {
        let Packet::Subscribe(subscribe) = self.packet().await else { panic!("no SUBSCRIBE") };
        let properties = subscribe.properties.expect("an identifier");
        assert!(properties.id.is_some() && subscribe.filters[0].nolocal);
        self.granted(subscribe.pkid, code).await;
        subscribe.filters[0].path.clone()
    }

    /// Answers a subscription.
    pub(crate) async fn granted(&mut self, packet_id: u16, code: SubscribeReasonCode) {
        let answer = SubAck { pkid: packet_id, return_codes: vec![code], properties: None };
        self.send(Packet::SubAck(answer)).await;
    }

    /// Confirms the end of a subscription.
    pub(crate) async fn ungranted(&mut self, packet_id: u16) {
        let reasons = vec![UnsubAckReason::Success];
        self.send(Packet::UnsubAck(UnsubAck { pkid: packet_id, reasons, properties: None })).await;
    }

    /// Confirms the next end of a subscription; its filter.
    pub(crate) async fn ungrant(&mut self) -> String {
        let Packet::Unsubscribe(unsubscribe) = self.packet().await else { panic!("no UNSUBSCRIBE") };
        self.ungranted(unsubscribe.pkid).await;
        unsubscribe.filters[0].clone()
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &str, qos: QoS, packet_id: u16) {
        self.send(Packet::Publish(message(topic, payload, qos, packet_id))).await;
    }

    /// The packet ids of the next acknowledgements.
    pub(crate) async fn acknowledged(&mut self, count: usize) -> Vec<u16> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let packet = self.packet().await;
            let Packet::PubAck(ack) = packet else { panic!("no PUBACK: {packet:?}") };
            ids.push(ack.pkid);
        }
        ids
    }

    /// The next dead letter: its packet id, topic, payload and reason.
    pub(crate) async fn dead_letter(&mut self) -> (u16, String, String, String) {
        let packet = self.packet().await;
        let Packet::Publish(letter) = packet else { panic!("no dead letter: {packet:?}") };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let properties: PublishProperties = letter.properties.expect("a reason");
        let (key, reason) = properties.user_properties[0].clone();
        assert_eq!(key, "reason");
        (letter.pkid, text(&letter.topic), text(&letter.payload), reason)
    }

    pub(crate) async fn answer_letter(&mut self, packet_id: u16, reason: PubAckReason) {
        let mut ack = PubAck::new(packet_id, None);
        ack.reason = reason;
        self.send(Packet::PubAck(ack)).await;
    }
}

pub(crate) fn message(topic: &str, payload: &str, qos: QoS, packet_id: u16) -> Publish {
    let mut publish = Publish::new(topic, qos, payload.to_owned(), None);
    publish.pkid = packet_id;
    publish
}

/// What the fake InfluxDB does with lines.
type Script = Box<dyn FnMut(&str) -> (u16, String, Option<&'static str>) + Send>;

/// Answers as it is told, and keeps what it accepted.
#[derive(Clone)]
pub(crate) struct FakeInflux {
    url: String,
    script: Arc<Mutex<Script>>,
    /// Writes without points are treated as those with points are.
    all_alike: Arc<AtomicBool>,
    gate: watch::Sender<bool>,
    asked: watch::Sender<usize>,
    stored: Arc<Mutex<Vec<String>>>,
    token: Arc<Mutex<String>>,
}

impl FakeInflux {
    pub(crate) async fn start() -> Self {
        let fake = Self::absent().await;
        fake.listen().await;
        fake
    }

    /// Nobody listens there.
    pub(crate) async fn absent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self {
            url: format!("http://{}", listener.local_addr().expect("an address")),
            script: Arc::new(Mutex::new(Box::new(|_| (204, String::new(), None)))),
            all_alike: Arc::default(),
            gate: watch::Sender::new(true),
            asked: watch::Sender::new(0),
            stored: Arc::default(),
            token: Arc::new(Mutex::new("secret".into())),
        }
    }

    pub(crate) async fn listen(&self) {
        let address = self.url.strip_prefix("http://").expect("a URL");
        let listener = TcpListener::bind(address).await.expect("the port");
        let router = Router::new().route("/api/v2/write", post(write)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// What to answer to writes of points: status, body and Retry-After.
    pub(crate) fn script<B: Into<String>>(
        &self,
        mut script: impl FnMut(&str) -> (u16, B, Option<&'static str>) + Send + 'static,
    ) {
        *self.script.lock().expect("unpoisoned") = Box::new(move |lines| {
            let (status, body, retry_after) = script(lines);
            (status, body.into(), retry_after)
        });
    }

    /// Treats writes without points as those with points from now on.
    pub(crate) fn treat_all_alike(&self) {
        self.all_alike.store(true, Ordering::Relaxed);
    }

    /// How many writes held lines.
    pub(crate) fn writes(&self) -> usize {
        *self.asked.borrow()
    }

    /// Writes are answered, or kept waiting.
    pub(crate) fn open(&self, open: bool) {
        self.gate.send_replace(open);
    }

    pub(crate) fn set_token(&self, token: &str) {
        *self.token.lock().expect("unpoisoned") = token.into();
    }

    /// Waits until there were so many writes that hold lines, answered or not.
    pub(crate) async fn asked(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        within("a write", asked.wait_for(|now| *now >= count)).await.expect("a write");
    }

    /// The points that the accepted lines make: of two with one series and time, InfluxDB keeps the last.
    pub(crate) fn points(&self) -> Vec<String> {
        let lines = self.stored.lock().expect("unpoisoned");
        let mut points: Vec<(String, String)> = Vec::new();
        for line in lines.iter() {
            let (rest, time) = line.rsplit_once(' ').expect("a timestamp");
            let (series, _) = rest.split_once(' ').expect("fields");
            let key = format!("{series} {time}");
            match points.iter_mut().find(|(known, _)| *known == key) {
                Some((_, point)) => rest.clone_into(point),
                None => points.push((key, rest.to_owned())),
            }
        }
        points.into_iter().map(|(_, point)| point).collect()
    }

    /// The lines that were accepted, without their timestamps, in order.
    pub(crate) fn stored(&self) -> Vec<String> {
        let lines = self.stored.lock().expect("unpoisoned");
        lines.iter().map(|line| line.rsplit_once(' ').expect("a timestamp").0.to_owned()).collect()
    }
}

async fn write(State(fake): State<FakeInflux>, headers: HeaderMap, body: Bytes) -> Response {
    let lines = if headers.get("content-encoding").is_some() {
        let size = body.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size));
        let mut lines = vec![0; size as usize];
        libdeflater::Decompressor::new().gzip_decompress(&body, &mut lines).expect("gzip");
        lines
    } else {
        body.to_vec()
    };
    let lines = String::from_utf8(lines).expect("text");
    let is_probe = lines.is_empty() && !fake.all_alike.load(Ordering::Relaxed);
    if !lines.is_empty() {
        fake.asked.send_modify(|asked| *asked += 1);
    }
    if !is_probe {
        fake.gate.subscribe().wait_for(|open| *open).await.expect("the gate");
    }
    let expected = format!("Token {}", fake.token.lock().expect("unpoisoned"));
    if headers.get("authorization").and_then(|value| value.to_str().ok()) != Some(expected.as_str()) {
        let body = r#"{"code": "unauthorized", "message": "unauthorized access"}"#;
        return (StatusCode::UNAUTHORIZED, body).into_response();
    }
    if is_probe {
        return StatusCode::NO_CONTENT.into_response();
    }
    let (status, body, retry_after) = (fake.script.lock().expect("unpoisoned"))(&lines);
    if status == 204 {
        fake.stored.lock().expect("unpoisoned").extend(lines.lines().map(str::to_owned));
    }
    let mut response = (StatusCode::from_u16(status).expect("a status"), body).into_response();
    if let Some(value) = retry_after {
        response.headers_mut().insert("retry-after", value.parse().expect("a value"));
    }
    response
}

type Task = JoinHandle<Result<(), iotpipeline_bridge::RunError>>;

async fn run(directory: &Path) -> (String, oneshot::Sender<()>, Task) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (stop, stopped) = oneshot::channel();
    let (path, state) = (directory.join("bridge.yaml"), directory.to_owned());
    let task = tokio::spawn(async move {
        iotpipeline_bridge::run(&path, None, &state, listener, async { drop(stopped.await) }).await
    });
    (url, stop, task)
}

/// The bridge under test, in this process.
pub(crate) struct Bridge {
    directory: PathBuf,
    base: String,
    stop: Option<oneshot::Sender<()>>,
    task: Task,
    url: String,
    /// One for all requests: to make one takes longer than to ask.
    client: reqwest::Client,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
        // It is in the system's directory for temporary files anyway.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

impl Bridge {
    /// Starts a bridge with these routes.
    pub(crate) async fn start(broker: &FakeBroker, influx: &FakeInflux, routes: &str) -> Self {
        Self::connect(&format!("url: 'mqtt://{}'", broker.address()), influx, routes).await
    }

    /// Starts a bridge that finds its broker by these settings.
    pub(crate) async fn connect(mqtt: &str, influx: &FakeInflux, routes: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bridge-faults-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let token = directory.join("token");
        let keep_alive = if mqtt.contains("keepAliveSeconds") { "" } else { ", keepAliveSeconds: 1" };
        let base = format!(
            "pipeline: lab\nmqtt: {{{mqtt}, clientId: lab-bridge{keep_alive}}}\n\
             database: {{url: '{}', organization: lab, bucket: mesure, tokenFile: '{}'}}\nroutes:\n",
            influx.url,
            token.display()
        );
        std::fs::write(&token, "secret\n").expect("a token");
        std::fs::write(directory.join("bridge.yaml"), format!("{base}{routes}")).expect("a configuration");
        let (url, stop, task) = run(&directory).await;
        iotpipeline_bridge::source::install_crypto();
        let client = reqwest::Client::builder().tls_certs_only([]).build().expect("a client");
        Self { directory, base, stop: Some(stop), task, url, client }
    }

    /// Starts anew in the same directory, as after a crash.
    pub(crate) async fn crash_and_start(&mut self) {
        self.task.abort();
        // Cancelled, which is what was asked for.
        drop((&mut self.task).await);
        let (url, stop, task) = run(&self.directory).await;
        (self.url, self.stop, self.task) = (url, Some(stop), task);
    }

    /// What a volume would be: its files are here, beside its configuration.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Other routes, by the same file.
    pub(crate) fn set_routes(&self, routes: &str) {
        // As a ConfigMap's file changes: another one takes its place.
        let new = self.directory.join("new");
        std::fs::write(&new, format!("{}{routes}", self.base)).expect("a configuration");
        std::fs::rename(new, self.directory.join("bridge.yaml")).expect("a configuration");
    }

    pub(crate) fn set_token(&self, token: &str) {
        std::fs::write(self.directory.join("token"), token).expect("a token");
    }

    /// As SIGTERM does.
    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("it runs").send(()).expect("it runs");
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self) {
        within("the end", &mut self.task).await.expect("no panic").expect("no error");
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    }

    /// Waits for a status; it is looked at again and again.
    pub(crate) async fn status(&self, what: &str, is_it: impl Fn(&BridgeStatus) -> bool) -> BridgeStatus {
        within(what, async {
            loop {
                let status = serde_json::from_str(&self.get("/status").await.1).expect("a status");
                if is_it(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}
