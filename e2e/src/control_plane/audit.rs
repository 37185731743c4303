//! The API server's audit log: who has asked what.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;

use super::User;

/// The log from a moment on.
pub struct AuditLog {
    path: PathBuf,
    /// What was before it doesn't matter.
    from: u64,
}

/// A request and how it was answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// How far it has got: a watch is told when it starts, and when it ends.
    pub stage: String,
    /// get, list, watch, create, update, patch, delete, deletecollection
    pub verb: String,
    /// What it was about; None for what is no resource, such as `/readyz`.
    pub object_ref: Option<Object>,
    /// What was asked.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// What asks says of itself.
    #[serde(rename = "userAgent", default)]
    pub agent: String,
    /// When it came.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: Timestamp,
    /// When it was answered, or began to be.
    #[serde(rename = "stageTimestamp")]
    pub answered: Timestamp,
    /// What was answered, where the log has that.
    #[serde(default, rename = "responseObject")]
    pub response: serde_json::Value,
    user: Asking,
    response_status: Option<Answer>,
}

/// What a request was about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// The kind's plural.
    pub resource: String,
    /// Such as `status`.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The API group; empty for the core's.
    pub api_group: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Asking {
    username: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    code: u16,
}

impl Request {
    /// Whether it was this user's.
    pub fn is_by(&self, user: User) -> bool {
        self.user.username == user.name()
    }

    /// Whether it was this operator's, of several that are one user.
    pub fn agent_is(&self, name: &str) -> bool {
        self.agent.contains(&format!("({name}_"))
    }

    /// Whether it could have changed something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// The status of the answer.
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |answer| answer.code)
    }
}

impl AuditLog {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, from: 0 }
    }

    /// The log from this moment on.
    ///
    /// # Errors
    /// If it is not there.
    pub fn from_now(self) -> Result<Self> {
        let from = std::fs::metadata(&self.path).context("the audit log")?.len();
        Ok(Self { from, ..self })
    }

    /// What this user has asked.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn requests_of(&self, user: User) -> Result<Vec<Request>> {
        let mut file = File::open(&self.path).context("the audit log")?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut requests = Vec::new();
        for line in BufReader::new(file).lines() {
            // The last line may be written at this moment.
            let Ok(request) = serde_json::from_str::<Request>(&line?) else { continue };
            if request.is_by(user) {
                requests.push(request);
            }
        }
        Ok(requests)
    }
}
