//! Bridges added to a live pipeline, and taken away again, while messages flow.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::pipeline::Pipeline;
use iotpipeline_e2e::publisher::{Load, acknowledged};
use k8s_openapi::api::apps::v1::StatefulSet;
use tokio::sync::watch;

use crate::{NUMBERS, SOON, numbered};

const MESSAGES: u64 = 20_000;

#[tokio::test]
async fn bridges_come_and_go_while_messages_flow_and_none_is_lost_or_stored_twice() {
    with_namespace("replicas", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, &of_size(1)).await?;
        let broker = pipeline.broker().await?;
        let password = pipeline.password("sensor").await?;
        let (progress, mut seen) = watch::channel(0);
        let load = Load {
            port: broker.port,
            login: Some(("sensor", &password)),
            topic: "load/numbers",
            numbers: 0..MESSAGES,
            payload: numbered,
            rate: 600,
            deadline: SOON * 3,
        };
        let change = async {
            acknowledged(&mut seen, 1_000).await?;
            Pipeline::apply(&namespace, &of_size(3)).await?;
            pipeline.becomes_ready().await?;
            ensure!(bridges(&pipeline).await? == 3, "there are not three bridges");
            let three = *seen.borrow();
            acknowledged(&mut seen, (three + 2_000).min(MESSAGES)).await?;
            Pipeline::apply(&namespace, &of_size(1)).await?;
            eventually("one bridge is left", SOON, async || {
                let bridges = bridges(&pipeline).await?;
                Ok(if bridges == 1 { Probe::Found(()) } else { Probe::NotYet(format!("{bridges} bridges")) })
            })
            .await?;
            println!("three bridges from {three} messages on, one again at {}", *seen.borrow());
            pipeline.becomes_ready().await
        };
        let (account, ()) = tokio::try_join!(load.publish(&progress), change)?;
        ensure!(account.connections == 1, "the publisher was disconnected: {account:?}");
        ensure!(account.without_subscriber == 0, "nobody was subscribed: {account:?}");

        let (_forward, influx) = pipeline.database().await?;
        let stored = influx.all_stored("numbers", "n", 0..MESSAGES, SOON).await?;
        let distinct: BTreeSet<_> = stored.iter().collect();
        ensure!(stored.len() == distinct.len(), "{} are stored twice", stored.len() - distinct.len());
        Ok(())
    })
    .await;
}

/// Without a time in the payload: a message that is stored twice makes two points.
fn of_size(replicas: u32) -> String {
    let numbers = NUMBERS.replace(", timestamp: {path: ts, unit: ms}", "");
    numbers.replace("  routes:", &format!("  bridge: {{replicas: {replicas}}}\n  routes:"))
}

async fn bridges(pipeline: &Pipeline) -> Result<i32> {
    let set = pipeline.namespace.api::<StatefulSet>().get(&pipeline.part("bridge")).await?;
    Ok(set.status.map_or(0, |status| status.replicas))
}
