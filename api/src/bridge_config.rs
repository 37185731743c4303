//! The bridge's configuration file: written by the operator, read by the bridge.
//!
//! It holds no secret: credentials are files beside it, named here. Fields that the reader does not
//! know are ignored, so that an older bridge reads a newer operator's file.

use serde::{Deserialize, Serialize};

use crate::route::Route;

/// The whole file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeConfig {
    /// The pipeline's name; part of the dead-letter topic.
    pub pipeline: String,
    /// Where messages come from.
    pub mqtt: MqttConfig,
    /// Where points go.
    pub database: DatabaseConfig,
    /// How several bridges share the load. Absent: one bridge takes everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// Messages with a payload of more bytes become dead letters. Absent: no bound but the packet's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_message_size: Option<u32>,
    /// Whether the bridge now and then sends a message of its own through broker and database, and says if it
    /// crossed.
    #[serde(default)]
    pub canary: bool,
    /// Which topics become which points.
    pub routes: Vec<Route>,
}

/// Several bridges with shared subscriptions: the broker gives each message to one of them.
/// <https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html#_Toc3901250>
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sharing {
    /// The share name, which all members have in common.
    pub group: String,
    /// Those with a number below take part. The others leave: they take what the broker holds for them, and
    /// no more.
    pub members: u32,
}

/// The broker, and how the bridge connects to it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MqttConfig {
    /// mqtt://host:port or mqtts://host:port; the port is 1883 or 8883 if left out. Or MQTT over WebSocket:
    /// ws://host:port/path or wss://host:port/path; the port is 80 or 443, and the path /mqtt.
    pub url: String,
    /// Names the session at the broker, so it must not change while messages wait there. A bridge that is
    /// told its number appends it.
    pub client_id: String,
    /// The topic in which the broker says how many messages it has dropped since its start. Absent: it doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_topic: Option<String>,
    /// A file with a secret part, which is appended too. The bridge keeps on its volume what it found there first, since
    /// the session is at the broker as long as that volume. Where others have accounts, whoever knows a client id can end
    /// its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_client_id_file: Option<String>,
    /// A file with the user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_file: Option<String>,
    /// A file with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// A PEM file with the certificate authorities to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// A PEM file with the bridge's own certificate, then those that signed it. With keyFile, and TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<String>,
    /// A PEM file with the certificate's private key, unencrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// How many messages of QoS 1 and 2 may be on their way into the database; bounds memory.
    #[serde(default = "default_receive_maximum")]
    pub receive_maximum: u16,
    /// Seconds between pings when nothing else is sent; the broker gives up after one and a half times that.
    #[serde(default = "default_keep_alive_seconds")]
    pub keep_alive_seconds: u16,
    /// Seconds for which the broker keeps the session, and what it queued, without a connection. One of MQTT 3.1.1
    /// decides that itself.
    #[serde(default = "default_session_expiry_seconds")]
    pub session_expiry_seconds: u32,
    /// The largest packet that the bridge accepts, in bytes.
    #[serde(default = "default_max_packet_size")]
    pub max_packet_size: u32,
}

/// The database, and what the bridge writes to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseConfig {
    /// http://host:port or https://host:port, with a path if the API is under one.
    pub url: String,
    /// The organization's name.
    pub organization: String,
    /// The bucket's name.
    pub bucket: String,
    /// A file with a token that may write the bucket.
    pub token_file: String,
    /// A PEM file with the certificate authorities to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

fn default_receive_maximum() -> u16 {
    10_000
}

fn default_keep_alive_seconds() -> u16 {
    30
}

/// A day.
fn default_session_expiry_seconds() -> u32 {
    86_400
}

/// 2 MB, mosquitto 2.1's own limit.
fn default_max_packet_size() -> u32 {
    2_000_000
}

impl BridgeConfig {
    /// The topic for messages that a route could not store.
    pub fn dead_letter_topic(&self, route: &str) -> String {
        dead_letter_topic(&self.pipeline, route)
    }
}

/// The topic for the messages by which a bridge sees whether messages cross.
pub fn canary_topic(pipeline: &str, member: u32) -> String {
    format!("iotpipeline/{pipeline}/canary/{member}")
}

/// The topic for messages of a pipeline that a route could not store.
pub fn dead_letter_topic(pipeline: &str, route: &str) -> String {
    format!("iotpipeline/{pipeline}/dead-letter/{route}")
}
