//! The InfluxDB client against a fake: an HTTP server that answers as InfluxDB 2.9.1 was seen to. The real
//! one is in the end-to-end tests.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use iotpipeline_operator::credentials::{self, OUTDATED, ROTATE};
use iotpipeline_operator::http;
use iotpipeline_operator::influxdb::{InfluxDb, SetUp, Wanted};
use iotpipeline_operator::leader::fence::Fence;
use iotpipeline_operator::plan::{DatabasePlace, Plan};
use iotpipeline_operator::resources::{Tokens, desired};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use support::{Case, config};

/// What the fake database has.
#[derive(Default)]
struct Fake {
    admin: Option<String>,
    /// The bucket's name; there is none, if it is empty.
    bucket: String,
    description: String,
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
                told["status"] = made.get("status").cloned().unwrap_or_else(|| "active".into());
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
    json!({"id": "b1", "name": fake.bucket, "description": fake.description, "retentionRules": rules})
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
async fn after_a_rotation_the_bucket_is_the_one_of_the_newest_token_that_is_active() {
    let (fake, url) = start(Fake::default()).await;
    let first = set_up(&url, Tokens::default()).await;
    let rotated = Tokens { bridge: Some("2026-01-01T00:00:00Z spring".into()), ..Tokens::default() };
    let turned = Wanted { rotated, ..wanted(first.tokens) };
    let second = database(&url, "admin").set_up(&turned).await.expect("the database is set up");
    // Of an earlier bucket, which is gone.
    let left = |made: &str, status: &str| {
        let permission = json!({"action": "write", "resource": {"type": "buckets", "id": "gone"}});
        let description = "iotpipeline: the bridge writes";
        let authorization = json!({"description": description, "status": status, "createdAt": made, "permissions": [permission]});
        (made.to_owned(), authorization, made.to_owned())
    };
    let others = [left("2025-01-01T00:00:00Z", "active"), left("2026-02-01T00:00:00Z", "inactive")];
    {
        let mut fake = fake.lock().expect("nobody panicked");
        let revoked = "iotpipeline: the bridge writes";
        fake.authorizations.retain(|(_, made, _)| made["description"] != revoked);
        fake.authorizations.splice(0..0, others);
    }
    let other = Wanted { bucket: "other", known: second.tokens.clone(), ..turned };
    let renamed = database(&url, "admin").set_up(&other).await.expect("the database is set up");
    assert_eq!(renamed.changes, ["renamed the bucket"]);
    assert!(renamed.tokens == second.tokens);
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
        let first = set_up(&url, Tokens::default()).await;
        let rotated = |known: Tokens, now: &str| Wanted {
            rotated: Tokens { bridge: Some("2026-01-01T00:00:00Z spring".into()), dashboard: None },
            now: now.parse().expect("a time"),
            ..wanted(known)
        };
        let turn = async |known, now| {
            database(&url, "admin").set_up(&rotated(known, now)).await.expect("the database is set up")
        };
        let second = turn(first.tokens.clone(), NOW).await;
        assert_eq!(second.changes, ["created a token"]);
        assert_ne!(second.tokens.bridge, first.tokens.bridge);
        assert_eq!(second.tokens.dashboard, first.tokens.dashboard);
        let third = turn(second.tokens.clone(), "2026-01-01T00:09:59Z").await;
        assert!(third.changes.is_empty() && third.tokens == second.tokens, "{:?}", third.changes);
        let last = turn(second.tokens.clone(), "2026-01-01T00:10:00Z").await;
        assert_eq!(last.changes, ["revoked a token that was replaced"]);
        assert!(last.tokens == second.tokens);
        let seconds = |set_up: &SetUp| set_up.revokes_in.map(|left| left.as_secs());
        assert_eq!([&first, &second, &third, &last].map(seconds), [None, Some(600), Some(1), None]);
        let left: Vec<Option<String>> = fake
            .lock()
            .expect("nobody panicked")
            .authorizations
            .iter()
            .map(|one| Some(one.2.clone()))
            .collect();
        assert_eq!(left, [first.tokens.dashboard, second.tokens.bridge]);
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
        fake.description = "restored from the backup 20260131T030000Z".into();
    }
    let after = database.set_up(&restored).await.expect("it answers");
    assert!(!after.waits_for_restore && after.tokens.bridge.is_some());
    assert_eq!(after.restored.as_deref(), Some("20260131T030000Z"));
}

