//! Faults in the cluster: processes killed from outside, as a crash would end them.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::conditions::{Probe, eventually};
use crate::namespaces::Namespace;
use crate::nodes::node_of;
use crate::process;

/// A container that was killed.
pub struct Killed {
    pod: String,
    container: String,
    restarts: i32,
}

/// Kills a container's main process with SIGKILL, through the node's containerd: images have no
/// shell, and their processes may not signal each other.
///
/// # Errors
/// If there is no such container, or it doesn't run.
pub async fn kill_container(namespace: &Namespace, pod: &str, container: &str) -> Result<Killed> {
    let before = container_status(namespace, pod, container).await?;
    let node = node_of(namespace, pod).await?;
    let id = before.container_id.as_deref().context("the container has not started")?;
    let id = id.strip_prefix("containerd://").with_context(|| format!("not containerd's: {id}"))?;
    let kill = ["exec", &node, "ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id];
    process::run("docker", &kill).await?;
    Ok(Killed { pod: pod.to_owned(), container: container.to_owned(), restarts: before.restart_count })
}

impl Killed {
    /// Waits until the kubelet has started it anew.
    ///
    /// # Errors
    /// If the deadline passes.
    pub async fn comes_back(&self, namespace: &Namespace) -> Result<()> {
        let what = format!("{}/{} starts again after it was killed", self.pod, self.container);
        eventually(what, Duration::from_secs(120), async || {
            let now = container_status(namespace, &self.pod, &self.container).await?;
            let running = now.state.as_ref().is_some_and(|state| state.running.is_some());
            Ok(if running && now.restart_count > self.restarts {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{:?}", now.state))
            })
        })
        .await
    }
}

async fn container_status(namespace: &Namespace, pod: &str, container: &str) -> Result<ContainerStatus> {
    let pod = namespace.api::<Pod>().get(pod).await?;
    let status = pod.status.unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    containers
        .into_iter()
        .find(|status| status.name == container)
        .with_context(|| format!("no container {container}"))
}
