//! An InfluxDB and an S3 that answer as the real ones do, as far as backups ask them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "operator-token";

/// A database.
#[derive(Default)]
pub(crate) struct Database {
    /// Their ids, by name.
    pub(crate) buckets: BTreeMap<String, String>,
    pub(crate) shards: BTreeMap<u64, Vec<u8>>,
    /// Shards that the description of the bucket has, and that have gone since.
    pub(crate) gone: Vec<u64>,
    /// Whether the descriptions after that go on naming them.
    pub(crate) insists: bool,
    /// So often the bucket was described.
    pub(crate) asked: usize,
    /// Another id of the bucket than `b1`.
    pub(crate) id: Option<String>,
    /// The description of the bucket that was named last.
    pub(crate) named: String,
    /// As the restored bucket was asked for.
    pub(crate) described: Value,
}

/// Objects by their paths.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) stored: BTreeMap<String, Bytes>,
    /// So many requests are answered with this first.
    pub(crate) refused: Vec<StatusCode>,
    /// All that were made.
    pub(crate) asked: usize,
}

pub(crate) type Shared<T> = Arc<Mutex<T>>;

pub(crate) async fn database(fake: Database) -> (Shared<Database>, String) {
    let shared = Arc::new(Mutex::new(fake));
    let router = Router::new().fallback(influxdb).with_state(shared.clone());
    (shared, serve(router).await)
}

pub(crate) async fn s3() -> (Shared<Objects>, String) {
    let shared = Shared::<Objects>::default();
    let router = Router::new().fallback(object).with_state(shared.clone());
    (shared, serve(router).await)
}

async fn serve(router: Router) -> String {
    // A test before may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    tokio::spawn(async move { axum::serve(listener, router.layer(DefaultBodyLimit::disable())).await });
    url
}

async fn influxdb(
    State(fake): State<Shared<Database>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut fake = fake.lock().expect("nobody panicked");
    let refuse =
        |status: StatusCode, message: &str| (status, Json(json!({"message": message}))).into_response();
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Token "));
    if token != Some(TOKEN) {
        return refuse(StatusCode::UNAUTHORIZED, "unauthorized access");
    }
    let last = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let id = || last.parse::<u64>().expect("a shard's id");
    let path = uri.path().trim_end_matches(&last);
    match (method.as_str(), path, last.as_str()) {
        ("GET", "/api/v2/backup/", "metadata") => {
            fake.asked += 1;
            metadata(&fake)
        }
        ("GET", "/api/v2/backup/shards/", _) => match fake.shards.get(&id()) {
            Some(content) => content.clone().into_response(),
            None => refuse(StatusCode::NOT_FOUND, "shard not found"),
        },
        ("GET", "/api/v2/", "orgs") => Json(json!({"orgs": [{"id": "o1"}]})).into_response(),
        ("GET", "/api/v2/", "buckets") => {
            let query = uri.query().unwrap_or_default();
            let found = fake.buckets.iter().find(|(name, _)| query.ends_with(&format!("name={name}")));
            let found = found.map(|(_, id)| json!({"id": id, "description": fake.named}));
            let found: Vec<_> = found.into_iter().collect();
            Json(json!({"buckets": found})).into_response()
        }
        ("DELETE", "/api/v2/buckets/", _) => {
            fake.buckets.retain(|_, id| *id != last);
            StatusCode::NO_CONTENT.into_response()
        }
        ("PATCH", "/api/v2/buckets/", _) => {
            let body: Value = serde_json::from_slice(&body).expect("it is JSON");
            fake.buckets.retain(|_, id| *id != last);
            fake.buckets.insert(body["name"].as_str().expect("a name").into(), last);
            fake.named = body["description"].as_str().expect("a description").into();
            Json(json!({})).into_response()
        }
        ("POST", "/api/v2/restore/", "bucketMetadata") => {
            fake.described = serde_json::from_slice(&body).expect("it is JSON");
            let name = fake.described["bucketName"].as_str().expect("a name").to_owned();
            if fake.buckets.insert(name, "b2".into()).is_some() {
                return refuse(StatusCode::UNPROCESSABLE_ENTITY, "bucket exists");
            }
            let shards = &fake.described["retentionPolicies"][0]["shardGroups"][0]["shards"];
            let shards = shards.as_array().expect("shards").iter().map(|shard| shard["id"].as_u64());
            let mapping = |id: u64| json!({"oldId": id, "newId": id + 100});
            let mappings: Vec<_> = shards.flatten().map(mapping).collect();
            let made = json!({"id": "b2", "name": "", "shardMappings": mappings});
            (StatusCode::CREATED, Json(made)).into_response()
        }
        ("POST", "/api/v2/restore/shards/", _) => {
            fake.shards.insert(id(), body.to_vec());
            StatusCode::NO_CONTENT.into_response()
        }
        _ => refuse(StatusCode::NOT_FOUND, "path not found"),
    }
}

