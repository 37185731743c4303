//! Events tell each thing once.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::control_plane::{ControlPlane, User, apply};
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use k8s_openapi::api::core::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::table::{given, spec};
use super::{pipeline, told};

const NAMESPACE: &str = "events";

#[tokio::test(flavor = "multi_thread")]
async fn neither_passes_nor_restarts_repeat_an_event_and_what_happens_again_is_counted() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let client = plane.client(User::Admin).await?;
    let mut operator = Operator::start(&plane, &stage).await?;
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(&client, object).await?;
    let pipelines: Api<IoTPipeline> = Api::namespaced(client.clone(), NAMESPACE);

    apply(&client, pipeline(NAMESPACE, &given())).await?;
    let first = told(&client, NAMESPACE, "False", "SecretNotFound").await?;
    for text in ["the Secret given does not exist", "create it", "broker.users[one].passwordSecretRef"] {
        ensure!(first.message.contains(text), "{}", first.message);
    }
    for restart in [false, true] {
        if restart {
            operator.process.signal("KILL").await?;
            operator.process.ended().await?;
            operator = Operator::start(&plane, &stage).await?;
        }
        for pass in 0..3 {
            // Each is a pass, and one of another generation is seen to have been made.
            let patch = json!({"metadata": {"annotations": {"test/pass": pass.to_string()}}});
            pipelines.patch("lab", &PatchParams::default(), &Patch::Merge(patch)).await?;
            let retention = if restart { 60 + pass } else { 30 + pass };
            let patch = json!({"spec": {"database": {"retention": format!("{retention}d")}}});
            pipelines.patch("lab", &PatchParams::default(), &Patch::Merge(patch)).await?;
            told(&client, NAMESPACE, "False", "SecretNotFound").await?;
        }
    }
    ensure!(
        events(&client).await? == BTreeMap::from([("SecretNotFound".into(), 1)]),
        "{:?}",
        events(&client).await?
    );

    // Mended, and the same again.
    for _ in 0..2 {
        apply(&client, pipeline(NAMESPACE, &spec())).await?;
        told(&client, NAMESPACE, "True", "Ready").await?;
        apply(&client, pipeline(NAMESPACE, &given())).await?;
        told(&client, NAMESPACE, "False", "SecretNotFound").await?;
    }
    let told = events(&client).await?;
    ensure!(told.get("SecretNotFound") == Some(&3) && told.get("Ready") == Some(&2), "{told:?}");
    Ok(())
}

/// How often each thing was told, as `kubectl describe` counts. Each is one object.
async fn events(client: &Client) -> Result<BTreeMap<String, i32>> {
    let api: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
    let about = ListParams::default().fields("involvedObject.kind=IoTPipeline");
    let mut told = BTreeMap::new();
    for event in api.list(&about).await? {
        let count = event.series.as_ref().and_then(|series| series.count).unwrap_or(1);
        let name = event.name_any();
        let before = told.insert(event.reason.unwrap_or_default(), count);
        ensure!(before.is_none(), "{name} says again what another said");
    }
    Ok(told)
}
