//! A pipeline whose parts are others': here those of another pipeline, reached by Secrets, as a
//! clustered broker, a hosted database and a central Grafana would be.

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually, eventually_true};
use iotpipeline_e2e::grafana::Grafana;
use iotpipeline_e2e::influx::text;
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::namespaces::{Namespace, with_namespace};
use iotpipeline_e2e::pipeline::Pipeline;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde_json::json;

use crate::SOON;

const CENTRAL: &str = "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {name: central}
spec:
  broker:
    users:
    - {name: sensor, publish: [edge/#]}
    - {name: edge, subscribe: [edge/#], publish: [iotpipeline/edge/dead-letter/#]}
  database: {organization: lab, bucket: mesure, tls: {}}
  dashboard: {tls: {}}
  routes:
  - {name: own, topic: own/+, payload: {float: {}}}
";

fn edge(namespace: &str) -> String {
    format!(
        "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {{name: edge}}
spec:
  broker:
    external:
      url: mqtts://central-broker.{namespace}.svc:8883
      credentialsSecretRef: {{name: edge-broker-login}}
      caSecretRef: {{name: central-broker, key: ca.crt}}
  database:
    organization: lab
    bucket: mesure
    external:
      url: https://central-database.{namespace}.svc:8086
      tokenSecretRef: {{name: central-database, key: token}}
      caSecretRef: {{name: central-database, key: ca.crt}}
  dashboard:
    external:
      url: https://central-dashboard.{namespace}.svc:3000
      credentialsSecretRef: {{name: edge-dashboard-login}}
      caSecretRef: {{name: central-dashboard, key: ca.crt}}
  routes:
  - {{name: rooms, topic: 'edge/{{room}}', payload: {{float: {{field: celsius}}}}}}
"
    )
}

#[tokio::test]
async fn a_pipeline_of_external_parts_becomes_ready_stores_and_is_shown() {
    with_namespace("external", async |namespace| {
        let (central, dashboard_password) = central(&namespace).await?;
        let edge = Pipeline::ready(&namespace, &edge(&namespace.name)).await?;
        no_part_but_the_bridge_is_deployed(&edge).await?;

        let broker = central.broker().await?;
        let sensor = central.password("sensor").await?;
        let mut client = Client::connect(broker.port, "sensor", Some(("sensor", &sensor))).await?;
        ensure!(client.publish("edge/attic", "21.5").await? == PubAckReason::Success);
        let (_forward, influx) = central.database().await?;
        let stored = influx.at_least("rooms", 1, SOON).await?;
        ensure!(text(&stored[0], "room") == "attic" && text(&stored[0], "_field") == "celsius", "{stored:?}");

        let forward = central.dashboard().await?;
        let grafana = Grafana::new(forward.port, "admin", &dashboard_password);
        eventually("both dashboards are in the one Grafana", SOON, async || {
            let found = grafana.get("/search?type=dash-db").await?;
            let count = found.as_array().context("not a list")?.len();
            Ok(if count == 2 { Probe::Found(()) } else { Probe::NotYet(found.to_string()) })
        })
        .await
    })
    .await;
}

/// The same pipeline with parts of its own.
const EDGE_ALONE: &str = "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {name: edge}
spec:
  broker: {users: [{name: gateway, publish: [edge/#]}]}
  database: {organization: lab, bucket: mesure}
  routes:
  - {name: rooms, topic: 'edge/{room}', payload: {float: {field: celsius}}}
";

#[tokio::test]
async fn parts_that_were_others_for_a_while_have_their_volumes_and_points_when_they_are_managed_again() {
    with_namespace("hosted", async |namespace| {
        let edge = Pipeline::ready(&namespace, EDGE_ALONE).await?;
        store_alone(&edge, "attic").await?;
        let claims = volumes_of(&edge).await?;
        ensure!(claims.len() == 3, "{claims:?}");

        let (central, _) = central(&namespace).await?;
        let theirs = central.incarnations().await?;
        Pipeline::ready(&namespace, &self::edge(&namespace.name)).await?;
        eventually_true("only the bridge is left", SOON, async || {
            Ok(no_part_but_the_bridge_is_deployed(&edge).await.is_ok())
        })
        .await?;

        Pipeline::ready(&namespace, EDGE_ALONE).await?;
        ensure!(volumes_of(&edge).await? == claims, "volumes were made anew");
        store_alone(&edge, "cellar").await?;
        let (_forward, influx) = edge.database().await?;
        influx.at_least("rooms", 2, SOON).await?;
        ensure!(central.incarnations().await? == theirs, "another pipeline's pod was restarted");
        Ok(())
    })
    .await;
}

async fn store_alone(edge: &Pipeline, room: &str) -> Result<()> {
    let (broker, password) = (edge.broker().await?, edge.password("gateway").await?);
    let mut client = Client::connect(broker.port, "gateway", Some(("gateway", &password))).await?;
    ensure!(client.publish(&format!("edge/{room}"), "21.5").await? == PubAckReason::Success);
    let (_forward, influx) = edge.database().await?;
    let is_of_room = |point: &_| text(point, "room") == room;
    eventually_true(format!("the point of the {room} is stored"), SOON, async || {
        Ok(influx.at_least("rooms", 1, SOON).await?.iter().any(is_of_room))
    })
    .await
}

/// The claims of the pipeline, and which they are.
async fn volumes_of(edge: &Pipeline) -> Result<Vec<(String, Option<String>)>> {
    let claims = edge.namespace.api::<PersistentVolumeClaim>().list(&ListParams::default()).await?;
    let claims = claims.into_iter().map(|claim| (claim.name_any(), claim.metadata.uid));
    Ok(claims.filter(|(name, _)| name.contains("-edge-")).collect())
}

/// The other pipeline, with logins for the edge, and the password of its dashboard.
async fn central(namespace: &Namespace) -> Result<(Pipeline, String)> {
    let central = Pipeline::ready(namespace, CENTRAL).await?;
    let password = central.password("edge").await?;
    login(&central, "edge-broker-login", "edge", &password).await?;
    let dashboard_password = central.secret("central-dashboard", "password").await?;
    login(&central, "edge-dashboard-login", "admin", &dashboard_password).await?;
    Ok((central, dashboard_password))
}

async fn login(pipeline: &Pipeline, name: &str, user: &str, password: &str) -> Result<()> {
    let secret = json!({"metadata": {"name": name}, "stringData": {"username": user, "password": password}});
    let secrets = pipeline.namespace.api::<Secret>();
    secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    Ok(())
}

async fn no_part_but_the_bridge_is_deployed(edge: &Pipeline) -> Result<()> {
    let sets = edge.namespace.api::<StatefulSet>().list(&ListParams::default()).await?;
    let names: Vec<String> =
        sets.into_iter().map(|set| set.name_any()).filter(|name| name.starts_with("edge-")).collect();
    ensure!(names == ["edge-bridge"], "{names:?}");
    Ok(())
}
