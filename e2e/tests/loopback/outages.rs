//! The database and the broker killed, and back after a while.

use std::time::Duration;

use anyhow::ensure;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::containers::admits_clients;
use iotpipeline_e2e::publisher::acknowledged;
use tokio::sync::watch;

use crate::{NUMBERS, SOON, with_chain};

#[tokio::test]
async fn messages_published_while_the_database_is_down_are_stored_when_it_is_back() {
    const MESSAGES: u64 = 8_000;
    with_chain(NUMBERS, async |chain| {
        let (progress, mut seen) = watch::channel(0);
        let load = chain.load(MESSAGES, 2_000);
        let outage = async {
            acknowledged(&mut seen, 1_000).await?;
            chain.database.kill().await?;
            // The bridge tells of it, and more messages are published than it may hold.
            eventually("the bridge says that the database is down", SOON, async || {
                let status = chain.bridge.status().await?;
                let told = !status.database.ready && status.broker.ready;
                Ok(if told { Probe::Found(()) } else { Probe::NotYet(format!("{status:?}")) })
            })
            .await?;
            ensure!(chain.bridge.http_status("readyz").await? == 503);
            ensure!(chain.bridge.http_status("livez").await? == 200);
            acknowledged(&mut seen, 6_000).await?;
            chain.database.start().await
        };
        let (account, ()) = tokio::try_join!(load.publish(&progress), outage)?;
        ensure!(account.connections == 1, "the publisher felt the outage: {account:?}");
        chain.influx.all_stored("numbers", "n", 0..MESSAGES, SOON).await?;
        eventually("the bridge is ready again", SOON, async || {
            let code = chain.bridge.http_status("readyz").await?;
            Ok(if code == 200 { Probe::Found(()) } else { Probe::NotYet(code.to_string()) })
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn a_killed_broker_loses_nothing_that_it_acknowledged_before_its_last_moment() {
    const MESSAGES: u64 = 8_000;
    with_chain(NUMBERS, async |chain| {
        let (progress, mut seen) = watch::channel(0);
        let load = chain.load(MESSAGES, 2_000);
        let kills = async {
            for count in [2_000, 5_000] {
                acknowledged(&mut seen, count).await?;
                chain.broker.kill().await?;
                chain.broker.start().await?;
                admits_clients(&chain.broker).await?;
            }
            Ok(())
        };
        let (account, ()) = tokio::try_join!(load.publish(&progress), kills)?;
        ensure!(account.connections > 2, "the kills went unnoticed: {account:?}");
        ensure!(account.without_subscriber == 0, "the session was lost: {account:?}");
        let deadline = Duration::from_secs(90);
        chain.influx.all_stored("numbers", "n", account.settled(0..MESSAGES), deadline).await.map(drop)
    })
    .await;
}
