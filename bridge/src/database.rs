//! InfluxDB's write API: one request, and what its answer means for the points in it.

use std::time::Duration;

use api::bridge_config::DatabaseConfig;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, StatusCode, Url};

use crate::compress::Gzip;
use crate::config::{ConfigError, read_credential};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// 400,000 points take InfluxDB 3 s; a batch has 5,000.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A write without points has nothing to wait for, and points may come meanwhile.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What to do after a write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Every point is stored.
    Stored,
    /// At least one point can't be stored; those that can may be or may not.
    Refused(String),
    /// The body is too long: write it in parts.
    TooLarge,
    /// Not the points' fault: try again, not before the time given.
    Later {
        /// One word for the status and the metrics.
        reason: &'static str,
        /// A sentence for people.
        message: String,
        /// What the server asked for.
        after: Option<Duration>,
    },
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A file is missing.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The client can't be made.
    #[error("cannot prepare the connection to the database: {0}")]
    Client(#[from] reqwest::Error),
    /// The URL is none.
    #[error("database.url is not a URL")]
    Url,
}

/// A client for one bucket.
pub struct Database {
    config: DatabaseConfig,
    client: Client,
    url: Url,
    gzip: Gzip,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Database").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl Database {
    /// Prepares a client; connects nowhere yet.
    ///
    /// # Errors
    /// If the URL or the certificates can't be used.
    pub fn new(config: &DatabaseConfig) -> Result<Self, DatabaseError> {
        let mut url = Url::parse(&config.url).map_err(|_| DatabaseError::Url)?;
        let path = format!("{}/api/v2/write", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.query_pairs_mut()
            .append_pair("org", &config.organization)
            .append_pair("bucket", &config.bucket)
            .append_pair("precision", "ns");
        Ok(Self { config: config.clone(), client: client(config, &url)?, url, gzip: Gzip::default() })
    }

    /// Writes lines; none at all asks whether this token may write this bucket.
    pub async fn write(&mut self, lines: &[u8]) -> Answer {
        let answer = match self.ask(lines).await {
            Answer::Refused(what) if lines.is_empty() => {
                later("BadRequest", format!("the database refuses a write without points: {what}"), None)
            }
            Answer::TooLarge if lines.is_empty() => {
                later("BadRequest", "the database finds a write without points too large".into(), None)
            }
            answer => answer,
        };
        // A kept connection stays with what answered it first, which need not have been the database: while
        // kube-proxy did not know the service's address, a stranger's 404 was seen for minutes.
        if matches!(answer, Answer::Later { .. })
            && let Ok(client) = client(&self.config, &self.url)
        {
            self.client = client;
        }
        answer
    }

    async fn ask(&mut self, lines: &[u8]) -> Answer {
        match self.send(lines).await {
            Ok((status, headers, body)) => classify(status, &headers, &body),
            Err(SendError::Token(error)) => later("NotAuthorized", format!("{error}"), None),
            Err(SendError::Http(error)) if error.is_timeout() && !error.is_connect() => {
                let seconds = timeout_of(lines).as_secs();
                let message = format!("the database did not answer within {seconds} s");
                later("Timeout", message, None)
            }
            Err(SendError::Http(error)) => {
                let message = format!("cannot reach the database at {}: {}", self.origin(), root(&error));
                later("Unreachable", message, None)
            }
        }
    }

    /// Where it is, without what a URL may hold of credentials.
    fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    async fn send(&mut self, lines: &[u8]) -> Result<(StatusCode, HeaderMap, Bytes), SendError> {
        // Read for each write: it costs a few microseconds, and a new token is in effect at once.
        let token = read_credential(&self.config.token_file).map_err(SendError::Token)?;
        let mut authorization = HeaderValue::from_str(&format!("Token {token}"))
            .map_err(|_| SendError::Token(no_token(&self.config.token_file)))?;
        authorization.set_sensitive(true);
        let mut request = self
            .client
            .post(self.url.clone())
            .timeout(timeout_of(lines))
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "text/plain; charset=utf-8");
        request = match self.gzip.compress(lines) {
            Some(body) => request.header(CONTENT_ENCODING, "gzip").body(body),
            None => request.body(lines.to_vec()),
        };
        let response = request.send().await.map_err(SendError::Http)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(SendError::Http)?;
        Ok((status, headers, body))
    }
}

