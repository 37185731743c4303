//! Fakes of what a control plane alone has not: controllers and kubelets (`workloads` writes their
//! statuses and makes their pods), InfluxDB (`database`) and the bridge.
//!
//! Nothing runs and nothing is stored. Everything becomes ready at once, so what remains to be measured is
//! the operator. It reaches the fakes through a proxy, which is one of them: no name and no pod's address
//! leads anywhere here.

mod bridges;
mod database;
mod grafana;
mod proxy;
mod trouble;
mod workloads;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use axum::http::StatusCode;
use bridges::{Bridges, Set};
use database::Databases;
use grafana::Grafanas;

pub use bridges::Words;
pub use trouble::event;
pub use workloads::Workload;

/// Selects what the operator has made, as it labels it.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=iotpipeline-operator";

/// What an output says of itself that was made before this stage.
pub const NAME: &str = "fakes: controllers, kubelet, InfluxDB and bridge; no pod runs";

/// The running fakes. End when dropped.
pub struct Stage {
    /// The address of the proxy.
    pub proxy: String,
    client: Client,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

/// What the fakes know of each other.
#[derive(Default)]
struct Seen {
    bridges: Bridges,
    databases: Databases,
    grafanas: Grafanas,
    /// Sets and deployments that nobody makes ready.
    broken: Mutex<HashSet<Set>>,
    /// Hosts that answer nothing else.
    refusals: Mutex<HashMap<String, (StatusCode, String)>>,
}

impl Seen {
    fn refusal(&self, host: &str) -> Option<(StatusCode, String)> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    fn is_broken(&self, workload: &Set) -> bool {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).contains(workload)
    }
}

impl Stage {
    /// Starts the fakes. The client may do everything.
    ///
    /// # Errors
    /// If nobody can listen on loopback.
    pub async fn start(client: &Client) -> Result<Self> {
        Self::start_for(client, MANAGED).await
    }

    /// The same for the sets and deployments that this selects, which another operator has made.
    ///
    /// # Errors
    /// If nobody can listen on loopback.
    pub async fn start_for(client: &Client, managed: &'static str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let proxy = format!("http://{}", listener.local_addr()?);
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(proxy::answer(listener, seen.clone()));
        tasks.spawn(bridges::follow(client.clone(), seen.clone()));
        tasks.spawn(workloads::play::<StatefulSet>(client.clone(), seen.clone(), managed));
        tasks.spawn(workloads::play::<Deployment>(client.clone(), seen.clone(), managed));
        Ok(Self { proxy, client: client.clone(), seen, _tasks: tasks })
    }
}
