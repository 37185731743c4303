//! A backup on request and one on schedule, and a pipeline that begins with what another has left.

use anyhow::{Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::pipeline::{Pipeline, summary};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde_json::json;

use crate::{NUMBERS, SOON, numbered};

/// The pipeline with more about its database, and a request for a backup if there is one.
fn with(line: &str, request: &str) -> String {
    let named = NUMBERS.replace("{name: numbers}\nspec", &format!("{{name: numbers{request}}}\nspec"));
    named.replace("storage: {size: 1Gi}}\n  routes", &format!("storage: {{size: 1Gi}}, {line}}}\n  routes"))
}

const VOLUME: &str = "backup: {volume: {size: 1Gi}}";

#[tokio::test]
async fn a_pipeline_that_begins_with_a_backup_has_its_points_and_takes_new_ones() {
    with_namespace("backup", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, &with(VOLUME, "")).await?;
        publish(&pipeline, 1..51).await?;
        let request = ", annotations: {iotpipeline.io/backup: first}";
        Pipeline::apply(&namespace, &with(VOLUME, request)).await?;
        let name = backed_up(&pipeline).await?;
        // Of these nothing is in it.
        publish(&pipeline, 51..61).await?;
        ensure!(backed_up(&pipeline).await? == name, "a request was carried out twice");

        namespace.api::<IoTPipeline>().delete(&pipeline.name, &DeleteParams::default()).await?;
        let claims = namespace.api::<PersistentVolumeClaim>();
        eventually("the pipeline's pods have gone, and its volume goes", SOON * 2, async || {
            claims.delete("data-numbers-database-0", &DeleteParams::default()).await.ok();
            let left = claims.list(&ListParams::default()).await?;
            let mut names: Vec<_> = left.into_iter().filter_map(|claim| claim.metadata.name).collect();
            names.sort();
            let has_gone = !names.iter().any(|name| name == "data-numbers-database-0");
            ensure!(names.iter().any(|name| name == "numbers-backup"), "the backups went too: {names:?}");
            Ok(if has_gone { Probe::Found(()) } else { Probe::NotYet(format!("{names:?}")) })
        })
        .await?;

        let from =
            format!("restoreFrom: {{backup: {name}, volume: {{claimName: numbers-backup}}}}, {VOLUME}");
        let pipeline = Pipeline::ready(&namespace, &with(&from, "")).await?;
        let (_forward, influx) = pipeline.database().await?;
        let stored = influx.integers("numbers", "n").await?;
        ensure!(stored.len() == 50, "{} numbers were restored", stored.len());
        publish(&pipeline, 61..71).await?;
        influx.all_stored("numbers", "n", (1..51).chain(61..71), SOON).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_restore_that_fails_is_told_and_the_bridge_waits() {
    with_namespace("no-backup", async |namespace| {
        let from = "restoreFrom: {backup: 20200101T000000Z, volume: {claimName: missing}}";
        let pipeline = Pipeline::apply(&namespace, &with(from, "")).await?;
        eventually("the status says that it restores", SOON * 4, async || {
            let seen = summary(&pipeline.get().await?);
            let is_told = seen.contains("DatabaseReady=False (Restoring: ") && seen.contains("missing");
            Ok(if is_told { Probe::Found(()) } else { Probe::NotYet(seen) })
        })
        .await?;
        Pipeline::ready(&namespace, &with("retention: '0'", "")).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_backup_that_fails_is_told_in_its_own_words_until_another_is_made() {
    with_namespace("no-s3", async |namespace| {
        let keys = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"},
            "stringData": {"accessKeyId": "id", "secretAccessKey": "key"},
        });
        namespace.api().create(&PostParams::default(), &serde_json::from_value::<Secret>(keys)?).await?;
        // Nobody listens there.
        let nowhere = "backup: {s3: {url: 'http://127.0.0.1:9/copies', credentialsSecretRef: {name: s3}}}";
        let request = ", annotations: {iotpipeline.io/backup: first}";
        let pipeline = Pipeline::ready(&namespace, &with(nowhere, request)).await?;
        eventually("the status says why there is no backup", SOON * 2, async || {
            let seen = summary(&pipeline.get().await?);
            let is_told =
                seen.contains("BackupReady=False (BackupFailed: ") && seen.contains("does not answer");
            Ok(if is_told { Probe::Found(()) } else { Probe::NotYet(seen) })
        })
        .await?;
        pipeline.becomes_ready().await?;
        let request = ", annotations: {iotpipeline.io/backup: second}";
        let pipeline = Pipeline::apply(&namespace, &with(VOLUME, request)).await?;
        backed_up(&pipeline).await.map(drop)
    })
    .await;
}

async fn publish(pipeline: &Pipeline, numbers: std::ops::Range<u64>) -> Result<()> {
    let (broker, password) = (pipeline.broker().await?, pipeline.password("sensor").await?);
    let mut client = Client::connect(broker.port, "sensor", Some(("sensor", &password))).await?;
    for number in numbers.clone() {
        ensure!(client.publish("load/numbers", numbered(number)).await? == PubAckReason::Success);
    }
    let (_forward, influx) = pipeline.database().await?;
    influx.all_stored("numbers", "n", numbers, SOON).await.map(drop)
}

/// The name of the last backup, once the condition says that there is one.
async fn backed_up(pipeline: &Pipeline) -> Result<String> {
    eventually("the status names a backup", SOON * 2, async || {
        let pipeline = pipeline.get().await?;
        let backup = pipeline.status.as_ref().and_then(|status| status.backup.clone());
        let is_told = summary(&pipeline).contains("BackupReady=True");
        Ok(match backup {
            Some(backup) if is_told => Probe::Found(backup.name),
            _ => Probe::NotYet(summary(&pipeline)),
        })
    })
    .await
}
