//! An operator that is limited to namespaces, with the Roles that the chart renders for them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use api::iotpipeline::{IoTPipeline, IoTPipelineStatus};
use iotpipeline_e2e::control_plane::{ControlPlane, SECRETS_THAT_ARE_READ, User, apply};
use iotpipeline_e2e::environment;
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use kube::Api;

use super::{namespace, objects_of_the_operator, only_its_own};
use crate::failures::table::given;
use crate::failures::{pipeline, told};

/// Its own namespace, where its Lease is.
const OWN: &str = "iotpipeline-system";

const NAMED: [&str; 2] = ["here", "there"];

const BEYOND: &str = "beyond";

#[tokio::test(flavor = "multi_thread")]
async fn roles_in_two_namespaces_are_enough_to_work_there_and_nothing_is_asked_of_a_third() -> Result<()> {
    let plane = ControlPlane::start_empty(SECRETS_THAT_ARE_READ).await?;
    let admin = plane.client(User::Admin).await?;
    for name in [OWN, NAMED[0], NAMED[1], BEYOND] {
        namespace(&admin, name).await?;
    }
    let manifest = rendered(&format!("namespaces={{{}}}", NAMED.join(",")))?;
    ensure!(!manifest.contains("kind: ClusterRole"), "the chart has a right in the whole cluster");
    plane.install(&manifest).await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let log = plane.audit_log().from_now()?;
    for name in [NAMED[0], NAMED[1], BEYOND] {
        apply(&admin, pipeline(name, &given())).await?;
    }
    let operator = Operator::start_as(&plane, &stage, &manifest, "info").await?;
    for name in NAMED {
        told(&admin, name, "True", "Ready").await.with_context(|| operator.process.log(20))?;
    }

    let third = Api::<IoTPipeline>::namespaced(admin.clone(), BEYOND).get("lab").await?;
    // By this kstatus knows that nobody has seen it.
    let is_unseen =
        |status: &IoTPipelineStatus| status.conditions.is_empty() && status.observed_generation == Some(-1);
    ensure!(third.status.as_ref().is_some_and(is_unseen), "{:?}", third.status);
    ensure!(objects_of_the_operator(&admin, BEYOND).await? == 0);
    ensure!(objects_of_the_operator(&admin, NAMED[0]).await? > 3, "it made nothing");
    let requests = log.requests_of(User::Operator)?;
    only_its_own(&requests, &admin, &["given"]).await?;
    for object in requests.iter().filter_map(|request| request.object_ref.as_ref()) {
        let is_known = match object.namespace.as_str() {
            OWN => object.resource == "leases",
            other => NAMED.contains(&other),
        };
        ensure!(is_known, "asked outside of its namespaces: {object:?}");
    }
    println!("{} requests, none refused, none outside of {NAMED:?} but for the Lease", requests.len());
    Ok(())
}

/// The chart with a value that is not its default.
fn rendered(value: &str) -> Result<String> {
    let chart = environment::repository("charts/iotpipeline-operator");
    let mut helm = Command::new("helm");
    helm.args(["template", "iotpipeline-operator"]).arg(chart).args(["--namespace", OWN, "--set", value]);
    let output = helm.output().context("helm is missing: run this through cargo xtask")?;
    ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
