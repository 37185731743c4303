//! What keeps backups from being made is told of them, and holds up nothing else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::conditions::{Probe, eventually, eventually_true};
use iotpipeline_e2e::control_plane::{ControlPlane, User, apply};
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ResourceQuota};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::failures::injection::{quota, until_refused};
use crate::failures::{pipeline, told};

const NAMESPACE: &str = "backups";

const CLAIM: &str = "lab-backup";

/// Longer than the operator waits before it tries again what is refused.
const SOON: Duration = Duration::from_secs(60);

fn spec(topic: &str, backup: Option<Value>) -> Value {
    let mut spec = json!({"routes": [{"name": "r", "topic": topic, "payload": {"float": {"field": "v"}}}]});
    if let Some(backup) = backup {
        spec["database"] = json!({"backup": backup});
    }
    spec
}

fn to_volume(topic: &str) -> Value {
    spec(topic, Some(json!({"schedule": "0 3 * * *", "volume": {"size": "1Gi"}})))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_for_backups_that_is_refused_or_goes_is_told_of_backups_and_the_rest_goes_on() -> Result<()>
{
    let plane = ControlPlane::start().await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let client = plane.client(User::Admin).await?;
    let operator = Operator::start(&plane, &stage).await?;
    life(&client).await.with_context(|| operator.process.log(20))
}

async fn life(client: &Client) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), NAMESPACE);
    let cron_jobs: Api<CronJob> = Api::namespaced(client.clone(), NAMESPACE);
    apply(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await?;
    apply(client, pipeline(NAMESPACE, &spec("a", None))).await?;
    told(client, NAMESPACE, "True", "Ready").await?;

    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), NAMESPACE);
    quota(&quotas, "persistentvolumeclaims").await?;
    let tried = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let tried = serde_json::from_value(json!({"metadata": {"name": "tried"}, "spec": tried}))?;
    until_refused(&claims, &tried, 403).await?;
    apply(client, pipeline(NAMESPACE, &to_volume("a"))).await?;
    backups_are(client, "False", "Forbidden").await?;
    // The next spec is carried out all the same.
    apply(client, pipeline(NAMESPACE, &to_volume("b"))).await?;
    told(client, NAMESPACE, "True", "Ready").await?;
    ensure!(cron_jobs.get_opt(CLAIM).await?.is_none(), "its pods would wait for the volume");
    quotas.delete("none", &DeleteParams::default()).await?;
    backups_are(client, "Unknown", "NoBackup").await?;
    ensure!(cron_jobs.get_opt(CLAIM).await?.is_some(), "there is no CronJob");

    // As it is while the pod of a backup has it.
    let before = claims.get(CLAIM).await?.uid();
    let finalizers = |names: Value| Patch::Merge(json!({"metadata": {"finalizers": names}}));
    let used = finalizers(json!(["kubernetes.io/pvc-protection"]));
    claims.patch(CLAIM, &PatchParams::default(), &used).await?;
    claims.delete(CLAIM, &DeleteParams::default()).await?;
    backups_are(client, "False", "WaitingForDeletion").await?;
    apply(client, pipeline(NAMESPACE, &to_volume("c"))).await?;
    told(client, NAMESPACE, "True", "Ready").await?;
    ensure!(cron_jobs.get_opt(CLAIM).await?.is_some(), "the CronJob was swept");
    claims.patch(CLAIM, &PatchParams::default(), &finalizers(Value::Null)).await?;
    eventually_true("there is another volume", SOON, async || {
        let now = claims.get_opt(CLAIM).await?.and_then(|claim| claim.uid());
        Ok(now.is_some() && now != before)
    })
    .await?;
    backups_are(client, "Unknown", "NoBackup").await
}

/// Waits until `BackupReady` says this of the spec as it is; the pipeline is ready then, too.
async fn backups_are(client: &Client, state: &str, reason: &str) -> Result<()> {
    let pipelines: Api<IoTPipeline> = Api::namespaced(client.clone(), NAMESPACE);
    eventually(format!("BackupReady={state} {reason}"), SOON, async || {
        let pipeline = pipelines.get("lab").await?;
        let conditions = pipeline.status.map(|status| status.conditions).unwrap_or_default();
        let is = |type_: &str, state: &str, reason: &str| {
            conditions.iter().any(|condition| {
                condition.type_ == type_
                    && condition.status == state
                    && condition.reason == reason
                    && condition.observed_generation == pipeline.metadata.generation
            })
        };
        let is_so = is("BackupReady", state, reason) && is("Ready", "True", "Ready");
        Ok(if is_so { Probe::Found(()) } else { Probe::NotYet(format!("{conditions:?}")) })
    })
    .await
}
