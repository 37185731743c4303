//! Passwords and tokens that are made anew while messages flow.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::conditions::{Probe, eventually, eventually_true};
use iotpipeline_e2e::grafana::Grafana;
use iotpipeline_e2e::mqtt::try_connect;
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::pipeline::Pipeline;
use iotpipeline_e2e::publisher::{Load, acknowledged};
use kube::api::{Patch, PatchParams};
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use serde_json::json;
use tokio::sync::watch;

use crate::{NUMBERS, SOON, numbered};

const MESSAGES: u64 = 20_000;

/// What the operator makes: Secret and key.
const MADE: [(&str, &str); 5] = [
    ("numbers-broker-sensor", "password"),
    ("numbers-broker-iotpipeline-bridge", "password"),
    ("numbers-bridge", "token"),
    ("numbers-dashboard", "token"),
    ("numbers-dashboard", "password"),
];

async fn made(pipeline: &Pipeline) -> Result<Vec<String>> {
    let mut made = Vec::new();
    for (secret, key) in MADE {
        made.push(pipeline.secret(secret, key).await?);
    }
    Ok(made)
}

#[tokio::test]
async fn credentials_are_made_anew_without_a_loss_and_without_a_gap_in_the_dashboard() {
    with_namespace("rotation", async |namespace| {
        let yaml = NUMBERS
            .replace(
                "    users:\n",
                "    users:\n    - {name: gateway, certificate: {}, publish: [load/#]}\n",
            )
            .replace("  routes:\n", "  dashboard: {}\n  routes:\n");
        let pipeline = Pipeline::ready(&namespace, &yaml).await?;
        let before = made(&pipeline).await?;
        let keeps_its_pod = async || {
            let mut pods = pipeline.incarnations().await?;
            pods.retain(|(name, ..)| !name.contains("dashboard"));
            anyhow::Ok(pods)
        };
        let pods = keeps_its_pod().await?;
        let door = pipeline.broker_as("gateway").await?;
        let (progress, mut seen) = watch::channel(0);
        let load = Load {
            port: door.port,
            login: None,
            topic: "load/numbers",
            numbers: 0..MESSAGES,
            payload: numbered,
            rate: 500,
            deadline: Duration::from_secs(180),
        };
        let (done, stop) = watch::channel(false);
        let rotation = async {
            acknowledged(&mut seen, 1_000).await?;
            let request = json!({"metadata": {"annotations": {"iotpipeline.io/rotate": "one"}}});
            let pipelines = namespace.api::<IoTPipeline>();
            pipelines.patch(&pipeline.name, &PatchParams::default(), &Patch::Merge(request)).await?;
            let after = eventually("all are new", SOON, async || {
                let now = made(&pipeline).await?;
                let old = MADE.iter().zip(before.iter().zip(&now)).filter(|(_, (was, is))| was == is);
                let old: Vec<_> = old.map(|(name, _)| name).collect();
                Ok(if old.is_empty() { Probe::Found(now) } else { Probe::NotYet(format!("{old:?} are old")) })
            })
            .await?;
            acknowledged(&mut seen, MESSAGES).await?;
            pipeline.becomes_ready().await?;
            done.send_replace(true);
            ensure!(made(&pipeline).await? == after, "they were made anew twice");
            Ok(after)
        };
        let (account, after, gap) =
            tokio::try_join!(load.publish(&progress), rotation, longest_gap(&pipeline, &before[4], stop))?;
        println!("{} connections, the dashboard's longest gap was {gap:?}", account.connections);
        ensure!(account.connections == 1, "a user with a certificate was disconnected: {account:?}");
        ensure!(account.without_subscriber == 0, "the bridge's session was lost: {account:?}");
        ensure!(gap < Duration::from_secs(3), "the dashboard was away for {gap:?}");

        ensure!(keeps_its_pod().await? == pods, "more than the dashboard was restarted");
        let (_forward, influx) = pipeline.database().await?;
        let stored = influx.all_stored("numbers", "n", 0..MESSAGES, SOON).await?;
        ensure!(stored.len() as u64 == MESSAGES, "{} are stored", stored.len());
        let broker = pipeline.broker().await?;
        let answer = try_connect(broker.port, Some(("sensor", &before[0]))).await?;
        ensure!(answer != ConnectReturnCode::Success, "the old password still opens");
        eventually_true("the new password opens", SOON, async || {
            Ok(try_connect(broker.port, Some(("sensor", &after[0]))).await? == ConnectReturnCode::Success)
        })
        .await
    })
    .await;
}

/// For how long, at most, the dashboard could not read the database. It is asked as an administrator, whose
/// password is one or the other meanwhile.
async fn longest_gap(pipeline: &Pipeline, old: &str, mut stop: watch::Receiver<bool>) -> Result<Duration> {
    let forward = pipeline.dashboard().await?;
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while !*stop.borrow_and_update() {
        let new = pipeline.secret("numbers-dashboard", "password").await?;
        for password in [old, &new] {
            let grafana = Grafana::new(forward.port, "admin", password);
            let asked = grafana.get("/datasources/uid/influxdb/health");
            let answer = tokio::time::timeout(Duration::from_secs(2), asked).await;
            if answer.is_ok_and(|answer| answer.is_ok_and(|health| health["status"] == "OK")) {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                break;
            }
        }
        tokio::time::timeout(Duration::from_millis(200), stop.changed()).await.ok();
    }
    Ok(longest.max(last.elapsed()))
}
