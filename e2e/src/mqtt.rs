//! An MQTT 5 client that is not our own code: rumqttc's, one connection at a time.
//!
//! rumqttc reconnects by itself while it is polled; here a broken connection ends the client
//! instead, since a test must know what happened on which connection.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, Packet, PubAckReason, Publish, SubscribeProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Who connects: a user and its password, or nobody.
pub type Login<'a> = Option<(&'a str, &'a str)>;

/// One connection to a broker on 127.0.0.1.
pub struct Client {
    requests: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
    waiting: VecDeque<Publish>,
    poll: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.poll.abort();
    }
}

/// Options for a connection to a broker on 127.0.0.1.
pub fn options(port: u16, client_id: &str, login: Login<'_>) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(10)).set_max_packet_size(Some(2_000_000));
    options.set_outgoing_inflight_upper_limit(1_000);
    if let Some((user, password)) = login {
        options.set_credentials(user, password);
    }
    options
}

/// Tries to connect, and returns what the broker says to it.
///
/// # Errors
/// If the broker doesn't answer.
pub async fn try_connect(port: u16, login: Login<'_>) -> Result<ConnectReturnCode> {
    let (_requests, mut events) = AsyncClient::new(options(port, "e2e-try", login), 1);
    match tokio::time::timeout(ANSWER, events.poll()).await.context("no answer to CONNECT")? {
        Ok(Event::Incoming(Packet::ConnAck(answer))) => Ok(answer.code),
        Err(ConnectionError::ConnectionRefused(code)) => Ok(code),
        other => bail!("not an answer to CONNECT: {other:?}"),
    }
}

impl Client {
    /// Connects with a clean session.
    ///
    /// # Errors
    /// If the broker refuses or doesn't answer.
    pub async fn connect(port: u16, client_id: &str, login: Login<'_>) -> Result<Self> {
        let (requests, mut events) = AsyncClient::new(options(port, client_id, login), 16);
        loop {
            match tokio::time::timeout(ANSWER, events.poll()).await.context("no answer to CONNECT")?? {
                Event::Incoming(Packet::ConnAck(_)) => break,
                _ => continue,
            }
        }
        let (sender, packets) = mpsc::unbounded_channel();
        let poll = tokio::spawn(poll(events, sender));
        Ok(Self { requests, packets, waiting: VecDeque::new(), poll })
    }

    /// Subscribes, and returns what the broker granted.
    ///
    /// # Errors
    /// If the connection ends or the broker doesn't answer.
    pub async fn subscribe(&mut self, filter: &str) -> Result<SubscribeReasonCode> {
        self.requests.subscribe(filter, QoS::AtLeastOnce).await?;
        self.granted().await
    }

    /// Subscribes with an identifier, which each copy for this filter then has.
    ///
    /// # Errors
    /// If the connection ends or the broker doesn't answer.
    pub async fn subscribe_as(&mut self, filter: &str, id: usize) -> Result<SubscribeReasonCode> {
        let properties = SubscribeProperties { id: Some(id), user_properties: Vec::new() };
        self.requests.subscribe_with_properties(filter, QoS::AtLeastOnce, properties).await?;
        self.granted().await
    }

    async fn granted(&mut self) -> Result<SubscribeReasonCode> {
        loop {
            match self.packet(ANSWER).await.context("no answer to SUBSCRIBE")? {
                Packet::SubAck(answer) => {
                    return answer.return_codes.first().copied().context("an empty SUBACK");
                }
                Packet::Publish(message) => self.waiting.push_back(message),
                _ => {}
            }
        }
    }

    /// Publishes at QoS 1, and returns the broker's acknowledgement.
    ///
    /// # Errors
    /// If the connection ends or the broker doesn't answer.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) -> Result<PubAckReason> {
        self.publish_or_retain(topic, payload.into(), false).await
    }

    /// Publishes at QoS 1 what the broker is to retain, and returns its acknowledgement.
    ///
    /// # Errors
    /// If the connection ends or the broker doesn't answer.
    pub async fn retain(&mut self, topic: &str, payload: impl Into<Bytes>) -> Result<PubAckReason> {
        self.publish_or_retain(topic, payload.into(), true).await
    }

    async fn publish_or_retain(&mut self, topic: &str, payload: Bytes, retain: bool) -> Result<PubAckReason> {
        self.requests.publish(topic, QoS::AtLeastOnce, retain, payload).await?;
        loop {
            match self.packet(ANSWER).await.with_context(|| format!("no answer to PUBLISH {topic}"))? {
                Packet::PubAck(answer) => return Ok(answer.reason),
                Packet::Publish(message) => self.waiting.push_back(message),
                _ => {}
            }
        }
    }

    /// The next message that the broker delivers.
    ///
    /// # Errors
    /// If none comes in time, or the connection ends.
    pub async fn message(&mut self, deadline: Duration) -> Result<Publish> {
        if let Some(message) = self.waiting.pop_front() {
            return Ok(message);
        }
        let arrival = async {
            loop {
                if let Packet::Publish(message) = self.packet(deadline).await? {
                    return Ok(message);
                }
            }
        };
        tokio::time::timeout(deadline, arrival)
            .await
            .with_context(|| format!("no message within {deadline:?}"))?
    }

    /// Whether the connection still stands.
    pub fn is_connected(&self) -> bool {
        !self.poll.is_finished()
    }

    async fn packet(&mut self, deadline: Duration) -> Result<Packet> {
        let packet = tokio::time::timeout(deadline, self.packets.recv()).await?;
        packet.context("the connection has ended")
    }
}

async fn poll(mut events: EventLoop, packets: mpsc::UnboundedSender<Packet>) {
    while let Ok(event) = events.poll().await {
        if let Event::Incoming(packet) = event
            && packets.send(packet).is_err()
        {
            return;
        }
    }
}
