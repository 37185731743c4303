//! The connection to the broker: dials, shakes hands, reads in gulps, writes what is due, and
//! dials again when it is lost. Knows nothing of routes or points.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use api::bridge_config::MqttConfig;
use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectProperties,
    DisconnectReasonCode, Login, Packet, PingReq,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::config::{BrokerAddress, ConfigError, broker_address, read_credential};
use crate::packet::{self, Incoming, PacketError};
use crate::tls;
use crate::websocket::{self, WebSocketError};

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// One read takes at most this much.
const GULP_BYTES: usize = 256 << 10;
/// Two reads are at least this far apart: under load input gathers, as a read per message costs ten
/// times as much, and after a pause a message is read at once. The thread sleeps meanwhile. Were it to wait
/// for a timer of the runtime, every packet that arrives would wake it, which was a third of all its work.
const GULP_WAIT: Duration = Duration::from_millis(4);
/// The longest pause between two pings.
const PING_EVERY: Duration = Duration::from_secs(3);
/// Without a sign of life for this long, the connection is reported as unresponsive.
const SILENT: Duration = Duration::from_secs(5);
/// A connection that held for this long was a good one.
const GOOD: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(10);
/// Rights are often given a moment after the bridge has started.
const LAST_WAIT_UNAUTHORIZED: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or the URL can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates can't be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// No connection at all.
    #[error("cannot reach the broker at {address}: {source}")]
    Dial {
        /// Host and port.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The broker refuses this client.
    #[error("the broker refused the connection: {0}")]
    Refused(String, ConnectReturnCode),
    /// The broker answered with something else.
    #[error("the broker answered the connection with another packet")]
    NoConnAck,
    /// The connection broke.
    #[error("the connection to the broker broke: {0}")]
    Io(#[from] std::io::Error),
    /// The broker closed it.
    #[error("the broker closed the connection{0}")]
    Closed(String),
    /// Nothing came for too long.
    #[error("the broker has been silent for {0} s")]
    Silent(u64),
    /// The broker wants a client certificate, or another one.
    #[error("the broker refused the connection: {0}")]
    Certificate(&'static str),
    /// The broker gives no WebSocket.
    #[error("cannot reach the broker at {url}: {source}")]
    WebSocket {
        /// Its URL.
        url: String,
        /// Why not.
        source: WebSocketError,
    },
    /// The broker broke the protocol.
    #[error(transparent)]
    Packet(#[from] PacketError),
}

/// How alive the connection is.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAlive {
    /// Whether a ping goes out.
    pub pinged: bool,
    /// For how long nothing has come, if that is long.
    pub silent: Option<Duration>,
}

impl SourceError {
    /// One word for the status.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config(_) | Self::Tls(_) => "Misconfigured",
            Self::Refused(
                _,
                ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::Banned,
            )
            | Self::Certificate(_) => "NotAuthorized",
            Self::Refused(..) | Self::WebSocket { .. } => "ConnectionRefused",
            Self::Dial { .. } => "Unreachable",
            Self::Io(_) | Self::Closed(_) => "Disconnected",
            Self::Silent(_) => "Unresponsive",
            Self::NoConnAck | Self::Packet(_) => "ProtocolError",
        }
    }
}

/// An open connection.
pub struct Connection {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What was read and not taken yet.
    pub input: BytesMut,
    /// What is to be written.
    pub output: BytesMut,
    max_packet_size: usize,
    keep_alive: Duration,
    opened: Instant,
    last_read: Instant,
    last_ping: Instant,
    read_from: Instant,
    /// Above the socket is TLS or WebSocket, where what was written waits while the socket is full.
    holds_back: bool,
    /// Something may wait there.
    is_held: bool,
    /// The broker takes nothing any more.
    is_deaf: bool,
}

/// What happens to the link.
#[derive(Debug)]
pub enum Event {
    /// A connection was made; the broker's answer.
    Connected(Box<ConnAck>),
    /// Something can be taken from the input.
    Read(usize),
    /// Some of the output was written.
    Written,
    /// The connection was lost, or could not be made.
    Lost(SourceError),
}

