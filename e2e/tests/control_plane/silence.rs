//! Many pipelines become ready, and then nobody writes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use iotpipeline_e2e::conditions::throughout;
use iotpipeline_e2e::control_plane::{ControlPlane, User};
use iotpipeline_e2e::operator_bench::fleet::Fleet;
use iotpipeline_e2e::operator_bench::settled::{is_quiet, writes};
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;

const PIPELINES: usize = 30;

/// Far longer than it takes, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(180);

const SILENCE: Duration = Duration::from_secs(20);

/// A pipeline's own objects and their statuses take no more requests than this. It was 57 when this was
/// written; lists and gets in every pass made it 112.
const REQUESTS: usize = 80;

#[tokio::test]
async fn thirty_pipelines_become_ready_and_then_nothing_is_written_for_20_s() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let log = plane.audit_log().from_now()?;
    let operator = Operator::start(&plane, &stage).await?;
    let fleet = Fleet::new(plane.client(User::Admin).await?, PIPELINES).await?;
    let ready = fleet.ready();
    fleet.create().await?;
    ready.reaches(PIPELINES, SOON).await?;
    is_quiet(&plane, User::Operator, SOON).await?;
    let asked = log.requests_of(User::Operator)?.len();
    ensure!(asked <= REQUESTS * PIPELINES, "{} requests for each pipeline", asked / PIPELINES);

    let silence = plane.audit_log().from_now()?;
    let start = Instant::now();
    throughout(SILENCE, async || {
        let written = writes(&silence, User::Operator)?;
        ensure!(written.is_empty(), "written after {:?}: {}", start.elapsed(), written.join(", "));
        Ok(())
    })
    .await?;
    drop(operator);
    Ok(())
}
