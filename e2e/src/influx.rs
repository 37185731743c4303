//! Reads back what was stored, with a client that is not our own code: the influxdb2 crate.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use influxdb2::api::query::FluxRecord;
use influxdb2::models::Query;
pub use influxdb2_structmap::value::Value;
use serde_json::json;

use crate::conditions::{Probe, eventually};
use crate::http;

/// An InfluxDB on 127.0.0.1, with a token for one organization.
pub struct Influx {
    client: influxdb2::Client,
    port: u16,
    organization: String,
    bucket: String,
}

impl Influx {
    /// Names the database, the right and the bucket; connects when asked.
    pub fn new(port: u16, organization: &str, bucket: &str, token: &str) -> Self {
        let client = influxdb2::Client::new(format!("http://127.0.0.1:{port}"), organization, token);
        Self { client, port, organization: organization.to_owned(), bucket: bucket.to_owned() }
    }

    /// Sets up a new database as a user would, with a token of one's own.
    ///
    /// # Errors
    /// If it does not answer, or is set up already.
    pub async fn set_up(port: u16, organization: &str, bucket: &str, token: &str) -> Result<Self> {
        let body = json!({
            "username": "admin", "password": "e2e-password", "org": organization, "bucket": bucket, "token": token,
        });
        let answer =
            http::client().post(format!("http://127.0.0.1:{port}/api/v2/setup")).json(&body).send().await?;
        let status = answer.status();
        ensure!(status == 201, "setting up InfluxDB: {status}: {}", answer.text().await?);
        Ok(Self::new(port, organization, bucket, token))
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Writes line protocol, past the bridge.
    ///
    /// # Errors
    /// If the database doesn't take it.
    pub async fn write(&self, lines: &str) -> Result<()> {
        let lines = lines.to_owned();
        Ok(self.client.write_line_protocol(&self.organization, &self.bucket, lines).await?)
    }

    /// Runs Flux, and returns the records of all tables.
    ///
    /// # Errors
    /// If the database doesn't answer, or refuses.
    pub async fn query(&self, flux: &str) -> Result<Vec<FluxRecord>> {
        self.client.query_raw(Some(Query::new(flux.to_owned()))).await.with_context(|| flux.to_owned())
    }

    /// Every stored point of a measurement, one record per field.
    ///
    /// # Errors
    /// If the database doesn't answer, or refuses.
    pub async fn points(&self, measurement: &str) -> Result<Vec<FluxRecord>> {
        let bucket = &self.bucket;
        self.query(&format!(
            "from(bucket: {bucket:?}) |> range(start: 0, stop: 2100-01-01T00:00:00Z) \
             |> filter(fn: (r) => r._measurement == {measurement:?})"
        ))
        .await
    }

    /// The whole numbers stored in a field.
    ///
    /// # Errors
    /// If the database doesn't answer, or refuses, or has another type in the field.
    pub async fn integers(&self, measurement: &str, field: &str) -> Result<Vec<i64>> {
        let bucket = &self.bucket;
        let records = self
            .query(&format!(
                "from(bucket: {bucket:?}) |> range(start: 0, stop: 2100-01-01T00:00:00Z) \
                 |> filter(fn: (r) => r._measurement == {measurement:?} and r._field == {field:?}) \
                 |> keep(columns: [\"_value\"])"
            ))
            .await?;
        records
            .iter()
            .map(|record| match record.values.get("_value") {
                Some(Value::Long(number)) => Ok(*number),
                other => bail!("{field} holds {other:?}"),
            })
            .collect()
    }

    /// Waits until every one of the numbers is stored in the field, and returns all that are, as often
    /// as they are.
    ///
    /// # Errors
    /// If some are missing when the deadline passes.
    pub async fn all_stored(
        &self,
        measurement: &str,
        field: &str,
        numbers: impl IntoIterator<Item = u64>,
        deadline: Duration,
    ) -> Result<Vec<u64>> {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let what = format!("all of {} numbers are stored in {measurement}", numbers.len());
        eventually(what, deadline, async || {
            let points = self.integers(measurement, field).await?;
            let points: Vec<u64> = points.into_iter().filter_map(|number| number.try_into().ok()).collect();
            let stored: BTreeSet<&u64> = points.iter().collect();
            let missing: Vec<&u64> = numbers.iter().filter(|number| !stored.contains(number)).collect();
            Ok(match missing.as_slice() {
                [] => Probe::Found(points),
                [first, ..] => Probe::NotYet(format!("{} missing, the first is {first}", missing.len())),
            })
        })
        .await
    }

    /// Waits until the measurement has so many records, and returns them.
    ///
    /// # Errors
    /// If the deadline passes.
    pub async fn at_least(
        &self,
        measurement: &str,
        count: usize,
        deadline: Duration,
    ) -> Result<Vec<FluxRecord>> {
        eventually(format!("{count} records in {measurement}"), deadline, async || {
            let records = self.points(measurement).await?;
            Ok(if records.len() >= count {
                Probe::Found(records)
            } else {
                Probe::NotYet(format!("{} records", records.len()))
            })
        })
        .await
    }

    /// Whether the database says that it can serve.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn is_healthy(&self) -> Result<bool> {
        let answer = http::get(&format!("http://127.0.0.1:{}/health", self.port)).await?;
        Ok(answer.status().is_success())
    }
}

/// A record's text in a column, empty if it has none.
pub fn text<'r>(record: &'r FluxRecord, column: &str) -> &'r str {
    match record.values.get(column) {
        Some(Value::String(text)) => text,
        _ => "",
    }
}
