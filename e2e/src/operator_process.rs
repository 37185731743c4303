//! The built operator, as a process before a control plane and a stage.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::conditions::eventually_true;
use crate::control_plane::{ControlPlane, User};
use crate::programs::Program;
use crate::scratch::{Directory, free_port};
use crate::stage::Stage;
use crate::{environment, http};

const STARTS: Duration = Duration::from_secs(60);

/// A running operator. Killed when dropped.
pub struct Operator {
    /// The process, to be killed and started again.
    pub process: Program,
    port: u16,
}

impl Operator {
    /// Starts it with the chart's configuration and rights, and waits until it is ready.
    ///
    /// # Errors
    /// If there is none, or it doesn't become ready.
    pub async fn start(plane: &ControlPlane, stage: &Stage) -> Result<Self> {
        let manifest = std::fs::read_to_string(environment::repository("manifests/install.yaml"))?;
        Self::start_as(plane, stage, &manifest, "info").await
    }

    /// The same with the configuration of another manifest, and with another log level.
    ///
    /// # Errors
    /// If there is none, or it doesn't become ready.
    pub async fn start_as(plane: &ControlPlane, stage: &Stage, manifest: &str, level: &str) -> Result<Self> {
        let program = environment::operator_binary()?;
        let directory = Directory::new("operator")?;
        let config = directory.write("config.yaml", &config(manifest)?)?.display().to_string();
        let port = free_port()?;
        let arguments = ["--config", &config, "--listen", &format!("127.0.0.1:{port}")];
        let variables = vec![
            ("KUBECONFIG".to_owned(), plane.kubeconfig_file(User::Operator)?.display().to_string()),
            ("IOTPIPELINE_HTTP_PROXY".to_owned(), stage.proxy.clone()),
            ("RUST_LOG".to_owned(), level.to_owned()),
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        let process = Program::start_with(program, arguments, variables, directory).await?;
        let operator = Self { process, port };
        operator.is_ready().await?;
        Ok(operator)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// If the deadline passes: with the end of its log.
    pub async fn is_ready(&self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        let ready = eventually_true("the operator is ready", STARTS, async || {
            Ok(http::get(&url).await?.status().is_success())
        });
        ready.await.with_context(|| self.process.log(20))
    }

    /// The metrics, as Prometheus reads them.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(http::get(&format!("http://127.0.0.1:{}/metrics", self.port)).await?.text().await?)
    }

    /// The process' id.
    ///
    /// # Errors
    /// If it has ended: with the end of its log.
    pub async fn process_id(&self) -> Result<u32> {
        let id = self.process.process_id().await;
        id.with_context(|| format!("the operator has ended: {}", self.process.log(20)))
    }
}

/// What the chart configures.
fn config(manifest: &str) -> Result<String> {
    let documents = serde_saphyr::from_multiple::<Value>(manifest)?;
    let map = documents.iter().find(|document| document["kind"] == "ConfigMap");
    let config = map.and_then(|map| map["data"]["config.yaml"].as_str()).unwrap_or_default();
    ensure!(!config.is_empty(), "the manifest has no configuration");
    Ok(config.to_owned())
}
