//! A bucket of S3 or of what speaks like it, addressed by path: four requests, signed by ourselves.

mod sign;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use clap::Args;
use jiff::Timestamp;
use reqwest::{Client, Method, StatusCode, Url};

use super::upload::SILENCE;
use crate::http;
use sign::{Key, encoded, signed};

/// Between the attempts of a request. A server that restarts is back within them.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(9),
    Duration::from_secs(20),
];

/// A bucket of S3.
#[derive(Args, Clone, Debug)]
pub struct S3 {
    /// The bucket's address, with its path: the bucket, and what all names begin with.
    #[arg(long, value_name = "URL", required = false, requires = "s3_credentials")]
    pub s3_url: String,
    /// The region that requests are signed for.
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    pub s3_region: String,
    /// A directory with the files accessKeyId, secretAccessKey and, unless a public authority signed, ca.crt.
    #[arg(long, value_name = "DIRECTORY", required = false, requires = "s3_url")]
    pub s3_credentials: PathBuf,
}

/// A bucket, and who asks.
pub(super) struct Bucket {
    http: Client,
    url: Url,
    bucket: String,
    prefix: String,
    key: Key,
}

impl Bucket {
    pub(super) fn open(s3: &S3) -> anyhow::Result<Self> {
        let read = |file: &Path| {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            anyhow::Ok(text.trim_end_matches(['\n', '\r']).to_owned())
        };
        let authority = s3.s3_credentials.join("ca.crt");
        let ca = authority.exists().then(|| read(&authority)).transpose()?;
        let key = Key {
            id: read(&s3.s3_credentials.join("accessKeyId"))?,
            secret: read(&s3.s3_credentials.join("secretAccessKey"))?,
            region: s3.s3_region.clone(),
        };
        let mut url: Url = s3.s3_url.parse().context("--s3-url is no address")?;
        let path = url.path().trim_matches('/').to_owned();
        let (bucket, prefix) = path.split_once('/').unwrap_or((&path, ""));
        ensure!(!bucket.is_empty(), "--s3-url names no bucket");
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        url.set_path("");
        Ok(Self { http: http::transfer(ca.as_deref())?, url, bucket: bucket.into(), prefix, key })
    }

    pub(super) async fn put(&self, name: &str, content: Bytes) -> anyhow::Result<()> {
        self.ask(Method::PUT, Some(name), &[], content).await.map(|_| ())
    }

    pub(super) async fn get(&self, name: &str) -> anyhow::Result<Bytes> {
        self.ask(Method::GET, Some(name), &[], Bytes::new()).await
    }

