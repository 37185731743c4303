//! The fake network: a proxy that answers by itself for every host it is asked for.

use std::sync::Arc;

use api::bridge_status::LONGEST_HOLD;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::Seen;

pub(super) async fn answer(listener: TcpListener, seen: Arc<Seen>) {
    let router = Router::new().fallback(ask).with_state(seen);
    if let Err(error) = axum::serve(listener, router).await {
        eprintln!("the fake proxy: {error}");
    }
}

async fn ask(
    State(seen): State<Arc<Seen>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = named.split(':').next().unwrap_or_default();
    if uri.path() == "/status" {
        let known = headers.get(header::IF_NONE_MATCH).and_then(|word| word.to_str().ok());
        let answer = seen.bridges.answer(host, known);
        return match timeout(LONGEST_HOLD, answer).await {
            Ok(Some(status)) => (StatusCode::OK, Json(json!(status))),
            Ok(None) => (StatusCode::BAD_GATEWAY, Json(json!({"message": "no bridge there"}))),
            Err(_) => (StatusCode::NOT_MODIFIED, Json(Value::Null)),
        };
    }
    if let Some((code, message)) = seen.refusal(host) {
        return (code, Json(json!({"message": message})));
    }
    let body = serde_json::from_slice(&body).unwrap_or_default();
    if host.starts_with("grafana.") {
        let (status, answer) = seen.grafanas.answer(host, method.as_str(), uri.path(), &body);
        return (status, Json(answer));
    }
    let (status, answer) = seen.databases.answer(host, method.as_str(), uri.path(), &body);
    (status, Json(answer))
}
