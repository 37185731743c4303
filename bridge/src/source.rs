//! The connection to the broker: dials and shakes hands ([`dial`]), reads in gulps, writes what is due, and
//! dials again when it is lost. Knows nothing of routes or points.

mod dial;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use api::bridge_config::MqttConfig;
use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Disconnect, DisconnectProperties, DisconnectReasonCode, Packet, PingReq,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::config::ConfigError;
use crate::packet::{self, PacketError};
use crate::tls;
use crate::version::Version;
use crate::websocket::WebSocketError;

/// One read takes at most this much: a thousand messages.
const GULP_BYTES: usize = 64 << 10;
/// Two reads are at least this far apart: under load input gathers, as a read per message costs ten times as much,
/// and after a pause a message is read at once. The thread sleeps meanwhile: a timer of the runtime would let every
/// packet wake it, which was a third of all its work.
const GULP_WAIT: Duration = Duration::from_millis(8);
/// The same while the database writes, whose answer the thread would sleep through.
const GULP_WAIT_WRITING: Duration = Duration::from_millis(4);
/// The longest pause between two pings.
const PING_EVERY: Duration = Duration::from_millis(1_500);
/// Without a sign of life for this long, the connection is reported as unresponsive: two pings went unanswered, and
/// it is told within 5 s.
const SILENT: Duration = Duration::from_millis(3_500);
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
    /// Several bridges are to share the load, and the broker can't divide it.
    #[error(
        "the broker speaks {0} only, which has no shared subscriptions: leave bridge.replicas out, or use a \
         broker of MQTT 5"
    )]
    Sharing(Version),
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
            Self::Config(_) | Self::Tls(_) | Self::Sharing(_) => "Misconfigured",
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
    /// What both sides speak.
    pub version: Version,
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What was read and not taken yet.
    pub input: BytesMut,
    /// So much of what comes next is the rest of a message that is too large.
    pub skip: usize,
    /// What is to be written.
    pub output: BytesMut,
    max_packet_size: usize,
    keep_alive: Duration,
    opened: Instant,
    last_read: Instant,
    last_ping: Instant,
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
    /// A connection was made: in which version, and the broker's answer.
    Connected(Version, Box<ConnAck>),
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
    /// The database writes, and its answer is due.
    pub writing: bool,
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
        Self {
            config: config.clone(),
            state: State::Waiting(Instant::now()),
            backoff,
            paused: false,
            writing: false,
        }
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
                    self.state = State::Dialing(Box::pin(dial::connect(self.config.clone())));
                }
                State::Dialing(dial) => match dial.await {
                    Ok((connection, connack)) => {
                        let version = connection.version;
                        self.state = State::Open(Box::new(connection));
                        return Event::Connected(version, Box::new(connack));
                    }
                    Err(error) => return self.lose(error),
                },
                State::Open(connection) => match connection.io(self.paused, self.writing).await {
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
    ///
    /// # Errors
    /// If a broker of 3.1.1 isn't reached again; it may keep the session.
    pub async fn leave(&mut self) -> Result<(), SourceError> {
        let version = self.connection().map(|connection| connection.version).unwrap_or_default();
        self.say_goodbye(Some(DisconnectProperties {
            session_expiry_interval: Some(0),
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        }))
        .await;
        self.state = State::Waiting(Instant::now());
        if version == Version::V311 {
            // There is no other way to end a session than to begin one that isn't kept.
            let connection = dial::end_session(&self.config).await?;
            self.state = State::Open(Box::new(connection));
            self.say_goodbye(None).await;
        }
        self.state = State::Left;
        Ok(())
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
            // The same bytes in each version.
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
    async fn io(&mut self, paused: bool, writing: bool) -> Result<Event, SourceError> {
        let Self { reader, writer, input, output, last_read, holds_back, is_held, is_deaf, .. } = self;
        let read_from = *last_read + if writing { GULP_WAIT_WRITING } else { GULP_WAIT };
        if !paused && output.is_empty() && !*is_held {
            std::thread::sleep(read_from.saturating_duration_since(Instant::now()));
        }
        let read = async {
            if paused {
                std::future::pending::<()>().await;
            }
            if read_from > Instant::now() {
                sleep_until(read_from).await;
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
        let bytes = tokio::select! {
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
            read = read => read?,
        };
        if bytes == 0 {
            return Err(SourceError::Closed(String::new()));
        }
        self.last_read = Instant::now();
        Ok(Event::Read(bytes))
    }

    async fn goodbye(&mut self, properties: Option<DisconnectProperties>) -> Result<(), SourceError> {
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        let disconnect = Disconnect { reason_code, properties };
        self.version.write(Packet::Disconnect(disconnect), &mut self.output)?;
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

/// Makes TLS work: to be called once, before anything connects.
pub fn install_crypto() {
    // An error only says that it was done before.
    drop(rustls::crypto::ring::default_provider().install_default());
}
