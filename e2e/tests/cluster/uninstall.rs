//! The operator goes first, and its pipelines after it; or they go with their namespace while it works.

use std::time::Duration;

use anyhow::{Context, Result};
use iotpipeline_e2e::conditions::{Probe, eventually, eventually_true};
use iotpipeline_e2e::namespaces::{self, with_namespace, with_namespace_alone};
use iotpipeline_e2e::pipeline::Pipeline;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::{NUMBERS, SOON};

const SYSTEM: &str = "iotpipeline-system";
const OPERATOR: &str = "iotpipeline-operator";

/// How soon the namespace must be gone.
const GOES: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_namespace_goes_though_the_operator_went_before() {
    with_namespace_alone("uninstall", async |namespace| {
        Pipeline::ready(&namespace, NUMBERS).await?;
        let before = scale(&namespace.client, 0).await?;
        let gone = async {
            no_operator_runs(&namespace.client).await?;
            goes(&namespace).await
        };
        let gone = gone.await;
        // Whatever happened, the other tests need it.
        scale(&namespace.client, before).await?;
        works_again(&namespace.client).await?;
        gone
    })
    .await;
}

#[tokio::test]
async fn a_namespace_goes_while_the_operator_works_for_what_is_in_it() {
    with_namespace("going", async |namespace| {
        let doomed = NUMBERS.replace("spec:\n", "spec:\n  deletionPolicy: Delete\n");
        let pipeline = Pipeline::apply(&namespace, &doomed).await?;
        eventually_true("the operator is at work", SOON, async || {
            Ok(pipeline.get().await?.status.is_some_and(|status| !status.conditions.is_empty()))
        })
        .await?;
        goes(&namespace).await
    })
    .await;
}

async fn goes(namespace: &namespaces::Namespace) -> Result<()> {
    namespace.delete().await;
    let all: Api<Namespace> = Api::all(namespace.client.clone());
    eventually("the namespace has gone", GOES, async || {
        Ok(match all.get_opt(&namespace.name).await? {
            None => Probe::Found(()),
            Some(left) => Probe::NotYet(format!("{:?}", left.status)),
        })
    })
    .await
}

/// Returns how many there were to be before.
async fn scale(client: &Client, replicas: i32) -> Result<i32> {
    let operators: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM);
    let before = operators.get_scale(OPERATOR).await?.spec.context("a scale")?.replicas.unwrap_or(1);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    operators.patch_scale(OPERATOR, &PatchParams::default(), &patch).await?;
    Ok(before)
}

async fn no_operator_runs(client: &Client) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
    let operators = ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR}"));
    eventually("no operator runs", SOON, async || {
        Ok(match pods.list(&operators).await?.items.len() {
            0 => Probe::Found(()),
            count => Probe::NotYet(format!("{count} pods")),
        })
    })
    .await
}

async fn works_again(client: &Client) -> Result<()> {
    let operators: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM);
    eventually("the operator is ready again", SOON, async || {
        let status = operators.get(OPERATOR).await?.status.unwrap_or_default();
        let is_ready = status.ready_replicas.unwrap_or(0) > 0;
        Ok(if is_ready { Probe::Found(()) } else { Probe::NotYet(format!("{status:?}")) })
    })
    .await
}