    pub(super) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.ask(Method::DELETE, Some(name), &[], Bytes::new()).await.map(|_| ())
    }

    pub(super) async fn list(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let prefix = format!("{}{prefix}", self.prefix);
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let mut query = vec![("list-type", "2"), ("prefix", prefix.as_str())];
            query.extend(next.as_deref().map(|next| ("continuation-token", next)));
            let answer = self.ask(Method::GET, None, &query, Bytes::new()).await?;
            let answer = String::from_utf8(answer.into()).context("the list is no text")?;
            let names = texts(&answer, "Key");
            found.extend(names.filter_map(|name| Some(name.strip_prefix(&self.prefix)?.to_owned())));
            next = texts(&answer, "NextContinuationToken").next();
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// Asks again where that may help: each of these requests may be repeated.
    async fn ask(
        &self,
        method: Method,
        name: Option<&str>,
        query: &[(&str, &str)],
        content: Bytes,
    ) -> anyhow::Result<Bytes> {
        let mut pauses = PAUSES.iter();
        loop {
            let answer = self.ask_once(method.clone(), name, query, content.clone()).await;
            let (error, pause) = match answer {
                Ok((status, body)) if status.is_success() => return Ok(body),
                Ok((status, body)) => {
                    let error = anyhow!("{}", refusal(status, &String::from_utf8_lossy(&body)));
                    (error, pauses.next().filter(|_| may_pass(status)))
                }
                Err(error) => (error, pauses.next()),
            };
            let Some(pause) = pause else { return Err(error) };
            tracing::warn!(error = format!("{error:#}"), ?pause, "asking again");
            tokio::time::sleep(*pause).await;
        }
    }

    /// The answer, if there is one. It is signed anew each time, since a signature is good for some minutes.
    async fn ask_once(
        &self,
        method: Method,
        name: Option<&str>,
        query: &[(&str, &str)],
        content: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let name = name.map(|name| format!("/{}{name}", self.prefix)).unwrap_or_default();
        let path = format!("/{}{name}", self.bucket);
        let mut query: Vec<_> =
            query.iter().map(|(key, value)| format!("{}={}", encoded(key, ""), encoded(value, ""))).collect();
        query.sort();
        let (path, query) = (encoded(&path, "/"), query.join("&"));
        let mut url = self.url.clone();
        url.set_path(&path);
        url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
        let host = match self.url.port() {
            Some(port) => format!("{}:{port}", self.url.host_str().unwrap_or_default()),
            None => self.url.host_str().unwrap_or_default().to_owned(),
        };
        let headers = [("host", host)];
        let request =
            sign::Request { method: method.as_str(), path: &path, query: &query, content: &content };
        let headers = signed(&self.key, &request, &headers, Timestamp::now());
        // No object is larger than a piece, so a timeout may count all of it.
        let mut request = self.http.request(method, url).timeout(SILENCE).body(content.clone());
        for (key, value) in headers {
            request = request.header(key, value);
        }
        let answer = request.send().await.map_err(reqwest::Error::without_url);
        let answer = answer.with_context(|| format!("{} does not answer", self.url))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(reqwest::Error::without_url);
        Ok((status, body.context("read the answer of S3")?))
    }
}

/// Whether a refusal is of the moment: what is wrong with a request stays wrong.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn refusal(status: StatusCode, body: &str) -> String {
    let text = |name| texts(body, name).next().unwrap_or_default();
    let advice = match status {
        StatusCode::FORBIDDEN => ": see to the Secret of credentialsSecretRef, and to what its key may do",
        StatusCode::NOT_FOUND => ": see to s3.url, its bucket and the key",
        StatusCode::MOVED_PERMANENTLY | StatusCode::BAD_REQUEST => ": see to s3.region",
        _ => "",
    };
    format!("S3 answers {status}, {}: {}{advice}", text("Code"), text("Message"))
}

/// The texts of all elements of this name. S3's answers have neither attributes nor comments in these.
fn texts<'x>(xml: &'x str, name: &str) -> impl Iterator<Item = String> + 'x {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&start)?;
        let (text, after) = after.split_once(&end)?;
        rest = after;
        let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        Some(plain.replace("&#39;", "'").replace("&apos;", "'").replace("&amp;", "&"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_asked_again() {
        for passing in [500, 502, 503, 429, 408] {
            assert!(may_pass(StatusCode::from_u16(passing).expect("a status")), "{passing}");
        }
        for lasting in [301, 400, 403, 404, 409, 412] {
            assert!(!may_pass(StatusCode::from_u16(lasting).expect("a status")), "{lasting}");
        }
    }

    #[test]
    fn names_are_read_from_a_list_and_reasons_from_a_refusal() {
        let list = "<R><Contents><Key>a/b&amp;amp;</Key></Contents><Contents><Key>c</Key></Contents></R>";
        assert_eq!(texts(list, "Key").collect::<Vec<_>>(), ["a/b&amp;", "c"]);
        assert_eq!(texts(list, "NextContinuationToken").next(), None);
        let refused = "<Error><Code>InvalidAccessKeyId</Code><Message>unknown</Message></Error>";
        let told = refusal(StatusCode::FORBIDDEN, refused);
        assert!(told.contains("InvalidAccessKeyId: unknown: see to the Secret"), "{told}");
    }
}
