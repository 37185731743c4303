//! A settled pipeline is left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::conditions::{Probe, eventually, throughout};
use iotpipeline_e2e::namespaces::{Namespace, with_namespace};
use iotpipeline_e2e::pipeline::Pipeline;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::{NUMBERS, SOON};

type Versions = BTreeMap<String, String>;

#[tokio::test]
async fn nothing_of_a_settled_pipeline_is_written_for_20_s() {
    with_namespace("silence", async |namespace| {
        Pipeline::ready(&namespace, NUMBERS).await?;
        // Kubernetes itself writes a little longer: pods' conditions, sets' counts.
        let mut settled = versions(&namespace).await?;
        let mut rounds = 0;
        eventually("the pipeline settles", SOON, async || {
            let now = versions(&namespace).await?;
            rounds = if now == settled { rounds + 1 } else { 0 };
            let changes = differences(&settled, &now);
            settled = now;
            Ok(if rounds >= 30 { Probe::Found(()) } else { Probe::NotYet(changes.join(", ")) })
        })
        .await?;
        throughout(Duration::from_secs(20), async || {
            let now = versions(&namespace).await?;
            ensure!(now == settled, "written: {}", differences(&settled, &now).join(", "));
            Ok(())
        })
        .await
    })
    .await;
}

fn differences(before: &Versions, after: &Versions) -> Vec<String> {
    let changed = |(name, version): &(&String, &String)| before.get(*name) != Some(*version);
    after.iter().filter(changed).map(|(name, _)| name.clone()).collect()
}

/// The version of every object in the namespace.
async fn versions(namespace: &Namespace) -> Result<Versions> {
    let mut versions = Versions::new();
    add::<IoTPipeline>(namespace, &mut versions).await?;
    add::<StatefulSet>(namespace, &mut versions).await?;
    add::<Deployment>(namespace, &mut versions).await?;
    add::<Pod>(namespace, &mut versions).await?;
    add::<Service>(namespace, &mut versions).await?;
    add::<ConfigMap>(namespace, &mut versions).await?;
    add::<Secret>(namespace, &mut versions).await?;
    add::<ServiceAccount>(namespace, &mut versions).await?;
    add::<PersistentVolumeClaim>(namespace, &mut versions).await?;
    add::<NetworkPolicy>(namespace, &mut versions).await?;
    Ok(versions)
}

async fn add<K>(namespace: &Namespace, versions: &mut Versions) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    for object in namespace.api::<K>().list(&ListParams::default()).await? {
        let name = format!("{} {}", K::kind(&Default::default()), object.name_any());
        versions.insert(name, object.resource_version().unwrap_or_default());
    }
    Ok(())
}
