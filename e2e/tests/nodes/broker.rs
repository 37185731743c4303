//! The node of broker and database dies, while messages flow.

use std::time::Instant;

use anyhow::ensure;
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::nodes::Dead;
use iotpipeline_e2e::publisher::acknowledged;
use tokio::sync::watch;

use crate::{KNOWN, divided, load, stored_once, told, two_workers, uids};

const MESSAGES: u64 = 4_000;

#[tokio::test]
async fn what_a_broker_has_acknowledged_and_a_database_has_stored_outlives_their_node_s_death() {
    with_namespace("broker-node", async |namespace| {
        let [lives, dies] = two_workers(&namespace).await?;
        let pipeline = divided(&namespace, &dies, &lives, &dies).await?;
        let before = uids(&namespace).await?;
        let broker = pipeline.broker().await?;
        let password = pipeline.password("sensor").await?;
        let (progress, mut seen) = watch::channel(0);
        let load = load(broker.port, &password, MESSAGES);
        let death = async {
            acknowledged(&mut seen, 1_000).await?;
            let dead = Dead::kill(&dies).await?;
            println!("{dies} killed, with broker and database; {} acknowledged", *seen.borrow());
            let reasons = ["Broker", "Database", "BridgeNotCrossing"];
            let known = told(&pipeline, dead.since, &reasons, KNOWN * 2).await?;
            let start = Instant::now();
            dead.comes_back(&namespace.client).await?;
            pipeline.becomes_ready().await?;
            println!("the pipeline was ready {:.1} s after its node's start", start.elapsed().as_secs_f64());
            Ok(known)
        };
        let (account, known) = tokio::try_join!(load.publish(&progress), death)?;
        ensure!(known <= KNOWN, "it was known late");
        ensure!(account.connections > 1, "the broker's death went unnoticed: {account:?}");
        stored_once(&pipeline, &account, MESSAGES).await?;
        ensure!(uids(&namespace).await? == before, "a pod was made anew");
        Ok(())
    })
    .await;
}
