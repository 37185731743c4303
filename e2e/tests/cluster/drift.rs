//! What others delete or change comes back.

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually, eventually_true};
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::pipeline::Pipeline;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde_json::json;

use crate::{NUMBERS, SOON, numbered};

#[tokio::test]
async fn a_deleted_service_an_edited_config_map_and_a_stopped_database_come_back() {
    with_namespace("drift", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        a_deleted_service_comes_back(&pipeline).await?;
        an_edited_config_map_is_restored(&pipeline).await?;
        a_stateful_set_scaled_to_zero_is_scaled_back(&pipeline).await?;
        pipeline.becomes_ready().await?;

        let broker = pipeline.broker().await?;
        let password = pipeline.password("sensor").await?;
        let mut client = Client::connect(broker.port, "sensor", Some(("sensor", &password))).await?;
        ensure!(client.publish("load/numbers", numbered(1)).await? == PubAckReason::Success);
        let (_forward, influx) = pipeline.database().await?;
        influx.all_stored("numbers", "n", 1..2, SOON).await.map(drop)
    })
    .await;
}

async fn a_deleted_service_comes_back(pipeline: &Pipeline) -> Result<()> {
    let services = pipeline.namespace.api::<Service>();
    let name = pipeline.part("broker");
    let before = services.get(&name).await?.uid();
    services.delete(&name, &DeleteParams::default()).await?;
    eventually_true("the deleted Service comes back", SOON, async || {
        Ok(services.get(&name).await?.uid() != before)
    })
    .await
}

async fn an_edited_config_map_is_restored(pipeline: &Pipeline) -> Result<()> {
    let config_maps = pipeline.namespace.api::<ConfigMap>();
    let name = pipeline.part("bridge");
    let before = config_maps.get(&name).await?.data.context("a ConfigMap without data")?;
    let edited: serde_json::Map<_, _> =
        before.keys().map(|key| (key.clone(), json!("edited by somebody else"))).collect();
    let edit = Patch::Merge(json!({"data": edited}));
    config_maps.patch(&name, &PatchParams::default(), &edit).await?;
    eventually("the edited ConfigMap is restored", SOON, async || {
        let now = config_maps.get(&name).await?.data;
        Ok(if now.as_ref() == Some(&before) { Probe::Found(()) } else { Probe::NotYet(format!("{now:?}")) })
    })
    .await
}

async fn a_stateful_set_scaled_to_zero_is_scaled_back(pipeline: &Pipeline) -> Result<()> {
    let sets = pipeline.namespace.api::<StatefulSet>();
    let name = pipeline.part("database");
    let to_zero = Patch::Merge(json!({"spec": {"replicas": 0}}));
    sets.patch(&name, &PatchParams::default(), &to_zero).await?;
    eventually("the StatefulSet scaled to zero is scaled back and ready", SOON * 2, async || {
        let set = sets.get(&name).await?;
        let ready = set.status.as_ref().and_then(|status| status.ready_replicas);
        let observed = set.status.as_ref().and_then(|status| status.observed_generation);
        let replicas = set.spec.replicas;
        let back = replicas == Some(1) && ready == Some(1) && observed == set.metadata.generation;
        Ok(if back {
            Probe::Found(())
        } else {
            Probe::NotYet(format!("{replicas:?} wanted, {ready:?} ready"))
        })
    })
    .await
}
