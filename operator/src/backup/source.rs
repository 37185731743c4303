//! InfluxDB's API of backups: <https://docs.influxdata.com/influxdb/v2/api/#tag/Backup>. It wants the operator token
//! for each of these requests.

use std::collections::VecDeque;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::manifest::{PIECE, Shard};
use super::multipart::Finder;
use super::store::Store;
use super::upload::{self, SILENCE, within};
use crate::http;

/// How to reach a database.
pub(super) struct Access {
    pub(super) http: Client,
    pub(super) url: String,
    pub(super) token: String,
}

/// A database to copy from, or to restore into.
pub(super) struct Source(Access);

/// A shard, as it comes: a tar file. It is asked for without gzip, since most of it is compressed anyway, and so that
/// its end can be seen.
pub(super) struct Copy {
    answer: Response,
    rest: Vec<u8>,
    /// The last bytes.
    tail: VecDeque<u8>,
}

/// So many zeros end a tar file.
const END: usize = 1024;

/// A bucket that is there.
#[derive(Deserialize)]
pub(super) struct Found {
    pub(super) id: String,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Deserialize)]
struct Buckets {
    #[serde(default)]
    buckets: Vec<Found>,
}

/// A bucket that was made for a restore.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restored {
    pub(super) id: String,
    #[serde(default)]
    shard_mappings: Vec<Mapping>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    old_id: u64,
    new_id: u64,
}

impl Source {
    pub(super) fn new(access: Access) -> Self {
        let url = access.url.trim_end_matches('/').to_owned();
        Self(Access { url, ..access })
    }

    /// InfluxDB's description of a bucket and its shards.
    pub(super) async fn describe(&self, organization: &str, bucket: &str) -> anyhow::Result<Value> {
        let request = self.request(Method::GET, "/api/v2/backup/metadata");
        let mut answer = within("the metadata", self.good("the metadata", request)).await??;
        let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let mut finder =
            Finder::new("buckets", content_type.unwrap_or_default()).context("the metadata has no parts")?;
        let part = loop {
            let chunk = within("the metadata", answer.chunk()).await?.context("read the metadata")?;
            let chunk = chunk.context("the metadata is cut off")?;
            if let Some(part) = finder.feed(&chunk)? {
                break part;
            }
        };
        let buckets: Vec<Value> = serde_json::from_slice(&part).context("read the buckets")?;
        let is_it =
            |found: &Value| found["organizationName"] == organization && found["bucketName"] == bucket;
        let found = buckets.into_iter().find(is_it);
        found.with_context(|| {
            format!("the database has no bucket {bucket} in the organization {organization}")
        })
    }

    /// Begins to read a shard; none, if it has gone.
    pub(super) async fn read(&self, shard: u64) -> anyhow::Result<Option<Copy>> {
        let path = format!("/api/v2/backup/shards/{shard}");
        let answer = within("a shard", self.request(Method::GET, &path).send()).await?;
        let answer = answer.map_err(reqwest::Error::without_url)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(Copy { answer: good("a shard", answer).await?, rest: Vec::new(), tail: VecDeque::new() }))
    }

    pub(super) async fn organization(&self, name: &str) -> anyhow::Result<String> {
        let request = self.brief(Method::GET, "/api/v2/orgs").query(&[("org", name)]);
        let found: Value = self.json("the organization", request).await?;
        let id = found["orgs"][0]["id"].as_str();
        id.map(str::to_owned).with_context(|| format!("the database has no organization {name}"))
    }

    pub(super) async fn bucket(&self, organization: &str, name: &str) -> anyhow::Result<Option<Found>> {
        let request =
            self.brief(Method::GET, "/api/v2/buckets").query(&[("orgID", organization), ("name", name)]);
        let answer = request.send().await.map_err(reqwest::Error::without_url)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let found: Buckets = parsed("the buckets", good("the buckets", answer).await?).await?;
        Ok(found.buckets.into_iter().next())
    }

    pub(super) async fn delete_bucket(&self, id: &str) -> anyhow::Result<()> {
        let request = self.brief(Method::DELETE, &format!("/api/v2/buckets/{id}"));
        self.good("the end of an unfinished restore", request).await.map(|_| ())
    }

    /// Gives the bucket its name and its description at once.
    pub(super) async fn name_bucket(&self, id: &str, name: &str, description: &str) -> anyhow::Result<()> {
        let request = self.brief(Method::PATCH, &format!("/api/v2/buckets/{id}"));
        let change = json!({"name": name, "description": description});
        self.good("the bucket's name", request.json(&change)).await.map(|_| ())
    }

    /// Makes a bucket with all shards of another, empty as yet: organization, its name, and the bucket's name. Its
    /// points have no end, until the operator says which.
    pub(super) async fn create(
        &self,
        described: &Value,
        (organization, organization_name, bucket): (&str, &str, &str),
    ) -> anyhow::Result<Restored> {
        let mut wanted = described.clone();
        wanted["organizationID"] = organization.into();
        wanted["organizationName"] = organization_name.into();
        wanted["bucketName"] = bucket.into();
        for policy in wanted["retentionPolicies"].as_array_mut().into_iter().flatten() {
            policy["duration"] = 0.into();
        }
        let request = self.brief(Method::POST, "/api/v2/restore/bucketMetadata").json(&wanted);
        self.json("the bucket to restore", request).await
    }

    /// Sends a shard's pieces, each checked before.
    pub(super) async fn fill(
        &self,
        to: u64,
        shard: &Shard,
        store: &Store,
        backup: &str,
    ) -> anyhow::Result<()> {
        let (pieces, body) = upload::body();
        let request = self.request(Method::POST, &format!("/api/v2/restore/shards/{to}"));
        let request = request.body(reqwest::Body::wrap(body));
        let mut rest = shard.pieces.iter().enumerate();
        let next = async || {
            let Some((number, piece)) = rest.next() else { return Ok(None) };
            let name = format!("{backup}/{}", piece.file(shard.id, number));
            piece.checked(&name, store.get(&name).await?).map(Some)
        };
        upload::send(pieces, next, self.good("a shard to restore", request)).await.map(|_| ())
    }

    /// A request whose answer is small.
    fn brief(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).timeout(SILENCE)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let Access { http, url, token } = &self.0;
        http.request(method, format!("{url}{path}")).header("Authorization", format!("Token {token}"))
    }

    async fn good(&self, what: &str, request: RequestBuilder) -> anyhow::Result<Response> {
        let answer = request.send().await.map_err(reqwest::Error::without_url);
        good(what, answer.with_context(|| format!("ask {} for {what}", self.0.url))?).await
    }

    async fn json<T: DeserializeOwned>(&self, what: &str, request: RequestBuilder) -> anyhow::Result<T> {
        parsed(what, self.good(what, request).await?).await
    }
}

