//! Two operators and one Lease: the one that holds it is ended or frozen again and again while it has
//! something to write, and the API server's audit log says who wrote when.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::iotpipeline::IoTPipeline;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::conditions::{Probe, eventually, eventually_true};
use crate::control_plane::audit::Request;
use crate::control_plane::{ControlPlane, User, apply};
use crate::replica::{LEASE, Replica};

/// How long another may take to work.
const TAKES_OVER: Duration = Duration::from_secs(40);

/// How often a spec is changed, so that there is always something to write.
const EDIT: Duration = Duration::from_millis(40);

const PIPELINES: usize = 3;

/// How the holder is stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// SIGTERM, as when its pod is deleted.
    Terminate,
    /// SIGKILL, as when its node dies.
    Kill,
    /// SIGSTOP, and SIGCONT when another has taken over: it wakes up in the middle of what it did.
    Freeze,
}

impl Stop {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Terminate, Self::Kill, Self::Freeze];

    /// How soon another must write.
    pub fn limit(self) -> Duration {
        Duration::from_secs(if self == Self::Terminate { 2 } else { 15 })
    }
}

/// What followed from a stop.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    /// How the holder was stopped.
    pub stop: Stop,
    /// From then to the first write of the other.
    pub took: Duration,
}

/// Two operators for one namespace.
pub struct Pair {
    client: Client,
    kubeconfig: Kubeconfig,
    namespace: String,
    replicas: [Replica; 2],
    edits: JoinHandle<()>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.edits.abort();
    }
}

impl Pair {
    /// Starts both, and the edits.
    ///
    /// # Errors
    /// If one doesn't start.
    pub async fn start(plane: &ControlPlane, namespace: &str) -> Result<Self> {
        let client = plane.client(User::Admin).await?;
        apply(&client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
            .await?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "given", "namespace": namespace},
            "stringData": {"token": "t", "username": "u", "password": "p"},
        });
        apply(&client, secret).await?;
        for number in 0..PIPELINES {
            apply(&client, pipeline(namespace, number)).await?;
        }
        let mut kubeconfig = serde_json::to_value(plane.kubeconfig_through(plane.port, User::Other)?)?;
        kubeconfig["contexts"][0]["context"]["namespace"] = namespace.into();
        let kubeconfig = serde_json::from_value(kubeconfig)?;
        let start = async |name: &str| Replica::start(&kubeconfig, name, namespace, None).await;
        let replicas = [start("first").await?, start("second").await?];
        for replica in &replicas {
            replica.is_ready().await?;
        }
        let edits = tokio::spawn(edit(Api::namespaced(client.clone(), namespace)));
        Ok(Self { client, kubeconfig, namespace: namespace.into(), replicas, edits })
    }

    /// Stops the holder so many milliseconds after the other is ready, waits until the other writes, and
    /// brings the first back.
    ///
    /// # Errors
    /// If the other doesn't.
    pub async fn stop_holder(&mut self, plane: &ControlPlane, stop: Stop, delay: u64) -> Result<Failover> {
        let (holder, other) = self.holder().await?;
        sleep(Duration::from_millis(delay)).await;
        let log = plane.audit_log().from_now()?;
        let stopped = Timestamp::now();
        let process = &self.replicas[holder].process;
        process
            .signal(match stop {
                Stop::Terminate => "TERM",
                Stop::Kill => "KILL",
                Stop::Freeze => "STOP",
            })
            .await?;
        let name = self.replicas[other].name.clone();
        let first = eventually(format!("{name} writes, after {stop:?}"), TAKES_OVER, async || {
            let mut writes = log.requests_of(User::Other)?.into_iter().filter(|request| {
                self.is_mine(request) && is_work(request) && request.agent_is(&name) && request.code() < 300
            });
            Ok(writes.next().map_or(Probe::NotYet("no write".into()), Probe::Found))
        });
        let first = first.await.with_context(|| self.replicas[other].process.log(20))?;
        if stop == Stop::Freeze {
            process.signal("CONT").await?;
            eventually_true("it knows that it has lost the lease", TAKES_OVER, async || {
                Ok(!self.replicas[holder].leads().await?)
            })
            .await
            .with_context(|| process.log(20))?;
        } else {
            process.ended().await?;
            let name = self.replicas[holder].name.clone();
            self.replicas[holder] = Replica::start(&self.kubeconfig, &name, &self.namespace, None).await?;
        }
        self.replicas[holder].is_ready().await?;
        let took = first.received.duration_since(stopped).try_into()?;
        Ok(Failover { stop, took })
    }

    /// Ends both, and says which writes came when another held the Lease, of how many that were looked at.
    ///
    /// # Errors
    /// If the audit log can't be read.
    pub async fn verdict(self, plane: &ControlPlane) -> Result<(Vec<String>, usize)> {
        for replica in &self.replicas {
            replica.process.signal("KILL").await?;
            replica.process.ended().await?;
        }
        let all = plane.audit_log().requests_of(User::Other)?;
        let mine: Vec<Request> = all.into_iter().filter(|request| self.is_mine(request)).collect();
        let writes = mine.iter().filter(|request| is_work(request)).count();
        ensure!(writes > 0, "nothing was written");
        Ok((late(&mine), writes))
    }

    fn is_mine(&self, request: &Request) -> bool {
        request.object_ref.as_ref().is_some_and(|object| object.namespace == self.namespace)
    }

    /// Which of the two holds the Lease, and which doesn't.
    async fn holder(&self) -> Result<(usize, usize)> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        eventually("one holds the lease and works", TAKES_OVER, async || {
            let spec = leases.get(LEASE).await?.spec.unwrap_or_default();
            let holder = spec.holder_identity.unwrap_or_default();
            for (one, other) in [(0, 1), (1, 0)] {
                if holder.starts_with(&format!("{}_", self.replicas[one].name))
                    && self.replicas[one].leads().await?
                {
                    return Ok(Probe::Found((one, other)));
                }
            }
            Ok(Probe::NotYet(holder))
        })
        .await
    }
}

