//! Whether an operator writes, and what it costs when it doesn't.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::report::{Settled, mib};
use crate::bench::usage::{memory, whole_processor_time};
use crate::conditions::{Probe, eventually};
use crate::control_plane::audit::AuditLog;
use crate::control_plane::{ControlPlane, User};

/// For this long an operator writes nothing before it is taken for settled.
const QUIET: Duration = Duration::from_secs(5);

/// Waits until this user, an operator, writes nothing.
///
/// # Errors
/// If the deadline passes: with what it writes.
pub async fn is_quiet(plane: &ControlPlane, user: User, deadline: Duration) -> Result<()> {
    let mut since = (plane.audit_log().from_now()?, Instant::now());
    eventually("the operator settles", deadline, async || {
        let writes = writes(&since.0, user)?;
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

/// What this user, an operator, has written, its Lease apart.
///
/// # Errors
/// If the audit log can't be read.
pub fn writes(log: &AuditLog, user: User) -> Result<Vec<String>> {
    let requests = log.requests_of(user)?.into_iter().filter(|request| request.is_write());
    let named = requests.map(|request| {
        let object = request.object_ref.clone().unwrap_or_default();
        (format!("{} {} {}/{}", request.verb, object.resource, object.namespace, object.name), object)
    });
    Ok(named.filter(|(_, object)| object.resource != "leases").map(|(name, _)| name).collect())
}

/// What happens in this time, in which nothing is to happen.
///
/// # Errors
/// If the process has ended.
pub async fn settled(plane: &ControlPlane, user: User, process: u32, window: Duration) -> Result<Settled> {
    let (log, before, start) =
        (plane.audit_log().from_now()?, whole_processor_time(process)?, Instant::now());
    tokio::time::sleep(window).await;
    let (cost, took) = (whole_processor_time(process)? - before, start.elapsed());
    let writes = writes(&log, user)?;
    writes.iter().take(5).for_each(|write| println!("written though settled: {write}"));
    Ok(Settled {
        seconds: took.as_secs_f64(),
        writes: writes.len(),
        requests: log.requests_of(user)?.len(),
        percent_of_a_core: 100.0 * cost.as_secs_f64() / took.as_secs_f64(),
        memory_mib: mib(memory(process)?),
    })
}