async fn parsed<T: DeserializeOwned>(what: &str, answer: Response) -> anyhow::Result<T> {
    answer.json().await.with_context(|| format!("read {what}"))
}

async fn good(what: &str, answer: Response) -> anyhow::Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let message = http::said(&answer.text().await.unwrap_or_default());
    bail!("the database answers {status} to the request for {what}: {message}")
}

impl Copy {
    /// The next piece; none at the end. A database that fails in the middle has promised success already, and writes
    /// its error into the file.
    pub(super) async fn piece(&mut self) -> anyhow::Result<Option<Bytes>> {
        let mut piece = std::mem::take(&mut self.rest);
        while piece.len() < PIECE {
            match within("the shard", self.answer.chunk()).await?.context("read the shard")? {
                Some(chunk) => {
                    self.tail.extend(&chunk[chunk.len().saturating_sub(END)..]);
                    self.tail.drain(..self.tail.len().saturating_sub(END));
                    piece.extend_from_slice(&chunk);
                }
                None if ends_tar(self.tail.make_contiguous()) => break,
                None => bail!("the database broke off: {}", last_words(self.tail.make_contiguous())),
            }
        }
        self.rest = piece.split_off(piece.len().min(PIECE));
        Ok(Some(Bytes::from(piece)).filter(|piece| !piece.is_empty()))
    }
}

/// The message of the API's error at the end of a file that was broken off. The rest are somebody's points.
fn last_words(tail: &[u8]) -> String {
    let text = String::from_utf8_lossy(tail);
    let error = text.rfind(r#"{"code":"#).map(|at| text[at..].trim());
    let is_error = |error: &&str| serde_json::from_str::<Value>(error).is_ok();
    error.filter(is_error).map_or_else(|| "without a word".into(), http::said)
}

fn ends_tar(tail: &[u8]) -> bool {
    tail.len() == END && tail.iter().all(|byte| *byte == 0)
}

impl Restored {
    /// The shard that takes what the other had.
    pub(super) fn shard(&self, old: u64) -> anyhow::Result<u64> {
        let mapping = self.shard_mappings.iter().find(|mapping| mapping.old_id == old);
        mapping
            .map(|mapping| mapping.new_id)
            .with_context(|| format!("the database has no place for shard {old}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_broken_shard_the_error_is_told_and_no_point() {
        let error = br#"{"code":"internal error","message":"no such file"}"#;
        assert_eq!(last_words(&[b"temperature=21\0\0", &error[..], b"\n"].concat()), "no such file");
        for tail in [&b"temperature=21"[..], b"", br#"temperature=21{"code":"x","message":"cut"#] {
            assert_eq!(last_words(tail), "without a word");
        }
    }
}
