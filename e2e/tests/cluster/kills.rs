//! Every part killed by SIGKILL in turn, while messages flow. For what a dying mosquitto has
//! acknowledged in its last pass see `publisher`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use iotpipeline_e2e::faults::kill_container;
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::pipeline::Pipeline;
use iotpipeline_e2e::publisher::{Account, Load, acknowledged};
use tokio::sync::watch;

use crate::{NUMBERS, numbered};

const MESSAGES: u64 = 20_000;

/// When so many messages are acknowledged, this container of this pod is killed.
const KILLS: [(u64, &str, &str); 3] = [
    (2_000, "numbers-bridge-0", "bridge"),
    (7_000, "numbers-database-0", "influxdb"),
    (12_000, "numbers-broker-0", "mosquitto"),
];

#[tokio::test]
async fn no_acknowledged_message_is_lost_when_bridge_database_and_broker_are_killed_in_turn() {
    with_namespace("kills", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        let broker = pipeline.broker().await?;
        let password = pipeline.password("sensor").await?;
        let (progress, mut seen) = watch::channel(0);
        let load = Load {
            port: broker.port,
            login: Some(("sensor", &password)),
            topic: "load/numbers",
            numbers: 0..MESSAGES,
            payload: numbered,
            rate: 1_000,
            deadline: Duration::from_secs(180),
        };
        // Nobody waits for the one to come back before the next is killed: messages must flow meanwhile.
        let kills = async {
            let mut killed = Vec::new();
            for (count, pod, container) in KILLS {
                acknowledged(&mut seen, count).await?;
                killed.push(kill_container(&namespace, pod, container).await?);
                println!("{container} killed, {} acknowledged", *seen.borrow());
            }
            for container in killed {
                container.comes_back(&namespace).await?;
            }
            Ok(())
        };
        let (account, ()) = tokio::try_join!(load.publish(&progress), kills)?;
        ensure!(account.connections > 1, "the broker's death went unnoticed: {account:?}");
        ensure!(account.without_subscriber == 0, "the bridge's session was lost: {account:?}");

        let (_forward, influx) = pipeline.database().await?;
        let settled = account.settled(0..MESSAGES);
        let stored = influx.all_stored("numbers", "n", settled, Duration::from_secs(120)).await?;
        report(&account, &stored);
        pipeline.becomes_ready().await
    })
    .await;
}

/// Says what became of the messages that the broker had acknowledged as it died.
fn report(account: &Account, stored: &[u64]) {
    let stored: BTreeSet<&u64> = stored.iter().collect();
    let lost = account.unsettled.iter().filter(|number| !stored.contains(number)).count();
    println!(
        "{} acknowledged over {} connections, {} of them as the broker died: {lost} of those are lost",
        account.acknowledged,
        account.connections,
        account.unsettled.len()
    );
}
