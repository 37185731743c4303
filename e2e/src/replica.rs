//! One of several operators, as a process before a control plane.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::config::Kubeconfig;
use serde_json::json;

use crate::conditions::eventually_true;
use crate::programs::Program;
use crate::scratch::{Directory, free_port};
use crate::{environment, http};

const STARTS: Duration = Duration::from_secs(30);

/// The Lease's name, as the chart has it.
pub const LEASE: &str = "iotpipeline-operator";

/// An operator that works in one namespace. Killed when dropped.
pub struct Replica {
    /// The process, to be signalled and started again.
    pub process: Program,
    /// The name of its pod, as it believes.
    pub name: String,
    port: u16,
}

impl Replica {
    /// Starts it. It asks the API server that the kubeconfig names; its Lease is in the context's namespace.
    /// Databases and bridges it asks through this proxy.
    ///
    /// # Errors
    /// If there is no operator, or it can't be started.
    pub async fn start(
        kubeconfig: &Kubeconfig,
        name: &str,
        namespace: &str,
        proxy: Option<&str>,
    ) -> Result<Self> {
        let program = environment::operator_binary()?;
        let directory = Directory::new("replica")?;
        let image = json!({"repository": "none"});
        let config = json!({
            "image": image,
            "images": {"mosquitto": image, "influxdb": image, "grafana": image, "bridge": image},
            "namespaces": [namespace],
            "relistSeconds": 5,
        });
        let config = directory.write("config.yaml", &config.to_string())?;
        let kubeconfig = directory.write("kubeconfig", &serde_json::to_string(kubeconfig)?)?;
        let port = free_port()?;
        let mut arguments = vec![format!("KUBECONFIG={}", kubeconfig.display())];
        arguments.extend(proxy.map(|proxy| format!("IOTPIPELINE_HTTP_PROXY={proxy}")));
        arguments.push(program.display().to_string());
        arguments.extend([format!("--config={}", config.display()), format!("--listen=127.0.0.1:{port}")]);
        arguments.extend([format!("--lease={LEASE}"), format!("--identity={name}")]);
        // env becomes the program, and so its signals are the program's.
        let process = Program::start_new("env".into(), arguments, directory).await?;
        Ok(Self { process, name: name.into(), port })
    }

    /// Waits until it works, or stands by.
    ///
    /// # Errors
    /// If the deadline passes: with the end of its log.
    pub async fn is_ready(&self) -> Result<()> {
        let ready = eventually_true(format!("{} is ready", self.name), STARTS, async || {
            Ok(self.get("/readyz").await?.0)
        });
        ready.await.with_context(|| self.process.log(20))
    }

    /// Whether it says that it holds the Lease.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn leads(&self) -> Result<bool> {
        let (is_good, metrics) = self.get("/metrics").await?;
        ensure!(is_good, "{metrics}");
        Ok(metrics.lines().any(|line| line == "iotpipeline_operator_is_leader 1"))
    }

    /// How many passes have ended.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn passes(&self) -> Result<u64> {
        let (is_good, metrics) = self.get("/metrics").await?;
        ensure!(is_good, "{metrics}");
        let passes = metrics.lines().filter(|line| line.starts_with("iotpipeline_operator_passes_total"));
        let counts = passes.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>());
        Ok(counts.sum::<Result<u64, _>>()?)
    }

    async fn get(&self, path: &str) -> Result<(bool, String)> {
        let answer = http::client().get(format!("http://127.0.0.1:{}{path}", self.port)).send().await?;
        Ok((answer.status().is_success(), answer.text().await?))
    }
}
