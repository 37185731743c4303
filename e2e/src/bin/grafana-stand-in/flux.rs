//! From a panel's query to InfluxDB and back.

use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::store::DataSource;
use crate::table::{self, Table};

/// The body of `POST /api/ds/query`.
#[derive(Deserialize)]
pub(crate) struct Request {
    from: String,
    to: String,
    pub(crate) queries: Vec<Query>,
}

/// One query of a panel.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Query {
    pub(crate) ref_id: String,
    pub(crate) datasource: Reference,
    #[serde(default)]
    interval_ms: Option<i64>,
    #[serde(default)]
    query: String,
}

/// Which data source.
#[derive(Deserialize)]
pub(crate) struct Reference {
    pub(crate) uid: String,
}

/// A span of time.
pub(crate) struct Range {
    from: Timestamp,
    to: Timestamp,
}

impl Request {
    /// The range, with what is relative resolved.
    pub(crate) fn range(&self, now: Timestamp) -> Result<Range> {
        Ok(Range { from: instant(&self.from, now)?, to: instant(&self.to, now)? })
    }
}

impl Query {
    /// The query with Grafana's variables filled in.
    pub(crate) fn filled_in(&self, range: &Range, source: &DataSource) -> String {
        let quoted = |name: &str| source.settings.get(name).cloned().unwrap_or_default().to_string();
        self.query
            .replace("v.timeRangeStart", &range.from.to_string())
            .replace("v.timeRangeStop", &range.to.to_string())
            .replace("v.windowPeriod", &go_duration(self.interval_ms.unwrap_or(1_000)))
            .replace("v.defaultBucket", &quoted("defaultBucket"))
            .replace("v.organization", &quoted("organization"))
    }
}

/// `now`, `now-15m`, milliseconds since 1970, or RFC 3339.
fn instant(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Some(offset) = text.strip_prefix("now") {
        let Some(offset) = offset.strip_prefix('-') else {
            ensure!(offset.is_empty(), "not a time: {text:?}");
            return Ok(now);
        };
        let (number, unit) = offset.split_at(offset.len().saturating_sub(1));
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            _ => bail!("not a time: {text:?}"),
        };
        let number: i64 = number.parse().with_context(|| format!("not a time: {text:?}"))?;
        return Ok(now.checked_sub(SignedDuration::from_secs(number * seconds))?);
    }
    match text.parse::<i64>() {
        Ok(milliseconds) => Ok(Timestamp::from_millisecond(milliseconds)?),
        Err(_) => text.parse().with_context(|| format!("not a time: {text:?}")),
    }
}

/// A duration as Go prints it, which Flux reads: 5m0s, 1.5s, 500ms.
fn go_duration(milliseconds: i64) -> String {
    if milliseconds < 1_000 {
        return format!("{milliseconds}ms");
    }
    let (seconds, fraction) = (milliseconds / 1_000, milliseconds % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = match fraction {
        0 => String::new(),
        some => format!(".{some:03}").trim_end_matches('0').to_owned(),
    };
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

/// Runs a query. An error's text is what Grafana shows.
pub(crate) async fn run(http: &reqwest::Client, source: &DataSource, flux: &str) -> Result<Vec<Table>> {
    ensure!(source.kind == "influxdb", "the stand-in knows influxdb only, not {}", source.kind);
    let http = client(http, source)?;
    let text = |fields: &serde_json::Map<String, Value>, name: &str| {
        fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let body = json!({
        "query": flux,
        "type": "flux",
        "dialect": {"header": true, "delimiter": ",", "annotations": ["datatype", "group", "default"]},
    });
    let answer = http
        .post(format!("{}/api/v2/query", source.url.trim_end_matches('/')))
        .query(&[("org", text(&source.settings, "organization"))])
        .header("Authorization", format!("Token {}", text(&source.secrets, "token")))
        .json(&body)
        .send()
        .await?;
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        let error: Value = serde_json::from_str(&text).unwrap_or_default();
        match (error["code"].as_str(), error["message"].as_str()) {
            (Some(code), Some(message)) => bail!("{code}: {message}"),
            _ => bail!("{status}: {text}"),
        }
    }
    table::tables(&text)
}

/// With `tlsAuthWithCACert` the data source's own authority is trusted, and no other.
fn client(http: &reqwest::Client, source: &DataSource) -> Result<reqwest::Client> {
    if source.settings.get("tlsAuthWithCACert") != Some(&Value::Bool(true)) {
        return Ok(http.clone());
    }
    let ca = source.secrets.get("tlsCACert").and_then(Value::as_str).unwrap_or_default();
    let authorities = reqwest::Certificate::from_pem_bundle(ca.as_bytes()).context("tlsCACert")?;
    Ok(reqwest::Client::builder().tls_certs_only(authorities).build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (milliseconds, text) in [
            (300_000, "5m0s"),
            (500, "500ms"),
            (1_500, "1.5s"),
            (10_000, "10s"),
            (3_600_000, "1h0m0s"),
            (90_061_000, "25h1m1s"),
        ] {
            assert_eq!(go_duration(milliseconds), text);
        }
    }

    #[test]
    fn times_are_relative_or_milliseconds() {
        let now: Timestamp = "2026-11-22T20:15:00Z".parse().unwrap();
        assert_eq!(instant("now-15m", now).unwrap().to_string(), "2026-11-22T20:00:00Z");
        assert_eq!(instant("now", now).unwrap(), now);
        assert_eq!(instant("1795377900000", now).unwrap().as_millisecond(), 1_795_377_900_000);
        assert!(instant("yesterday", now).is_err());
        assert!(instant("now-1fortnight", now).is_err());
    }
}
