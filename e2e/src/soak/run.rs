//! One run: a load, and the plan's faults while it is published.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::soak::audit::Verdict;
use crate::soak::load::{Account, Load, PUBLISHERS};
use crate::soak::plan::Plan;
use crate::soak::rig::{Parts, Rig};

/// Messages a second of each publisher while packet ids are brought round.
const FULL_RATE: u64 = 20_000;
/// How long a fault that waits for the bridge to store again waits at most.
const RECOVERY: Duration = Duration::from_millis(1_500);

/// Runs a plan. The name must be new to these parts.
///
/// # Errors
/// If something does not come back after its fault: with the end of the bridge's log.
pub async fn run(parts: &Parts, plan: &Plan, name: &str) -> Result<Verdict> {
    let mut rig = Rig::start(parts, name, plan.qos).await?;
    let verdict = publish_and_suffer(&mut rig, plan).await;
    let log = rig.bridge.log(25);
    let ended = rig.end().await;
    let verdict = verdict.with_context(|| format!("the bridge's log ends so:\n{log}"))?;
    ended?;
    Ok(verdict)
}

async fn publish_and_suffer(rig: &mut Rig<'_>, plan: &Plan) -> Result<Verdict> {
    let site = rig.site.clone();
    let before = watch::Sender::new(0);
    let each = plan.before / PUBLISHERS;
    let round = (0..PUBLISHERS).map(async |publisher| {
        Load { repeats: true, rate: FULL_RATE, ..site.load(publisher, each, &before) }.publish().await
    });
    let mut account = try_join_all(round).await?.into_iter().fold(Account::default(), Account::plus);
    let (progress, seen) = watch::channel(0);
    let loads = (0..PUBLISHERS).map(async |publisher| {
        let count = plan.messages / PUBLISHERS;
        // Numbers that were not used before.
        Load { first: each * 4, ..site.load(publisher, count, &progress) }.publish().await
    });
    let (accounts, ()) = tokio::try_join!(try_join_all(loads), suffer(rig, plan, seen))?;
    account = accounts.into_iter().fold(account, Account::plus);
    site.settle(1).await?;
    site.audit(&account).await
}

/// Lets the plan's faults happen, each at its moment, and makes everything right in the end.
async fn suffer(rig: &mut Rig<'_>, plan: &Plan, mut progress: watch::Receiver<u64>) -> Result<()> {
    for step in &plan.steps {
        progress.wait_for(|acknowledged| *acknowledged >= step.after).await?;
        if step.waits {
            recovers(rig).await;
        }
        rig.strike(step.fault).await.with_context(|| format!("{:?}", step.fault))?;
    }
    rig.heal().await;
    Ok(())
}

/// Waits until something goes to the database again: faults in a dead time would be none.
async fn recovers(rig: &Rig<'_>) {
    let (before, start) = (rig.to_database.carried(), Instant::now());
    while rig.to_database.carried() == before && start.elapsed() < RECOVERY {
        sleep(Duration::from_millis(5)).await;
    }
}
