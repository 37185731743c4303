//! QoS 0 while the database stands still: best effort, bounded in memory, and drops are counted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::bridge_process::Bridge;
use iotpipeline_e2e::conditions::{Probe, eventually, eventually_true};
use iotpipeline_e2e::influx::Value;
use iotpipeline_e2e::mqtt::options;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};

use crate::{SOON, with_chain};

const ROUTES: &str = "- {name: words, topic: 'words/{place}', qos: 0, payload: {string: {}}}\n";
/// Several times of what may wait: 60 MB.
const MESSAGES: u64 = 60_000;
const LENGTH: usize = 1_000;
/// What the bridge may take more than when it is idle: 8 MiB of points may wait, beside those that are
/// being written, in buffers that were grown by doubling.
const GROWTH: u64 = 32 << 20;

#[tokio::test]
async fn what_the_database_can_not_take_at_qos_0_is_dropped_and_counted_and_memory_is_bounded() {
    with_chain(ROUTES, async |chain| {
        let before = memory(&chain.bridge)?;
        chain.database.freeze().await?;
        publish(chain.broker.port).await?;
        let received = all_received(&chain.bridge).await?;
        let growth = memory(&chain.bridge)?.saturating_sub(before);
        chain.database.thaw().await?;
        let dropped = count(&chain.bridge, "messages_dropped_total{reason=\"DatabaseTooSlow\"} ").await?;
        println!("{received} received, {dropped} dropped, {} MB more memory", growth >> 20);
        ensure!(dropped > received / 2 && dropped < received, "{dropped} of {received}");
        ensure!(growth < GROWTH, "{growth} bytes more");
        let count = format!(
            "from(bucket: {:?}) |> range(start: -1d, stop: 1d) \
             |> filter(fn: (r) => r._measurement == \"words\") |> group() |> count()",
            chain.influx.bucket()
        );
        eventually_true("the rest is stored", SOON, async || {
            let records = chain.influx.query(&count).await?;
            let stored = records.first().context("nothing is stored")?.values.get("_value");
            ensure!(stored == Some(&Value::Long((received - dropped) as i64)), "{stored:?}");
            Ok(true)
        })
        .await
    })
    .await;
}

/// How many the bridge has received when no more come. The broker, too, drops what a client does not read
/// as fast as it comes, so that need not be all; it is several times of what may wait.
async fn all_received(bridge: &Bridge) -> Result<u64> {
    eventually("the bridge has received what there is", SOON, async || {
        let now = count(bridge, "messages_received_total ").await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let later = count(bridge, "messages_received_total ").await?;
        Ok(if now == later && now > MESSAGES / 2 {
            Probe::Found(now)
        } else {
            Probe::NotYet(format!("{now}, then {later}"))
        })
    })
    .await
}

/// Publishes all as fast as the broker takes them.
async fn publish(port: u16) -> Result<()> {
    let (requests, mut events) = AsyncClient::new(options(port, "flood", None), 64);
    let feed = async {
        let payload = "x".repeat(LENGTH);
        for _ in 0..MESSAGES {
            requests.publish("words/here", QoS::AtMostOnce, false, payload.clone()).await?;
        }
        // A last word at QoS 1 is answered after all before it were taken.
        requests.publish("words/here", QoS::AtLeastOnce, false, "last").await?;
        std::future::pending::<Result<()>>().await
    };
    let follow = async {
        loop {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
                return anyhow::Ok(());
            }
        }
    };
    tokio::select! {
        outcome = feed => outcome,
        outcome = tokio::time::timeout(Duration::from_secs(60), follow) => outcome.context("too slow")?,
    }
}

/// A metric's value; 0 if it has not been counted yet.
async fn count(bridge: &Bridge, name: &str) -> Result<u64> {
    let metrics = bridge.metrics().await?;
    let value = metrics.lines().find_map(|line| line.split_once(name)?.1.parse().ok());
    Ok(value.unwrap_or_default())
}

/// The bridge's resident memory in bytes.
fn memory(bridge: &Bridge) -> Result<u64> {
    let id = bridge.process_id().context("the bridge is not running")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}
