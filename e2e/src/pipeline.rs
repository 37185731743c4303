//! An `IoTPipeline` in the cluster: applied as a user would, and the names of what it becomes.

use std::time::Duration;

use anyhow::{Context, Result};
use api::iotpipeline::IoTPipeline;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::Value;

use crate::conditions::{Probe, eventually};
use crate::influx::Influx;
use crate::namespaces::Namespace;
use crate::port_forward::{Forward, Tls};

/// How long a whole pipeline may take to become ready, on a machine that does other things too.
const READY: Duration = Duration::from_secs(240);

/// A pipeline, and its namespace.
#[derive(Clone)]
pub struct Pipeline {
    /// Where it is.
    pub namespace: Namespace,
    /// The pipeline's name.
    pub name: String,
}

impl Pipeline {
    /// Applies a manifest, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn apply(namespace: &Namespace, yaml: &str) -> Result<Self> {
        let manifest: Value = serde_saphyr::from_str(yaml)?;
        let name = manifest["metadata"]["name"].as_str().context("a manifest without a name")?.to_owned();
        let parameters = PatchParams::apply("e2e").force();
        namespace.api::<IoTPipeline>().patch(&name, &parameters, &Patch::Apply(manifest)).await?;
        Ok(Self { namespace: namespace.clone(), name })
    }

    /// Applies a manifest and waits until the pipeline is ready.
    ///
    /// # Errors
    /// If it is refused, or not ready in time.
    pub async fn ready(namespace: &Namespace, yaml: &str) -> Result<Self> {
        let pipeline = Self::apply(namespace, yaml).await?;
        pipeline.becomes_ready().await?;
        Ok(pipeline)
    }

    /// The resource as it is now.
    ///
    /// # Errors
    /// If it is not there.
    pub async fn get(&self) -> Result<IoTPipeline> {
        Ok(self.namespace.api::<IoTPipeline>().get(&self.name).await?)
    }

    /// Waits until the pipeline says that it is ready, of its newest generation.
    ///
    /// # Errors
    /// If the deadline passes.
    pub async fn becomes_ready(&self) -> Result<()> {
        eventually(format!("pipeline {} is ready", self.name), READY, async || {
            let pipeline = self.get().await?;
            Ok(if is_ready(&pipeline) { Probe::Found(()) } else { Probe::NotYet(summary(&pipeline)) })
        })
        .await
    }

    /// The name of the service, and of the workload, of a part: broker, database, dashboard or bridge.
    pub fn part(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// A local port that leads to the broker, for users with passwords.
    ///
    /// # Errors
    /// If there is no such service.
    pub async fn broker(&self) -> Result<Forward> {
        let tls = self.tls("broker", None).await?;
        Forward::to_service(&self.namespace, &self.part("broker"), "mqtts", Some(tls)).await
    }

    /// A local port that leads to the broker, for a user with a certificate.
    ///
    /// # Errors
    /// If there is no such user, or no such service.
    pub async fn broker_as(&self, user: &str) -> Result<Forward> {
        let secret = self.part(&format!("broker-{user}"));
        let (certificate, key) = (self.secret(&secret, "tls.crt"), self.secret(&secret, "tls.key"));
        self.broker_for(&certificate.await?, &key.await?).await
    }

    /// The same, for who has this certificate and key.
    ///
    /// # Errors
    /// If there is no such service.
    pub async fn broker_for(&self, certificate: &str, key: &str) -> Result<Forward> {
        let tls = self.tls("broker", Some((certificate, key))).await?;
        Forward::to_service(&self.namespace, &self.part("broker"), "mqtts-cert", Some(tls)).await
    }

    /// How to know a part, from within the cluster or from here.
    async fn tls(&self, part: &str, client: Option<(&str, &str)>) -> Result<Tls> {
        let authorities = self.secret(&self.part(part), "ca.crt").await?;
        Tls::new(&self.host(part), &authorities, client)
    }

    /// By HTTPS if the part speaks that.
    async fn http(&self, part: &str, tls: bool) -> Result<Forward> {
        let (port, tls) = match tls {
            true => ("https", Some(self.tls(part, None).await?)),
            false => ("http", None),
        };
        Forward::to_service(&self.namespace, &self.part(part), port, tls).await
    }

    /// The host name of a part within the cluster.
    pub fn host(&self, part: &str) -> String {
        format!("{}.{}.svc", self.part(part), self.namespace.name)
    }

    /// A local port that leads to the dashboard.
    ///
    /// # Errors
    /// If there is no such service.
    pub async fn dashboard(&self) -> Result<Forward> {
        let dashboard = self.get().await?.spec.dashboard;
        self.http("dashboard", dashboard.is_some_and(|dashboard| dashboard.tls.is_some())).await
    }

    /// The database, read with the administrator's token; valid while the local port is kept.
    ///
    /// # Errors
    /// If there is no such service, or no such Secret.
    pub async fn database(&self) -> Result<(Forward, Influx)> {
        let database = self.get().await?.spec.database;
        let forward = self.http("database", database.tls.is_some()).await?;
        let token = self.secret(&self.part("database"), "token").await?;
        let influx = Influx::new(forward.port, &database.organization, &database.bucket, &token);
        Ok((forward, influx))
    }

    /// The generated password of a user of the broker.
    ///
    /// # Errors
    /// If there is no such Secret.
    pub async fn password(&self, user: &str) -> Result<String> {
        self.secret(&self.part(&format!("broker-{user}")), "password").await
    }

    /// What a key of a Secret holds.
    ///
    /// # Errors
    /// If there is no such Secret or key.
    pub async fn secret(&self, name: &str, key: &str) -> Result<String> {
        let secret = self.namespace.api::<Secret>().get(name).await?;
        let value =
            secret.data.unwrap_or_default().remove(key).with_context(|| format!("{name} has no {key}"))?;
        Ok(String::from_utf8(value.0)?)
    }

    /// The pipeline's pods with their containers' restarts: unchanged when nothing restarted.
    ///
    /// # Errors
    /// If the API server doesn't answer.
    pub async fn incarnations(&self) -> Result<Vec<(String, String, i32)>> {
        let own = ListParams::default().labels(&format!("app.kubernetes.io/instance={}", self.name));
        let pods = self.namespace.api::<Pod>().list(&own).await?;
        let mut incarnations: Vec<(String, String, i32)> = pods
            .into_iter()
            .map(|pod| {
                let status = pod.status.clone().unwrap_or_default();
                let restarts = status.container_statuses.unwrap_or_default();
                let restarts = restarts.iter().map(|status| status.restart_count).sum();
                (pod.name_any(), pod.uid().unwrap_or_default(), restarts)
            })
            .collect();
        incarnations.sort();
        Ok(incarnations)
    }
}

/// Whether a pipeline says that it is ready, of its newest generation.
pub fn is_ready(pipeline: &IoTPipeline) -> bool {
    let Some(status) = &pipeline.status else { return false };
    let ready =
        status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && status.observed_generation == pipeline.metadata.generation
}

/// The conditions in a line.
pub fn summary(pipeline: &IoTPipeline) -> String {
    let Some(status) = &pipeline.status else { return "no status".into() };
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| {
            format!("{}={} ({}: {})", condition.type_, condition.status, condition.reason, condition.message)
        })
        .collect();
    conditions.join("; ")
}
