//! The node of the operator that works dies, and a pipeline is changed meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::nodes::{Dead, leader};
use iotpipeline_e2e::pipeline::{Pipeline, summary};

use crate::{SOON, operators_are_spread};

/// How soon another must work.
const TAKES_OVER: Duration = Duration::from_secs(15);

#[tokio::test]
async fn another_operator_works_within_fifteen_seconds_after_the_node_of_the_first_died() {
    with_namespace("operator-node", async |namespace| {
        operators_are_spread(&namespace).await?;
        let first = Pipeline::apply(&namespace, &refused("first")).await?;
        is_answered(&first, SOON).await?;
        let (pod, node) = leader(&namespace.client).await?;
        let dead = Dead::kill(&node).await?;
        println!("{node} killed, with the operator {pod} that worked");
        // Nobody but an operator that holds the lease can answer it.
        let second = Pipeline::apply(&namespace, &refused("second")).await?;
        is_answered(&second, TAKES_OVER * 3).await?;
        let took = dead.since.elapsed();
        println!("after {:.1} s: another operator has answered", took.as_secs_f64());
        let (other, place) = leader(&namespace.client).await?;
        ensure!(other != pod && place != node, "{other} on {place} works");
        let back = dead.comes_back(&namespace.client).await?;
        println!("the node was ready {:.1} s after its start", back.as_secs_f64());
        ensure!(took <= TAKES_OVER, "too late");
        operators_are_spread(&namespace).await
    })
    .await;
}

/// One that is refused for what it names: no pod is needed to say so.
fn refused(name: &str) -> String {
    format!(
        "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {{name: {name}}}
spec:
  broker:
    users:
    - {{name: sensor, publish: ['a/#'], passwordSecretRef: {{name: absent, key: password}}}}
  routes:
  - {{name: r, topic: a/b, payload: {{float: {{field: v}}}}}}
"
    )
}

async fn is_answered(pipeline: &Pipeline, within: Duration) -> Result<()> {
    eventually(format!("{} is refused", pipeline.name), within, async || {
        let found = pipeline.get().await?;
        let text = summary(&found);
        Ok(if text.contains("SecretNotFound") { Probe::Found(()) } else { Probe::NotYet(text) })
    })
    .await
}
