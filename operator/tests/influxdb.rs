//! The InfluxDB client against a fake: an HTTP server that answers as InfluxDB 2.9.1 was seen to. The real
//! one is in the end-to-end tests.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use iotpipeline_operator::http;
use iotpipeline_operator::influxdb::{InfluxDb, SetUp, Wanted};
use iotpipeline_operator::leader::fence::Fence;
use iotpipeline_operator::resources::Tokens;
use serde_json::{Value, json};

/// What the fake database has.
#[derive(Default)]
struct Fake {
    admin: Option<String>,
    /// The bucket's name; there is none, if it is empty.
    bucket: String,
    retention: i64,
    /// Id, the authorization as it was made, its token.
    authorizations: Vec<(String, Value, String)>,
    /// Whether it tells the tokens' texts, as versions before 2.9 do.
    tells: bool,
    made: u32,
    requests: Vec<String>,
}

type Shared = Arc<Mutex<Fake>>;

async fn answer(
    State(fake): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut fake = fake.lock().expect("nobody panicked");
    fake.requests.push(format!("{method} {}", uri.path()));
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Token "));
    let is_admin = token.is_some() && token == fake.admin.as_deref();
    let is_known = is_admin || fake.authorizations.iter().any(|(_, _, own)| Some(own.as_str()) == token);
    let refuse =
        |status: StatusCode, message: &str| (status, Json(json!({"message": message}))).into_response();
    match (method.as_str(), uri.path()) {
        ("GET", "/api/v2/setup") => return Json(json!({"allowed": fake.admin.is_none()})).into_response(),
        ("POST", "/api/v2/setup") if fake.admin.is_none() => {
            fake.admin = body["token"].as_str().map(Into::into);
            fake.bucket = body["bucket"].as_str().unwrap_or_default().into();
            fake.retention = body["retentionPeriodSeconds"].as_i64().unwrap_or_default();
            return (StatusCode::CREATED, Json(json!({}))).into_response();
        }
        _ if !is_known => return refuse(StatusCode::UNAUTHORIZED, "unauthorized access"),
        ("GET", "/api/v2/buckets") => {}
        _ if !is_admin => return refuse(StatusCode::FORBIDDEN, "insufficient permissions"),
        _ => {}
    }
    match (method.as_str(), uri.path()) {
        ("GET", "/api/v2/orgs") => Json(json!({"orgs": [{"id": "o1", "name": "lab"}]})).into_response(),
        ("GET", "/api/v2/buckets") if uri.query().unwrap_or_default().contains("name=") => {
            let is_it = uri.query().is_some_and(|query| query.ends_with(&format!("name={}", fake.bucket)));
            let found: Vec<Value> = is_it.then(|| bucket(&fake)).into_iter().collect();
            Json(json!({"buckets": found})).into_response()
        }
        ("GET", "/api/v2/buckets") => Json(json!({"buckets": [bucket(&fake)]})).into_response(),
        ("GET", "/api/v2/buckets/b1") => Json(bucket(&fake)).into_response(),
        ("PATCH", "/api/v2/buckets/b1") => {
            if let Some(rule) = body["retentionRules"].get(0) {
                fake.retention = rule["everySeconds"].as_i64().unwrap_or_default();
            }
            if let Some(name) = body["name"].as_str() {
                fake.bucket = name.into();
            }
            Json(json!({})).into_response()
        }
        ("GET", "/api/v2/authorizations") => {
            let tells = fake.tells;
            let told = fake.authorizations.iter().map(|(id, made, token)| {
                let mut told = made.clone();
                told["id"] = id.as_str().into();
                told["status"] = "active".into();
                if tells {
                    told["token"] = token.as_str().into();
                }
                told
            });
            Json(json!({"authorizations": told.collect::<Vec<_>>()})).into_response()
        }
        ("POST", "/api/v2/authorizations") => {
            fake.made += 1;
            let (id, token) = (format!("a{}", fake.made), format!("token-{}", fake.made));
            let mut made = body;
            made["createdAt"] = NOW.into();
            fake.authorizations.push((id.clone(), made, token.clone()));
            (StatusCode::CREATED, Json(json!({"id": id, "token": token}))).into_response()
        }
        ("DELETE", path) if path.starts_with("/api/v2/authorizations/") => {
            let id = path.rsplit('/').next().unwrap_or_default().to_owned();
            fake.authorizations.retain(|(own, _, _)| *own != id);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => refuse(StatusCode::NOT_FOUND, "path not found"),
    }
}

fn bucket(fake: &Fake) -> Value {
    let rules = json!([{"type": "expire", "everySeconds": fake.retention}]);
    json!({"id": "b1", "name": fake.bucket, "retentionRules": rules})
}

async fn start(fake: Fake) -> (Shared, String) {
    // A test before may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fake = Arc::new(Mutex::new(fake));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    let router = Router::new().fallback(answer).with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (fake, url)
}

fn database(url: &str, token: &str) -> InfluxDb {
    InfluxDb::new(http::client(None, &Fence::open()).expect("there is a client"), url, token)
}

fn wanted(known: Tokens) -> Wanted<'static> {
    Wanted {
        admin_password: "password",
        organization: "lab",
        bucket: "mesure",
        retention_seconds: 3600,
        is_restored: false,
        has_dashboard: true,
        known,
        rotated: Tokens::default(),
        now: NOW.parse().expect("a time"),
    }
}

