//! What is secret is in Secrets only: not in what the operator says of itself, logs or writes, also where a
//! credential is refused, broken or missing. What the parts say is searched in the cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::iotpipeline::IoTPipeline;
use axum::http::StatusCode;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::control_plane::{ControlPlane, User, apply};
use iotpipeline_e2e::environment;
use iotpipeline_e2e::leaks::{Secrets, objects};
use iotpipeline_e2e::operator_process::Operator;
use iotpipeline_e2e::stage::Stage;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::failures::told;

/// Everything that the operator makes, and a password that is given.
const OWN: &str = "own";

/// Everything is others'.
const EXTERNAL: &str = "external";

const SOON: Duration = Duration::from_secs(60);

fn own() -> Value {
    json!({
        "broker": {"users": [
            {"name": "generated", "publish": ["a/#"]},
            {"name": "given", "publish": ["a/#"], "passwordSecretRef": {"name": "given", "key": "password"}},
            {"name": "certified", "publish": ["a/#"], "certificate": {}},
        ]},
        "dashboard": {"tls": {}},
        "routes": [{"name": "r", "topic": "a/{place}", "payload": {"float": {}}}],
    })
}

fn external() -> Value {
    json!({
        "broker": {"external": {"url": "mqtts://broker.example.com:8883", "credentialsSecretRef": {"name": "login"}}},
        "database": {"external": {
            "url": "http://database.example.com:8086",
            "tokenSecretRef": {"name": "tokens", "key": "token"},
            "readTokenSecretRef": {"name": "tokens", "key": "read-token"},
        }},
        "dashboard": {"external": {
            "url": "http://grafana.example.com:3000", "credentialsSecretRef": {"name": "grafana"},
        }},
        "routes": [{"name": "r", "topic": "a/{place}", "payload": {"float": {}}}],
    })
}

/// A value that is like no other.
fn needle(what: &str, round: u32) -> String {
    format!("needle-{what}-{round}/+ 7f3a9c")
}

/// The Secrets that are given, the first time with a certificate, whose content is the bridge's to judge.
fn given(round: u32) -> Vec<(&'static str, &'static str, Value)> {
    let needle = |what| needle(what, round);
    let mut login = json!({"username": "bridge", "password": needle("login")});
    if round == 1 {
        login["tls.crt"] = "no certificate".into();
        login["tls.key"] = needle("client-key").into();
    }
    vec![
        (OWN, "given", json!({"password": needle("password")})),
        (EXTERNAL, "login", login),
        (EXTERNAL, "tokens", json!({"token": needle("write"), "read-token": needle("read")})),
        (EXTERNAL, "grafana", json!({"username": "admin", "password": needle("grafana")})),
    ]
}

/// What no password file and no header can hold.
fn broken(round: u32) -> Vec<(&'static str, &'static str, Value)> {
    let needle = |what| format!("{}\nand\u{1}more", needle(what, round));
    vec![
        (OWN, "given", json!({"password": needle("password")})),
        (EXTERNAL, "grafana", json!({"token": needle("grafana")})),
    ]
}

/// Gives them, in the place of those before, and looks for them from now on.
async fn give(
    client: &Client,
    secrets: &mut Secrets,
    given: Vec<(&'static str, &'static str, Value)>,
) -> Result<()> {
    for (namespace, name, data) in given {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        api.delete(name, &DeleteParams::default()).await.ok();
        let secret = json!({"metadata": {"name": name}, "stringData": data});
        api.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    }
    add_secrets(client, secrets).await
}

