//! The measurements, in their order.

use std::future::ready;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use super::anchor;
use super::fleet::{AT_ONCE, Fleet, make_namespaces};
use super::floor::Floor;
use super::report::{Converged, Edits, Foreign, Report, mib};
use super::settled::{is_quiet, settled};
use crate::bench::report::Latency;
use crate::bench::usage::{memory, peak_memory};
use crate::control_plane::{ControlPlane, User};
use crate::operator_process::Operator;
use crate::stage::Stage;

/// What is to be measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How many pipelines.
    pub pipelines: usize,
    /// For how long nothing may be written.
    pub settle: Duration,
    /// How many pipelines are edited.
    pub edits: usize,
    /// How many Secrets others have.
    pub foreign: usize,
    /// Whether the same objects are applied by a bare client too.
    pub floor: bool,
    /// Whether another operator is measured too.
    pub anchor: bool,
}

impl Plan {
    /// Ten times what the bar allows.
    pub(super) fn deadline(&self) -> Result<Duration> {
        Ok(Duration::from_secs(60) + Duration::from_secs(1) * u32::try_from(self.pipelines)?)
    }
}

/// Runs all of it, and tells each figure as it comes.
///
/// # Errors
/// If something doesn't come to its end.
pub async fn run(plan: &Plan) -> Result<Report> {
    let report = ours(plan).await?;
    let anchor = match plan.anchor {
        true => Some(anchor::run(plan).await.context("measure the anchor")?),
        false => None,
    };
    Ok(Report { anchor, ..report })
}

async fn ours(plan: &Plan) -> Result<Report> {
    let deadline = plan.deadline()?;
    let plane = ControlPlane::start().await?;
    let (admin, stage_client) = (plane.client(User::Admin).await?, plane.client(User::Stage).await?);
    let stage = Stage::start(&stage_client).await?;
    let fleet = Fleet::new(admin.clone(), plan.pipelines).await?;
    let operator = Operator::start(&plane, &stage).await?;
    let process = operator.process_id().await?;
    let idle = memory(process)?;

    let log = plane.audit_log().from_now()?;
    let tally = fleet.ready();
    let start = Instant::now();
    fleet.create().await?;
    let converged = tally.reaches(plan.pipelines, deadline).await;
    let took = converged.with_context(|| operator.process.log(20))? - start;
    drop(tally);
    is_quiet(&plane, User::Operator, deadline).await?;
    let floor = Floor::of(&admin, &fleet).await?;
    let converged = Converged {
        objects: floor.objects(),
        seconds: took.as_secs_f64(),
        requests: log.requests_of(User::Operator)?.len(),
        idle_mib: mib(idle),
        peak_mib: mib(peak_memory(process)?),
    };
    converged.tell("converged");
    let settled = settled(&plane, User::Operator, process, plan.settle).await?;
    settled.tell("settled");
    // Some kinds are listed anew meanwhile: all of them in half an hour.
    let converged = Converged { peak_mib: mib(peak_memory(process)?), ..converged };
    let edits = match plan.edits {
        0 => None,
        count => {
            let times = fleet.edit(count).await?;
            is_quiet(&plane, User::Operator, deadline).await?;
            Some(Edits { count, latency: Latency::of(times) })
        }
    };
    edits.iter().for_each(Edits::tell);
    let foreign = match plan.foreign {
        0 => None,
        count => Some(foreign(&stage_client, process, count).await?),
    };
    foreign.iter().for_each(Foreign::tell);
    operator.process.signal("TERM").await?;
    operator.process.ended().await?;
    let floor = match plan.floor {
        true => Some(floor.apply(&plane.client(User::Other).await?, deadline).await?.into()),
        false => None,
    };
    Ok(Report { pipelines: plan.pipelines, converged, settled, edits, foreign, floor, anchor: None })
}

/// Secrets of others, as a cluster is full of them: none of the operator's business.
async fn foreign(client: &Client, process: u32, count: usize) -> Result<Foreign> {
    const PER_NAMESPACE: usize = 1_000;
    make_namespaces(client, "foreign", count.div_ceil(PER_NAMESPACE)).await?;
    let before = memory(process)?;
    let made = stream::iter(0..count).map(async |number| {
        let namespace = format!("foreign-{}", number / PER_NAMESPACE);
        let data = json!({"content": "x".repeat(1_000)});
        let secret = json!({"metadata": {"name": format!("s-{number}")}, "stringData": data});
        let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        api.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
        anyhow::Ok(())
    });
    made.buffer_unordered(AT_ONCE).try_for_each(|()| ready(Ok(()))).await?;
    let after = memory(process)?;
    ensure!(after > 0, "the operator has ended");
    Ok(Foreign { secrets: count, added_mib: mib(after) - mib(before) })
}
