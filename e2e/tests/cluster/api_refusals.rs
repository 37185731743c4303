//! What the API server refuses, and in which words; what it accepts; what `kubectl explain` teaches.

use anyhow::{Result, ensure};
use api::iotpipeline::IoTPipeline;
use iotpipeline_e2e::environment::{example, kubeconfig_path};
use iotpipeline_e2e::namespaces::{Namespace, with_namespace};
use iotpipeline_e2e::process;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Error, Resource};
use serde_json::{Value, json};

fn with_url(external: &Value, url: &str) -> Value {
    let mut external = external.clone();
    external["url"] = url.into();
    external
}

/// A change to a good pipeline, by JSON pointer, and a part of what the refused user reads.
fn refusals() -> Vec<(&'static str, Value, &'static str)> {
    let route = |name: &str, topic: &str| json!({"name": name, "topic": topic, "payload": {"float": {}}});
    let topic = |topic: &str| json!([route("r", topic)]);
    let external_broker = json!({"url": "mqtt://broker:1883"});
    let external_database = json!({"url": "http://db:8086", "tokenSecretRef": {"name": "s", "key": "token"}});
    let external_dashboard = json!({"url": "http://grafana:3000", "credentialsSecretRef": {"name": "s"}});
    let image = json!({"tag": "1"});
    vec![
        ("/routes", topic("a/#/b"), "not a topic pattern"),
        ("/routes", topic("a/b+"), "not a topic pattern"),
        ("/routes", topic(""), "spec.routes[0].topic"),
        ("/routes", topic(&"a".repeat(65_536)), "Too long"),
        ("/routes", topic("a/{x"), "not a topic pattern"),
        ("/routes", topic("{rest...}/a"), "not a topic pattern"),
        ("/routes", topic("a/{x}/{x}"), "a capture may be named only once"),
        ("/routes", topic("a/{x}/{x...}"), "a capture may be named only once"),
        ("/routes", topic("$share/g/a"), "shared subscriptions are not for routes"),
        ("/routes", json!([route("r", "a"), route("r", "b")]), "Duplicate value"),
        ("/routes", json!([]), "should have at least 1 items"),
        ("/routes/0/measurement", json!("_x"), "reserved by InfluxDB"),
        ("/routes/0/name", json!("No Name"), "a route's name has lower-case letters"),
        ("/routes/0/payload", json!({}), "spec.routes[0].payload"),
        (
            "/routes/0/payload",
            json!({"json": {"fields": [{"path": "v", "type": "integer", "scale": 0.1}]}}),
            "declare type float",
        ),
        ("/routes/0/tags", json!([{"name": "t"}]), "a tag comes from one place"),
        ("/routes/0/tags", json!([{"name": "_t", "value": "v"}]), "reserved by InfluxDB"),
        ("/routes/0/series", json!({"limit": 0}), "greater than or equal to 1"),
        ("/routes/0/qos", json!(3), "less than or equal to 2"),
        (
            "/broker",
            json!({"external": external_broker, "users": [{"name": "a"}]}),
            "a broker is managed or external",
        ),
        ("/broker", json!({"external": external_broker, "image": image}), "a broker is managed or external"),
        ("/broker", json!({"external": {"url": "http://broker"}}), "not a broker's address"),
        ("/broker", json!({"external": {"url": "mqtt://broker/path"}}), "not a broker's address"),
        ("/broker", json!({"external": {"url": "wss://broker/mqtt?token=x"}}), "not a broker's address"),
        ("/broker", json!({"users": [{"name": "iotpipeline-x"}]}), "are the operator's own"),
        ("/broker", json!({"users": [{"name": "a", "publish": ["a/#/b"]}]}), "not a topic filter"),
        (
            "/database",
            json!({"external": external_database, "retention": "30d"}),
            "a database is managed or external",
        ),
        (
            "/database",
            json!({"external": external_database, "storage": {"size": "1Gi"}}),
            "a database is managed or external",
        ),
        ("/database", json!({"external": with_url(&external_database, "http://db/?q=x")}), "without a query"),
        ("/database", json!({"external": with_url(&external_database, "http://db#x")}), "without a query"),
        (
            "/dashboard",
            json!({"external": with_url(&external_dashboard, "http://u@grafana")}),
            "not an address",
        ),
        ("/database/retention", json!("30m"), "InfluxDB keeps points for at least 1h"),
        ("/database/retention", json!("3599s"), "InfluxDB keeps points for at least 1h"),
        ("/database/retention", json!("a month"), "not a retention"),
        ("/database/bucket", json!("_mine"), "reserved by InfluxDB"),
        ("/database/storage", json!({"size": "much"}), "not a size"),
        (
            "/dashboard",
            json!({"external": external_dashboard, "image": image}),
            "a dashboard is managed or external",
        ),
        ("/bridge", json!({"replicas": 17}), "less than or equal to 16"),
    ]
}