fn timeout_of(lines: &[u8]) -> Duration {
    if lines.is_empty() { PROBE_TIMEOUT } else { WRITE_TIMEOUT }
}

fn client(config: &DatabaseConfig, url: &Url) -> Result<Client, DatabaseError> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tcp_nodelay(true)
        .http1_only();
    if url.scheme() == "http" {
        // Spares the system's certificates, which would be read and kept for nothing.
        builder = builder.tls_certs_only([]);
    } else if let Some(path) = &config.ca_file {
        let pem = read_credential(path)?;
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(pem.as_bytes())?);
    }
    Ok(builder.build()?)
}

enum SendError {
    Token(ConfigError),
    Http(reqwest::Error),
}

fn no_token(path: &str) -> ConfigError {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "it holds no token");
    ConfigError::Read { path: path.into(), source }
}

/// The innermost cause, which says the most.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn later(reason: &'static str, message: String, after: Option<Duration>) -> Answer {
    Answer::Later { reason, message, after }
}

/// What an answer other than 204 means.
fn classify(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    let told = told(body);
    let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
    let what = told.as_deref().unwrap_or("no reason given");
    match status.as_u16() {
        // Not any other 2xx: a proxy's page is no promise.
        204 => Answer::Stored,
        // Only InfluxDB's own refusal convicts points; a proxy's does not.
        400 | 422 if told.is_some() => Answer::Refused(what.into()),
        413 => Answer::TooLarge,
        401 => later("NotAuthorized", format!("the database does not accept the token: {what}"), after),
        403 => later("NotAuthorized", format!("the token may not write this bucket: {what}"), after),
        404 => later("NotFound", format!("the organization or the bucket does not exist: {what}"), after),
        408 => later("Timeout", format!("the database timed out: {what}"), after),
        429 => later("TooManyRequests", format!("the database asks for fewer writes: {what}"), after),
        503 => later("Unavailable", format!("the database is not available: {what}"), after),
        500..=599 => later("ServerError", format!("the database failed with status {status}: {what}"), after),
        _ => later("UnexpectedAnswer", format!("the database answered with status {status}: {what}"), after),
    }
}

/// The message of InfluxDB's JSON error.
fn told(body: &[u8]) -> Option<String> {
    let error: serde_json::Value = serde_json::from_slice(body).ok()?;
    let message = ["message", "error"].iter().find_map(|key| error.get(key)?.as_str());
    message.map(str::to_owned)
}

/// Seconds, or an HTTP date.
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Duration::try_from(date.duration_since(jiff::Timestamp::now())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        classify(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new(), body.as_bytes())
    }

    fn reason(status: u16) -> &'static str {
        match answer(status, "{}") {
            Answer::Later { reason, .. } => reason,
            other => panic!("{status}: {other:?}"),
        }
    }

    #[test]
    fn only_the_database_s_own_words_convict_a_point() {
        let words = r#"{"code": "unprocessable entity", "message": "partial write: field type conflict"}"#;
        assert_eq!(answer(422, words), Answer::Refused("partial write: field type conflict".into()));
        assert!(matches!(answer(400, r#"{"code": "invalid", "message": "no"}"#), Answer::Refused(_)));
        assert!(matches!(answer(400, "<html>Bad Request</html>"), Answer::Later { .. }));
    }

    #[test]
    fn what_is_not_the_points_fault_is_tried_again() {
        assert_eq!(answer(204, ""), Answer::Stored);
        assert_eq!(answer(413, ""), Answer::TooLarge);
        assert_eq!([401, 403, 404].map(reason), ["NotAuthorized", "NotAuthorized", "NotFound"]);
        assert_eq!([408, 429].map(reason), ["Timeout", "TooManyRequests"]);
        assert_eq!([500, 502, 503].map(reason), ["ServerError", "ServerError", "Unavailable"]);
        assert_eq!([200, 302, 405, 418].map(reason), ["UnexpectedAnswer"; 4]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        let soon = jiff::Timestamp::now() + Duration::from_secs(60);
        let date =
            jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).expect("a date");
        assert!(retry_after(&date).expect("a wait") > Duration::from_secs(50), "{date}");
        assert_eq!(retry_after("soon"), None);
    }
}
