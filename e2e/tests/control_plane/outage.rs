//! An operator that can't reach its API server for a while, or only a part of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::api_proxy::{ApiProxy, Fault};
use iotpipeline_e2e::conditions::eventually_true;
use iotpipeline_e2e::convergence::{Scene, first, second};
use iotpipeline_e2e::fault_proxy::{End, FaultProxy, Flow};
use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use tokio::time::{sleep, timeout};

/// How long the outage lasts, in seconds; 600 is what is promised.
const SECONDS: &str = "IOTPIPELINE_OUTAGE_SECONDS";

/// Without the variable: a thirtieth. It is longer than a Lease, and than a watch.
const SHORTENED: u64 = 20;

/// How soon after it a change must have taken effect.
const LIMIT: Duration = Duration::from_secs(35);

/// Longer than a pass waits for anything here.
const QUIET: Duration = Duration::from_secs(3);

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

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_can_not_be_watched_holds_up_nothing_else_and_is_watched_again() -> Result<()> {
    let namespace = "blind";
    let scene = Scene::start().await?;
    let proxy = ApiProxy::start(&scene.kubeconfig(namespace, scene.port()).await?).await?;
    let operator = scene.operator(proxy.kubeconfig(), namespace).await?;
    scene.apply(namespace, first()).await?;
    scene.is_ready(namespace).await?;

    proxy.arm(Fault::Blind("services"));
    timeout(LIMIT, proxy.happened()).await.context("no watch has ended")?;
    let edited = Instant::now();
    scene.apply(namespace, second()).await?;
    scene.is_ready(namespace).await.with_context(|| operator.process.log(40))?;
    let meanwhile = edited.elapsed();

    // No pass is on its way that would come upon the deletion by chance.
    let mut last = (operator.passes().await?, Instant::now());
    ensure!(last.0 > 0, "no pass has ended");
    eventually_true("no pass is under way", LIMIT, async || {
        let passes = operator.passes().await?;
        if passes != last.0 {
            last = (passes, Instant::now());
        }
        Ok(last.1.elapsed() > QUIET)
    })
    .await?;
    let services: Api<Service> = Api::namespaced(scene.admin.clone(), namespace);
    let uid = async || anyhow::Ok(services.get_opt("lab-broker").await?.and_then(|service| service.uid()));
    let before = uid().await?;
    ensure!(before.is_some(), "there is no service");
    services.delete("lab-broker", &DeleteParams::default()).await?;
    let healed = Instant::now();
    proxy.arm(Fault::None);
    eventually_true("the service is there again", LIMIT, async || {
        let now = uid().await?;
        Ok(now.is_some() && now != before)
    })
    .await?;
    println!(
        "services can't be watched: a change takes effect after {:.2} s; watched again {:.2} s later",
        meanwhile.as_secs_f64(),
        healed.elapsed().as_secs_f64()
    );
    ensure!(meanwhile < Duration::from_secs(10), "{meanwhile:?}");
    Ok(())
}
