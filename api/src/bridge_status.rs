//! What the bridge says of itself at `GET /status`: the operator turns it into conditions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// For so long an answer is held back at most, until something has changed.
pub const LONGEST_HOLD: Duration = Duration::from_secs(60);

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
        self.sides_are_ready() && self.crossing.as_ref().is_none_or(|side| side.ready)
    }

    /// Whether each side is well. If nothing crosses all the same, the bridge itself is at fault.
    pub fn sides_are_ready(&self) -> bool {
        self.broker.ready && self.database.ready
    }

    /// What an operator acts on, in one word. With it as `If-None-Match`, `GET /status` is answered when it
    /// is another one, or with 304 after a while.
    pub fn word(&self) -> String {
        let Self { config_hash, config_error, left, broker, database, crossing } = self;
        let sides = [Some(broker), Some(database), crossing.as_ref()].into_iter().flatten();
        let sides: Vec<String> = sides.map(|side| format!("{}-{}", side.reason, side.ready)).collect();
        format!("{config_hash}.{}.{}.{left}", sides.join("."), config_error.is_some())
    }
}

impl Side {
    /// What an operator acts on; the message may change without being news.
    pub fn word(&self) -> (bool, &str) {
        (self.ready, &self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_nothing_crosses_is_no_fault_of_a_side() {
        let side = |ready| Side { ready, reason: "R".into(), message: String::new() };
        let status = |broker, database, crossing| BridgeStatus {
            config_hash: String::new(),
            config_error: None,
            left: false,
            broker: side(broker),
            database: side(database),
            crossing: Some(side(crossing)),
        };
        let told = |status: BridgeStatus| (status.ready(), status.sides_are_ready());
        assert_eq!(told(status(true, true, true)), (true, true));
        assert_eq!(told(status(true, true, false)), (false, true));
        assert_eq!(told(status(true, false, false)), (false, false));
    }
}