/// The way to the broker: waiting, dialing or open.
pub struct Link {
    config: MqttConfig,
    state: State,
    backoff: Backoff,
    /// While paused nothing is read: the broker keeps what it has.
    pub paused: bool,
}

type Dial = Pin<Box<dyn Future<Output = Result<(Connection, ConnAck), SourceError>> + Send>>;

enum State {
    Waiting(Instant),
    Dialing(Dial),
    Open(Box<Connection>),
    /// Left for good, until told to come back.
    Left,
}

impl Link {
    /// Dials as soon as it is asked for events.
    pub fn new(config: &MqttConfig) -> Self {
        let backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
        Self { config: config.clone(), state: State::Waiting(Instant::now()), backoff, paused: false }
    }

    /// The open connection.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            State::Open(connection) => Some(connection),
            _ => None,
        }
    }

    /// Waits for what happens next. May be dropped and called again.
    pub async fn next(&mut self) -> Event {
        loop {
            match &mut self.state {
                State::Left => std::future::pending().await,
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    self.state = State::Dialing(Box::pin(connect(self.config.clone())));
                }
                State::Dialing(dial) => match dial.await {
                    Ok((connection, connack)) => {
                        self.state = State::Open(Box::new(connection));
                        return Event::Connected(Box::new(connack));
                    }
                    Err(error) => return self.lose(error),
                },
                State::Open(connection) => match connection.io(self.paused).await {
                    Ok(event) => return event,
                    Err(error) => return self.lose(error),
                },
            }
        }
    }

    /// Gives the connection up and dials again after a pause.
    pub fn lose(&mut self, error: SourceError) -> Event {
        if let State::Open(connection) = &self.state
            && connection.opened.elapsed() > GOOD
        {
            self.backoff.reset();
        }
        let mut wait = self.backoff.next_wait();
        if error.reason() == "NotAuthorized" {
            wait = wait.min(LAST_WAIT_UNAUTHORIZED);
        }
        self.state = State::Waiting(Instant::now() + wait);
        Event::Lost(error)
    }

    /// Goes on with other settings: closes the connection in order and dials at once.
    pub async fn reconfigure(&mut self, config: &MqttConfig) {
        self.close().await;
        self.config = config.clone();
        self.backoff.reset();
        self.state = State::Waiting(Instant::now());
    }

    /// Says goodbye; the broker keeps the session.
    pub async fn close(&mut self) {
        self.say_goodbye(None).await;
        self.state = State::Waiting(Instant::now());
    }

    /// Says goodbye for good: the broker ends the session. Doesn't dial any more.
    pub async fn leave(&mut self) {
        self.say_goodbye(Some(DisconnectProperties {
            session_expiry_interval: Some(0),
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        }))
        .await;
        self.state = State::Left;
    }

    /// Dials again, after having left.
    pub fn come_back(&mut self) {
        if matches!(self.state, State::Left) {
            self.state = State::Waiting(Instant::now());
        }
    }

    async fn say_goodbye(&mut self, properties: Option<DisconnectProperties>) {
        const GOODBYE: Duration = Duration::from_secs(1);
        if let State::Open(connection) = &mut self.state {
            // Nobody waits for a broker that does not listen.
            drop(timeout(GOODBYE, connection.goodbye(properties)).await);
        }
    }

    /// Sends a ping when it is due, or wanted. Says for how long the broker has been silent, if that is
    /// long; loses the connection if it is too long.
    pub fn keep_alive(&mut self, wanted: bool) -> Result<KeepAlive, SourceError> {
        let paused = self.paused;
        let State::Open(connection) = &mut self.state else { return Ok(KeepAlive::default()) };
        let now = Instant::now();
        let pinged = wanted || now - connection.last_ping >= PING_EVERY.min(connection.keep_alive / 2);
        if pinged {
            connection.last_ping = now;
            PingReq::write(&mut connection.output).expect("a ping can be written");
        }
        if paused {
            // Nobody looked, so nobody can say.
            connection.last_read = now;
        }
        let silent = now - connection.last_read;
        if silent > connection.keep_alive.max(SILENT) {
            return Err(SourceError::Silent(silent.as_secs()));
        }
        Ok(KeepAlive { pinged, silent: (silent > SILENT).then_some(silent) })
    }
}

