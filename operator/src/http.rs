//! What the clients of InfluxDB's and Grafana's API share: the HTTP client, and how an answer becomes an
//! error.

mod patient;

use std::time::Duration;

use axum::http::uri::InvalidUri;
use reqwest::{
    Certificate, Client, ClientBuilder, Method, Proxy, RequestBuilder, Response, StatusCode, redirect,
};
use serde::Deserialize;

use crate::leader::fence::Fence;

pub use patient::Patient;

/// Names a proxy for databases, dashboards and bridges, but not for the API server: outside of a cluster
/// their names and addresses mean nothing.
const PROXY: &str = "IOTPIPELINE_HTTP_PROXY";

/// No answer that the operator asks for has more bytes. Who answers may be anybody, and never end.
const LONGEST: usize = 1 << 20;

/// So much of what was said is told, in characters.
const TOLD: usize = 200;

const USER_AGENT: &str = concat!("iotpipeline-operator/", env!("CARGO_PKG_VERSION"));

const CONNECT: Duration = Duration::from_secs(3);

/// Who has not answered a question after this hangs. What the bridge says of that must not wait for longer.
pub(crate) const QUESTION: Duration = Duration::from_secs(2);

/// A change may come about after nobody waits for it any more, and a new token's text is only in the answer.
const CHANGE: Duration = Duration::from_secs(10);

/// Whoever says nothing for so long is asked by the kernel whether its node is there,
const KEEPALIVE: Duration = Duration::from_secs(2);

/// again after this,
const PROBE: Duration = Duration::from_secs(1);

/// and so often.
const PROBES: u32 = 2;

/// What is not acknowledged by the other kernel after this never will be.
const UNACKNOWLEDGED: Duration = Duration::from_secs(4);

/// The same in a transfer, which a failover of the network or of a node's disk interrupts for longer.
const UNACKNOWLEDGED_BULK: Duration = Duration::from_secs(120);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The certificate authority is not PEM.
    #[error("the certificate authority is no PEM certificate")]
    Authority(#[source] reqwest::Error),
    /// The proxy's address is none.
    #[error("{PROXY} is no address of a proxy")]
    Proxy(#[source] reqwest::Error),
    /// The proxy's address is no URI.
    #[error("{PROXY} is no address of a proxy")]
    ProxyAddress(#[source] InvalidUri),
    /// TLS could not be set up.
    #[error("set up an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Why a request has not done what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer.
    #[error("{url} does not answer: {}", why(.source))]
    Unreachable {
        /// The address.
        url: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// More than anything that was asked for.
    #[error("{url} answers with more than 1 MiB: correct the address")]
    TooLong {
        /// The address.
        url: String,
    },
    /// The credentials are not known there, or not enough.
    #[error("{url} refuses the credentials, or they may not do this: {message}")]
    Unauthorized {
        /// The address.
        url: String,
        /// What it said.
        message: String,
    },
    /// What the request is about is not there.
    #[error("{url}: {message}")]
    NotFound {
        /// The address.
        url: String,
        /// What it said.
        message: String,
    },
    /// Another answer than expected.
    #[error("{url}: {what} was answered with {status}: {message}")]
    Refused {
        /// The address.
        url: String,
        /// What was asked.
        what: &'static str,
        /// The status.
        status: u16,
        /// What it said.
        message: String,
    },
}

impl ApiError {
    /// For a condition: what is the matter, in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            ApiError::Unreachable { .. } => "Unreachable",
            ApiError::Unauthorized { .. } => "NotAuthorized",
            ApiError::NotFound { .. } => "NotFound",
            ApiError::TooLong { .. } | ApiError::Refused { .. } => "UnexpectedAnswer",
        }
    }
}

/// Why there is no answer.
fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() { "it takes too long".into() } else { error.to_string() }
}

/// A request that is given up soon if it only asks, and later if it changes something.
pub fn request(http: &Client, method: Method, url: String) -> RequestBuilder {
    let limit = if method.is_safe() { QUESTION } else { CHANGE };
    http.request(method, url).timeout(limit)
}

/// Sends a request to the API at `url`, and returns the body of a good answer. `what` says in an error
/// what was asked.
///
/// # Errors
/// If there is no answer, or it isn't good.
pub async fn send(url: &str, what: &'static str, request: RequestBuilder) -> Result<String, ApiError> {
    let unreachable =
        |source: reqwest::Error| ApiError::Unreachable { url: url.into(), source: source.without_url() };
    let answer = request.send().await.map_err(unreachable)?;
    let status = answer.status();
    let body =
        body(answer).await.map_err(unreachable)?.ok_or_else(|| ApiError::TooLong { url: url.into() })?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() {
        return Ok(text);
    }
    let message = said(&text);
    let url = url.into();
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ApiError::Unauthorized { url, message },
        StatusCode::NOT_FOUND => ApiError::NotFound { url, message },
        _ => ApiError::Refused { url, what, status: status.as_u16(), message },
    })
}

