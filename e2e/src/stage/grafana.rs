//! Fake Grafanas outside the cluster: as much of the API as the operator asks. They keep what they are given.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;
use serde_json::{Value, json};

/// By host and path, what is there.
#[derive(Default)]
pub(super) struct Grafanas(Mutex<HashMap<(String, String), Value>>);

impl Grafanas {
    /// What the Grafana with this name answers.
    pub(super) fn answer(&self, host: &str, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keep = |path: String, value: Value| {
            kept.insert((host.to_owned(), path), value);
            (StatusCode::OK, json!({}))
        };
        let uid = |value: &Value| value["uid"].as_str().unwrap_or_default().to_owned();
        match (method, path) {
            ("POST", "/api/dashboards/db") => {
                let dashboard = &body["dashboard"];
                keep(format!("/api/dashboards/uid/{}", uid(dashboard)), json!({"dashboard": dashboard}))
            }
            ("POST", "/api/datasources") => keep(format!("/api/datasources/uid/{}", uid(body)), body.clone()),
            ("PUT", path) => keep(path.to_owned(), body.clone()),
            (_, path) => match kept.get(&(host.to_owned(), path.to_owned())) {
                Some(found) => (StatusCode::OK, found.clone()),
                None => (StatusCode::NOT_FOUND, json!({"message": "not found"})),
            },
        }
    }
}
