//! The bridge asked to end while messages flow.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::bridge_process::CLIENT_ID;
use iotpipeline_e2e::mqtt::{Client, options};
use iotpipeline_e2e::publisher::acknowledged;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::watch;

use crate::{NUMBERS, SOON, with_chain};

const MESSAGES: u64 = 6_000;
const LAST: &str = "last";

#[tokio::test]
async fn on_sigterm_what_is_stored_is_acknowledged_and_what_is_not_stays_with_the_broker() {
    with_chain(NUMBERS, async |chain| {
        let (progress, mut seen) = watch::channel(0);
        let load = chain.load(MESSAGES, 3_000);
        let end = async {
            acknowledged(&mut seen, 2_000).await?;
            chain.bridge.terminate().await
        };
        let (_, status) = tokio::try_join!(load.publish(&progress), end)?;
        ensure!(status.success(), "the bridge ended with {status}");

        let stored: BTreeSet<u64> =
            chain.influx.integers("numbers", "n").await?.into_iter().map(i64::unsigned_abs).collect();
        let waiting = what_waits_at_the_broker(chain.broker.port).await?;
        ensure!(
            stored.len() as u64 + waiting.len() as u64 >= MESSAGES,
            "lost: {} + {}",
            stored.len(),
            waiting.len()
        );
        let both: Vec<&u64> = stored.intersection(&waiting).collect();
        ensure!(both.is_empty(), "stored, but not acknowledged to the broker: {both:?}");
        ensure!(stored.union(&waiting).copied().eq(0..MESSAGES), "some are neither stored nor waiting");
        Ok(())
    })
    .await;
}

/// Takes the bridge's session over, and returns what the broker had kept for it. The last message
/// published is the last that waits, since a broker keeps the order.
async fn what_waits_at_the_broker(port: u16) -> Result<BTreeSet<u64>> {
    let mut client = Client::connect(port, "last", None).await?;
    client.publish("load/numbers", LAST).await?;
    let mut resumed = options(port, CLIENT_ID, None);
    resumed.set_clean_start(false).set_session_expiry_interval(Some(3_600));
    let (_requests, mut events) = AsyncClient::new(resumed, 16);
    let mut waiting = BTreeSet::new();
    loop {
        let event =
            tokio::time::timeout(SOON, events.poll()).await.context("the last message never came")??;
        let Event::Incoming(Packet::Publish(message)) = event else { continue };
        if message.payload == LAST {
            return Ok(waiting);
        }
        let payload: serde_json::Value = serde_json::from_slice(&message.payload)?;
        waiting.insert(payload["n"].as_u64().context("a message without a number")?);
    }
}