const NOW: &str = "2026-01-01T00:00:00Z";

async fn set_up(url: &str, known: Tokens) -> SetUp {
    database(url, "admin").set_up(&wanted(known)).await.expect("the database is set up")
}

#[tokio::test]
async fn a_fresh_database_is_set_up_once_and_then_left_alone() {
    for tells in [true, false] {
        let (fake, url) = start(Fake { tells, ..Fake::default() }).await;
        let first = set_up(&url, Tokens::default()).await;
        assert_eq!(first.changes, ["onboarded", "created a token", "created a token"]);
        fake.lock().expect("nobody panicked").requests.clear();

        let second = set_up(&url, first.tokens.clone()).await;
        assert!(second.tokens == first.tokens && second.changes.is_empty(), "{:?}", second.changes);
        let requests = fake.lock().expect("nobody panicked").requests.clone();
        assert!(requests.iter().all(|request| request.starts_with("GET ")), "{requests:?}");
    }
}

#[tokio::test]
async fn tokens_are_for_one_bucket_and_one_action() {
    let (fake, url) = start(Fake::default()).await;
    set_up(&url, Tokens::default()).await;
    let fake = fake.lock().expect("nobody panicked");
    let permissions: Vec<&Value> =
        fake.authorizations.iter().map(|(_, made, _)| &made["permissions"]).collect();
    let on_bucket = |action: &str| json!([{"action": action, "resource": {"type": "buckets", "id": "b1", "orgID": "o1"}}]);
    assert_eq!(permissions, [&on_bucket("write"), &on_bucket("read")]);
}

#[tokio::test]
async fn a_changed_retention_is_set() {
    let (fake, url) = start(Fake {
        admin: Some("admin".into()),
        bucket: "mesure".into(),
        retention: 7200,
        ..Fake::default()
    })
    .await;
    assert!(set_up(&url, Tokens::default()).await.changes.contains(&"changed the retention"));
    assert_eq!(fake.lock().expect("nobody panicked").retention, 3600);
}

#[tokio::test]
async fn a_bucket_with_another_name_is_renamed_and_its_tokens_stay() {
    let (fake, url) = start(Fake::default()).await;
    let first = set_up(&url, Tokens::default()).await;
    let other = Wanted { bucket: "other", ..wanted(first.tokens.clone()) };
    let second = database(&url, "admin").set_up(&other).await.expect("the database is set up");
    assert_eq!(second.changes, ["renamed the bucket"]);
    assert!(second.tokens == first.tokens);
    assert_eq!(fake.lock().expect("nobody panicked").bucket, "other");
}

#[tokio::test]
async fn a_deleted_token_is_made_again_and_a_forgotten_one_replaced() {
    let (fake, url) = start(Fake::default()).await;
    let first = set_up(&url, Tokens::default()).await;
    fake.lock().expect("nobody panicked").authorizations.remove(0);
    let second = set_up(&url, first.tokens.clone()).await;
    assert_eq!(second.changes, ["created a token"]);
    assert_eq!(second.tokens.dashboard, first.tokens.dashboard);
    assert_ne!(second.tokens.bridge, first.tokens.bridge);

    // The Secrets are gone, and the database keeps only hashes: old tokens must not pile up.
    let third = set_up(&url, Tokens::default()).await;
    assert!(third.tokens != second.tokens);
    assert_eq!(fake.lock().expect("nobody panicked").authorizations.len(), 2);
}

