//! What the clients of InfluxDB's and Grafana's API share: the HTTP client, and how an answer becomes an
//! error.

use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Proxy, RequestBuilder, StatusCode, redirect};
use serde_json::Value;

use crate::leader::fence::Fence;

/// Names a proxy for databases, dashboards and bridges, but not for the API server: outside of a cluster
/// their names and addresses mean nothing.
const PROXY: &str = "IOTPIPELINE_HTTP_PROXY";

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The certificate authority is not PEM.
    #[error("the certificate authority is no PEM certificate")]
    Authority(#[source] reqwest::Error),
    /// The proxy's address is none.
    #[error("{PROXY} is no address of a proxy")]
    Proxy(#[source] reqwest::Error),
    /// TLS could not be set up.
    #[error("set up an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Why a request has not done what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer.
    #[error("{url} does not answer: {source}")]
    Unreachable {
        /// The address.
        url: String,
        /// Why not.
        source: reqwest::Error,
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
            ApiError::Refused { .. } => "UnexpectedAnswer",
        }
    }
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
    let text = answer.text().await.map_err(unreachable)?;
    if status.is_success() {
        return Ok(text);
    }
    let message = message(&text);
    let url = url.into();
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ApiError::Unauthorized { url, message },
        StatusCode::NOT_FOUND => ApiError::NotFound { url, message },
        _ => ApiError::Refused { url, what, status: status.as_u16(), message },
    })
}

/// What a bad answer says, or its beginning.
pub(crate) fn message(answer: &str) -> String {
    serde_json::from_str::<Value>(answer)
        .ok()
        .and_then(|body| Some(body["message"].as_str()?.to_owned()))
        .unwrap_or_else(|| answer.chars().take(200).collect())
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
    let builder = builder(ca)?.connect_timeout(Duration::from_secs(3)).timeout(Duration::from_secs(10));
    builder.connector_layer(fence.clone()).build().map_err(HttpError::Client)
}

/// A client for as many bytes as there are, as long as some come.
///
/// # Errors
/// If the certificate authority is none.
pub fn patient(ca: Option<&str>) -> Result<Client, HttpError> {
    let builder =
        builder(ca)?.connect_timeout(Duration::from_secs(10)).read_timeout(Duration::from_secs(300));
    builder.build().map_err(HttpError::Client)
}

fn builder(ca: Option<&str>) -> Result<ClientBuilder, HttpError> {
    let mut builder = Client::builder()
        // A bridge may be silent for a minute while it is followed: the kernel asks whether its node is there.
        .tcp_keepalive(Duration::from_secs(2))
        .tcp_keepalive_interval(Duration::from_secs(1))
        .tcp_keepalive_retries(2)
        .tcp_user_timeout(Duration::from_secs(4))
        // A kept connection would stay with what answered it first: before kube-proxy knows a new
        // service's address, that can be a stranger, and a pod that was replaced answers nothing.
        .pool_max_idle_per_host(0)
        .redirect(redirect::Policy::none())
        // Variables that are meant for other programs don't lead credentials elsewhere.
        .no_proxy()
        .user_agent(concat!("iotpipeline-operator/", env!("CARGO_PKG_VERSION")));
    if let Ok(proxy) = std::env::var(PROXY) {
        builder = builder.proxy(Proxy::all(proxy).map_err(HttpError::Proxy)?);
    }
    if let Some(ca) = ca {
        let authorities = Certificate::from_pem_bundle(ca.as_bytes()).map_err(HttpError::Authority)?;
        builder = builder.tls_certs_only(authorities);
    }
    Ok(builder)
}
