//! What becomes of what the operator has made when the spec takes it back, or comes to name it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use iotpipeline_e2e::conditions::eventually_true;
use iotpipeline_e2e::control_plane::{ControlPlane, User, apply};
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::json;

use crate::failures::table::{given, spec};
use crate::failures::{pipeline, told};
use crate::rights::definition;

const PINNED: &str = "pinned";

const GROUP: &str = "gateway.networking.k8s.io";

const ROUTED: &str = "routed";

/// How long to wait until the API server serves a kind.
const SERVES: Duration = Duration::from_secs(30);

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

#[tokio::test(flavor = "multi_thread")]
async fn a_route_to_a_dashboard_goes_when_it_is_taken_back_also_before_there_is_a_dashboard() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let client = plane.client(User::Admin).await?;
    apply(&client, definition(GROUP, "httproutes", "HTTPRoute")).await?;
    let operator = Operator::start(&plane, &stage).await?;
    take_back(&client, &stage).await.with_context(|| operator.process.log(20))
}

async fn take_back(client: &Client, stage: &Stage) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ROUTED}});
    apply(client, namespace).await?;
    let kind =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", "HTTPRoute"), "httproutes");
    let routes: Api<DynamicObject> = Api::namespaced_with(client.clone(), ROUTED, &kind);
    let count = async || anyhow::Ok(routes.list(&ListParams::default()).await?.items.len());
    eventually_true("the kind is served", SERVES, async || Ok(count().await? == 0)).await?;
    let (mut plain, mut routed) = (spec(), spec());
    plain["dashboard"] = json!({"image": {"tag": "1"}});
    routed["dashboard"] = plain["dashboard"].clone();
    routed["dashboard"]["route"] =
        json!({"parentRefs": [{"name": "gateway"}], "hostnames": ["lab.example.com"]});

    // Without a token of the database there is no dashboard.
    let database = format!("lab-database.{ROUTED}.svc");
    stage.host_answers(&database, Some((StatusCode::INTERNAL_SERVER_ERROR, "starting")));
    apply(client, pipeline(ROUTED, &routed)).await?;
    told(client, ROUTED, "False", "DatabaseUnexpectedAnswer").await?;
    ensure!(count().await? == 0, "a route to nothing");
    stage.host_answers(&database, None);
    for (spec, expected) in [(plain.clone(), 0), (routed, 1), (plain, 0)] {
        apply(client, pipeline(ROUTED, &spec)).await?;
        told(client, ROUTED, "True", "Ready").await?;
        ensure!(count().await? == expected, "{expected} routes were expected");
    }
    Ok(())
}
