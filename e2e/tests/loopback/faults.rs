//! Faults at random moments, by seeds: `cargo xtask soak` runs many more of them.

use iotpipeline_e2e::containers::Speaks;
use iotpipeline_e2e::soak::series::{conclude, must_be_good, run_all};

/// The same in every run, so that a failure comes again.
const FIRST: u64 = 1;
const SEEDS: u64 = 20;
/// Less of a broker that speaks MQTT 3.1.1 only. Packet ids come round in one of them.
const OLD_SEEDS: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_stored_once_whatever_goes_wrong_on_the_way() -> anyhow::Result<()> {
    soak(SEEDS, Speaks::Mqtt5).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_stored_once_through_a_broker_of_mqtt_3_1_1() -> anyhow::Result<()> {
    soak(OLD_SEEDS, Speaks::Mqtt311).await
}

async fn soak(seeds: u64, speaks: Speaks) -> anyhow::Result<()> {
    let mut log = Vec::new();
    let summary = run_all(FIRST, seeds, 1, speaks, &mut log).await?;
    conclude(&summary, &mut log)?;
    println!("{}", String::from_utf8_lossy(&log));
    must_be_good(&summary)
}
