//! Many pipelines become ready, and then nobody writes. On the way the operator uses the rights that it has,
//! and no others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use iotpipeline_e2e::conditions::throughout;
use iotpipeline_e2e::control_plane::audit::{AuditLog, Request};
use iotpipeline_e2e::control_plane::{ControlPlane, User};
use iotpipeline_e2e::environment;
use iotpipeline_e2e::operator_bench::fleet::Fleet;
use iotpipeline_e2e::operator_bench::settled::{is_quiet, writes};
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use serde_json::Value;

const PIPELINES: usize = 30;

/// Far longer than it takes, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(180);

const SILENCE: Duration = Duration::from_secs(20);

/// A pipeline's own objects and their statuses take no more requests than this. It was 57 when this was
/// written; lists and gets in every pass made it 112.
const REQUESTS: usize = 80;

#[tokio::test]
async fn thirty_pipelines_become_ready_by_granted_rights_alone_and_then_nothing_is_written_for_20_s()
-> Result<()> {
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
    rights_are_used(&log)?;
    drop(operator);
    Ok(())
}

/// API group, resource, verb.
type Right = (String, String, String);

fn rights_are_used(log: &AuditLog) -> Result<()> {
    let requests = log.requests_of(User::Operator)?;
    let refused: Vec<&Request> = requests.iter().filter(|request| request.code() == 403).collect();
    ensure!(refused.is_empty(), "not granted: {refused:?}");
    let used: BTreeSet<Right> = requests.iter().flat_map(rights_of).collect();
    // Nothing is deleted here, no volume grows, no event comes twice, there is no cert-manager, no backup, no way from
    // outside, and one bridge each.
    let elsewhere = |(group, resource, verb): &Right| {
        verb == "delete"
            || group == "cert-manager.io"
            || (group == "batch" && verb != "watch")
            || ["httproutes", "ingresses", "poddisruptionbudgets"].contains(&resource.as_str())
            || (resource == "persistentvolumeclaims" && verb != "watch")
            || (resource == "events" && verb == "patch")
            || (resource == "iotpipelines/status" && verb == "get")
    };
    // The cache spares most of it; what remains depends on who is first.
    let spared = |(_, _, verb): &Right| verb == "list" || verb == "get";
    let unused: Vec<_> = granted()?
        .into_iter()
        .filter(|right| !used.contains(right) && !elsewhere(right) && !spared(right))
        .collect();
    ensure!(unused.is_empty(), "granted, but not used: {unused:?}");
    Ok(())
}

/// What a request needs; an apply of what doesn't exist needs `create` as well.
fn rights_of(request: &Request) -> Vec<Right> {
    let object = request.object_ref.clone().unwrap_or_default();
    let resource = match object.subresource.as_str() {
        "" => object.resource,
        subresource => format!("{}/{subresource}", object.resource),
    };
    let right = |verb: &str| (object.api_group.clone(), resource.clone(), verb.to_owned());
    match (request.verb.as_str(), request.code()) {
        ("patch", 201) => vec![right("patch"), right("create")],
        (verb, _) => vec![right(verb)],
    }
}

/// What the chart grants.
fn granted() -> Result<BTreeSet<Right>> {
    let manifest = std::fs::read_to_string(environment::repository("manifests/install.yaml"))?;
    let mut granted = BTreeSet::new();
    for document in serde_saphyr::from_multiple::<Value>(&manifest)? {
        let is_role = document["kind"] == "ClusterRole" || document["kind"] == "Role";
        if !is_role || document["metadata"]["name"] != "iotpipeline-operator" {
            continue;
        }
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(Into::into)).collect()
        };
        for rule in document["rules"].as_array().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    let right = |verb| (group.clone(), resource.clone(), verb);
                    granted.extend(texts(&rule["verbs"]).into_iter().map(right));
                }
            }
        }
    }
    ensure!(!granted.is_empty(), "manifests/install.yaml has no role");
    Ok(granted)
}
