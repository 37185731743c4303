//! What goes wrong is in the status within seconds, with the right reason, and out of it when it is mended.
//!
//! A pipeline for each failure, side by side; one operator for all. What only a kubelet, a controller or a bridge
//! would say is said by fakes, in the words of the real ones (`failures/table.rs`); Secrets, names, quotas and
//! certificates are the API server's own.

mod events;
pub(crate) mod injection;
pub(crate) mod table;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::iotpipeline::IoTPipeline;
use futures::{StreamExt, TryStreamExt, stream};
use iotpipeline_e2e::conditions::{Probe, eventually, throughout};
use iotpipeline_e2e::control_plane::{ControlPlane, User, apply};
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client};
use serde_json::{Value, json};

use injection::Scene;
use table::{Failure, failures};

/// How soon a failure must be known.
const LIMIT: Duration = Duration::from_secs(5);

/// After so long without a change no pass is under way.
const SETTLES: Duration = Duration::from_secs(4);

/// How long to wait for what must come at some time.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many pipelines fail at a time.
const AT_ONCE: usize = 18;

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_is_told_within_five_seconds_and_forgotten_when_it_is_mended() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let client = plane.client(User::Admin).await?;
    let operator = Operator::start(&plane, &stage).await?;
    let failures = failures();
    ensure!(failures.len() >= 25, "{}", failures.len());
    let runs = stream::iter(failures.into_iter().enumerate()).map(|(number, failure)| {
        let scene = Scene { client: client.clone(), stage: &stage, namespace: format!("failure-{number}") };
        async move {
            let name = failure.name;
            let took = run(&scene, failure).await.with_context(|| name)?;
            anyhow::Ok((number, took))
        }
    });
    let rows = runs.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await;
    let mut rows = rows.with_context(|| operator.process.log(20))?;
    rows.sort_by_key(|(number, _)| *number);
    for (_, (name, told, took)) in &rows {
        println!("{name:58} {told:42} {:.2} s", took.as_secs_f64());
    }
    let late: Vec<_> = rows.iter().filter(|(_, (_, _, took))| *took > LIMIT).collect();
    ensure!(late.is_empty(), "too late: {late:?}");
    println!("{} failures, each told within {} s", rows.len(), LIMIT.as_secs());
    Ok(())
}

/// Makes a pipeline, lets it fail, and mends it. Returns how long it took until that was told.
async fn run(scene: &Scene<'_>, failure: Failure) -> Result<(&'static str, String, Duration)> {
    let Failure { name, spec, injection, ready, reason } = failure;
    let namespace = &scene.namespace;
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    apply(&scene.client, object).await?;
    injection.prepare(scene).await?;
    apply(&scene.client, pipeline(namespace, &spec)).await?;
    told(&scene.client, namespace, "True", "Ready").await?;
    // No pass that comes anyway is to find it.
    throughout(SETTLES, async || told(&scene.client, namespace, "True", "Ready").await.map(drop)).await?;

    let start = injection.inject(scene).await?;
    let state = if ready { "True" } else { "False" };
    let condition = told(&scene.client, namespace, state, reason).await?;
    let took = start.elapsed();
    ensure!(condition.message.len() > 20, "{condition:?} is not much to act on");
    injection.undo(scene, &spec).await?;
    told(&scene.client, namespace, "True", "Ready").await.context("it was mended")?;
    Ok((name, format!("Ready={state} {reason}"), took))
}

pub(crate) fn pipeline(namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
        "metadata": {"name": "lab", "namespace": namespace},
        "spec": serde_json::from_str::<Value>(&spec.to_string().replace("NAMESPACE", namespace)).unwrap_or_default(),
    })
}

/// Waits until the condition `Ready` says this of the spec as it is.
pub(crate) async fn told(client: &Client, namespace: &str, state: &str, reason: &str) -> Result<Condition> {
    let pipelines: Api<IoTPipeline> = Api::namespaced(client.clone(), namespace);
    let start = Instant::now();
    let found = eventually(format!("Ready={state} {reason}"), PATIENCE, async || {
        let pipeline = pipelines.get("lab").await?;
        let conditions = pipeline.status.map(|status| status.conditions).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        Ok(match ready {
            Some(ready)
                if ready.status == state
                    && ready.reason == reason
                    && ready.observed_generation == pipeline.metadata.generation =>
            {
                Probe::Found(ready.clone())
            }
            _ => Probe::NotYet(format!("{conditions:?}")),
        })
    });
    found.await.with_context(|| format!("in {namespace}, after {:?}", start.elapsed()))
}
