//! What becomes of what the operator has made when a user changes his mind.

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::control_plane::{ControlPlane, User, apply};
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde_json::json;

use crate::failures::table::{given, spec};
use crate::failures::{pipeline, told};

const PINNED: &str = "pinned";

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_password_that_the_spec_comes_to_name_stays() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let client = plane.client(User::Admin).await?;
    let operator = Operator::start(&plane, &stage).await?;
    pin(&client).await.with_context(|| operator.process.log(20))
}

async fn pin(client: &Client) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PINNED}});
    apply(client, namespace).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), PINNED);
    apply(client, pipeline(PINNED, &spec())).await?;
    told(client, PINNED, "True", "Ready").await?;
    let made = secrets.get("lab-broker-one").await?.data;

    let mut pinned = given();
    pinned["broker"]["users"][0]["passwordSecretRef"]["name"] = "lab-broker-one".into();
    // The second is for the pass after the one that first finds it named.
    for retention in ["30d", "31d"] {
        pinned["database"] = json!({"retention": retention});
        apply(client, pipeline(PINNED, &pinned)).await?;
        told(client, PINNED, "True", "Ready").await?;
    }
    ensure!(secrets.get("lab-broker-one").await?.data == made, "another password");
    // And it is the operator's again, with the same password.
    apply(client, pipeline(PINNED, &spec())).await?;
    told(client, PINNED, "True", "Ready").await?;
    ensure!(secrets.get("lab-broker-one").await?.data == made, "another password");
    Ok(())
}