/// What was answered, unless it is longer than anything that was asked for.
///
/// # Errors
/// If the rest doesn't come.
pub async fn body(mut answer: Response) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > LONGEST {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// What a refusal says: the message of an API, or one line of text. A page is somebody else's.
pub(crate) fn said(body: &str) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let message =
        serde_json::from_str(body).map(|Refusal { message }| message.replace(char::is_control, " "));
    let text = message.unwrap_or_else(|_| body.to_owned());
    let text = text.trim();
    match text.is_empty() || text.starts_with('<') || text.contains(char::is_control) {
        true => "not by a message of an API".into(),
        false => text.chars().take(TOLD).collect(),
    }
}

/// Nothing instead of an error that says that nothing is there.
///
/// # Errors
/// All others.
pub fn absent<T>(found: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ApiError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A client that gives up soon and follows nobody elsewhere with a credential. With a certificate
/// authority it trusts no other. It asks nobody anything once the fence is closed, since each of its
/// requests has a connection of its own.
///
/// # Errors
/// If the certificate authority is none.
pub fn client(ca: Option<&str>, fence: &Fence) -> Result<Client, HttpError> {
    let builder = builder(ca)?.connect_timeout(CONNECT).timeout(CHANGE);
    builder.connector_layer(fence.clone()).build().map_err(HttpError::Client)
}

/// A client for as many bytes as there are: whoever uses it says when it has waited long enough. No timeout of the
/// client's own does, since each of them would count a whole upload. A kernel that is busy with bulk may be silent for
/// longer than one that is asked how it is.
///
/// # Errors
/// If the certificate authority is none.
pub fn transfer(ca: Option<&str>) -> Result<Client, HttpError> {
    let builder = builder(ca)?
        .connect_timeout(Duration::from_secs(10))
        .tcp_keepalive(Duration::from_secs(30))
        .tcp_keepalive_interval(Duration::from_secs(15))
        .tcp_keepalive_retries(6)
        .tcp_user_timeout(UNACKNOWLEDGED_BULK);
    builder.build().map_err(HttpError::Client)
}

fn builder(ca: Option<&str>) -> Result<ClientBuilder, HttpError> {
    let mut builder = Client::builder()
        // A bridge may be silent for a minute while it is followed: the kernel asks whether its node is there.
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(PROBE)
        .tcp_keepalive_retries(PROBES)
        .tcp_user_timeout(UNACKNOWLEDGED)
        // A kept connection would stay with what answered it first: before kube-proxy knows a new
        // service's address, that can be a stranger, and a pod that was replaced answers nothing.
        .pool_max_idle_per_host(0)
        .redirect(redirect::Policy::none())
        // Variables that are meant for other programs don't lead credentials elsewhere.
        .no_proxy()
        .user_agent(USER_AGENT);
    if let Ok(proxy) = std::env::var(PROXY) {
        builder = builder.proxy(Proxy::all(proxy).map_err(HttpError::Proxy)?);
    }
    if let Some(ca) = ca {
        let authorities = Certificate::from_pem_bundle(ca.as_bytes()).map_err(HttpError::Authority)?;
        builder = builder.tls_certs_only(authorities);
    }
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_has_no_timeout_of_its_own() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let told = |client: Client| format!("{client:?}").to_lowercase();
        assert!(told(client(None, &Fence::open()).expect("a client")).contains("timeout"));
        assert!(!told(transfer(None).expect("a client")).contains("timeout"));
    }

    #[test]
    fn of_a_refusal_a_message_is_told_and_no_page() {
        assert_eq!(said(r#"{"code":"unauthorized","message":"unauthorized access"}"#), "unauthorized access");
        assert_eq!(said("404 page not found\n"), "404 page not found");
        assert_eq!(said(&format!(r#"{{"message":"{}"}}"#, "a".repeat(500))).len(), TOLD);
        let page = "not by a message of an API";
        for text in
            ["", "<!DOCTYPE html><title>x</title>", "AccessKeyId: x\nSecretAccessKey: y\n", "a\u{1b}[2Jb"]
        {
            assert_eq!(said(text), page, "{text:?}");
        }
        assert_eq!(said(r#"{"message":"a\nb"}"#), "a b");
    }
}