#[tokio::test]
async fn without_a_dashboard_nobody_may_read() {
    let (fake, url) = start(Fake::default()).await;
    let first = set_up(&url, Tokens::default()).await;
    let without = Wanted { has_dashboard: false, ..wanted(first.tokens) };
    let second = database(&url, "admin").set_up(&without).await.expect("the database is set up");
    assert_eq!(second.tokens.dashboard, None);
    assert_eq!(fake.lock().expect("nobody panicked").authorizations.len(), 1);
}

#[tokio::test]
async fn what_went_wrong_is_told_without_the_token() {
    let (_, url) = start(Fake { admin: Some("another".into()), ..Fake::default() }).await;
    let refused =
        database(&url, "secret").set_up(&wanted(Tokens::default())).await.err().expect("it is refused");
    assert_eq!(refused.reason(), "NotAuthorized");
    let gone =
        database("http://127.0.0.1:1", "secret").check_write("o", "b").await.expect_err("nobody listens");
    assert_eq!(gone.reason(), "Unreachable");
    for error in [refused, gone] {
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_replaced_holds_for_ten_minutes_more() {
    for tells in [true, false] {
        let (fake, url) = start(Fake { tells, ..Fake::default() }).await;
        let first = set_up(&url, Tokens::default()).await.tokens;
        let rotated = |known: Tokens, now: &str| Wanted {
            rotated: Tokens { bridge: Some("2026-01-01T00:00:00Z spring".into()), dashboard: None },
            now: now.parse().expect("a time"),
            ..wanted(known)
        };
        let turn = async |known, now| {
            database(&url, "admin").set_up(&rotated(known, now)).await.expect("the database is set up")
        };
        let second = turn(first.clone(), NOW).await;
        assert_eq!(second.changes, ["created a token"]);
        assert_ne!(second.tokens.bridge, first.bridge);
        assert_eq!(second.tokens.dashboard, first.dashboard);
        let third = turn(second.tokens.clone(), "2026-01-01T00:09:59Z").await;
        assert!(third.changes.is_empty() && third.tokens == second.tokens, "{:?}", third.changes);
        let last = turn(second.tokens.clone(), "2026-01-01T00:10:00Z").await;
        assert_eq!(last.changes, ["revoked a token that was replaced"]);
        assert!(last.tokens == second.tokens);
        let left: Vec<Option<String>> = fake
            .lock()
            .expect("nobody panicked")
            .authorizations
            .iter()
            .map(|one| Some(one.2.clone()))
            .collect();
        assert_eq!(left, [first.dashboard, second.tokens.bridge]);
    }
}

#[tokio::test]
async fn what_is_to_be_restored_gets_no_bucket_and_no_token_before() {
    let (fake, url) = start(Fake::default()).await;
    let database = database(&url, "admin-token");
    let restored = Wanted { is_restored: true, ..wanted(Tokens::default()) };
    let first = database.set_up(&restored).await.expect("it answers");
    assert!(first.waits_for_restore && first.tokens == Tokens::default());
    assert!(database.set_up(&restored).await.expect("it answers").waits_for_restore);
    {
        let mut fake = fake.lock().expect("nobody panicked");
        assert_eq!((fake.bucket.as_str(), fake.made), ("iotpipeline_restoring", 0));
        // The Job is done.
        fake.bucket = "mesure".into();
    }
    let after = database.set_up(&restored).await.expect("it answers");
    assert!(!after.waits_for_restore && after.tokens.bridge.is_some());
}

#[tokio::test]
async fn a_database_that_has_its_bucket_is_not_restored() {
    let (_, url) = start(Fake::default()).await;
    let database = database(&url, "admin-token");
    let first = database.set_up(&wanted(Tokens::default())).await.expect("it answers");
    let restored = Wanted { is_restored: true, ..wanted(first.tokens) };
    assert!(!database.set_up(&restored).await.expect("it answers").waits_for_restore);
}