fn metadata(fake: &Database) -> Response {
    let gone = fake.gone.iter().filter(|_| fake.insists || fake.asked == 1);
    let shards: Vec<_> = fake.shards.keys().chain(gone).map(|id| json!({"id": id})).collect();
    let id = fake.id.as_deref().unwrap_or("b1");
    let buckets = json!([
        {"organizationName": "other", "bucketName": "mesure"},
        {"organizationName": "lab", "bucketID": id, "bucketName": "mesure", "retentionPolicies": [
            {"duration": 3_600_000_000_000_u64, "shardGroups": [{"shards": shards}]}]},
    ]);
    let part = |name: &str, content: &str| {
        format!("--b0\r\nContent-Disposition: attachment; name={name:?}\r\n\r\n{content}\r\n")
    };
    let body = part("kv", "tokens") + &part("buckets", &buckets.to_string()) + "--b0--\r\n";
    ([("content-type", "multipart/mixed; boundary=b0")], body).into_response()
}

/// It lists one object at a time.
async fn object(
    State(fake): State<Shared<Objects>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut fake = fake.lock().expect("nobody panicked");
    fake.asked += 1;
    if let Some(status) = fake.refused.pop() {
        return (status, "<Error><Code>SlowDown</Code><Message>reduce your rate</Message></Error>")
            .into_response();
    }
    let authorization =
        headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !authorization.starts_with("AWS4-HMAC-SHA256 Credential=id/") {
        let refused = "<Error><Code>InvalidAccessKeyId</Code><Message>unknown key</Message></Error>";
        return (StatusCode::FORBIDDEN, refused).into_response();
    }
    let path = uri.path().to_owned();
    let query: BTreeMap<_, _> =
        uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    match method.as_str() {
        "PUT" => {
            fake.stored.insert(path, body);
            StatusCode::OK.into_response()
        }
        "DELETE" => {
            fake.stored.remove(&path);
            StatusCode::NO_CONTENT.into_response()
        }
        _ if query.contains_key("list-type") => {
            let prefix = format!("/copies/{}", query["prefix"].replace("%2F", "/"));
            let skip: usize = query.get("continuation-token").map_or(0, |token| token.parse().expect("ours"));
            let mut found = fake.stored.keys().filter(|key| key.starts_with(&prefix)).skip(skip);
            let Some(key) = found.next() else { return "<ListBucketResult/>".into_response() };
            let next = match found.next() {
                Some(_) => format!("<NextContinuationToken>{}</NextContinuationToken>", skip + 1),
                None => String::new(),
            };
            let key = key.trim_start_matches("/copies/");
            format!("<ListBucketResult><Contents><Key>{key}</Key></Contents>{next}</ListBucketResult>")
                .into_response()
        }
        _ => match fake.stored.get(&path) {
            Some(content) => content.clone().into_response(),
            None => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response(),
        },
    }
}
