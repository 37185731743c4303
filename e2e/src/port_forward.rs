//! The way from the host into the cluster: a listener on 127.0.0.1, forwarded by the API server.
//! Each connection is forwarded anew to the service's pod of that moment, so a client that
//! reconnects finds the pod that has taken the place of a killed one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::namespaces::Namespace;

/// A local port that leads to a service. Closed when dropped.
pub struct Forward {
    /// The port on 127.0.0.1.
    pub port: u16,
    task: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forward {
    /// Leads to the first port of a service.
    ///
    /// # Errors
    /// If there is no such service, or no local port.
    pub async fn to_service(namespace: &Namespace, name: &str) -> Result<Self> {
        let service = namespace.api::<Service>().get(name).await?;
        let spec = service.spec.unwrap_or_default();
        let port = spec.ports.unwrap_or_default().into_iter().next().context("a service without ports")?;
        let target =
            Target { pods: namespace.api(), selector: selector(&spec.selector.unwrap_or_default()), port };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { port, task: tokio::spawn(serve(listener, target)) })
    }
}

/// Where connections go.
#[derive(Clone)]
struct Target {
    pods: Api<Pod>,
    selector: String,
    port: ServicePort,
}

fn selector(labels: &BTreeMap<String, String>) -> String {
    let terms: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    terms.join(",")
}

/// Connections live in the listener's task, so that they end with it.
async fn serve(listener: TcpListener, target: Target) {
    let mut connections = JoinSet::new();
    while let Ok((local, _)) = listener.accept().await {
        let target = target.clone();
        connections.spawn(async move {
            // A failure is the client's to notice: its connection ends.
            let _ = forward(local, &target).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(mut local: TcpStream, target: &Target) -> Result<()> {
    local.set_nodelay(true)?;
    let (pod, port) = target.pod().await?;
    let ports = [port];
    let opening = target.pods.portforward(&pod, &ports);
    let mut forwarder = tokio::time::timeout(Duration::from_secs(10), opening).await??;
    let mut remote = forwarder.take_stream(port).context("the stream is taken once")?;
    let refused = forwarder.take_error(port).context("the error is taken once")?;
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut local, &mut remote) => {}
        _ = refused => {}
    }
    forwarder.abort();
    Ok(())
}

impl Target {
    /// The service's pod of this moment, a ready one if there is, and the port's number in it.
    async fn pod(&self) -> Result<(String, u16)> {
        let pods = self.pods.list(&ListParams::default().labels(&self.selector)).await?;
        let mut alive: Vec<Pod> =
            pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        alive.sort_by_key(|pod| !is_ready(pod));
        let Some(pod) = alive.first() else { bail!("no pod with {}", self.selector) };
        let number = match &self.port.target_port {
            Some(IntOrString::String(name)) => named_port(pod, name).context("no such named port")?,
            Some(IntOrString::Int(number)) => *number,
            None => self.port.port,
        };
        Ok((pod.name_any(), u16::try_from(number)?))
    }
}

fn named_port(pod: &Pod, name: &str) -> Option<i32> {
    let containers = &pod.spec.as_ref()?.containers;
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    Some(ports.find(|port| port.name.as_deref() == Some(name))?.container_port)
}

/// Whether a pod says that it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
