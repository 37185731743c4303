//! Two operators: the Lease decides which of them works.

use std::time::Duration;

use anyhow::{Result, ensure};
use iotpipeline_e2e::control_plane::ControlPlane;
use iotpipeline_e2e::failover::{Failover, Pair, Stop};

/// How many stops in all, where more are wanted than a test takes; and how many pairs at a time.
const COUNT: &str = "IOTPIPELINE_FAILOVERS";
const PAIRS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn who_is_stopped_in_the_middle_is_followed_by_the_other_and_writes_nothing_more() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let stops = [Stop::Freeze, Stop::Terminate, Stop::Kill, Stop::Freeze, Stop::Terminate];
    judge(stop_each(&plane, "pair", &stops).await?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 10 minutes: IOTPIPELINE_FAILOVERS says how many, otherwise 200"]
async fn the_same_two_hundred_times() -> Result<()> {
    let count: usize = std::env::var(COUNT).map_or(Ok(200), |count| count.parse())?;
    let each = Stop::ALL.len() * 2;
    let mut all = Vec::new();
    for round in 0..count.div_ceil(PAIRS * each) {
        // A new one each time: an audit log is rotated when it gets long.
        let plane = ControlPlane::start().await?;
        let stops: Vec<Stop> = Stop::ALL.iter().copied().cycle().take(each).collect();
        let names = (0..PAIRS).map(|pair| format!("round{round}-pair{pair}"));
        let pairs = names.map(async |name| stop_each(&plane, &name, &stops).await);
        all.extend(futures::future::try_join_all(pairs).await?.into_iter().flatten());
    }
    judge(all)
}

async fn stop_each(plane: &ControlPlane, namespace: &str, stops: &[Stop]) -> Result<Vec<Failover>> {
    let mut pair = Pair::start(plane, namespace).await?;
    let mut failovers = Vec::new();
    for &stop in stops {
        failovers.push(pair.stop_holder(plane, stop, fastrand::u64(0..700)).await?);
    }
    let (late, writes) = pair.verdict(plane).await?;
    println!("{namespace}: {writes} writes, of which {} after the lease was lost", late.len());
    ensure!(late.is_empty(), "after the lease was lost: {late:#?}");
    Ok(failovers)
}

/// Says how long it took, and whether that was soon enough.
fn judge(failovers: Vec<Failover>) -> Result<()> {
    for stop in Stop::ALL {
        let took = failovers.iter().filter(|failover| failover.stop == stop).map(|failover| failover.took);
        let mut took: Vec<Duration> = took.collect();
        took.sort();
        let (Some(median), Some(longest)) = (took.get(took.len() / 2), took.last()) else { continue };
        println!(
            "{} times {stop:?}: the other wrote after {:.2} s (median), {:.2} s (longest)",
            took.len(),
            median.as_secs_f64(),
            longest.as_secs_f64()
        );
    }
    let slow: Vec<_> = failovers.iter().filter(|failover| failover.took > failover.stop.limit()).collect();
    ensure!(slow.is_empty(), "too late: {slow:?}");
    Ok(())
}
