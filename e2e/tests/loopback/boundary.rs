//! Where exactly-once ends: it needs the broker's session and the bridge's volume. What happens without
//! one of them is shown here, and is no part of what the soak demands.

use anyhow::{Result, ensure};
use iotpipeline_e2e::conditions::eventually_true;
use iotpipeline_e2e::containers::Speaks;
use iotpipeline_e2e::fault_proxy::Flow;
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::soak::audit::Verdict;
use iotpipeline_e2e::soak::load::{Account, Load};
use iotpipeline_e2e::soak::rig::{Parts, Rig};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::sync::watch;

use crate::SOON;

/// Fits into the bridge's receive maximum.
const MESSAGES: u64 = 300;

/// Publishes so many messages more. Each call has numbers of its own.
async fn publish(rig: &Rig<'_>, account: &mut Account, count: u64) -> Result<()> {
    let progress = watch::Sender::new(0);
    let first = (account.acknowledged() + account.unknown.len()) as u64;
    let more = Load { first, ..rig.site.load(0, count, &progress) }.publish().await?;
    *account = std::mem::take(account).plus(more);
    Ok(())
}

/// A bridge that has stored messages and doesn't know it, since no answer comes back, is killed. What is
/// stored in the end?
async fn killed_between_storing_and_acknowledging(name: &str, volume_is_lost: bool) -> Result<Verdict> {
    let parts = Parts::start(Speaks::Mqtt5).await?;
    let mut rig = Rig::start(&parts, name, 1).await?;
    let mut account = Account::default();
    rig.to_database.carry(Flow::Passes, Flow::Stops);
    publish(&rig, &mut account, MESSAGES).await?;
    eventually_true("something is stored", SOON, async || Ok(rig.site.audit(&account).await?.stored > 0))
        .await?;
    rig.bridge.kill().await?;
    if volume_is_lost {
        rig.bridge.lose_volume()?;
    }
    rig.heal().await;
    rig.bridge.restart().await?;
    rig.site.settle(1).await?;
    let verdict = rig.site.audit(&account).await?;
    println!("{name}: {verdict}");
    Ok(verdict)
}

#[tokio::test]
async fn a_bridge_with_its_volume_stores_nothing_twice_that_it_had_not_acknowledged() -> Result<()> {
    let verdict = killed_between_storing_and_acknowledging("volume-kept", false).await?;
    ensure!(verdict.is_good(), "{verdict}");
    Ok(())
}

#[tokio::test]
async fn a_bridge_without_its_volume_stores_twice_what_it_had_not_acknowledged_and_loses_nothing()
-> Result<()> {
    let verdict = killed_between_storing_and_acknowledging("volume-lost", true).await?;
    ensure!(verdict.missing == 0 && verdict.merged == 0, "{verdict}");
    ensure!(verdict.duplicated > 0, "no boundary, or no redelivery: {verdict}");
    Ok(())
}

/// Ends the bridge's session, as a broker does that has lost its volume.
async fn lose_session(parts: &Parts, rig: &Rig<'_>) -> Result<()> {
    Client::connect(parts.broker.port, &rig.site.client_id(), None).await.map(drop)
}

/// Waits until the bridge has subscribed anew.
async fn is_subscribed(parts: &Parts, rig: &Rig<'_>) -> Result<()> {
    let mut client = Client::connect(parts.broker.port, "e2e-subscribed", None).await?;
    eventually_true("the bridge has subscribed anew", SOON, async || {
        Ok(client.publish(&rig.site.marker_topic(), "0").await? == PubAckReason::Success)
    })
    .await
}

#[tokio::test]
async fn a_session_that_is_lost_takes_what_only_the_broker_had_and_nothing_else() -> Result<()> {
    let parts = Parts::start(Speaks::Mqtt5).await?;
    let mut rig = Rig::start(&parts, "session-lost", 1).await?;
    let mut account = Account::default();
    publish(&rig, &mut account, MESSAGES).await?;
    rig.site.settle(1).await?;

    // What the bridge has received it stores, though nobody will deliver it again.
    rig.to_database.carry(Flow::Passes, Flow::Stops);
    publish(&rig, &mut account, MESSAGES).await?;
    eventually_true("the bridge has received all", SOON, async || {
        let metrics = rig.bridge.metrics().await?;
        let received =
            metrics.lines().find_map(|line| line.split_once("messages_received_total ")?.1.parse().ok());
        Ok(received.is_some_and(|received: u64| received > 2 * MESSAGES))
    })
    .await?;
    lose_session(&parts, &rig).await?;
    rig.heal().await;
    is_subscribed(&parts, &rig).await?;
    // Packet ids begin anew, with content that was stored before: none of it is taken for a replay.
    publish(&rig, &mut account, MESSAGES).await?;
    rig.site.settle(2).await?;
    let verdict = rig.site.audit(&account).await?;
    println!("the session lost while the bridge was there: {verdict}");
    ensure!(verdict.is_good(), "{verdict}");

    rig.bridge.kill().await?;
    publish(&rig, &mut account, MESSAGES).await?;
    lose_session(&parts, &rig).await?;
    rig.bridge.restart().await?;
    is_subscribed(&parts, &rig).await?;
    rig.site.settle(3).await?;
    let verdict = rig.site.audit(&account).await?;
    println!("the session lost while the bridge was away: {verdict}");
    ensure!(verdict.missing == MESSAGES, "who kept them? {verdict}");
    ensure!(verdict.duplicated == 0 && verdict.merged == 0, "{verdict}");
    Ok(())
}
