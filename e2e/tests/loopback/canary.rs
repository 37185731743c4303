//! The bridge's own messages: they tell whether messages cross, and are nobody's data.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::bridge_status::BridgeStatus;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::mqtt::Client;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::time::Instant;

use crate::{Chain, SOON, with_chain};

/// Takes every topic, as text.
const ALL: &str = "- {name: all, topic: '#', payload: {string: {}}}\n";

/// What has failed is to be known after this.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

async fn status(chain: &Chain, what: &str, is_it: impl Fn(&BridgeStatus) -> bool) -> Result<BridgeStatus> {
    eventually(what, SOON, async || {
        let status = chain.bridge.status().await?;
        Ok(if is_it(&status) { Probe::Found(status) } else { Probe::NotYet(format!("{status:?}")) })
    })
    .await
}

fn crosses(status: &BridgeStatus) -> bool {
    status.ready() && status.crossing.as_ref().is_some_and(|side| side.reason == "Crossed")
}

#[tokio::test]
async fn a_message_of_the_bridge_s_own_crosses_and_is_stored_by_no_route() {
    with_chain(ALL, async |chain| {
        for share in [false, true] {
            chain.bridge.send_canaries()?;
            if share {
                chain.bridge.share(0, 1)?;
                chain.bridge.restart().await?;
            }
            status(chain, "a canary crosses", crosses).await?;
            let before = chain.influx.points("iotpipeline_canary").await?.len();
            chain.influx.at_least("iotpipeline_canary", before + 2, SOON).await?;
            let stored = chain.influx.points("all").await?;
            ensure!(stored.is_empty(), "sharing: {share}: {stored:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_does_not_cross_is_known_without_traffic_and_so_is_that_it_does_again() {
    with_chain(ALL, async |chain| {
        chain.bridge.send_canaries()?;
        status(chain, "a canary crosses", crosses).await?;
        for (part, frozen) in [("database", &chain.database), ("broker", &chain.broker)] {
            frozen.freeze().await?;
            let since = Instant::now();
            let seen = status(chain, "that nothing crosses", |status| !status.ready()).await?;
            let took = since.elapsed();
            frozen.thaw().await?;
            ensure!(took < KNOWN_WITHIN, "{part}: known after {took:?}: {seen:?}");
            status(chain, "a canary crosses again", crosses).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn refused_messages_are_told_of_and_others_go_on_crossing() {
    with_chain("- {name: number, topic: 'n', payload: {float: {}}}\n", async |chain| {
        chain.bridge.send_canaries()?;
        status(chain, "a canary crosses", crosses).await?;
        let mut client = Client::connect(chain.broker.port, "bad", None).await?;
        ensure!(client.publish("n", "not a number").await? == PubAckReason::Success);
        let told = status(chain, "a dead letter is told of", |status| {
            status.crossing.as_ref().is_some_and(|side| side.reason == "DeadLetters")
        })
        .await?;
        ensure!(told.ready(), "{told:?}");
        // The refused one is the last before the canaries, and they are of another table.
        let before = chain.influx.points("iotpipeline_canary").await?.len();
        chain.influx.at_least("iotpipeline_canary", before + 2, SOON).await?;
        ensure!(client.publish("n", "1").await? == PubAckReason::Success);
        chain.influx.at_least("number", 1, SOON).await?;
        Ok(())
    })
    .await;
}