impl Connection {
    /// The next whole packet, taken out of the input.
    ///
    /// # Errors
    /// If the broker broke the protocol.
    pub fn take_frame(&mut self) -> Result<Option<BytesMut>, PacketError> {
        let length = packet::frame_length(&self.input, self.max_packet_size)?;
        Ok(length.filter(|length| *length <= self.input.len()).map(|length| self.input.split_to(length)))
    }

    /// Reads or writes, whatever is possible first. May be dropped and called again.
    async fn io(&mut self, paused: bool) -> Result<Event, SourceError> {
        let Self { reader, writer, input, output, read_from, holds_back, is_held, is_deaf, .. } = self;
        if !paused && output.is_empty() && !*is_held {
            std::thread::sleep(read_from.saturating_duration_since(Instant::now()));
        }
        let read = async {
            if paused {
                std::future::pending::<()>().await;
            }
            if *read_from > Instant::now() {
                sleep_until(*read_from).await;
            }
            input.reserve(GULP_BYTES);
            reader.read_buf(input).await
        };
        let write = async {
            match output.is_empty() {
                false => writer.write(output).await,
                true => writer.flush().await.map(|()| 0),
            }
        };
        let event = tokio::select! {
            written = write, if (!output.is_empty() || *is_held) && !*is_deaf => {
                match written {
                    Ok(bytes) => {
                        // A write that takes nothing was a flush.
                        *is_held = *holds_back && bytes > 0;
                        output.advance(bytes);
                    }
                    // What it had sent before is still to be read: it may be the only copy.
                    Err(_) => *is_deaf = true,
                }
                return Ok(Event::Written);
            }
            read = read => Event::Read(read?),
        };
        if let Event::Read(bytes) = event {
            if bytes == 0 {
                return Err(SourceError::Closed(String::new()));
            }
            self.last_read = Instant::now();
            self.read_from = self.last_read + GULP_WAIT;
        }
        Ok(event)
    }

    async fn goodbye(&mut self, properties: Option<DisconnectProperties>) -> Result<(), SourceError> {
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        let disconnect = Disconnect { reason_code, properties };
        disconnect.write(&mut self.output).map_err(|error| PacketError::Malformed(error.to_string()))?;
        self.writer.write_all_buf(&mut self.output).await?;
        self.writer.shutdown().await?;
        // Closing with something unread resets the connection, and the broker may lose the last
        // acknowledgements: so read on until it has closed.
        loop {
            self.input.clear();
            if self.reader.read_buf(&mut self.input).await? == 0 {
                return Ok(());
            }
        }
    }
}

async fn connect(config: MqttConfig) -> Result<(Connection, ConnAck), SourceError> {
    let address = broker_address(&config.url)?;
    let login = login(&config)?;
    let Halves { reader, writer, holds_back } = dial(&address, &config).await.map_err(name_refusal)?;
    let now = Instant::now();
    let mut connection = Connection {
        reader,
        writer,
        input: BytesMut::with_capacity(GULP_BYTES),
        output: BytesMut::new(),
        max_packet_size: config.max_packet_size as usize,
        keep_alive: Duration::from_secs(config.keep_alive_seconds.max(1).into()),
        opened: now,
        last_read: now,
        last_ping: now,
        read_from: now,
        holds_back,
        is_held: false,
        is_deaf: false,
    };
    let connack = timeout(HANDSHAKE_TIMEOUT, connection.shake_hands(&config, login))
        .await
        .map_err(|_| SourceError::Silent(HANDSHAKE_TIMEOUT.as_secs()))?
        .map_err(name_refusal)?;
    if let Some(keep_alive) = connack.properties.as_ref().and_then(|all| all.server_keep_alive) {
        connection.keep_alive = Duration::from_secs(keep_alive.max(1).into());
    }
    Ok((connection, connack))
}

