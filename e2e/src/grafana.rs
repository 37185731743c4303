//! Grafana's HTTP API, or its stand-in's: what tests and the demo ask of it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http;

/// A Grafana on 127.0.0.1, with its administrator's credentials.
pub struct Grafana {
    port: u16,
    user: String,
    password: String,
    http: reqwest::Client,
}

/// A curve: the tags of a series, and its points as milliseconds since 1970 and value.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Tags, by name.
    pub labels: serde_json::Map<String, Value>,
    /// Points in time's order.
    pub points: Vec<(i64, f64)>,
}

/// What a panel draws.
#[derive(Debug, Default)]
pub struct Drawn {
    /// One per series.
    pub curves: Vec<Curve>,
    /// The queries as the database got them.
    pub executed: Vec<String>,
}

impl Grafana {
    /// Names the server and the credentials; connects when asked.
    pub fn new(port: u16, user: &str, password: &str) -> Self {
        let (user, password) = (user.to_owned(), password.to_owned());
        Self { port, user, password, http: http::client() }
    }

    /// Asks for a path under /api.
    ///
    /// # Errors
    /// If there is no answer, or no good one.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let request = self.http.get(format!("http://127.0.0.1:{}/api{path}", self.port));
        self.answer(request).await.with_context(|| format!("GET /api{path}"))
    }

    /// Sends JSON to a path under /api.
    ///
    /// # Errors
    /// If there is no answer, or no good one.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("http://127.0.0.1:{}/api{path}", self.port)).json(body);
        self.answer(request).await.with_context(|| format!("POST /api{path}"))
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let answer = request.basic_auth(&self.user, Some(&self.password)).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// The model of the only dashboard.
    ///
    /// # Errors
    /// If there is not exactly one.
    pub async fn only_dashboard(&self) -> Result<Value> {
        let found = self.get("/search?type=dash-db").await?;
        let found = found.as_array().context("not a list")?;
        ensure!(found.len() == 1, "{} dashboards instead of one", found.len());
        let uid = found[0]["uid"].as_str().context("a dashboard without a uid")?;
        Ok(self.get(&format!("/dashboards/uid/{uid}")).await?["dashboard"].take())
    }

    /// Runs a panel's queries as the panel itself does when it is looked at. `from` is a time as in
    /// Grafana's own requests: `now-15m`, or milliseconds since 1970.
    ///
    /// # Errors
    /// If there is no answer, or no good one.
    pub async fn run_panel(&self, panel: &Value, from: &str, interval_ms: u64) -> Result<Drawn> {
        let targets = panel["targets"].as_array().context("a panel without queries")?;
        let query = |target: &Value| {
            let mut query = target.clone();
            if query["datasource"].is_null() {
                query["datasource"] = panel["datasource"].clone();
            }
            query["intervalMs"] = interval_ms.into();
            query["maxDataPoints"] = 1_000.into();
            query
        };
        let queries: Vec<Value> = targets.iter().map(query).collect();
        let body = json!({"from": from, "to": "now", "queries": queries});
        let answer = self.post("/ds/query", &body).await?;
        let results = answer["results"].as_object().context("an answer without results")?;
        let mut drawn = Drawn::default();
        for frame in results.values().flat_map(|result| result["frames"].as_array().into_iter().flatten()) {
            let schema = &frame["schema"];
            if let Some(executed) = schema["meta"]["executedQueryString"].as_str() {
                drawn.executed.push(executed.to_owned());
            }
            if schema["fields"].as_array().is_some_and(|fields| fields.len() == 2) {
                drawn.curves.push(curve(frame)?);
            }
        }
        Ok(drawn)
    }
}

/// The dashboard's panels that draw, those in rows included.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        if panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()) {
            found.push(panel);
        }
        found.extend(panels(panel));
    }
    found
}

fn curve(frame: &Value) -> Result<Curve> {
    let value = &frame["schema"]["fields"][1];
    let column = |place: usize| frame["data"]["values"][place].as_array().context("a frame without values");
    let points = column(0)?
        .iter()
        .zip(column(1)?)
        .filter_map(|(time, value)| Some((time.as_i64()?, value.as_f64()?)))
        .collect();
    Ok(Curve { labels: value["labels"].as_object().cloned().unwrap_or_default(), points })
}
