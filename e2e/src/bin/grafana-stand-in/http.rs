//! The part of Grafana's HTTP API that is answered.
//! <https://grafana.com/docs/grafana/latest/developers/http_api/>

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::settings::Settings;
use crate::store::{Dashboard, DataSource, Store};
use crate::{flux, frame};

struct Context {
    authorization: String,
    store: Arc<Store>,
    http: reqwest::Client,
}

type Shared = State<Arc<Context>>;

/// Every path, and who may ask.
pub(crate) fn router(settings: Settings, store: Arc<Store>) -> Router {
    let credentials = BASE64_STANDARD.encode(format!("{}:{}", settings.user, settings.password));
    let http = reqwest::Client::new();
    let context = Arc::new(Context { authorization: format!("Basic {credentials}"), store, http });
    Router::new()
        .route("/api/search", get(search))
        .route("/api/datasources", get(list_data_sources).post(create_data_source))
        .route(
            "/api/datasources/uid/{uid}",
            get(show_data_source).put(update_data_source).delete(delete_data_source),
        )
        .route("/api/datasources/uid/{uid}/health", get(data_source_health))
        .route("/api/dashboards/uid/{uid}", get(show_dashboard).delete(delete_dashboard))
        .route("/api/dashboards/db", post(save_dashboard))
        .route("/api/ds/query", post(query))
        .route_layer(middleware::from_fn_with_state(context.clone(), admit))
        .route("/api/health", get(health))
        .route(
            "/",
            get(async || "A stand-in for Grafana, for tests: it answers parts of /api, and draws nothing.\n"),
        )
        .with_state(context)
}

fn message(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({"message": text}))).into_response()
}

async fn admit(State(context): Shared, request: Request, next: Next) -> Response {
    match request.headers().get(header::AUTHORIZATION) {
        Some(value) if value.as_bytes() == context.authorization.as_bytes() => next.run(request).await,
        Some(_) => message(StatusCode::UNAUTHORIZED, "Invalid username or password"),
        None => message(StatusCode::UNAUTHORIZED, "Unauthorized"),
    }
}

async fn health() -> Json<Value> {
    Json(json!({"commit": "NA", "database": "ok", "version": "stand-in"}))
}

async fn data_source_health(State(context): Shared, Path(uid): Path<String>) -> Response {
    let Some(source) = context.store.data_sources().get(&uid).cloned() else {
        return message(StatusCode::NOT_FOUND, "Data source not found");
    };
    match flux::run(&context.http, &source, "buckets()").await {
        Ok(tables) => {
            let buckets: usize = tables.iter().map(|table| table.rows.len()).sum();
            let text = format!("datasource is working. {buckets} buckets found");
            Json(json!({"message": text, "status": "OK"})).into_response()
        }
        Err(error) => {
            let text = format!("{error:#} error reading buckets");
            (StatusCode::BAD_REQUEST, Json(json!({"message": text, "status": "ERROR"}))).into_response()
        }
    }
}

async fn query(State(context): Shared, Json(request): Json<flux::Request>) -> Response {
    let range = match request.range(Timestamp::now()) {
        Ok(range) => range,
        Err(error) => return message(StatusCode::BAD_REQUEST, &format!("{error:#}")),
    };
    let mut results = Map::new();
    let mut status = StatusCode::OK;
    for query in request.queries {
        let Some(source) = context.store.data_sources().get(&query.datasource.uid).cloned() else {
            return message(StatusCode::NOT_FOUND, "Data source not found");
        };
        let executed = query.filled_in(&range, &source);
        let result = match flux::run(&context.http, &source, &executed).await {
            Ok(tables) => {
                json!({"status": 200, "frames": frame::frames(&query.ref_id, &executed, &tables)})
            }
            Err(error) => {
                status = StatusCode::BAD_REQUEST;
                json!({"status": 400, "error": format!("{error:#}")})
            }
        };
        results.insert(query.ref_id, result);
    }
    (status, Json(json!({"results": results}))).into_response()
}

async fn search(State(context): Shared) -> Json<Value> {
    let entry = |(uid, dashboard): (&String, &Dashboard)| {
        let title = dashboard.model["title"].as_str().unwrap_or_default();
        let slug = slug(title);
        json!({
            "uid": uid, "title": title, "uri": format!("db/{slug}"), "url": format!("/d/{uid}/{slug}"),
            "type": "dash-db", "tags": dashboard.model["tags"].as_array().cloned().unwrap_or_default(),
            "isStarred": false,
        })
    };
    Json(context.store.dashboards().iter().map(entry).collect())
}

fn slug(title: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    title.chars().map(letter).collect()
}

async fn show_dashboard(State(context): Shared, Path(uid): Path<String>) -> Response {
    let Some(dashboard) = context.store.dashboards().get(&uid).cloned() else {
        return message(StatusCode::NOT_FOUND, "Dashboard not found");
    };
    let slug = slug(dashboard.model["title"].as_str().unwrap_or_default());
    let meta = json!({
        "type": "db", "slug": slug, "url": format!("/d/{uid}/{slug}"), "version": dashboard.version,
        "provisioned": dashboard.file.is_some(),
    });
    let mut model = dashboard.model;
    model["version"] = dashboard.version.into();
    Json(json!({"meta": meta, "dashboard": model})).into_response()
}

