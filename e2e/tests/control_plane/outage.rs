//! An operator that can't reach its API server for a while.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::convergence::{Scene, first, second};
use iotpipeline_e2e::fault_proxy::{End, FaultProxy, Flow};
use tokio::time::sleep;

/// How long the outage lasts, in seconds; 600 is what is promised.
const SECONDS: &str = "IOTPIPELINE_OUTAGE_SECONDS";

/// Without the variable: a thirtieth. It is longer than a Lease, and than a watch.
const SHORTENED: u64 = 20;

/// How soon after it a change must have taken effect.
const LIMIT: Duration = Duration::from_secs(35);

#[tokio::test(flavor = "multi_thread")]
async fn after_an_api_server_that_refused_connections_what_was_changed_meanwhile_takes_effect() -> Result<()>
{
    outage("refused", |proxy| {
        proxy.admit(false);
        proxy.cut(End::Reset);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_network_that_swallowed_everything_what_was_changed_meanwhile_takes_effect() -> Result<()> {
    outage("swallowed", |proxy| proxy.carry(Flow::Stops, Flow::Stops)).await
}

async fn outage(namespace: &str, begin: impl FnOnce(&FaultProxy)) -> Result<()> {
    let seconds = std::env::var(SECONDS).map_or(Ok(SHORTENED), |seconds| seconds.parse())?;
    let scene = Scene::start().await?;
    let proxy = FaultProxy::start(scene.port()).await?;
    let kubeconfig = scene.kubeconfig(namespace, proxy.port()).await?;
    let operator = scene.operator(&kubeconfig, namespace).await?;
    scene.apply(namespace, first()).await?;
    scene.is_ready(namespace).await?;

    begin(&proxy);
    scene.apply(namespace, second()).await?;
    // The outage itself: there is no condition to wait for.
    sleep(Duration::from_secs(seconds)).await;
    ensure!(scene.is_ready_now(namespace).await?.is_err(), "the operator can still write");
    let end = Instant::now();
    proxy.heal();
    scene.is_ready(namespace).await.with_context(|| operator.process.log(40))?;
    let took = end.elapsed();
    println!(
        "{namespace}: {seconds} s without the API server, and {:.2} s until a change took effect",
        took.as_secs_f64()
    );
    ensure!(took <= LIMIT, "{took:?}");
    Ok(())
}
