//! The bridge killed by SIGKILL while messages flow.

use anyhow::ensure;
use iotpipeline_e2e::publisher::acknowledged;
use tokio::sync::watch;

use crate::{NUMBERS, SOON, with_chain};

const MESSAGES: u64 = 12_000;

#[tokio::test]
async fn a_bridge_killed_three_times_loses_nothing_that_the_broker_acknowledged() {
    with_chain(NUMBERS, async |chain| {
        let (progress, mut seen) = watch::channel(0);
        let load = chain.load(MESSAGES, 3_000);
        let kills = async {
            for count in [2_000, 5_000, 8_000] {
                acknowledged(&mut seen, count).await?;
                chain.bridge.kill().await?;
                chain.bridge.restart().await?;
            }
            Ok(())
        };
        let (account, ()) = tokio::try_join!(load.publish(&progress), kills)?;
        ensure!(account.without_subscriber == 0, "the session was lost: {account:?}");
        let points = chain.influx.all_stored("numbers", "n", 0..MESSAGES, SOON).await?;
        println!("{account:?}, {} points", points.len());
        Ok(())
    })
    .await;
}