/// Changes the measurement of one pipeline after the other.
async fn edit(pipelines: Api<IoTPipeline>) {
    for count in 0_usize.. {
        let patch = Patch::Merge(json!({"spec": {"routes": [route(count)]}}));
        let name = format!("p{}", count % PIPELINES);
        if let Err(error) = pipelines.patch(&name, &PatchParams::default(), &patch).await {
            eprintln!("edit {name}: {error}");
        }
        sleep(EDIT).await;
    }
}

/// One whose parts are elsewhere, so that everything that it needs can be written without any of them.
fn pipeline(namespace: &str, number: usize) -> serde_json::Value {
    json!({
        "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
        "metadata": {"name": format!("p{number}"), "namespace": namespace},
        "spec": {
            "broker": {"external": {"url": "mqtt://127.0.0.1:1", "credentialsSecretRef": {"name": "given"}}},
            "database": {
                "organization": "o", "bucket": "b",
                "external": {"url": "http://127.0.0.1:1", "tokenSecretRef": {"name": "given", "key": "token"}},
            },
            "routes": [route(0)],
        },
    })
}

fn route(count: usize) -> serde_json::Value {
    json!({
        "name": "r", "topic": "a/b", "measurement": format!("m{count}"), "payload": {"float": {"field": "v"}},
    })
}

fn is_of_lease(request: &Request) -> bool {
    request.object_ref.as_ref().is_some_and(|object| object.resource == "leases")
}

fn is_work(request: &Request) -> bool {
    request.is_write() && !is_of_lease(request)
}

/// The writes that ended after another had asked for the Lease and got it. Between its first write to the
/// Lease and the other's, it is a replica's own.
fn late(requests: &[Request]) -> Vec<String> {
    let mut leases: Vec<&Request> = requests
        .iter()
        .filter(|request| is_of_lease(request) && request.is_write() && request.code() < 300)
        .collect();
    leases.sort_by_key(|request| request.answered);
    let holder_at = |time: Timestamp| {
        let before = leases.iter().rev().find(|lease| lease.received <= time);
        before.map(|lease| lease.agent.as_str()).unwrap_or_default()
    };
    let is_late = |request: &&Request| holder_at(request.answered) != request.agent;
    requests
        .iter()
        .filter(|request| is_work(request))
        .filter(is_late)
        .map(|request| format!("{} {} {} by {}", request.answered, request.verb, request.uri, request.agent))
        .collect()
}
