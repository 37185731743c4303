//! Fakes of what a control plane alone has not: controllers and kubelets (`workloads` writes their
//! statuses and makes their pods), InfluxDB (`database`) and the bridge.
//!
//! Nothing runs and nothing is stored. Everything becomes ready at once, so what remains to be measured is
//! the operator. It reaches the fakes through a proxy, which is one of them: no name and no pod's address
//! leads anywhere here.

mod bridges;
mod database;
mod proxy;
mod workloads;

use std::sync::Arc;

use anyhow::Result;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use bridges::Bridges;
use database::Databases;

/// Selects what the operator has made, as it labels it.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=iotpipeline-operator";

/// What an output says of itself that was made before this stage.
pub const NAME: &str = "fakes: controllers, kubelet, InfluxDB and bridge; no pod runs";

/// The running fakes. End when dropped.
pub struct Stage {
    /// The address of the proxy.
    pub proxy: String,
    _tasks: JoinSet<()>,
}

/// What the fakes know of each other.
#[derive(Default)]
struct Seen {
    bridges: Bridges,
    databases: Databases,
}

impl Stage {
    /// Starts the fakes. The client may do everything.
    ///
    /// # Errors
    /// If nobody can listen on loopback.
    pub async fn start(client: &Client) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let proxy = format!("http://{}", listener.local_addr()?);
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(proxy::answer(listener, seen.clone()));
        tasks.spawn(bridges::follow(client.clone(), seen.clone()));
        tasks.spawn(workloads::play::<StatefulSet>(client.clone(), seen.clone()));
        tasks.spawn(workloads::play::<Deployment>(client.clone(), seen));
        Ok(Self { proxy, _tasks: tasks })
    }
}