async fn add_secrets(client: &Client, secrets: &mut Secrets) -> Result<()> {
    for namespace in [OWN, EXTERNAL] {
        for secret in
            Api::<Secret>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?
        {
            secrets.add_secret(&secret)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_in_what_the_operator_logs_tells_and_writes_also_when_it_fails() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let stage = Stage::start(&plane.client(User::Stage).await?).await?;
    let client = plane.client(User::Admin).await?;
    let log = plane.audit_log().from_now()?;
    let manifest = std::fs::read_to_string(environment::repository("manifests/install.yaml"))?;
    let operator = Operator::start_as(&plane, &stage, &manifest, "trace").await?;
    let mut secrets = Secrets::default();
    life(&client, &stage, &mut secrets).await.with_context(|| operator.process.log(20))?;
    ensure!(secrets.values() >= 20, "only {} values are looked for", secrets.values());

    secrets.search("the operator's log", &operator.process.log(usize::MAX));
    secrets.search("the operator's metrics", &operator.metrics().await?);
    let process = operator.process_id().await?;
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{process}/{file}"))?;
        secrets.search(&format!("the operator's {file}"), &String::from_utf8_lossy(&bytes));
    }
    for request in log.requests_of(User::Operator)? {
        secrets.search("an address that the operator asked for", &request.uri);
    }
    search_objects(&client, &mut secrets).await?;
    let (found, places) = secrets.found();
    println!("{} values, {places} texts, {} found", secrets.values(), found.len());
    ensure!(found.is_empty(), "{found:#?}");
    ensure!(operator.process.log(usize::MAX).lines().count() > 200, "the log says next to nothing");
    what_is_planted_is_found(&client, &mut secrets).await
}

/// Both pipelines become ready, get new credentials, and are refused in all ways.
async fn life(client: &Client, stage: &Stage, secrets: &mut Secrets) -> Result<()> {
    for (namespace, spec) in [(OWN, own()), (EXTERNAL, external())] {
        apply(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
            .await?;
        let pipeline = json!({
            "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
            "metadata": {"name": "lab", "namespace": namespace}, "spec": spec,
        });
        apply(client, pipeline).await?;
    }
    give(client, secrets, given(1)).await?;
    told(client, OWN, "True", "Ready").await?;
    told(client, EXTERNAL, "True", "Ready").await?;
    add_secrets(client, secrets).await?;
    rotate(client).await?;
    add_secrets(client, secrets).await?;

    give(client, secrets, given(2)).await?;
    told(client, EXTERNAL, "True", "Ready").await?;
    for host in ["grafana.example.com", "lab-database.own.svc"] {
        stage.host_answers(host, Some((StatusCode::UNAUTHORIZED, "unauthorized access")));
    }
    not_ready(client, EXTERNAL).await?;
    for host in ["grafana.example.com", "lab-database.own.svc"] {
        stage.host_answers(host, None);
    }
    told(client, EXTERNAL, "True", "Ready").await?;

    give(client, secrets, broken(3)).await?;
    not_ready(client, OWN).await?;
    not_ready(client, EXTERNAL).await
}

/// All that the operator makes anew is new.
async fn rotate(client: &Client) -> Result<()> {
    let token = async || -> Result<Vec<u8>> {
        let secret = Api::<Secret>::namespaced(client.clone(), OWN).get("lab-broker-generated").await?;
        Ok(secret.data.unwrap_or_default().remove("password").context("no password")?.0)
    };
    let before = token().await?;
    let request = json!({"metadata": {"annotations": {"iotpipeline.io/rotate": "one"}}});
    let pipelines: Api<IoTPipeline> = Api::namespaced(client.clone(), OWN);
    pipelines.patch("lab", &PatchParams::default(), &Patch::Merge(request)).await?;
    eventually("the password is new", SOON, async || {
        Ok(if token().await? == before { Probe::NotYet("the old one".into()) } else { Probe::Found(()) })
    })
    .await?;
    told(client, OWN, "True", "Ready").await.map(drop)
}

async fn not_ready(client: &Client, namespace: &str) -> Result<()> {
    let pipelines: Api<IoTPipeline> = Api::namespaced(client.clone(), namespace);
    eventually(format!("{namespace} is not ready"), SOON, async || {
        let status = pipelines.get("lab").await?.status.unwrap_or_default();
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready");
        Ok(match ready {
            Some(ready) if ready.status == "False" => {
                println!("{namespace}: {}: {}", ready.reason, ready.message);
                Probe::Found(())
            }
            other => Probe::NotYet(format!("{other:?}")),
        })
    })
    .await
}

async fn search_objects(client: &Client, secrets: &mut Secrets) -> Result<()> {
    for namespace in [OWN, EXTERNAL] {
        let objects = objects(client, namespace).await?;
        for kind in ["IoTPipeline", "ConfigMap", "Event", "StatefulSet", "Pod"] {
            ensure!(objects.iter().any(|(place, _)| place.starts_with(kind)), "{namespace} has no {kind}");
        }
        for (place, text) in objects {
            secrets.search(&format!("{namespace}: {place}"), &text);
        }
    }
    Ok(())
}

/// A search that finds nothing anywhere would be one that can't find.
async fn what_is_planted_is_found(client: &Client, secrets: &mut Secrets) -> Result<()> {
    let given = Api::<Secret>::namespaced(client.clone(), OWN).get("lab-bridge").await?;
    let token = given.data.unwrap_or_default().remove("token").context("no token")?;
    // As a header of HTTP would have it.
    let text = format!("Authorization: {}", serde_json::to_string(&json!({"token": token}))?);
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "planted"}, "data": {"log": text}}))?;
    Api::namespaced(client.clone(), OWN).create(&PostParams::default(), &map).await?;
    search_objects(client, secrets).await?;
    let (found, _) = secrets.found();
    ensure!(found.len() == 1 && found.iter().all(|found| found.contains("ConfigMap planted")), "{found:#?}");
    Ok(())
}
