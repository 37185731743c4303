//! An HTTP proxy between an operator and its API server that does, at a moment that is chosen, what can go
//! wrong between them. It speaks HTTP in the clear on loopback, and TLS to the API server.
//!
//! What is about Leases is let through and not counted: it comes by the clock, and would make the
//! moments of two runs differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use futures::stream::unfold;
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What goes wrong: once, where there is a number, which counts from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// This write doesn't arrive, and is never answered.
    LoseWrite(usize),
    /// This write is done, and its answer never arrives.
    LoseAnswer(usize),
    /// This event of a watch doesn't arrive, though later ones do.
    LoseEvent(usize),
    /// This request is answered with an error, and not done.
    Refuse(usize, u16),
    /// This request is never answered, and not done.
    Hold(usize),
    /// This read is answered as it was answered when it was asked before.
    Stale(usize),
    /// No watch of these resources begins any more.
    Blind(&'static str),
}

/// What has passed so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Passed {
    /// All requests.
    pub requests: usize,
    /// Those that write.
    pub writes: usize,
    /// Those that read, except watches.
    pub reads: usize,
    /// Events of watches, without bookmarks.
    pub events: usize,
}

/// A proxy before one API server. Ends when dropped.
pub struct ApiProxy {
    port: u16,
    kubeconfig: Kubeconfig,
    shared: Arc<Shared>,
    serve: JoinHandle<()>,
}

struct Shared {
    server: String,
    http: reqwest::Client,
    fault: Mutex<Fault>,
    passed: Mutex<Passed>,
    /// The answers to reads, by what was asked: the last, and the last that differs from it.
    answers: Mutex<HashMap<String, (Answer, Option<Answer>)>>,
    happened: watch::Sender<bool>,
}

type Answer = (StatusCode, Bytes);

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

impl ApiProxy {
    /// Listens on a port of 127.0.0.1, for the API server that this kubeconfig names.
    ///
    /// # Errors
    /// If the kubeconfig names none, or there is no port.
    pub async fn start(kubeconfig: &Kubeconfig) -> Result<Self> {
        let mut value = serde_json::to_value(kubeconfig)?;
        let cluster = &mut value["clusters"][0]["cluster"];
        let server = cluster["server"].as_str().context("an API server")?.to_owned();
        let authority = cluster["certificate-authority-data"].as_str().context("its certificate")?;
        let authority = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, authority)?;
        let http = reqwest::Client::builder()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&authority)?)
            .no_proxy()
            .build()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        *cluster = json!({"server": format!("http://127.0.0.1:{port}")});
        let shared = Arc::new(Shared {
            server,
            http,
            fault: Mutex::new(Fault::None),
            passed: Mutex::default(),
            answers: Mutex::default(),
            happened: watch::Sender::new(false),
        });
        let router = axum::Router::new().fallback(pass).with_state(shared.clone());
        let serve = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the proxy before the API server: {error}");
            }
        });
        Ok(Self { port, kubeconfig: serde_json::from_value(value)?, shared, serve })
    }

    /// The way to the API server through this proxy.
    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Counts anew from now on, and brings about this fault.
    pub fn arm(&self, fault: Fault) {
        *lock(&self.shared.passed) = Passed::default();
        lock(&self.shared.answers).clear();
        self.shared.happened.send_replace(false);
        *lock(&self.shared.fault) = fault;
    }

    /// What has passed since.
    pub fn passed(&self) -> Passed {
        *lock(&self.shared.passed)
    }

    /// Whether the fault has happened.
    pub fn has_happened(&self) -> bool {
        *self.shared.happened.borrow()
    }

    /// Returns when the fault has happened.
    pub async fn happened(&self) {
        // The sender lives as long as the proxy.
        let _ = self.shared.happened.subscribe().wait_for(|happened| *happened).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn happens(&self, wanted: Fault) -> bool {
        let happens = *lock(&self.fault) == wanted;
        if happens {
            self.happened.send_replace(true);
        }
        happens
    }

    fn is_blind_to(&self, path: &str) -> bool {
        let Fault::Blind(resource) = *lock(&self.fault) else { return false };
        path.ends_with(&format!("/{resource}")) && self.happens(Fault::Blind(resource))
    }

    /// Whether this one is refused, and how.
    fn refused(&self, request: usize) -> Option<u16> {
        let Fault::Refuse(nth, code) = *lock(&self.fault) else { return None };
        (nth == request && self.happens(Fault::Refuse(nth, code))).then_some(code)
    }

    /// Whether this event is to be left out.
    fn loses_event(&self) -> bool {
        let mut passed = lock(&self.passed);
        passed.events += 1;
        let event = passed.events;
        drop(passed);
        self.happens(Fault::LoseEvent(event))
    }

    /// Keeps the answer to a read, and returns what is told instead: something older, if it is time.
    fn read(&self, read: usize, uri: &Uri, answer: Answer) -> Answer {
        let mut answers = lock(&self.answers);
        let (last, older) = answers.entry(uri.to_string()).or_insert_with(|| (answer.clone(), None));
        if *last != answer {
            *older = Some(std::mem::replace(last, answer.clone()));
        }
        match older.clone() {
            Some(older) if matches!(*lock(&self.fault), Fault::Stale(nth) if nth <= read) => {
                *lock(&self.fault) = Fault::None;
                self.happened.send_replace(true);
                older
            }
            _ => answer,
        }
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    forward(shared, request)
        .await
        .unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response())
}

