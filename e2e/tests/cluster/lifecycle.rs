//! A pipeline that is suspended, that hibernates, whose volumes grow, and that goes with its data.

use anyhow::{Context, Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::namespaces::{Namespace, with_namespace};
use iotpipeline_e2e::pipeline::{Pipeline, summary};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::{NUMBERS, SOON, numbered};

/// The pipeline with more in its spec.
fn with(line: &str) -> String {
    NUMBERS.replace("  routes:", &format!("  {line}\n  routes:"))
}

#[tokio::test]
async fn a_pipeline_that_hibernated_goes_on_with_its_data_and_its_passwords() {
    with_namespace("hibernate", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        let password = pipeline.password("sensor").await?;
        store(&pipeline, &password, 1).await?;
        let kept = (volumes(&namespace).await?, secrets(&namespace).await?);

        Pipeline::apply(&namespace, &with("hibernate: true")).await?;
        let hibernates = async || {
            let pods = namespace.api::<Pod>().list(&ListParams::default()).await?.items.len();
            let seen = condition(&pipeline, "Ready").await?;
            Ok(match (pods, seen.as_deref()) {
                (0, Some("False Hibernated")) => Probe::Found(()),
                _ => Probe::NotYet(format!("{pods} pods, {seen:?}")),
            })
        };
        eventually("no pods are left", SOON * 3, hibernates).await?;
        ensure!((volumes(&namespace).await?, secrets(&namespace).await?) == kept, "not everything was kept");

        Pipeline::ready(&namespace, NUMBERS).await?;
        // With the password of before.
        store(&pipeline, &password, 2).await?;
        let (_forward, influx) = pipeline.database().await?;
        influx.all_stored("numbers", "n", 1..3, SOON).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_renamed_bucket_keeps_its_points_and_takes_new_ones() {
    with_namespace("rename", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        let password = pipeline.password("sensor").await?;
        store(&pipeline, &password, 1).await?;
        let before = pipeline.incarnations().await?;
        Pipeline::ready(&namespace, &NUMBERS.replace("bucket: mesure", "bucket: numbers")).await?;
        store(&pipeline, &password, 2).await?;
        let (_forward, influx) = pipeline.database().await?;
        influx.all_stored("numbers", "n", 1..3, SOON).await?;
        ensure!(pipeline.incarnations().await? == before, "something restarted");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_suspended_pipeline_is_left_alone_until_it_goes_on() {
    with_namespace("suspend", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        Pipeline::apply(&namespace, &with("suspend: true")).await?;
        eventually("the status says so", SOON, async || {
            let suspended = condition(&pipeline, "Suspended").await?;
            Ok(if suspended.is_some() { Probe::Found(()) } else { Probe::NotYet("no condition".into()) })
        })
        .await?;
        ensure!(
            condition(&pipeline, "Ready").await?.as_deref() == Some("True Ready"),
            "what was seen is gone"
        );

        let services = namespace.api::<Service>();
        services.delete(&pipeline.part("broker"), &DeleteParams::default()).await?;
        let change = "suspend: true\n  bridge: {maxMessageSize: 4096}";
        let changed = Pipeline::apply(&namespace, &with(change)).await?.get().await?;
        eventually("the operator has seen the change", SOON, async || {
            let conditions = pipeline.get().await?.status.unwrap_or_default().conditions;
            let suspended = conditions.into_iter().find(|condition| condition.type_ == "Suspended");
            let seen = suspended.and_then(|condition| condition.observed_generation);
            let is_seen = seen == changed.metadata.generation;
            Ok(if is_seen { Probe::Found(()) } else { Probe::NotYet(format!("{seen:?}")) })
        })
        .await?;
        ensure!(services.get_opt(&pipeline.part("broker")).await?.is_none(), "the Service was made again");

        Pipeline::ready(&namespace, NUMBERS).await?;
        ensure!(
            services.get_opt(&pipeline.part("broker")).await?.is_some(),
            "the Service was not made again"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn with_the_policy_delete_the_data_goes_with_the_pipeline() {
    with_namespace("delete", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, &with("deletionPolicy: Delete")).await?;
        let first = uids(&namespace).await?;
        namespace.api::<IoTPipeline>().delete(&pipeline.name, &DeleteParams::default()).await?;
        // At once, while what belonged to the first one is still being collected.
        let pipeline = Pipeline::ready(&namespace, &with("deletionPolicy: Delete")).await?;
        let second = uids(&namespace).await?;
        ensure!(second.iter().all(|uid| !first.contains(uid)), "a volume was adopted: {first:?}, {second:?}");

        // The policy holds as it is at the end.
        Pipeline::ready(&namespace, NUMBERS).await?;
        eventually("the volumes are nobody's", SOON, async || {
            let claims = namespace.api::<PersistentVolumeClaim>().list(&ListParams::default()).await?;
            let owned = claims.iter().filter(|claim| !claim.owner_references().is_empty()).count();
            Ok(if owned == 0 { Probe::Found(()) } else { Probe::NotYet(format!("{owned} are owned")) })
        })
        .await?;
        Pipeline::ready(&namespace, &with("deletionPolicy: Delete")).await?;
        namespace.api::<IoTPipeline>().delete(&pipeline.name, &DeleteParams::default()).await?;
        eventually("no volume and no Secret is left", SOON * 2, async || {
            let left = (volumes(&namespace).await?, secrets(&namespace).await?);
            let gone = left.0.is_empty() && left.1.is_empty();
            Ok(if gone { Probe::Found(()) } else { Probe::NotYet(format!("{left:?}")) })
        })
        .await
    })
    .await;
}

/// The cluster's own storage class can't enlarge volumes; one that says it can is believed by the API server.
#[tokio::test]
async fn volumes_grow_where_they_can_around_running_pods_and_elsewhere_a_condition_says_so() {
    with_namespace("growth", async |namespace| {
        let (elastic, stiff) =
            (class(&namespace, "elastic", true).await?, class(&namespace, "stiff", false).await?);
        let of_class = |class| format!("storage: {{size: 1Gi, storageClassName: {class}}}");
        let spec = NUMBERS
            .replace("storage: {size: 1Gi}\n    users", &format!("{}\n    users", of_class(&elastic)))
            .replace("storage: {size: 1Gi}}\n", &format!("{}}}\n", of_class(&stiff)));
        let pipeline = Pipeline::ready(&namespace, &spec).await?;
        let before = pipeline.incarnations().await?;

        Pipeline::ready(&namespace, &spec.replace("1Gi", "2Gi")).await?;
        eventually("the broker's set asks for the new size", SOON, async || {
            let set = namespace.api::<StatefulSet>().get(&pipeline.part("broker")).await?;
            let sizes = format!("{:?}", set.spec.volume_claim_templates);
            Ok(if sizes.contains("2Gi") { Probe::Found(()) } else { Probe::NotYet(sizes) })
        })
        .await?;
        pipeline.becomes_ready().await?;
        ensure!(pipeline.incarnations().await? == before, "a pod was replaced");
        let claims = namespace.api::<PersistentVolumeClaim>().list(&ListParams::default()).await?;
        let grown = claims.iter().filter(|claim| format!("{:?}", claim.spec).contains("2Gi")).count();
        ensure!(grown == 1, "{grown} claims have grown");
        let database = condition(&pipeline, "DatabaseReady").await?;
        ensure!(database.as_deref() == Some("True VolumeNotGrown"), "{}", summary(&pipeline.get().await?));
        for class in [elastic, stiff] {
            Api::<StorageClass>::all(namespace.client.clone())
                .delete(&class, &DeleteParams::default())
                .await?;
        }
        Ok(())
    })
    .await;
}

/// As the cluster's default class, but enlargeable or not by what it says.
async fn class(namespace: &Namespace, name: &str, is_elastic: bool) -> Result<String> {
    let classes = Api::<StorageClass>::all(namespace.client.clone());
    let default = "storageclass.kubernetes.io/is-default-class";
    let all = classes.list(&ListParams::default()).await?;
    let own = all.into_iter().find(|class| class.annotations().contains_key(default));
    let mut class = own.context("the cluster has no default storage class")?;
    let name = Some(format!("{}-{name}", namespace.name));
    class.metadata = kube::api::ObjectMeta { name, ..Default::default() };
    class.allow_volume_expansion = Some(is_elastic);
    Ok(classes.create(&PostParams::default(), &class).await?.name_any())
}

async fn store(pipeline: &Pipeline, password: &str, number: u64) -> Result<()> {
    let broker = pipeline.broker().await?;
    let mut client = Client::connect(broker.port, "sensor", Some(("sensor", password))).await?;
    ensure!(client.publish("load/numbers", numbered(number)).await? == PubAckReason::Success);
    let (_forward, influx) = pipeline.database().await?;
    influx.all_stored("numbers", "n", number..number + 1, SOON).await.map(drop)
}

/// The status and the reason of a condition.
async fn condition(pipeline: &Pipeline, type_: &str) -> Result<Option<String>> {
    let status = pipeline.get().await?.status.unwrap_or_default();
    let found = status.conditions.into_iter().find(|condition| condition.type_ == type_);
    Ok(found.map(|condition| format!("{} {}", condition.status, condition.reason)))
}

async fn volumes(namespace: &Namespace) -> Result<Vec<String>> {
    let claims = namespace.api::<PersistentVolumeClaim>().list(&ListParams::default()).await?;
    Ok(claims.iter().map(ResourceExt::name_any).collect())
}

async fn secrets(namespace: &Namespace) -> Result<Vec<String>> {
    let secrets = namespace.api::<Secret>().list(&ListParams::default()).await?;
    Ok(secrets.iter().map(ResourceExt::name_any).collect())
}

async fn uids(namespace: &Namespace) -> Result<Vec<String>> {
    let claims = namespace.api::<PersistentVolumeClaim>().list(&ListParams::default()).await?;
    Ok(claims.iter().filter_map(ResourceExt::uid).collect())
}
