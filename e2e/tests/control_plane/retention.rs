//! The deletion policy holds whatever else can be done for a pipeline: also of one that is refused or suspended, and
//! where the database has become somebody else's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::conditions::eventually_true;
use iotpipeline_e2e::control_plane::{ControlPlane, User, apply};
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::DeleteParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::failures::injection::Scene;
use crate::failures::table::given;
use crate::failures::{pipeline, told};

const NAMESPACE: &str = "retention";

const SOON: Duration = Duration::from_secs(30);

fn spec(policy: &str, is_external: bool) -> Value {
    let mut spec = given();
    spec["deletionPolicy"] = policy.into();
    if is_external {
        spec["database"] = json!({"external": {
            "url": "http://database.example.com:8086", "tokenSecretRef": {"name": "given", "key": "token"},
        }});
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn volume_and_secret_are_tied_and_freed_also_of_a_refused_pipeline_and_of_an_external_database()
-> Result<()> {
    let plane = ControlPlane::start().await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let client = plane.client(User::Admin).await?;
    let operator = Operator::start(&plane, &stage).await?;
    let scene = Scene { client, stage: &stage, namespace: NAMESPACE.into() };
    life(&scene).await.with_context(|| operator.process.log(20))
}

async fn life(scene: &Scene<'_>) -> Result<()> {
    let client = &scene.client;
    apply(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await?;
    give(client).await?;
    apply(client, pipeline(NAMESPACE, &spec("Delete", false))).await?;
    told(client, NAMESPACE, "True", "Ready").await?;
    scene.claim("database").await?;
    eventually_true("the volume goes with its pipeline", SOON, async || {
        Ok(owned(client).await? == [true, true])
    })
    .await?;

    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    secrets.delete("given", &DeleteParams::default()).await?;
    told(client, NAMESPACE, "False", "SecretNotFound").await?;
    for (policy, is_owned) in [("Retain", false), ("Delete", true)] {
        holds(client, policy, false, is_owned, ("False", "SecretNotFound")).await?;
    }
    give(client).await?;
    told(client, NAMESPACE, "True", "Ready").await?;
    for (policy, is_owned) in [("Delete", true), ("Retain", false), ("Delete", true)] {
        holds(client, policy, true, is_owned, ("True", "Ready")).await?;
    }
    for (policy, is_owned) in [("Retain", false), ("Delete", true)] {
        let mut suspended = spec(policy, true);
        suspended["suspend"] = true.into();
        apply(client, pipeline(NAMESPACE, &suspended)).await?;
        eventually_true(format!("{policy} holds though nothing else is done"), SOON, async || {
            Ok(owned(client).await? == [is_owned; 2])
        })
        .await?;
    }
    Ok(())
}

/// What is told of a spec has been done for it.
async fn holds(
    client: &Client,
    policy: &str,
    is_external: bool,
    is_owned: bool,
    (state, reason): (&str, &str),
) -> Result<()> {
    apply(client, pipeline(NAMESPACE, &spec(policy, is_external))).await?;
    told(client, NAMESPACE, state, reason).await?;
    let owned = owned(client).await?;
    ensure!(owned == [is_owned; 2], "{policy}, external: {is_external}: {owned:?}");
    Ok(())
}

async fn give(client: &Client) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "given", "namespace": NAMESPACE},
        "stringData": {"password": "secret-enough", "token": "t"},
    });
    apply(client, secret).await.map(drop)
}

/// Whether the database's volume goes with the pipeline, and whether the Secret does without which it is useless.
async fn owned(client: &Client) -> Result<[bool; 2]> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), NAMESPACE);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let claim = claims.get("data-lab-database-0").await?;
    let secret = secrets.get("lab-database").await?;
    Ok([!claim.owner_references().is_empty(), !secret.owner_references().is_empty()])
}
