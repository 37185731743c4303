//! Dials a broker and shakes hands: by TCP, TLS or WebSocket, in MQTT 5 or 3.1.1.

use std::time::Duration;

use api::bridge_config::MqttConfig;
use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Connect, ConnectProperties, ConnectReturnCode, Login, Packet};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{Connection, GULP_BYTES, SourceError};
use crate::config::{BrokerAddress, ConfigError, broker_address, read_credential};
use crate::packet::{self, Incoming};
use crate::tls;
use crate::version::Version;
use crate::websocket::{self, WebSocketError};

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects in MQTT 5, or in 3.1.1 if the broker refuses just that. Any other refusal, silence or end leaves it
/// at 5; and each connection begins with 5, so that nothing which happens on one binds the next.
pub(super) async fn connect(config: MqttConfig) -> Result<(Connection, ConnAck), SourceError> {
    match open(&config, Version::V5, false).await {
        Err(SourceError::Refused(
            _,
            ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion,
        )) => open(&config, Version::V311, false).await,
        answer => answer,
    }
}

/// Ends the session at a broker of 3.1.1: begins one that ends with its connection.
pub(super) async fn end_session(config: &MqttConfig) -> Result<Connection, SourceError> {
    open(config, Version::V311, true).await.map(|(connection, _)| connection)
}

async fn open(
    config: &MqttConfig,
    version: Version,
    clean_start: bool,
) -> Result<(Connection, ConnAck), SourceError> {
    let address = broker_address(&config.url)?;
    let login = login(config)?;
    let Halves { reader, writer, holds_back } = dial(&address, config).await.map_err(name_refusal)?;
    let now = Instant::now();
    let mut connection = Connection {
        version,
        reader,
        writer,
        input: BytesMut::with_capacity(GULP_BYTES),
        skip: 0,
        output: BytesMut::new(),
        max_packet_size: config.max_packet_size as usize,
        keep_alive: Duration::from_secs(config.keep_alive_seconds.max(1).into()),
        opened: now,
        last_read: now,
        last_ping: now,
        holds_back,
        is_held: false,
        is_deaf: false,
    };
    let connack = timeout(HANDSHAKE_TIMEOUT, connection.shake_hands(config, login, clean_start))
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
        clean_start: bool,
    ) -> Result<ConnAck, SourceError> {
        let connect = Connect {
            keep_alive: config.keep_alive_seconds,
            client_id: config.client_id.clone(),
            clean_start,
            properties: Some(ConnectProperties {
                session_expiry_interval: Some(config.session_expiry_seconds),
                receive_maximum: Some(config.receive_maximum),
                max_packet_size: Some(config.max_packet_size),
                ..ConnectProperties::new()
            }),
        };
        self.version.write(Packet::Connect(connect, None, login), &mut self.output)?;
        // Who refuses a certificate closes at once: whether writing fails or not, what it said is to be read.
        if self.writer.write_all_buf(&mut self.output).await.is_ok() {
            drop(self.writer.flush().await);
        }
        loop {
            if let Some(frame) = self.take_frame()? {
                // Who knows nothing of MQTT 5 refuses it in an answer of 3.1.1, which has two bytes.
                let version = if frame.starts_with(&[0x20, 2]) { Version::V311 } else { self.version };
                let Incoming::Other(packet) = packet::parse(&frame, version)? else {
                    return Err(SourceError::NoConnAck);
                };
                let Packet::ConnAck(connack) = *packet else { return Err(SourceError::NoConnAck) };
                return match connack.code {
                    ConnectReturnCode::Success if version != self.version => Err(SourceError::NoConnAck),
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
            "it speaks neither MQTT 5 nor MQTT 3.1.1".into()
        }
        code => format!("{code:?}"),
    }
}
