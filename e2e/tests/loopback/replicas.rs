//! Several bridges that share the load: one becomes three, and three become one, while messages flow
//! and wait. Messages have no time of their own, so nothing hides what is stored twice.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use iotpipeline_e2e::bridge_process::Bridge;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::containers::{Container, broker, database};
use iotpipeline_e2e::publisher::{Load, acknowledged};
use tokio::sync::watch;

use crate::SOON;

const NUMBERS: &str =
    "- {name: numbers, topic: load/numbers, payload: {json: {fields: [{path: n, type: integer}]}}}";
const MESSAGES: u64 = 40_000;

#[tokio::test]
async fn one_bridge_becomes_three_and_three_become_one_and_each_message_is_stored_once() {
    if let Err(error) = come_and_go().await {
        panic!("{error:#}");
    }
}

async fn come_and_go() -> Result<()> {
    let (broker, (database, influx)) = tokio::try_join!(broker(), database())?;
    let mut bridges = Vec::new();
    for number in 0..3 {
        bridges.push(member(&broker, &database, number)?);
    }
    bridges[0].restart().await?;
    let (progress, mut seen) = watch::channel(0);
    let load = Load {
        port: broker.port,
        login: None,
        topic: "load/numbers",
        numbers: 0..MESSAGES,
        payload: |number| format!(r#"{{"n":{number}}}"#),
        rate: 2_500,
        deadline: SOON * 2,
    };
    let change = change(&mut bridges, &database, &mut seen);
    let (account, ()) = tokio::try_join!(load.publish(&progress), change)?;
    ensure!(account.without_subscriber == 0, "nobody was subscribed: {account:?}");
    let stored = influx.all_stored("numbers", "n", 0..MESSAGES, SOON).await?;
    let distinct: BTreeSet<_> = stored.iter().collect();
    ensure!(stored.len() == distinct.len(), "{} are stored twice", stored.len() - distinct.len());
    for bridge in &mut bridges {
        let received = counter(&bridge.metrics().await?, "messages_received_total");
        ensure!(received > 1_000, "the load was not shared: {received}");
        bridge.terminate().await?;
    }
    Ok(())
}

async fn change(bridges: &mut [Bridge], database: &Container, seen: &mut watch::Receiver<u64>) -> Result<()> {
    acknowledged(seen, 2_000).await?;
    for (number, bridge) in bridges.iter_mut().enumerate() {
        bridge.share(number as u32, 3)?;
        if number > 0 {
            bridge.restart().await?;
        }
    }
    acknowledged(seen, 12_000).await?;
    // More waits at the broker for each than it may have in flight.
    database.freeze().await?;
    acknowledged(seen, 30_000).await?;
    for (number, bridge) in bridges.iter_mut().enumerate() {
        bridge.share(number as u32, 1)?;
    }
    acknowledged(seen, 32_000).await?;
    ensure!(!bridges[1].status().await?.left, "it left while the database was away");
    database.thaw().await?;
    for bridge in &bridges[1..] {
        has_left(bridge).await?;
    }
    Ok(())
}

fn member(broker: &Container, database: &Container, number: u32) -> Result<Bridge> {
    let mut bridge = Bridge::between(broker.port, database.port, "lab-bridge", NUMBERS)?;
    bridge.share(number, 1)?;
    Ok(bridge)
}

async fn has_left(bridge: &Bridge) -> Result<()> {
    eventually("the bridge has left", SOON, async || {
        let status = bridge.status().await?;
        Ok(if status.left { Probe::Found(()) } else { Probe::NotYet(format!("{status:?}")) })
    })
    .await
}

/// A counter without labels, by the end of its name.
fn counter(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find(|line| line.contains(&format!("{name} ")) && !line.starts_with('#'));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default()
}
