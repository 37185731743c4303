//! /livez, /readyz and /metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::{Metrics, Role};

/// Every pipeline that is not being deleted has a pass at least every ten minutes, so this long a silence is a fault.
const SILENCE: Duration = Duration::from_secs(900);

/// Answers until the shutdown.
///
/// # Errors
/// If the listener fails.
pub async fn run(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .with_state(metrics);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn live(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.idle() {
        Some(idle) if idle > SILENCE => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("no pass has ended for {} s\n", idle.as_secs()))
                .into_response()
        }
        _ => "ok\n".into_response(),
    }
}

async fn ready(State(metrics): State<Arc<Metrics>>) -> Response {
    let missing = match metrics.role() {
        Role::Candidate => "the lease can't be read, or was lost\n",
        Role::Leader if !metrics.is_filled() => "the pipelines have not been read yet\n",
        Role::Leader | Role::Standby => return "ok\n".into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, missing).into_response()
}

async fn text(State(metrics): State<Arc<Metrics>>) -> Response {
    let type_ = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (type_, metrics.text()).into_response()
}
