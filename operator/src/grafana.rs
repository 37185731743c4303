//! Grafana's API: puts a pipeline's data source and dashboard into a Grafana that is not the operator's.

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::compare::is_contained;
use crate::http::{self, ApiError, absent};
use crate::plan::{GrafanaAccess, Plan};
use crate::resources::{dashboard, hash};

/// Somebody's Grafana.
pub struct Grafana {
    http: Client,
    url: String,
    access: GrafanaAccess,
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
    pub async fn put(&self, plan: &Plan, token: &str) -> Result<(), ApiError> {
        let uid = uid(plan);
        self.put_data_source(&uid, data_source(plan, &uid, token)).await?;
        let title = format!("{} ({})", plan.pipeline.names.pipeline, plan.pipeline.names.namespace);
        self.put_dashboard(&uid, dashboard::render(plan, &uid, &title, &uid)).await
    }

    /// Whether this dashboard is there.
    ///
    /// # Errors
    /// If Grafana doesn't answer, or refuses.
    pub async fn has_dashboard(&self, uid: &str) -> Result<bool, ApiError> {
        Ok(self.get(&format!("/api/dashboards/uid/{uid}")).await?.is_some())
    }

    async fn put_data_source(&self, uid: &str, wanted: Value) -> Result<(), ApiError> {
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

    async fn put_dashboard(&self, uid: &str, wanted: Value) -> Result<(), ApiError> {
        if let Some(live) = self.get(&format!("/api/dashboards/uid/{uid}")).await?
            && is_contained(&wanted, &live["dashboard"])
        {
            return Ok(());
        }
        let body = json!({"dashboard": wanted, "overwrite": true, "message": "by the IoTPipeline operator"});
        let request = self.request(Method::POST, "/api/dashboards/db").json(&body);
        self.send("the dashboard", request).await.map(|_| ())
    }

    async fn get(&self, path: &str) -> Result<Option<Value>, ApiError> {
        let found = absent(self.send("a look-up", self.request(Method::GET, path)).await)?;
        Ok(found.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = http::request(&self.http, method, format!("{}{path}", self.url));
        match &self.access {
            GrafanaAccess::Token(token) => request.bearer_auth(token),
            GrafanaAccess::Basic(user, password) => request.basic_auth(user, Some(password)),
        }
    }

    async fn send(&self, what: &'static str, request: RequestBuilder) -> Result<String, ApiError> {
        http::send(&self.url, what, request).await
    }
}

/// Names data source and dashboard; Grafana takes at most 40 characters.
pub fn uid(plan: &Plan) -> String {
    let unique = plan.pipeline.names.unique();
    if unique.len() <= 40 {
        return unique;
    }
    format!("iotpipeline_{}", &hash(&[unique.as_bytes()])[..28])
}

fn data_source(plan: &Plan, uid: &str, token: &str) -> Value {
    let (url, ca) = (plan.database.url(&plan.pipeline.names), plan.database.ca());
    let mut secrets = json!({"token": token});
    let mut data = json!({
        "version": "Flux",
        "organization": plan.database.organization,
        "defaultBucket": plan.database.bucket,
        "iotpipelineHash": &hash(&[token.as_bytes(), ca.unwrap_or_default().as_bytes()])[..16],
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
