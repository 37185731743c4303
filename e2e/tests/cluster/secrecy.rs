//! What is secret is in Secrets only: not in the logs, events, statuses, arguments, variables, ConfigMaps and
//! metrics of a real chain, also where a credential is refused.

use anyhow::{Context, Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::http;
use iotpipeline_e2e::leaks::{Secrets, logs, objects};
use iotpipeline_e2e::mqtt::{Client, try_connect};
use iotpipeline_e2e::namespaces::{Namespace, with_namespace};
use iotpipeline_e2e::pipeline::{Pipeline, summary};
use iotpipeline_e2e::port_forward::Forward;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason};
use serde_json::{Value, json};

use crate::SOON;

/// Where the operator is.
const OPERATOR: &str = "iotpipeline-system";

/// All that the operator makes, and a password that is given to it; its backup comes nowhere.
const VAULT: &str = "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {name: vault, annotations: {iotpipeline.io/backup: first}}
spec:
  broker:
    users:
    - {name: sensor, publish: [vault/#]}
    - {name: gateway, certificate: {}, publish: [vault/#]}
    - name: edge
      passwordSecretRef: {name: given, key: password}
      subscribe: [vault/#]
      publish: [iotpipeline/edge/dead-letter/#]
  database:
    organization: lab
    bucket: mesure
    tls: {}
    backup: {s3: {url: 'http://127.0.0.1:9/copies', credentialsSecretRef: {name: s3}}}
  dashboard: {tls: {}}
  routes:
  - {name: rooms, topic: 'vault/{room}', payload: {float: {}}}
";

/// All is the other's, reached by credentials that are given.
fn edge(namespace: &str) -> String {
    format!(
        "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {{name: edge}}
spec:
  broker:
    external:
      url: mqtts://vault-broker.{namespace}.svc:8883
      credentialsSecretRef: {{name: login}}
      caSecretRef: {{name: vault-broker, key: ca.crt}}
  database:
    organization: lab
    bucket: mesure
    external:
      url: https://vault-database.{namespace}.svc:8086
      tokenSecretRef: {{name: token, key: token}}
      caSecretRef: {{name: vault-database, key: ca.crt}}
  dashboard:
    external:
      url: https://vault-dashboard.{namespace}.svc:3000
      credentialsSecretRef: {{name: grafana}}
      caSecretRef: {{name: vault-dashboard, key: ca.crt}}
  routes:
  - {{name: rooms, topic: 'vault/{{room}}', measurement: edge, payload: {{float: {{}}}}}}
"
    )
}

/// A value that is like no other.
fn needle(what: &str) -> String {
    format!("needle/{what}+ 7f3a9c04")
}

#[tokio::test]
async fn nothing_secret_is_outside_of_secrets_also_when_credentials_are_changed_and_refused() {
    with_namespace("secrecy", async |namespace| {
        let mut secrets = Secrets::default();
        let given = needle("given-password");
        give(&namespace, "given", json!({"password": given})).await?;
        let keys = json!({"accessKeyId": "needle-s3-id-7f3a9c04", "secretAccessKey": needle("s3-key")});
        give(&namespace, "s3", keys).await?;
        let vault = Pipeline::ready(&namespace, VAULT).await?;
        add_secrets(&namespace, &mut secrets).await?;
        let edge = external(&vault, &mut secrets).await?;
        store(&vault, "vault/attic").await?;
        rotate(&vault).await?;
        add_secrets(&namespace, &mut secrets).await?;

        // What a device gets wrong may be the password of something else.
        let broker = vault.broker().await?;
        let wrong = needle("a device's mistake");
        secrets.add("a device's mistake", &wrong)?;
        ensure!(try_connect(broker.port, Some(("sensor", &wrong))).await? != ConnectReturnCode::Success);
        refusals(&edge, &mut secrets).await?;
        lost(&namespace, &mut secrets).await?;
        fails(&vault, "BackupReady").await?;
        add_secrets(&namespace, &mut secrets).await?;

        ensure!(secrets.values() >= 20, "only {} values are looked for", secrets.values());
        search(&namespace, &mut secrets).await?;
        let (found, texts) = secrets.found();
        println!("{} values, {texts} texts, {} found", secrets.values(), found.len());
        ensure!(found.is_empty(), "{found:#?}");
        what_is_planted_is_found(&namespace, &mut secrets).await
    })
    .await;
}

/// The pipeline of external parts, ready.
async fn external(vault: &Pipeline, secrets: &mut Secrets) -> Result<Pipeline> {
    let namespace = &vault.namespace;
    give(namespace, "login", json!({"username": "edge", "password": needle("given-password")})).await?;
    give(namespace, "token", json!({"token": vault.secret("vault-database", "token").await?})).await?;
    let password = vault.secret("vault-dashboard", "password").await?;
    give(namespace, "grafana", json!({"username": "admin", "password": password})).await?;
    add_secrets(namespace, secrets).await?;
    Pipeline::ready(namespace, &edge(&namespace.name)).await
}

async fn give(namespace: &Namespace, name: &str, data: Value) -> Result<()> {
    let secrets = namespace.api::<Secret>();
    secrets.delete(name, &DeleteParams::default()).await.ok();
    let secret = json!({"metadata": {"name": name}, "stringData": data});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    Ok(())
}

async fn add_secrets(namespace: &Namespace, secrets: &mut Secrets) -> Result<()> {
    let all = namespace.api::<Secret>().list(&ListParams::default()).await?;
    all.into_iter().try_for_each(|secret| secrets.add_secret(&secret))
}

async fn store(vault: &Pipeline, topic: &str) -> Result<()> {
    let broker = vault.broker().await?;
    let password = vault.password("sensor").await?;
    let mut sensor = Client::connect(broker.port, "sensor", Some(("sensor", &password))).await?;
    ensure!(sensor.publish(topic, "21.5").await? == PubAckReason::Success);
    ensure!(sensor.publish(topic, "no number").await? == PubAckReason::Success);
    let (_forward, influx) = vault.database().await?;
    influx.at_least("edge", 1, SOON).await.map(drop)
}

async fn rotate(vault: &Pipeline) -> Result<()> {
    let before = vault.password("sensor").await?;
    let request = json!({"metadata": {"annotations": {"iotpipeline.io/rotate": "one"}}});
    let pipelines = vault.namespace.api::<IoTPipeline>();
    pipelines.patch(&vault.name, &PatchParams::default(), &Patch::Merge(request)).await?;
    eventually("the password is new", SOON, async || {
        let now = vault.password("sensor").await?;
        Ok(if now == before { Probe::NotYet("the old one".into()) } else { Probe::Found(()) })
    })
    .await?;
    vault.becomes_ready().await
}

/// Each given credential is wrong in turn; the wrong ones are secrets too.
async fn refusals(edge: &Pipeline, secrets: &mut Secrets) -> Result<()> {
    let namespace = &edge.namespace;
    let wrong = [
        ("token", json!({"token": needle("wrong-token")}), "DatabaseReady"),
        ("grafana", json!({"username": "admin", "password": needle("wrong-dashboard")}), "DashboardReady"),
        ("login", json!({"username": "edge", "password": needle("wrong-login")}), "BrokerReady"),
    ];
    for (name, data, condition) in wrong {
        give(namespace, name, data).await?;
        add_secrets(namespace, secrets).await?;
        fails(edge, condition).await?;
    }
    Ok(())
}

/// A pipeline whose parts are at addresses that lead nowhere.
async fn lost(namespace: &Namespace, secrets: &mut Secrets) -> Result<()> {
    let login = json!({"username": "edge", "password": needle("lost"), "token": needle("lost-token")});
    give(namespace, "lost", login).await?;
    add_secrets(namespace, secrets).await?;
    let yaml = edge("nowhere").replace("name: edge}", "name: lost}");
    let yaml = yaml.replace("{name: login}", "{name: lost}").replace("{name: token,", "{name: lost,");
    let lost = Pipeline::apply(namespace, &yaml.replace("{name: grafana}", "{name: lost}")).await?;
    fails(&lost, "BrokerReady").await
}

async fn fails(pipeline: &Pipeline, condition: &str) -> Result<()> {
    eventually(format!("{condition} of {} is false", pipeline.name), SOON * 2, async || {
        let now = pipeline.get().await?;
        let mut conditions = now.status.iter().flat_map(|status| &status.conditions);
        let is_false = conditions.any(|found| found.type_ == condition && found.status == "False");
        Ok(if is_false { Probe::Found(()) } else { Probe::NotYet(summary(&now)) })
    })
    .await
}

async fn search(namespace: &Namespace, secrets: &mut Secrets) -> Result<()> {
    let operator = Namespace { client: namespace.client.clone(), name: OPERATOR.into() };
    for place in [namespace, &operator] {
        let logs = logs(place).await?;
        for part in
            ["broker", "database", "bridge", "dashboard", "backup"].iter().filter(|_| place.name != OPERATOR)
        {
            let is_there = |(place, log): &(String, String)| place.contains(part) && !log.is_empty();
            ensure!(logs.iter().any(is_there), "there is no log of a {part}");
        }
        let objects = objects(&place.client, &place.name).await?;
        for kind in ["ConfigMap", "Pod"] {
            ensure!(objects.iter().any(|(place, _)| place.starts_with(kind)), "{} has no {kind}", place.name);
        }
        for (what, text) in logs.into_iter().chain(objects) {
            secrets.search(&format!("{}: {what}", place.name), &text);
        }
    }
    let services = [
        (&operator, "iotpipeline-operator-metrics"),
        (namespace, "vault-bridge"),
        (namespace, "edge-bridge"),
        (namespace, "lost-bridge"),
    ];
    for (place, service) in services {
        let forward = Forward::to_service(place, service, "http", None).await?;
        let paths: &[&str] = if service.ends_with("-bridge") {
            &["metrics", "status", "readyz"]
        } else {
            &["metrics", "readyz"]
        };
        for path in paths {
            let answer = http::get(&format!("http://127.0.0.1:{}/{path}", forward.port)).await?;
            let text = answer.text().await?;
            ensure!(!text.is_empty(), "{service} says nothing at /{path}");
            secrets.search(&format!("{service}/{path}"), &text);
        }
    }
    Ok(())
}

/// A search that finds nothing anywhere would be one that can't find.
async fn what_is_planted_is_found(namespace: &Namespace, secrets: &mut Secrets) -> Result<()> {
    let secret = namespace.api::<Secret>().get("vault-bridge").await?;
    let token = secret.data.unwrap_or_default().remove("token").context("no token")?;
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "planted"}, "data": {"log": serde_json::to_string(&token)?},
    }))?;
    namespace.api().create(&PostParams::default(), &map).await?;
    search(namespace, secrets).await?;
    let (found, _) = secrets.found();
    ensure!(found.len() == 1 && found.iter().all(|found| found.contains("ConfigMap planted")), "{found:#?}");
    Ok(())
}