#[tokio::test]
async fn a_database_that_has_its_bucket_is_not_restored() {
    let (_, url) = start(Fake::default()).await;
    let database = database(&url, "admin-token");
    let first = database.set_up(&wanted(Tokens::default())).await.expect("it answers");
    let restored = Wanted { is_restored: true, ..wanted(first.tokens) };
    let after = database.set_up(&restored).await.expect("it answers");
    assert!(!after.waits_for_restore && after.restored.is_none());
}

#[tokio::test]
async fn the_token_of_a_dashboard_elsewhere_is_made_once_also_after_a_rotation_was_asked_for() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/external-dashboard/pipeline.yaml");
    for request in ["", "spring"] {
        let (fake, url) = start(Fake { bucket: "points".into(), ..Fake::default() }).await;
        let mut case = Case::read(&file);
        case.pipeline.metadata.annotations = Some([(ROTATE.to_owned(), request.to_owned())].into());
        let mut secrets = Vec::new();
        for pass in 0..3 {
            let (plan, known) = planned(&mut case, &secrets);
            let made = set_up_as_planned(&url, &plan, known, case.observed.now).await;
            assert_eq!(made.changes.is_empty(), pass > 0, "pass {pass}: {:?}", made.changes);
            secrets = written(&plan, &made.tokens);
        }
        assert_eq!(fake.lock().expect("nobody panicked").authorizations.len(), 2);
    }
}

/// What a pass plans that finds these Secrets, and the tokens in them.
fn planned(case: &mut Case, secrets: &[Secret]) -> (Plan, Tokens) {
    let made = credentials::complete(&case.pipeline, secrets, case.observed.now);
    let made = made.expect("there is randomness");
    let known = Tokens { bridge: made.bridge_token.clone(), dashboard: made.dashboard_token.clone() };
    case.observed.credentials = made;
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
    (plan, known)
}

async fn set_up_as_planned(url: &str, plan: &Plan, known: Tokens, now: Timestamp) -> SetUp {
    let DatabasePlace::Managed(managed) = &plan.database.place else { panic!("it is managed") };
    let wanted = Wanted::of(plan, managed, known, now);
    database(url, &managed.admin_token).set_up(&wanted).await.expect("the database is set up")
}

/// The Secrets that a pass writes with these tokens, as far as they have to do with the database.
fn written(plan: &Plan, tokens: &Tokens) -> Vec<Secret> {
    let desired = desired(plan, tokens);
    let mut secrets: Vec<Secret> = desired.dashboard_token.into_iter().collect();
    secrets.extend(desired.database.map(|objects| objects.secret));
    secrets.extend(desired.bridge.wanted().map(|objects| objects.secret.clone()));
    secrets.extend(desired.dashboard.wanted().map(|objects| objects.secret.clone()));
    secrets
}

/// Of which it is marked that their tokens are to be replaced.
fn marked(secrets: &[Secret]) -> usize {
    let annotations = secrets.iter().filter_map(|secret| secret.metadata.annotations.as_ref());
    annotations.filter(|annotations| annotations.contains_key(OUTDATED)).count()
}