async fn forward(shared: Arc<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let (uri, is_write) = (parts.uri, !parts.method.is_safe());
    let is_watch = uri.query().is_some_and(|query| query.contains("watch=true"));
    let is_of_lease = uri.path().contains("/leases");
    let now = {
        let mut passed = lock(&shared.passed);
        if !is_of_lease {
            passed.requests += 1;
            passed.writes += usize::from(is_write);
            passed.reads += usize::from(!is_write && !is_watch);
        }
        *passed
    };
    if !is_of_lease {
        if is_watch && shared.is_blind_to(uri.path()) {
            return Ok(refusal(500));
        }
        if let Some(code) = shared.refused(now.requests) {
            return Ok(refusal(code));
        }
        if shared.happens(Fault::Hold(now.requests))
            || is_write && shared.happens(Fault::LoseWrite(now.writes))
        {
            return std::future::pending().await;
        }
    }
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let answer = shared
        .http
        .request(parts.method, format!("{}{uri}", shared.server))
        .headers(headers)
        .body(to_bytes(body, usize::MAX).await?)
        .send()
        .await?;
    if is_write && !is_of_lease && shared.happens(Fault::LoseAnswer(now.writes)) {
        return std::future::pending().await;
    }
    let status = answer.status();
    let type_ = answer.headers().get(header::CONTENT_TYPE).cloned();
    let headers: HeaderMap = type_.map(|type_| (header::CONTENT_TYPE, type_)).into_iter().collect();
    if is_watch && status.is_success() {
        return Ok((status, headers, events(shared, answer)).into_response());
    }
    let mut answer = (status, answer.bytes().await?);
    let is_of_now = status.is_success() || status == StatusCode::NOT_FOUND;
    if !is_write && !is_of_lease && is_of_now {
        answer = shared.read(now.reads, &uri, answer);
    }
    Ok((answer.0, headers, answer.1).into_response())
}

/// The events of a watch, line by line, without those that are lost.
fn events(shared: Arc<Shared>, answer: reqwest::Response) -> Body {
    let start = (answer, Vec::new());
    Body::from_stream(unfold(start, move |(mut answer, mut buffer): (_, Vec<u8>)| {
        let shared = shared.clone();
        async move {
            loop {
                if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    let event: Value = serde_json::from_slice(&line).unwrap_or_default();
                    if event["type"] == "BOOKMARK" || !shared.loses_event() {
                        return Some((Ok(Bytes::from(line)), (answer, buffer)));
                    }
                    continue;
                }
                match answer.chunk().await {
                    Ok(Some(chunk)) => buffer.extend_from_slice(&chunk),
                    Ok(None) => return None,
                    Err(error) => return Some((Err(error), (answer, buffer))),
                }
            }
        }
    }))
}

/// As the API server refuses.
fn refusal(code: u16) -> Response {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = Json(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": "a fault of the test's", "details": {"retryAfterSeconds": 1},
    }));
    match code {
        429 => (status, [(header::RETRY_AFTER, "1")], body).into_response(),
        _ => (status, body).into_response(),
    }
}