async fn save_dashboard(State(context): Shared, Json(mut body): Json<Value>) -> Response {
    let mut model = body["dashboard"].take();
    let title = model["title"].as_str().unwrap_or_default().to_owned();
    if title.is_empty() {
        return message(StatusCode::BAD_REQUEST, "Dashboard title cannot be empty");
    }
    if model["uid"].as_str().unwrap_or_default().is_empty() {
        model["uid"] = slug(&title).into();
    }
    let uid = model["uid"].as_str().unwrap_or_default().to_owned();
    let mut dashboards = context.store.dashboards();
    let version = match dashboards.get(&uid) {
        Some(before) if before.file.is_some() => {
            return message(StatusCode::BAD_REQUEST, "Cannot save provisioned dashboard");
        }
        Some(before) if body["overwrite"] != true && model["version"] != before.version => {
            let text = "The dashboard has been changed by someone else";
            let answer = json!({"message": text, "status": "version-mismatch"});
            return (StatusCode::PRECONDITION_FAILED, Json(answer)).into_response();
        }
        Some(before) => before.version + 1,
        None => 1,
    };
    dashboards.insert(uid.clone(), Dashboard { model, file: None, version });
    let slug = slug(&title);
    Json(json!({
        "uid": uid, "url": format!("/d/{uid}/{slug}"), "status": "success", "version": version, "slug": slug,
    }))
    .into_response()
}

async fn delete_dashboard(State(context): Shared, Path(uid): Path<String>) -> Response {
    match context.store.dashboards().remove(&uid) {
        Some(dashboard) => {
            Json(json!({"message": "Dashboard deleted", "title": dashboard.model["title"]})).into_response()
        }
        None => message(StatusCode::NOT_FOUND, "Dashboard not found"),
    }
}

/// A data source without its secrets, of which only the names are shown.
fn shown(source: &DataSource) -> Value {
    let secrets: Map<String, Value> =
        source.secrets.keys().map(|name| (name.clone(), Value::Bool(true))).collect();
    json!({
        "uid": source.uid, "name": source.name, "type": source.kind, "url": source.url, "access": "proxy",
        "isDefault": source.is_default, "jsonData": source.settings, "secureJsonFields": secrets,
        "readOnly": source.provisioned,
    })
}

async fn list_data_sources(State(context): Shared) -> Json<Value> {
    Json(context.store.data_sources().values().map(shown).collect())
}

async fn show_data_source(State(context): Shared, Path(uid): Path<String>) -> Response {
    match context.store.data_sources().get(&uid) {
        Some(source) => Json(shown(source)).into_response(),
        None => message(StatusCode::NOT_FOUND, "Data source not found"),
    }
}

/// A data source from a request. A secret that is not given stays as it was.
fn given(uid: &str, body: &Value, before: Option<&DataSource>) -> DataSource {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let fields = |name: &str| body[name].as_object().cloned().unwrap_or_default();
    let mut secrets = before.map(|source| source.secrets.clone()).unwrap_or_default();
    secrets.extend(fields("secureJsonData"));
    DataSource {
        uid: uid.to_owned(),
        name: text("name"),
        kind: text("type"),
        url: text("url"),
        settings: fields("jsonData"),
        secrets,
        is_default: body["isDefault"] == true,
        provisioned: false,
    }
}

async fn create_data_source(State(context): Shared, Json(body): Json<Value>) -> Response {
    let name = body["name"].as_str().unwrap_or_default();
    if name.is_empty() || body["type"].as_str().unwrap_or_default().is_empty() {
        return message(StatusCode::BAD_REQUEST, "bad request data");
    }
    let uid = body["uid"].as_str().filter(|uid| !uid.is_empty()).unwrap_or(name).to_owned();
    let mut sources = context.store.data_sources();
    if sources.values().any(|source| source.uid == uid || source.name == name) {
        return message(StatusCode::CONFLICT, "data source with the same name already exists");
    }
    let source = given(&uid, &body, None);
    let answer = json!({"message": "Datasource added", "name": name, "datasource": shown(&source)});
    sources.insert(uid, source);
    Json(answer).into_response()
}

async fn update_data_source(
    State(context): Shared,
    Path(uid): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    let mut sources = context.store.data_sources();
    let source = match sources.get(&uid) {
        None => return message(StatusCode::NOT_FOUND, "Data source not found"),
        Some(before) if before.provisioned => {
            return message(StatusCode::FORBIDDEN, "Cannot update read-only data source");
        }
        Some(before) => given(&uid, &body, Some(before)),
    };
    let answer = json!({"message": "Datasource updated", "name": source.name, "datasource": shown(&source)});
    sources.insert(uid, source);
    Json(answer).into_response()
}

async fn delete_data_source(State(context): Shared, Path(uid): Path<String>) -> Response {
    match context.store.data_sources().remove(&uid) {
        Some(_) => message(StatusCode::OK, "Data source deleted"),
        None => message(StatusCode::NOT_FOUND, "Data source not found"),
    }
}