#[tokio::test]
async fn a_rotation_that_is_interrupted_takes_no_token_that_is_to_be_replaced_for_the_new_one() {
    let spec = "{dashboard: {}, routes: [{name: r, topic: a, payload: {float: {}}}]}";
    let (fake, url) = start(Fake::default()).await;
    let mut case = Case::parse(&format!(
        "{{apiVersion: iotpipeline.io/v1alpha1, kind: IoTPipeline, metadata: {{name: lab}}, spec: {spec}}}"
    ));
    let now: Timestamp = NOW.parse().expect("a time");
    case.observed.now = now;
    let (plan, known) = planned(&mut case, &[]);
    let first = set_up_as_planned(&url, &plan, known, now).await.tokens;
    let secrets = written(&plan, &first);
    assert_eq!((secrets.len(), marked(&secrets)), (3, 0));

    // It falls due while the database is away: passwords are made anew, tokens can't be.
    case.pipeline.metadata.annotations = Some([(ROTATE.to_owned(), "spring".to_owned())].into());
    for _ in 0..2 {
        let (plan, known) = planned(&mut case, &secrets);
        assert!(known == first);
        assert_eq!(marked(&written(&plan, &known)), 2);
    }
    let (plan, known) = planned(&mut case, &secrets);
    let secrets = written(&plan, &known);

    // The database is back. A pass has the tokens made, and ends before they are in a Secret.
    let (plan, known) = planned(&mut case, &secrets);
    let lost = set_up_as_planned(&url, &plan, known, now).await;
    assert_eq!(lost.changes, ["created a token", "created a token"]);
    let (plan, known) = planned(&mut case, &secrets);
    assert!(known == first);
    let second = set_up_as_planned(&url, &plan, known, now).await.tokens;
    assert!(second.bridge != first.bridge && second.dashboard != first.dashboard);
    let secrets = written(&plan, &second);
    assert_eq!(marked(&secrets), 0);

    let (plan, known) = planned(&mut case, &secrets);
    let later = "2026-01-01T00:10:00Z".parse().expect("a time");
    let last = set_up_as_planned(&url, &plan, known, later).await;
    assert!(last.tokens == second);
    assert_eq!(last.changes, ["revoked a token that was replaced", "revoked a token that was replaced"]);
    let fake = fake.lock().expect("nobody panicked");
    let left: Vec<Option<String>> = fake.authorizations.iter().map(|one| Some(one.2.clone())).collect();
    assert_eq!(left, [second.bridge, second.dashboard]);
}

#[tokio::test]
async fn tokens_that_could_not_be_kept_do_not_pile_up_and_the_one_in_use_holds() {
    let (fake, url) = start(Fake::default()).await;
    let first = set_up(&url, Tokens::default()).await.tokens;
    for pass in 0..40 {
        // As if the Secret could not be written.
        let rotated = Tokens { bridge: Some(format!("2026-01-01T00:00:{pass:02}Z x")), dashboard: None };
        let wanted = Wanted { rotated, ..wanted(first.clone()) };
        database(&url, "admin").set_up(&wanted).await.expect("the database is set up");
    }
    let fake = fake.lock().expect("nobody panicked");
    assert!(fake.authorizations.len() < 12, "{} tokens", fake.authorizations.len());
    assert!(fake.authorizations.iter().any(|(_, _, token)| Some(token) == first.bridge.as_ref()));
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read_to_its_end() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let stream = move || {
        let count = count.clone();
        let endless = futures::stream::repeat_with(move || {
            count.fetch_add(1 << 16, Ordering::Relaxed);
            Ok::<_, std::io::Error>(vec![b'x'; 1 << 16])
        });
        std::future::ready(axum::body::Body::from_stream(endless))
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(stream)).await });
    let error = database(&url, "secret").check_write("o", "b").await.expect_err("it has no end");
    assert_eq!(error.reason(), "UnexpectedAnswer");
    assert_eq!(error.to_string(), format!("{url} answers with more than 1 MiB: correct the address"));
    // What the kernel holds on the way is beside that.
    let sent = sent.load(Ordering::Relaxed);
    assert!((1 << 20..32 << 20).contains(&sent), "{sent} bytes were sent");
}
