//! A database and a Grafana that take a request and never answer it.

use std::future::pending;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::Method;
use axum::response::{IntoResponse, Json, Response};
use iotpipeline_operator::grafana::Grafana;
use iotpipeline_operator::http;
use iotpipeline_operator::influxdb::{InfluxDb, Wanted};
use iotpipeline_operator::leader::fence::Fence;
use iotpipeline_operator::plan::GrafanaAccess;
use iotpipeline_operator::resources::Tokens;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// By now a question has been given up.
const SOON: Duration = Duration::from_secs(3);

async fn nothing() -> Response {
    pending().await
}

/// The database is fresh, and hangs as soon as it is to be set up.
async fn questions_alone(method: Method) -> Response {
    match method {
        Method::GET => Json(json!({"allowed": true})).into_response(),
        _ => pending().await,
    }
}

async fn start(router: Router) -> String {
    // A test before may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn client() -> reqwest::Client {
    http::client(None, &Fence::open()).expect("there is a client")
}

fn wanted() -> Wanted<'static> {
    Wanted {
        admin_password: "password",
        organization: "lab",
        bucket: "points",
        retention_seconds: 0,
        is_restored: false,
        has_dashboard: true,
        known: Tokens::default(),
        rotated: Tokens::default(),
        now: "2026-01-01T00:00:00Z".parse().expect("a time"),
    }
}

#[tokio::test]
async fn who_never_answers_a_question_is_known_soon() {
    let url = start(Router::new().fallback(nothing)).await;
    let database = InfluxDb::new(client(), &url, "token");
    let grafana = Grafana::new(client(), &url, &GrafanaAccess::Token("token".into()));
    let begun = Instant::now();
    let wanted = wanted();
    let (write, set_up, dashboard) =
        tokio::join!(database.check_write("o", "b"), database.set_up(&wanted), grafana.has_dashboard("uid"),);
    let took = begun.elapsed();
    for error in [write.err(), set_up.err(), dashboard.err()] {
        let error = error.expect("nobody answers");
        assert_eq!(error.reason(), "Unreachable");
        assert_eq!(error.to_string(), format!("{url} does not answer: it takes too long"));
    }
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn the_answer_to_a_change_is_waited_for_longer() {
    let url = start(Router::new().fallback(questions_alone)).await;
    let database = InfluxDb::new(client(), &url, "token");
    assert!(timeout(SOON, database.set_up(&wanted())).await.is_err(), "it was given up");
}
