//! The configuration file changed while the bridge runs.

use anyhow::{Context, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::influx::text;
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::process;
use iotpipeline_e2e::publisher::acknowledged;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::sync::watch;

use crate::{NUMBERS, SOON, with_chain};

const MESSAGES: u64 = 8_000;
const OLD: &str = "- {name: old, topic: 'old/{room}', payload: {float: {}}}\n";
const NEW: &str = "- {name: new, topic: 'new/{room}', payload: {float: {}}}\n";

#[tokio::test]
async fn a_changed_configuration_swaps_routes_without_a_restart_and_without_a_loss() {
    with_chain(&format!("{NUMBERS}{OLD}"), async |chain| {
        let process = chain.bridge.process_id();
        let hash = chain.bridge.status().await?.config_hash;
        let (progress, mut seen) = watch::channel(0);
        let load = chain.load(MESSAGES, 2_000);
        let port = chain.broker.port;
        let bridge = &mut chain.bridge;
        let swap = async {
            acknowledged(&mut seen, 2_000).await?;
            let mut client = Client::connect(port, "rooms", None).await?;
            ensure!(client.publish("old/a", "1").await? == PubAckReason::Success);
            ensure!(client.publish("new/a", "1").await? == PubAckReason::NoMatchingSubscribers);
            bridge.set_routes(&format!("{NUMBERS}{NEW}"))?;
            eventually("the new configuration is in effect", SOON, async || {
                let status = bridge.status().await?;
                let taken = status.config_hash != hash && status.ready();
                Ok(if taken { Probe::Found(()) } else { Probe::NotYet(format!("{status:?}")) })
            })
            .await?;
            ensure!(client.publish("new/b", "2").await? == PubAckReason::Success);
            ensure!(client.publish("old/b", "2").await? == PubAckReason::NoMatchingSubscribers);
            Ok(())
        };
        let (account, ()) = tokio::try_join!(load.publish(&progress), swap)?;
        ensure!(
            account.without_subscriber == 0,
            "the bridge unsubscribed from an unchanged route: {account:?}"
        );
        ensure!(chain.bridge.process_id() == process, "the bridge was restarted");
        chain.influx.all_stored("numbers", "n", 0..MESSAGES, SOON).await?;
        for (measurement, room) in [("old", "a"), ("new", "b")] {
            let records = chain.influx.at_least(measurement, 1, SOON).await?;
            ensure!(records.len() == 1 && text(&records[0], "room") == room, "{measurement}: {records:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_a_route_that_has_gone_is_stored_by_it_and_not_twice_by_one_that_overlaps() {
    const ONE: &str = "- {name: one, topic: 'over/{x}', payload: {integer: {}}}\n";
    const ALL: &str = "- {name: all, topic: 'over/#', payload: {integer: {}}}\n";
    with_chain(&format!("{ONE}{ALL}"), async |chain| {
        let hash = chain.bridge.status().await?.config_hash;
        let mut client = Client::connect(chain.broker.port, "over", None).await?;
        // The broker sends a copy for each of the two filters; the bridge finds them behind the change.
        let process = chain.bridge.process_id().context("the bridge runs")?.to_string();
        process::run("kill", &["-STOP", &process]).await?;
        for number in 0..20 {
            ensure!(client.publish("over/a", number.to_string()).await? == PubAckReason::Success);
        }
        chain.bridge.set_routes(ALL)?;
        process::run("kill", &["-CONT", &process]).await?;
        eventually("the new configuration is in effect", SOON, async || {
            let status = chain.bridge.status().await?;
            let taken = status.config_hash != hash && status.ready();
            Ok(if taken { Probe::Found(()) } else { Probe::NotYet(format!("{status:?}")) })
        })
        .await?;
        for measurement in ["all", "one"] {
            let mut stored = chain.influx.integers(measurement, "value").await?;
            stored.sort_unstable();
            ensure!(stored == (0..20).collect::<Vec<_>>(), "{measurement}: {stored:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_configuration_that_can_not_be_used_is_reported_and_the_one_before_stays() {
    with_chain(OLD, async |chain| {
        let hash = chain.bridge.status().await?.config_hash;
        chain.bridge.spoil_config("routes: [{name: r, topic: 'a/#/b'")?;
        eventually("the fault is reported", SOON, async || {
            let status = chain.bridge.status().await?;
            Ok(match &status.config_error {
                Some(_) if status.config_hash == hash => Probe::Found(()),
                _ => Probe::NotYet(format!("{status:?}")),
            })
        })
        .await?;
        let mut client = Client::connect(chain.broker.port, "rooms", None).await?;
        ensure!(client.publish("old/a", "1").await? == PubAckReason::Success);
        chain.influx.at_least("old", 1, SOON).await?;

        chain.bridge.set_routes(NEW)?;
        eventually("the repaired file is taken", SOON, async || {
            let status = chain.bridge.status().await?;
            let taken = status.config_error.is_none() && status.config_hash != hash;
            Ok(if taken { Probe::Found(()) } else { Probe::NotYet(format!("{status:?}")) })
        })
        .await
    })
    .await;
}
