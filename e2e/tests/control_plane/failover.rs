//! Two operators: the Lease decides which of them works.

use anyhow::{Result, ensure};
use iotpipeline_e2e::control_plane::ControlPlane;
use iotpipeline_e2e::failover::{Pair, Stop};

/// How many kills in all, where a run of hours is wanted; and how many at a time.
const COUNT: &str = "IOTPIPELINE_FAILOVERS";
const PAIRS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_stopped_in_the_middle_is_followed_by_the_other_and_writes_nothing_more() -> Result<()> {
    let plane = ControlPlane::start().await?;
    kill_again_and_again(
        &plane,
        "one",
        &[Stop::Freeze, Stop::Terminate, Stop::Kill, Stop::Freeze, Stop::Terminate],
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: the number of kills is in IOTPIPELINE_FAILOVERS"]
async fn two_hundred_kills() -> Result<()> {
    let count: usize = std::env::var(COUNT).map_or(Ok(200), |count| count.parse())?;
    let each = Stop::ALL.len() * 2;
    for round in 0..count.div_ceil(PAIRS * each) {
        // A new one each time: an audit log is rotated when it gets long.
        let plane = ControlPlane::start().await?;
        let stops: Vec<Stop> = Stop::ALL.iter().copied().cycle().take(each).collect();
        let names = (0..PAIRS).map(|pair| format!("round{round}-pair{pair}"));
        let pairs = names.map(async |name| kill_again_and_again(&plane, &name, &stops).await);
        futures::future::try_join_all(pairs).await?;
    }
    Ok(())
}

async fn kill_again_and_again(plane: &ControlPlane, namespace: &str, stops: &[Stop]) -> Result<()> {
    let mut pair = Pair::start(plane, namespace).await?;
    for &stop in stops {
        let failover = pair.stop_holder(plane, stop, fastrand::u64(0..700)).await?;
        println!("{namespace}: {stop:?}: the other wrote after {:.2} s", failover.took.as_secs_f64());
        ensure!(failover.took <= stop.limit(), "{failover:?}");
    }
    let (late, writes) = pair.verdict(plane).await?;
    println!("{namespace}: {writes} writes, of which {} after the lease was lost", late.len());
    ensure!(late.is_empty(), "after the lease was lost: {late:#?}");
    Ok(())
}
