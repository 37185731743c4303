//! What the bridge says of itself at `GET /status`: the operator turns it into conditions.

use serde::{Deserialize, Serialize};

/// The whole answer, as JSON.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeStatus {
    /// SHA-256 in hex of the configuration file's bytes that are in effect.
    pub config_hash: String,
    /// The newest configuration file was refused, and why; the one before is in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
    /// The bridge has left: nothing waits for it at the broker, and its session there has ended.
    #[serde(default)]
    pub left: bool,
    /// The connection to the broker, its subscriptions included.
    pub broker: Side,
    /// The connection to the database, the right to write included.
    pub database: Side,
    /// Whether a message of the bridge's own crossed, if it sends any. Ready with the reason `Behind`: much waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossing: Option<Side>,
}

/// One side of the bridge.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Whether messages, or points, can cross at this moment.
    pub ready: bool,
    /// One word in CamelCase for a condition's reason, such as `Connected`, `NotAuthorized`, `Unreachable`.
    pub reason: String,
    /// A sentence for people: what is the matter and what to do. Never holds a credential.
    pub message: String,
}

impl BridgeStatus {
    /// Whether a message can cross.
    pub fn ready(&self) -> bool {
        self.broker.ready && self.database.ready && self.crossing.as_ref().is_none_or(|side| side.ready)
    }
}
