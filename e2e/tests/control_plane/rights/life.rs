//! One life in which everything happens that a right is granted for.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::bridge_status::{BridgeStatus, Side};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::control_plane::audit::AuditLog;
use iotpipeline_e2e::control_plane::{ControlPlane, SECRETS_THAT_ARE_READ, User, apply};
use iotpipeline_e2e::environment;
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{Right, definition, granted, namespace, only_its_own, rights_of};
use crate::failures::injection::{Scene, certificate, unscheduled};
use crate::failures::{pipeline, told};

const NAMESPACE: &str = "life";

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_granted_is_used_and_no_other() -> Result<()> {
    let manifest = std::fs::read_to_string(environment::repository("manifests/install.yaml"))?;
    let plane = ControlPlane::start_empty(SECRETS_THAT_ARE_READ).await?;
    let admin = plane.client(User::Admin).await?;
    for (group, plural, kind) in [
        ("gateway.networking.k8s.io", "httproutes", "HTTPRoute"),
        ("cert-manager.io", "certificates", "Certificate"),
    ] {
        apply(&admin, definition(group, plural, kind)).await?;
    }
    plane.install(&manifest).await?;
    namespace(&admin, NAMESPACE).await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let log = plane.audit_log().from_now()?;
    let operator = Operator::start(&plane, &stage).await?;
    let scene = Scene { client: admin.clone(), stage: &stage, namespace: NAMESPACE.into() };
    life(&scene).await.with_context(|| operator.process.log(20))?;

    let granted = granted(&manifest)?;
    let unused = eventually("each right is used", SOON, async || {
        let unused = unused(&log, &granted)?;
        Ok(if unused.is_empty() { Probe::Found(()) } else { Probe::NotYet(format!("{unused:?}")) })
    });
    unused.await?;
    let requests = log.requests_of(User::Operator)?;
    only_its_own(&requests, &admin, &["given"]).await?;
    println!("{} rights, each used in {} requests, none refused", granted.len(), requests.len());
    Ok(())
}

fn unused(log: &AuditLog, granted: &BTreeSet<Right>) -> Result<Vec<Right>> {
    let used: BTreeSet<Right> = log.requests_of(User::Operator)?.iter().flat_map(rights_of).collect();
    Ok(granted.difference(&used).cloned().collect())
}

/// Everything that a pipeline can have.
fn much() -> Value {
    json!({
        "broker": {
            "users": [{"name": "one", "publish": ["a/#"], "passwordSecretRef": {"name": "given", "key": "password"}}],
            "tls": {"issuerRef": {"name": "plant", "kind": "ClusterIssuer"}},
        },
        "bridge": {"replicas": 2},
        "database": {"backup": {"schedule": "0 3 * * *", "volume": {"size": "1Gi"}}},
        "dashboard": {
            "ingress": {"host": "lab.example.com"},
            "route": {"parentRefs": [{"name": "gateway"}], "hostnames": ["lab.example.com"]},
        },
        "deletionPolicy": "Delete",
        "routes": [route("a/{place}")],
    })
}

fn route(topic: &str) -> Value {
    json!({"name": "r", "topic": topic, "payload": {"float": {"field": "v"}}})
}

/// As little as there can be.
fn little() -> Value {
    json!({
        "broker": {"external": {"url": "mqtt://broker.example.com:1883"}},
        "networkPolicy": {"enabled": false},
        "routes": [route("b/{place}")],
    })
}

async fn life(scene: &Scene<'_>) -> Result<()> {
    let client = &scene.client;
    let mut first = pipeline(NAMESPACE, &much());
    first["metadata"]["annotations"] = json!({"iotpipeline.io/backup": "before all"});
    apply(client, first).await?;
    told(client, NAMESPACE, "False", "WaitingForCertificate").await?;
    issue(client).await?;
    told(client, NAMESPACE, "True", "Ready").await?;

    // The same twice: the second time an event is counted.
    for _ in 0..2 {
        scene.stage.bridges_say(NAMESPACE, Some(Some(unreachable)));
        told(client, NAMESPACE, "False", "BrokerUnreachable").await?;
        scene.stage.bridges_say(NAMESPACE, None);
        told(client, NAMESPACE, "True", "Ready").await?;
    }
    // A claim without a volume: what is the matter is in events only. With its pipeline it shall go.
    let pending = unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
    scene.claim("database").await?;
    scene.stage.pod_is::<StatefulSet>(NAMESPACE, "database", pending).await?;
    told(client, NAMESPACE, "False", "DatabaseVolumePending").await?;
    scene.stage.pod_starts::<StatefulSet>(NAMESPACE, "database").await?;
    told(client, NAMESPACE, "True", "Ready").await?;

    // The second bridge ends when nothing waits for it any more.
    scene.stage.bridges_say(NAMESPACE, Some(Some(|status| status.left = true)));
    apply(client, pipeline(NAMESPACE, &little())).await?;
    told(client, NAMESPACE, "True", "Ready").await?;
    Ok(())
}

fn unreachable(status: &mut BridgeStatus) {
    status.broker = Side { ready: false, reason: "Unreachable".into(), message: "the broker is away".into() };
}

/// What cert-manager would do.
async fn issue(client: &Client) -> Result<()> {
    let labels = json!({
        "app.kubernetes.io/managed-by": "iotpipeline-operator", "app.kubernetes.io/instance": "lab",
        "app.kubernetes.io/component": "broker",
    });
    let secret = json!({
        "metadata": {
            "name": "lab-broker-tls", "labels": labels,
            "annotations": {"cert-manager.io/certificate-name": "lab-broker-tls"},
        },
        "stringData": certificate(NAMESPACE),
    });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    ensure!(secrets.get_opt("lab-broker-tls").await?.is_some());
    Ok(())
}