fn good() -> Value {
    json!({
        "apiVersion": "iotpipeline.io/v1alpha1",
        "kind": "IoTPipeline",
        "metadata": {"name": "good"},
        "spec": {
            "broker": {"storage": {"size": "2Gi"}},
            "database": {"storage": {"size": "2Gi"}},
            "routes": [{"name": "r", "topic": "a/{x}/#", "payload": {"float": {}}}],
        },
    })
}

/// Applies a manifest; only for show where `dry_run` says so.
async fn apply(namespace: &Namespace, manifest: &Value, dry_run: bool) -> Result<(), Error> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    let parameters = PatchParams { dry_run, ..PatchParams::apply("e2e").force() };
    namespace.api::<IoTPipeline>().patch(name, &parameters, &Patch::Apply(manifest)).await.map(drop)
}

/// Creates it as `kubectl apply` does what isn't there yet; only for show.
async fn create(namespace: &Namespace, manifest: &Value) -> Result<(), Error> {
    let path = IoTPipeline::url_path(&(), Some(&namespace.name));
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let request = Request::new(path).create(&parameters, manifest.to_string().into_bytes());
    namespace.client.request::<Value>(request.map_err(Error::BuildRequest)?).await.map(drop)
}

/// Why a manifest is refused.
fn refusal(outcome: Result<(), Error>) -> Result<String> {
    match outcome {
        Err(Error::Api(status)) => Ok(status.message.clone()),
        Err(other) => Err(other.into()),
        Ok(()) => Ok("nothing: it is accepted".into()),
    }
}

#[tokio::test]
async fn what_can_t_work_is_refused_in_words_that_say_what_to_do() {
    with_namespace("refusals", async |namespace| {
        apply(&namespace, &good(), true).await?;
        let mut wrong = Vec::new();
        for (pointer, value, expected) in refusals() {
            let mut manifest = good();
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            let parent = manifest.pointer_mut(&format!("/spec{parent}")).expect("the good one has it");
            parent[key] = value.clone();
            let message = refusal(create(&namespace, &manifest).await)?;
            if !message.contains(expected) {
                let mut shown = value.to_string();
                shown.truncate(120);
                wrong.push(format!("{pointer} = {shown}\n  expected {expected:?}\n  got {message:.400}"));
            }
        }
        ensure!(wrong.is_empty(), "{} refusals are wrong:\n{}", wrong.len(), wrong.join("\n"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn storage_can_grow_but_neither_shrink_nor_move() {
    with_namespace("storage", async |namespace| {
        apply(&namespace, &good(), false).await?;
        for part in ["broker", "database"] {
            let mut manifest = good();
            manifest["spec"][part]["storage"]["size"] = json!("3Gi");
            apply(&namespace, &manifest, true).await?;
            manifest["spec"][part]["storage"]["size"] = json!("1Gi");
            let message = refusal(apply(&namespace, &manifest, true).await)?;
            ensure!(message.contains("storage can't shrink"), "{part}: {message}");
            manifest["spec"][part] = json!({});
            let message = refusal(apply(&namespace, &manifest, true).await)?;
            ensure!(message.contains("storage can't be removed"), "{part}: {message}");
        }
        let mut manifest = good();
        manifest["spec"]["database"]["organization"] = json!("another");
        let message = refusal(apply(&namespace, &manifest, true).await)?;
        ensure!(message.contains("make another pipeline"), "{message}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_examples_are_accepted() {
    with_namespace("examples", async |namespace| {
        for name in ["lab.yaml", "minimal.yaml"] {
            let manifest: Value = serde_saphyr::from_str(&example(name)?)?;
            apply(&namespace, &manifest, true).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn kubectl_explain_teaches_routes() {
    let kubeconfig = format!("--kubeconfig={}", kubeconfig_path().display());
    let explain = ["explain", "iotpipeline.spec.routes", &kubeconfig];
    let text = process::run("kubectl", &explain).await.expect("kubectl explains");
    for taught in
        ["sensor/accelero/{axis}", "topic", "measurement", "payload", "becomes the tag", "-required-"]
    {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(taught), "nothing of {taught:?} in:\n{text}");
    }
}
