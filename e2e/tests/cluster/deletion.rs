//! A pipeline deleted, and applied again.

use anyhow::{Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::namespaces::{Namespace, with_namespace};
use iotpipeline_e2e::pipeline::Pipeline;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams};
use kube::{Resource, ResourceExt};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde::de::DeserializeOwned;

use crate::{NUMBERS, SOON, numbered};

/// The administrator's credentials live in the database's volume, so they are kept beside it.
const KEPT_SECRETS: [&str; 1] = ["numbers-database"];

#[tokio::test]
async fn a_deleted_pipeline_leaves_its_volumes_and_finds_its_data_when_applied_again() {
    with_namespace("deletion", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        store(&pipeline, 1).await?;
        let volumes = names::<PersistentVolumeClaim>(&namespace).await?;
        ensure!(volumes.len() >= 2, "{volumes:?}");

        namespace.api::<IoTPipeline>().delete(&pipeline.name, &DeleteParams::default()).await?;
        eventually("only the volumes and their Secret are left", SOON * 2, async || {
            let left = leftovers(&namespace).await?;
            Ok(if left.is_empty() { Probe::Found(()) } else { Probe::NotYet(format!("{left:?}")) })
        })
        .await?;
        ensure!(names::<PersistentVolumeClaim>(&namespace).await? == volumes, "volumes are gone");

        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        ensure!(names::<PersistentVolumeClaim>(&namespace).await? == volumes, "there are other volumes");
        store(&pipeline, 2).await?;
        let (_forward, influx) = pipeline.database().await?;
        influx.all_stored("numbers", "n", 1..3, SOON).await.map(drop)
    })
    .await;
}

async fn store(pipeline: &Pipeline, number: u64) -> Result<()> {
    let broker = pipeline.broker().await?;
    let password = pipeline.password("sensor").await?;
    let mut client = Client::connect(broker.port, "sensor", Some(("sensor", &password))).await?;
    ensure!(client.publish("load/numbers", numbered(number)).await? == PubAckReason::Success);
    let (_forward, influx) = pipeline.database().await?;
    influx.all_stored("numbers", "n", number..number + 1, SOON).await.map(drop)
}

/// What a deleted pipeline should not leave. Every namespace has a service account and a certificate
/// of Kubernetes' own.
async fn leftovers(namespace: &Namespace) -> Result<Vec<String>> {
    let mut left = Vec::new();
    left.extend(names::<StatefulSet>(namespace).await?);
    left.extend(names::<Deployment>(namespace).await?);
    left.extend(names::<Pod>(namespace).await?);
    left.extend(names::<Service>(namespace).await?);
    left.extend(names::<NetworkPolicy>(namespace).await?);
    left.extend(names::<ServiceAccount>(namespace).await?.into_iter().filter(|name| name != "default"));
    left.extend(names::<ConfigMap>(namespace).await?.into_iter().filter(|name| name != "kube-root-ca.crt"));
    let secrets = names::<Secret>(namespace).await?;
    left.extend(secrets.into_iter().filter(|name| !KEPT_SECRETS.contains(&name.as_str())));
    Ok(left)
}

async fn names<K>(namespace: &Namespace) -> Result<Vec<String>>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let list = namespace.api::<K>().list(&ListParams::default()).await?;
    Ok(list.into_iter().map(|object| object.name_any()).collect())
}
