//! TLS on every connection, users that come with a certificate, and certificates that change.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually, eventually_true};
use iotpipeline_e2e::grafana::Grafana;
use iotpipeline_e2e::influx::text;
use iotpipeline_e2e::mqtt::{Client, try_connect};
use iotpipeline_e2e::namespaces::{Namespace, with_namespace};
use iotpipeline_e2e::pipeline::Pipeline;
use iotpipeline_e2e::publisher::{Load, acknowledged};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{DeleteParams, LogParams, Patch, PatchParams, PostParams};
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason};
use serde_json::json;
use tokio::sync::watch;

use crate::{NUMBERS, SOON, numbered};

const WORKS: &str = "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {name: works}
spec:
  broker:
    users:
    - {name: gateway, certificate: {}, publish: [hall/#]}
    - {name: sensor, publish: [yard/#]}
  database: {tls: {}}
  dashboard: {tls: {}}
  routes:
  - {name: hall, topic: 'hall/{machine}', payload: {float: {}}}
";

#[tokio::test]
async fn every_connection_is_tls_and_a_certificate_is_a_user() {
    with_namespace("tls", async |namespace| {
        let works = Pipeline::ready(&namespace, WORKS).await?;
        only_tls_is_offered(&works).await?;
        a_certificate_is_its_user_and_no_other(&works).await?;
        let (_forward, influx) = works.database().await?;
        let stored = influx.at_least("hall", 1, SOON).await?;
        ensure!(text(&stored[0], "machine") == "press", "{stored:?}");
        the_dashboard_reads_the_database(&works).await?;
        probes_leave_no_trace(&namespace).await
    })
    .await;
}

async fn only_tls_is_offered(works: &Pipeline) -> Result<()> {
    for (part, expected) in
        [("broker", &["mqtts", "mqtts-cert"] as &[&str]), ("database", &["https"]), ("dashboard", &["https"])]
    {
        let service = works.namespace.api::<Service>().get(&works.part(part)).await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let names: Vec<&str> = ports.iter().filter_map(|port| port.name.as_deref()).collect();
        ensure!(names == expected, "{part} offers {names:?}");
    }
    let status = works.get().await?.status.and_then(|status| status.endpoints).context("no endpoints")?;
    ensure!(status.broker == Some(format!("mqtts://{}:8883", works.host("broker"))), "{status:?}");
    ensure!(status.database == Some(format!("https://{}:8086", works.host("database"))), "{status:?}");
    ensure!(status.dashboard == Some(format!("https://{}:3000", works.host("dashboard"))), "{status:?}");
    Ok(())
}

async fn a_certificate_is_its_user_and_no_other(works: &Pipeline) -> Result<()> {
    let door = works.broker_as("gateway").await?;
    // Whatever name a client gives, it is its certificate's.
    let password = works.password("sensor").await?;
    for login in [None, Some(("sensor", password.as_str()))] {
        let mut gateway = Client::connect(door.port, "gateway", login).await?;
        ensure!(gateway.publish("hall/press", "7.5").await? == PubAckReason::Success);
        ensure!(gateway.publish("yard/press", "7.5").await? == PubAckReason::NotAuthorized);
    }
    // The broker's own is signed by the same authority, and none of a client.
    let server = works.part("broker");
    let (certificate, key) =
        (works.secret(&server, "tls.crt").await?, works.secret(&server, "tls.key").await?);
    let stranger = works.broker_for(&certificate, &key).await?;
    ensure!(try_connect(stranger.port, None).await.is_err(), "a server's certificate was admitted");
    let by_password = works.broker().await?;
    let refused = try_connect(by_password.port, Some(("gateway", ""))).await?;
    ensure!(refused != ConnectReturnCode::Success, "a user with a certificate came without");
    let sensor = try_connect(by_password.port, Some(("sensor", &password))).await?;
    ensure!(sensor == ConnectReturnCode::Success, "{sensor:?}");
    Ok(())
}

async fn the_dashboard_reads_the_database(works: &Pipeline) -> Result<()> {
    let forward = works.dashboard().await?;
    let grafana = Grafana::new(forward.port, "admin", &works.secret("works-dashboard", "password").await?);
    let health = grafana.get("/datasources/uid/influxdb/health").await?;
    ensure!(health["status"] == "OK", "{health}");
    Ok(())
}

async fn probes_leave_no_trace(namespace: &Namespace) -> Result<()> {
    let parameters = LogParams { container: Some("mosquitto".into()), ..LogParams::default() };
    let log = namespace.api::<Pod>().logs("works-broker-0", &parameters).await?;
    let errors = log.lines().filter(|line| line.contains("SSL Error") && line.contains("eof")).count();
    ensure!(errors == 0, "{errors} errors of clients that said nothing");
    Ok(())
}

const MESSAGES: u64 = 6_000;

#[tokio::test]
async fn an_authority_that_is_lost_is_replaced_while_messages_flow_and_nothing_restarts() {
    with_namespace("authority", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        let before = pipeline.incarnations().await?;
        let known = pipeline.secret("numbers-ca", "ca.crt").await?;
        let broker = pipeline.broker().await?;
        let password = pipeline.password("sensor").await?;
        let (progress, mut seen) = watch::channel(0);
        let load = Load {
            port: broker.port,
            login: Some(("sensor", &password)),
            topic: "load/numbers",
            numbers: 0..MESSAGES,
            payload: numbered,
            rate: 500,
            deadline: Duration::from_secs(120),
        };
        let loss = async {
            acknowledged(&mut seen, 1_000).await?;
            namespace.api::<Secret>().delete("numbers-ca", &DeleteParams::default()).await?;
            let new = eventually("there is another authority", SOON, async || {
                let now = pipeline.secret("numbers-ca", "ca.crt").await?;
                Ok(if now == known { Probe::NotYet("the old one".into()) } else { Probe::Found(now) })
            })
            .await?;
            // The pass that made it goes on to what it has signed.
            eventually_true("the users are told of it", SOON, async || {
                Ok(pipeline.secret("numbers-broker-sensor", "ca.crt").await? == new)
            })
            .await?;
            // This client trusts the new one only, so the broker shows what that has signed.
            let door = pipeline.broker().await?;
            eventually_true("the broker shows its new certificate", SOON, async || {
                let answer = try_connect(door.port, Some(("sensor", &password))).await;
                Ok(answer.is_ok_and(|answer| answer == ConnectReturnCode::Success))
            })
            .await
        };
        let (account, ()) = tokio::try_join!(load.publish(&progress), loss)?;
        ensure!(account.connections == 1, "a connection was lost: {account:?}");
        let (_forward, influx) = pipeline.database().await?;
        let stored = influx.all_stored("numbers", "n", 0..MESSAGES, SOON).await?;
        ensure!(stored.len() as u64 == MESSAGES, "{} are stored", stored.len());
        ensure!(pipeline.incarnations().await? == before, "a pod was restarted");
        pipeline.becomes_ready().await?;

        // Only now must clients know of whose certificates the broker asks them.
        let gateway = "    users:\n    - {name: gateway, certificate: {}, publish: [load/#]}\n";
        let pipeline = Pipeline::apply(&namespace, &NUMBERS.replace("    users:\n", gateway)).await?;
        eventually_true("the broker is another one", SOON, async || {
            let now = pipeline.incarnations().await?;
            let others = now.iter().filter(|pod| !before.contains(pod)).map(|(name, ..)| name.as_str());
            Ok(others.eq(["numbers-broker-0"]))
        })
        .await?;
        pipeline.becomes_ready().await?;
        let door = pipeline.broker_as("gateway").await?;
        let answer = try_connect(door.port, None).await?;
        ensure!(answer == ConnectReturnCode::Success, "the gateway is refused: {answer:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_given_certificate_is_shown_and_one_that_is_not_good_changes_nothing() {
    with_namespace("given", async |namespace| {
        // A certificate that the operator makes is as good as any to be given.
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        let mut given = BTreeMap::new();
        for key in ["tls.crt", "tls.key", "ca.crt"] {
            given.insert(key, pipeline.secret("numbers-broker", key).await?);
        }
        write_secret(&namespace, "mine", &given).await?;
        let yaml = NUMBERS.replace("  broker:\n", "  broker:\n    tls: {secretRef: {name: mine}}\n");
        Pipeline::ready(&namespace, &yaml).await?;

        let key = given["tls.key"].replacen("-----BEGIN", "-----NO", 1);
        write_secret(&namespace, "mine", &BTreeMap::from([("tls.key", key)])).await?;
        eventually("the pipeline says what is wrong", SOON, async || {
            let status = pipeline.get().await?.status.unwrap_or_default();
            let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled");
            let is_told = stalled.is_some_and(|stalled| {
                stalled.reason == "CertificateInvalid"
                    && stalled.message.contains("tls.key holds no private key")
            });
            Ok(if is_told { Probe::Found(()) } else { Probe::NotYet(format!("{:?}", status.conditions)) })
        })
        .await?;
        // What the user gives is taken without the line break at its end.
        let kept = pipeline.secret("numbers-broker", "tls.key").await?;
        ensure!(kept.trim_end() == given["tls.key"].trim_end(), "the broker was given the bad key");
        let broker = pipeline.broker().await?;
        let password = pipeline.password("sensor").await?;
        let mut sensor = Client::connect(broker.port, "sensor", Some(("sensor", &password))).await?;
        ensure!(sensor.publish("load/numbers", numbered(1)).await? == PubAckReason::Success);
        let (_forward, influx) = pipeline.database().await?;
        influx.all_stored("numbers", "n", [1], SOON).await?;
        Ok(())
    })
    .await;
}

async fn write_secret(namespace: &Namespace, name: &str, texts: &BTreeMap<&str, String>) -> Result<()> {
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": texts});
    let secrets = namespace.api::<Secret>();
    match secrets.get_opt(name).await? {
        None => secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?,
        Some(_) => secrets.patch(name, &PatchParams::default(), &Patch::Merge(secret)).await?,
    };
    Ok(())
}

#[tokio::test]
async fn an_issuer_where_there_is_no_cert_manager_is_refused_with_what_to_install() {
    with_namespace("issuer", async |namespace| {
        let yaml = WORKS.replace("  broker:\n", "  broker:\n    tls: {issuerRef: {name: plant}}\n");
        let pipeline = Pipeline::apply(&namespace, &yaml).await?;
        eventually("the pipeline says what is missing", SOON, async || {
            let status = pipeline.get().await?.status.unwrap_or_default();
            let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled");
            let is_told = stalled.is_some_and(|stalled| {
                stalled.reason == "CertManagerNotFound" && stalled.message.contains("install it")
            });
            Ok(if is_told { Probe::Found(()) } else { Probe::NotYet(format!("{:?}", status.conditions)) })
        })
        .await
    })
    .await;
}
