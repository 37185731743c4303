//! The measurements, in their order.

use std::future::ready;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use super::fleet::{AT_ONCE, Fleet, make_namespaces};
use super::floor::Floor;
use super::report::{Converged, Edits, Foreign, Report, Settled};
use crate::bench::report::Latency;
use crate::bench::usage::{memory, peak_memory, whole_processor_time};
use crate::conditions::{Probe, eventually};
use crate::control_plane::audit::AuditLog;
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
}

/// For this long an operator writes nothing before it is taken for settled.
const QUIET: Duration = Duration::from_secs(5);

/// Runs all of it, on a control plane of its own, and tells each figure as it comes.
///
/// # Errors
/// If something doesn't come to its end.
pub async fn run(plan: &Plan) -> Result<Report> {
    // Ten times what the bar allows.
    let deadline = Duration::from_secs(60) + Duration::from_secs(1) * u32::try_from(plan.pipelines)?;
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
    is_quiet(&plane, deadline).await?;
    let floor = Floor::of(&admin, &fleet).await?;
    let converged = Converged {
        objects: floor.objects(),
        seconds: took.as_secs_f64(),
        requests: log.requests_of(User::Operator)?.len(),
        idle_mib: mib(idle),
        peak_mib: mib(peak_memory(process)?),
    };
    converged.tell();
    let settled = settled(&plane, process, plan.settle).await?;
    settled.tell();
    let edits = match plan.edits {
        0 => None,
        count => {
            let times = fleet.edit(count).await?;
            is_quiet(&plane, deadline).await?;
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
    Ok(Report { pipelines: plan.pipelines, converged, settled, edits, foreign, floor })
}

/// Waits until the operator writes nothing.
///
/// # Errors
/// If the deadline passes: with what it writes.
pub async fn is_quiet(plane: &ControlPlane, deadline: Duration) -> Result<()> {
    let mut since = (plane.audit_log().from_now()?, Instant::now());
    eventually("the operator settles", deadline, async || {
        let writes = writes(&since.0)?;
        if !writes.is_empty() {
            since = (plane.audit_log().from_now()?, Instant::now());
            return Ok(Probe::NotYet(format!("it writes: {}", writes.join(", "))));
        }
        Ok(match since.1.elapsed() >= QUIET {
            true => Probe::Found(()),
            false => Probe::NotYet("it is quiet for a moment".into()),
        })
    })
    .await
}

/// What the operator has written, its Lease apart.
///
/// # Errors
/// If the audit log can't be read.
pub fn writes(log: &AuditLog) -> Result<Vec<String>> {
    let requests = log.requests_of(User::Operator)?.into_iter().filter(|request| request.is_write());
    let named = requests.map(|request| {
        let object = request.object_ref.clone().unwrap_or_default();
        (format!("{} {} {}/{}", request.verb, object.resource, object.namespace, object.name), object)
    });
    Ok(named.filter(|(_, object)| object.resource != "leases").map(|(name, _)| name).collect())
}

async fn settled(plane: &ControlPlane, process: u32, window: Duration) -> Result<Settled> {
    let (log, before, start) =
        (plane.audit_log().from_now()?, whole_processor_time(process)?, Instant::now());
    tokio::time::sleep(window).await;
    let (cost, took) = (whole_processor_time(process)? - before, start.elapsed());
    let writes = writes(&log)?;
    writes.iter().take(5).for_each(|write| println!("written though settled: {write}"));
    Ok(Settled {
        seconds: took.as_secs_f64(),
        writes: writes.len(),
        requests: log.requests_of(User::Operator)?.len(),
        percent_of_a_core: 100.0 * cost.as_secs_f64() / took.as_secs_f64(),
        memory_mib: mib(memory(process)?),
    })
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

#[expect(clippy::cast_precision_loss, reason = "no process has 2^53 KiB")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
