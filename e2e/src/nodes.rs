//! Nodes of the cluster, and their deaths: each is a container of Docker's, of the same name.
//!
//! A killed container is a machine whose power fails, but for one thing: the kernel below it lives on, and what
//! programs wrote without syncing is still written.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::conditions::{Probe, eventually};
use crate::namespaces::Namespace;
use crate::process;
use crate::replica::LEASE;

/// Where `cargo xtask` installs the operator.
pub const OPERATOR_NAMESPACE: &str = "iotpipeline-system";

/// How long a node may take to be ready again.
const COMES_BACK: Duration = Duration::from_secs(120);

/// The nodes that may die: all but the control plane's.
///
/// # Errors
/// If the API server doesn't answer.
pub async fn workers(client: &Client) -> Result<Vec<String>> {
    let selector = ListParams::default().labels("!node-role.kubernetes.io/control-plane");
    let nodes = Api::<Node>::all(client.clone()).list(&selector).await?;
    Ok(nodes.iter().map(ResourceExt::name_any).collect())
}

/// The node of a pod.
///
/// # Errors
/// If the pod has none.
pub async fn node_of(namespace: &Namespace, pod: &str) -> Result<String> {
    let spec = namespace.api::<Pod>().get(pod).await?.spec.unwrap_or_default();
    spec.node_name.with_context(|| format!("no node has the pod {pod}"))
}

/// The pod of the operator that works, and its node.
///
/// # Errors
/// If none works.
pub async fn leader(client: &Client) -> Result<(String, String)> {
    let namespace = Namespace { client: client.clone(), name: OPERATOR_NAMESPACE.into() };
    let lease = namespace.api::<Lease>().get(LEASE).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    // What follows tells one life of the pod from the next.
    let Some((pod, _)) = holder.rsplit_once('_') else { bail!("no operator works: {holder:?}") };
    Ok((pod.to_owned(), node_of(&namespace, pod).await?))
}

/// A node that was killed. It is started when dropped, so that a test that fails doesn't take the others with it.
pub struct Dead {
    /// The node.
    pub name: String,
    /// Since when it is dead.
    pub since: Instant,
    is_started: bool,
}

impl Dead {
    /// Kills a node, and all that runs on it at once.
    ///
    /// # Errors
    /// If it doesn't run.
    pub async fn kill(name: &str) -> Result<Self> {
        let since = Instant::now();
        process::run("docker", &["kill", name]).await?;
        Ok(Self { name: name.into(), since, is_started: false })
    }

    /// Starts the node, and waits until it is ready. Returns how long that took.
    ///
    /// # Errors
    /// If it doesn't come back.
    pub async fn comes_back(mut self, client: &Client) -> Result<Duration> {
        let (start, started) = (Instant::now(), Timestamp::now());
        process::run("docker", &["start", &self.name]).await?;
        self.is_started = true;
        let nodes: Api<Node> = Api::all(client.clone());
        let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
        eventually(format!("node {} is ready again", self.name), COMES_BACK, async || {
            let lease = leases.get(&self.name).await?.spec.unwrap_or_default();
            let ready = condition(&nodes.get(&self.name).await?, "Ready");
            let is_heard = lease.renew_time.as_ref().is_some_and(|time| time.0 > started);
            let found = format!("Ready={ready}, heard {:?}", lease.renew_time);
            Ok(if ready == "True" && is_heard { Probe::Found(()) } else { Probe::NotYet(found) })
        })
        .await?;
        Ok(start.elapsed())
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        if !self.is_started {
            let started = std::process::Command::new("docker").args(["start", &self.name]).output();
            if let Err(error) = started {
                eprintln!("node {} stays dead: {error}", self.name);
            }
        }
    }
}

/// The status of a node's condition.
pub fn condition(node: &Node, type_: &str) -> String {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut named = conditions.filter(|condition| condition.type_ == type_);
    named.next().map_or_else(|| "none".into(), |condition| condition.status.clone())
}
