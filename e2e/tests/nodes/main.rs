//! Nodes that die, in a cluster that has two to lose: `cargo xtask nodes`.
//!
//! One test at a time, since a node's death is everybody's. What the tests print is how soon each thing was known.

mod bridge;
mod broker;
mod operator;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::namespaces::Namespace;
use iotpipeline_e2e::nodes::{OPERATOR_NAMESPACE, leader, node_of, workers};
use iotpipeline_e2e::pipeline::{Pipeline, summary};
use iotpipeline_e2e::port_forward::is_ready;
use iotpipeline_e2e::publisher::{Account, Load};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};

/// How long a single thing may take that should take a second or two.
const SOON: Duration = Duration::from_secs(60);

/// A node's silence before Kubernetes no longer counts on it (`--node-monitor-grace-period`), and a bit.
const GRACE: Duration = Duration::from_secs(70);

/// How soon the operator must tell that a part is silent.
const KNOWN: Duration = Duration::from_secs(12);

/// Without a time in the payload: a message that is stored twice makes two points.
const NUMBERS: &str = "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {name: numbers}
spec:
  broker:
    storage: {size: 1Gi}
    pod: {nodeSelector: {kubernetes.io/hostname: STORE}}
    users:
    - {name: sensor, publish: [load/#]}
  database:
    organization: lab
    bucket: mesure
    storage: {size: 1Gi}
    pod: {nodeSelector: {kubernetes.io/hostname: STORE}}
  bridge:
    pod: {nodeSelector: {kubernetes.io/hostname: BRIDGE}}
  routes:
  - name: numbers
    topic: load/numbers
    payload: {json: {fields: [{path: 'n', type: integer}]}}
";

fn numbered(number: u64) -> String {
    format!(r#"{{"n":{number}}}"#)
}

/// So many messages, 200 in a second.
fn load(port: u16, password: &str, messages: u64) -> Load<'_> {
    Load {
        port,
        login: Some(("sensor", password)),
        topic: "load/numbers",
        numbers: 0..messages,
        payload: numbered,
        rate: 200,
        deadline: Duration::from_secs(240),
    }
}

/// Makes a pipeline with the bridge on one node, and broker and database on the other. The operator works on the
/// one that lives.
async fn divided(namespace: &Namespace, dies: &str, bridge: &str, store: &str) -> Result<Pipeline> {
    operator_leaves(namespace, dies).await?;
    let spec = NUMBERS.replace("STORE", store).replace("BRIDGE", bridge);
    let pipeline = Pipeline::ready(namespace, &spec).await?;
    for (part, node) in [("broker", store), ("database", store), ("bridge", bridge)] {
        let found = node_of(namespace, &format!("{}-0", pipeline.part(part))).await?;
        ensure!(found == node, "the {part} is on {found}");
    }
    Ok(pipeline)
}

/// The two that may die.
async fn two_workers(namespace: &Namespace) -> Result<[String; 2]> {
    let workers = workers(&namespace.client).await?;
    workers.try_into().map_err(|all| anyhow::anyhow!("not two workers: {all:?}; see `cargo xtask nodes`"))
}

/// Waits until two operators are ready, each on a node of its own.
async fn operators_are_spread(namespace: &Namespace) -> Result<()> {
    let operators = Namespace { client: namespace.client.clone(), name: OPERATOR_NAMESPACE.into() };
    eventually("two operators are ready, on two nodes", GRACE * 2, async || {
        let pods = operators.api::<Pod>().list(&ListParams::default()).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none());
        let nodes: Vec<_> = ready.filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
        let distinct: BTreeSet<_> = nodes.iter().collect();
        Ok(if nodes.len() == 2 && distinct.len() == 2 {
            Probe::Found(())
        } else {
            Probe::NotYet(format!("{nodes:?}"))
        })
    })
    .await
}

/// Has the operator on the other node work.
async fn operator_leaves(namespace: &Namespace, node: &str) -> Result<()> {
    operators_are_spread(namespace).await?;
    let operators = Namespace { client: namespace.client.clone(), name: OPERATOR_NAMESPACE.into() };
    let (pod, place) = leader(&namespace.client).await?;
    if place != node {
        return Ok(());
    }
    operators.api::<Pod>().delete(&pod, &DeleteParams::default()).await?;
    eventually(format!("the operator on {node} has given up the lease"), SOON, async || {
        let (pod, place) = leader(&namespace.client).await?;
        Ok(if place == node { Probe::NotYet(pod) } else { Probe::Found(()) })
    })
    .await?;
    operators_are_spread(namespace).await
}

/// Waits until the pipeline isn't ready, for a reason that begins like one of these. Returns how long after `since`
/// that was told.
async fn told(pipeline: &Pipeline, since: Instant, reasons: &[&str], within: Duration) -> Result<Duration> {
    let what = format!("Ready is False, because of {}", reasons.join(" or "));
    let (reason, message) = eventually(what, within, async || {
        let found = pipeline.get().await?;
        let conditions = found.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready").context("no status")?;
        let is_it = ready.status == "False" && reasons.iter().any(|reason| ready.reason.starts_with(reason));
        let words = (ready.reason.clone(), ready.message.clone());
        Ok(if is_it { Probe::Found(words) } else { Probe::NotYet(summary(&found)) })
    })
    .await?;
    let took = since.elapsed();
    println!("after {:.1} s: Ready=False {reason}: {message}", took.as_secs_f64());
    Ok(took)
}

/// Everything that the broker has acknowledged is stored, and once: but for what a dying broker's last pass
/// acknowledged, and for what had to be published again since no acknowledgement had come.
async fn stored_once(pipeline: &Pipeline, account: &Account, messages: u64) -> Result<()> {
    ensure!(account.without_subscriber == 0, "the bridge's session was lost: {account:?}");
    let (_forward, influx) = pipeline.database().await?;
    let stored = influx.all_stored("numbers", "n", account.settled(0..messages), SOON * 2).await?;
    let mut once = BTreeSet::new();
    let twice: BTreeSet<u64> = stored.iter().copied().filter(|number| !once.insert(*number)).collect();
    let lost = account.unsettled.iter().filter(|number| !once.contains(number)).count();
    println!(
        "{messages} acknowledged over {} connections and stored; {} published twice, of which {} are stored twice; \
         {} acknowledged as the broker died, of which {lost} are lost",
        account.connections,
        account.repeated.len(),
        twice.len(),
        account.unsettled.len()
    );
    if let Some(number) = twice.difference(&account.repeated).next() {
        bail!("{number} was published once, and is stored twice");
    }
    Ok(())
}

/// The names of pods with their uids: unchanged where a pod went on instead of being made anew.
async fn uids(namespace: &Namespace) -> Result<Vec<(String, Option<String>)>> {
    let pods = namespace.api::<Pod>().list(&ListParams::default()).await?;
    Ok(pods.iter().map(|pod| (pod.name_any(), pod.uid())).collect())
}
