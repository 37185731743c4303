//! The node of the bridge dies, while messages flow.

use anyhow::ensure;
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::nodes::Dead;
use iotpipeline_e2e::publisher::acknowledged;
use tokio::sync::watch;

use crate::{GRACE, KNOWN, divided, load, stored_once, told, two_workers, uids};

const MESSAGES: u64 = 14_000;

#[tokio::test]
async fn what_comes_while_the_bridge_s_node_is_dead_is_stored_once_when_it_is_back() {
    with_namespace("bridge-node", async |namespace| {
        let [dies, lives] = two_workers(&namespace).await?;
        let pipeline = divided(&namespace, &dies, &dies, &lives).await?;
        let before = uids(&namespace).await?;
        let broker = pipeline.broker().await?;
        let password = pipeline.password("sensor").await?;
        let (progress, mut seen) = watch::channel(0);
        let load = load(broker.port, &password, MESSAGES);
        let death = async {
            acknowledged(&mut seen, 400).await?;
            let dead = Dead::kill(&dies).await?;
            println!("{dies} killed, with the bridge; {} acknowledged", *seen.borrow());
            let known = told(&pipeline, dead.since, &["BridgeUnreachable"], KNOWN * 2).await?;
            told(&pipeline, dead.since, &["BridgeNodeNotReady"], GRACE).await?;
            let back = dead.comes_back(&namespace.client).await?;
            pipeline.becomes_ready().await?;
            println!("the node was ready {:.1} s after its start", back.as_secs_f64());
            Ok(known)
        };
        let (account, known) = tokio::try_join!(load.publish(&progress), death)?;
        ensure!(known <= KNOWN, "it was known late");
        ensure!(account.connections == 1, "the publisher was disconnected: {account:?}");
        stored_once(&pipeline, &account, MESSAGES).await?;
        ensure!(uids(&namespace).await? == before, "a pod was made anew");
        Ok(())
    })
    .await;
}