/// With TLS 1.3 a client learns that its certificate is refused when it reads; before, within the handshake.
fn name_refusal(error: SourceError) -> SourceError {
    match &error {
        SourceError::Dial { source, .. } | SourceError::Io(source) => {
            tls::certificate_refusal(source).map_or(error, SourceError::Certificate)
        }
        _ => error,
    }
}

fn login(config: &MqttConfig) -> Result<Option<Login>, ConfigError> {
    let read = |file: &Option<String>| file.as_deref().map(read_credential).transpose();
    let (username, password) = (read(&config.username_file)?, read(&config.password_file)?);
    Ok(username.map(|username| Login { username, password: password.unwrap_or_default() }))
}

/// Both directions of a connection.
struct Halves {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    holds_back: bool,
}

impl Halves {
    fn of_tcp(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: Box::new(reader), writer: Box::new(writer), holds_back: false }
    }

    fn of(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader: Box::new(reader), writer: Box::new(writer), holds_back: true }
    }
}

async fn dial(address: &BrokerAddress, config: &MqttConfig) -> Result<Halves, SourceError> {
    let failed = |source| SourceError::Dial { address: format!("{}:{}", address.host, address.port), source };
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "timed out");
    let tls = if address.tls { Some(tls::connector(&config.into())?) } else { None };
    let dial = async {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(connector) = tls else {
            return match &address.websocket {
                None => Ok(Halves::of_tcp(stream)),
                Some(url) => upgrade(url, stream, config, failed).await,
            };
        };
        let name = tls::server_name(&address.host).map_err(failed)?;
        let stream = connector.connect(name, stream).await.map_err(failed)?;
        match &address.websocket {
            None => Ok(Halves::of(stream)),
            Some(url) => upgrade(url, stream, config, failed).await,
        }
    };
    timeout(DIAL_TIMEOUT, dial).await.map_err(|_| failed(late()))?
}

async fn upgrade(
    url: &str,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    config: &MqttConfig,
    failed: impl FnOnce(std::io::Error) -> SourceError,
) -> Result<Halves, SourceError> {
    match websocket::open(url, stream, config.max_packet_size as usize).await {
        Ok(stream) => Ok(Halves::of(stream)),
        Err(WebSocketError::Io(source)) => Err(failed(source)),
        Err(source) => Err(SourceError::WebSocket { url: url.into(), source }),
    }
}

impl Connection {
    async fn shake_hands(
        &mut self,
        config: &MqttConfig,
        login: Option<Login>,
    ) -> Result<ConnAck, SourceError> {
        let connect = Connect {
            keep_alive: config.keep_alive_seconds,
            client_id: config.client_id.clone(),
            clean_start: false,
            properties: Some(ConnectProperties {
                session_expiry_interval: Some(config.session_expiry_seconds),
                receive_maximum: Some(config.receive_maximum),
                max_packet_size: Some(config.max_packet_size),
                ..ConnectProperties::new()
            }),
        };
        connect
            .write(&None, &login, &mut self.output)
            .map_err(|error| PacketError::Malformed(error.to_string()))?;
        // Who refuses a certificate closes at once: whether writing fails or not, what it said is to be read.
        if self.writer.write_all_buf(&mut self.output).await.is_ok() {
            drop(self.writer.flush().await);
        }
        loop {
            if let Some(frame) = self.take_frame()? {
                let Incoming::Other(packet) = packet::parse(&frame)? else {
                    return Err(SourceError::NoConnAck);
                };
                let Packet::ConnAck(connack) = *packet else { return Err(SourceError::NoConnAck) };
                return match connack.code {
                    ConnectReturnCode::Success => Ok(connack),
                    code => Err(SourceError::Refused(refusal(code), code)),
                };
            }
            if self.reader.read_buf(&mut self.input).await? == 0 {
                return Err(SourceError::Closed(" before it had answered".into()));
            }
        }
    }
}

fn refusal(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "it does not accept the user name and password".into()
        }
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
            "it does not speak MQTT 5".into()
        }
        code => format!("{code:?}"),
    }
}

/// Makes TLS work: to be called once, before anything connects.
pub fn install_crypto() {
    // An error only says that it was done before.
    drop(rustls::crypto::ring::default_provider().install_default());
}
