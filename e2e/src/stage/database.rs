//! Fake databases: as much of InfluxDB 2.9's API as the operator's set-up asks for. Like the real one they
//! tell a token's text only once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;
use serde_json::{Value, json};

/// By their hosts' names.
#[derive(Default)]
pub(super) struct Databases(Mutex<HashMap<String, Database>>);

#[derive(Default)]
struct Database {
    is_set_up: bool,
    organization: Value,
    bucket: Value,
    retention: Value,
    authorizations: Vec<Value>,
}

const ORGANIZATION: &str = "0000000000000001";
const BUCKET: &str = "0000000000000002";

impl Databases {
    /// What the database with this name answers.
    pub(super) fn answer(&self, host: &str, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let mut databases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        databases.entry(host.to_owned()).or_default().answer(method, path, body)
    }
}

impl Database {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let found = |value| (StatusCode::OK, value);
        match (method, path) {
            ("GET", "/api/v2/setup") => found(json!({"allowed": !self.is_set_up})),
            ("POST", "/api/v2/setup") => {
                self.is_set_up = true;
                self.organization = body["org"].clone();
                self.bucket = body["bucket"].clone();
                self.retention = json!([{"everySeconds": body["retentionPeriodSeconds"]}]);
                (StatusCode::CREATED, json!({}))
            }
            ("GET", "/api/v2/orgs") => {
                found(json!({"orgs": [{"id": ORGANIZATION, "name": self.organization}]}))
            }
            ("GET", "/api/v2/buckets") => found(json!({"buckets": [
                {"id": BUCKET, "name": self.bucket, "retentionRules": self.retention},
            ]})),
            ("PATCH", _) if path.starts_with("/api/v2/buckets/") => {
                self.retention = body["retentionRules"].clone();
                found(json!({}))
            }
            ("GET", "/api/v2/authorizations") => found(json!({"authorizations": self.authorizations})),
            ("POST", "/api/v2/authorizations") => {
                let number = self.authorizations.len();
                let mut made = body.clone();
                made["id"] = format!("{number:016}").into();
                made["status"] = "active".into();
                self.authorizations.push(made.clone());
                made["token"] = format!("fake-token-{:016x}", fastrand::u64(..)).into();
                (StatusCode::CREATED, made)
            }
            // One without a point, which asks whether points would be taken.
            ("POST", "/api/v2/write") => (StatusCode::NO_CONTENT, Value::Null),
            _ => (StatusCode::NOT_FOUND, json!({"message": format!("the fake has no {method} {path}")})),
        }
    }
}
