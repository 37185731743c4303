//! Grafana's API: puts a pipeline's data source and dashboard into a Grafana that is not the operator's.

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::compare::is_contained;
use crate::plan::{DatabasePlace, GrafanaAccess, Plan};
use crate::resources::{dashboard, hash};

/// Somebody's Grafana.
pub struct Grafana {
    http: Client,
    url: String,
    access: GrafanaAccess,
}

/// Why the data source or the dashboard is not there.
#[derive(Debug, thiserror::Error)]
pub enum GrafanaError {
    /// No answer.
    #[error("{url} does not answer: {source}")]
    Unreachable {
        /// The address.
        url: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// The credentials are not enough.
    #[error("{url} refuses the credentials, or they may not do this: {message}")]
    Unauthorized {
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

impl GrafanaError {
    /// For a condition: what is the matter, in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            GrafanaError::Unreachable { .. } => "Unreachable",
            GrafanaError::Unauthorized { .. } => "NotAuthorized",
            GrafanaError::Refused { .. } => "UnexpectedAnswer",
        }
    }
}

impl Grafana {
    /// The Grafana at this address.
    pub fn new(http: Client, url: &str, access: &GrafanaAccess) -> Self {
        Self { http, url: url.trim_end_matches('/').into(), access: access.clone() }
    }

    /// Puts the pipeline's data source and dashboard there, as far as they differ.
    ///
    /// # Errors
    /// If Grafana doesn't answer, or refuses.
    pub async fn put(&self, plan: &Plan, token: &str) -> Result<(), GrafanaError> {
        let uid = uid(plan);
        self.put_data_source(&uid, data_source(plan, &uid, token)).await?;
        let title = format!("{} ({})", plan.pipeline.names.pipeline, plan.pipeline.names.namespace);
        self.put_dashboard(&uid, dashboard::render(plan, &uid, &title, &uid)).await
    }

    async fn put_data_source(&self, uid: &str, wanted: Value) -> Result<(), GrafanaError> {
        let path = format!("/api/datasources/uid/{uid}");
        let (request, what) = match self.get(&path).await? {
            Some(live) => {
                // Secrets aren't told; the hash beside them changes with them.
                let mut open = wanted.clone();
                open["secureJsonData"] = Value::Null;
                let without_secret =
                    open.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
                if is_contained(
                    &without_secret.map(|(key, value)| (key.clone(), value.clone())).collect(),
                    &live,
                ) {
                    return Ok(());
                }
                (self.request(Method::PUT, &path), "a changed data source")
            }
            None => (self.request(Method::POST, "/api/datasources"), "a new data source"),
        };
        self.send(what, request.json(&wanted)).await.map(|_| ())
    }

    async fn put_dashboard(&self, uid: &str, wanted: Value) -> Result<(), GrafanaError> {
        if let Some(live) = self.get(&format!("/api/dashboards/uid/{uid}")).await?
            && is_contained(&wanted, &live["dashboard"])
        {
            return Ok(());
        }
        let body = json!({"dashboard": wanted, "overwrite": true, "message": "by the IoTPipeline operator"});
        let request = self.request(Method::POST, "/api/dashboards/db").json(&body);
        self.send("the dashboard", request).await.map(|_| ())
    }

    async fn get(&self, path: &str) -> Result<Option<Value>, GrafanaError> {
        match self.send("a look-up", self.request(Method::GET, path)).await {
            Ok(text) => Ok(serde_json::from_str(&text).ok()),
            Err(GrafanaError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.access {
            GrafanaAccess::Token(token) => request.bearer_auth(token),
            GrafanaAccess::Basic(user, password) => request.basic_auth(user, Some(password)),
        }
    }

    async fn send(&self, what: &'static str, request: RequestBuilder) -> Result<String, GrafanaError> {
        let unreachable = |source: reqwest::Error| GrafanaError::Unreachable {
            url: self.url.clone(),
            source: source.without_url(),
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(text);
        }
        let message = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|body| Some(body["message"].as_str()?.to_owned()))
            .unwrap_or_else(|| text.chars().take(200).collect());
        let url = self.url.clone();
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => GrafanaError::Unauthorized { url, message },
            _ => GrafanaError::Refused { url, what, status: status.as_u16(), message },
        })
    }
}

/// Names data source and dashboard; Grafana takes at most 40 characters.
fn uid(plan: &Plan) -> String {
    let unique = plan.pipeline.names.unique();
    if unique.len() <= 40 {
        return unique;
    }
    format!("iotpipeline_{}", &hash(&[unique.as_bytes()])[..28])
}

fn data_source(plan: &Plan, uid: &str, token: &str) -> Value {
    let (url, ca) = match &plan.database.place {
        DatabasePlace::Managed(_) => (plan.pipeline.names.database_url(), None),
        DatabasePlace::External(external) => (external.url.clone(), external.ca.clone()),
    };
    let mut secrets = json!({"token": token});
    let mut data = json!({
        "version": "Flux",
        "organization": plan.database.organization,
        "defaultBucket": plan.database.bucket,
        "iotpipelineHash": &hash(&[token.as_bytes(), ca.as_deref().unwrap_or_default().as_bytes()])[..16],
    });
    if let Some(ca) = ca {
        data["tlsAuthWithCACert"] = true.into();
        secrets["tlsCACert"] = ca.into();
    }
    json!({
        "uid": uid,
        "name": uid,
        "type": "influxdb",
        "access": "proxy",
        "url": url,
        "jsonData": data,
        "secureJsonData": secrets,
    })
}
