//! How GitOps tools read a pipeline: by kstatus (Flux, Helm 4), by `kubectl wait`, and by the script for Argo CD in
//! `manifests/argocd/`, which e2e runs on the files that are written here.

use std::fs;
use std::path::{Path, PathBuf};

use api::iotpipeline::{Endpoints, IoTPipelineStatus};
use iotpipeline_operator::status::{Facts, Part, Parts, status};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

fn told(facts: &Facts, generation: i64, before: Option<&IoTPipelineStatus>) -> IoTPipelineStatus {
    status(facts, Some(generation), before, &Time(Timestamp::UNIX_EPOCH))
}

fn parts(bridge: Part) -> Box<Parts> {
    let (broker, database) = (Part::ready("running"), Part::ready("running and set up"));
    Box::new(Parts {
        broker,
        database,
        bridge,
        dashboard: None,
        backup: None,
        endpoints: Endpoints::default(),
    })
}

/// A pipeline of this generation.
fn object(generation: i64, status: Option<IoTPipelineStatus>) -> Value {
    let mut object = json!({
        "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
        "metadata": {"name": "lab", "namespace": "default", "generation": generation},
    });
    if let Some(status) = status {
        object["status"] = serde_json::to_value(status).expect("it can be written");
    }
    object
}

/// Name, object, what kstatus makes of it, and whether `kubectl wait --for=condition=Ready` ends.
fn cases() -> Vec<(&'static str, Value, &'static str, bool)> {
    let crosses = Part::ready("messages cross from the broker to the database");
    let behind = Part { reason: "Behind".into(), ..Part::ready("messages wait for more than 2 s") };
    let starting = Part::not_ready("Starting", "waiting for the bridge to start");
    let refused =
        Facts::Refused { reason: "SecretNotFound".into(), message: "the Secret s is missing".into() };
    let failed = Facts::Failed { reason: "NameTaken".into(), message: "Service lab-broker exists".into() };
    let applied = |part| Facts::Applied(parts(part));
    let asleep = Facts::Asleep { settled: true, parts: parts(Part::not_ready("Hibernated", "asleep")) };
    let ready = told(&applied(crosses), 1, None);
    let now = |facts: &Facts| Some(told(facts, 1, None));
    vec![
        // kstatus takes what has no status for done, of any kind: tools wait for `Ready` beside it.
        ("new", object(1, None), "Current", false),
        ("starting", object(1, now(&applied(starting))), "InProgress", false),
        ("ready", object(1, Some(ready.clone())), "Current", true),
        ("behind", object(1, now(&applied(behind))), "Current", true),
        ("refused", object(1, now(&refused)), "Failed", false),
        ("failed", object(1, now(&failed)), "InProgress", false),
        ("outdated", object(2, Some(ready.clone())), "InProgress", false),
        ("suspended", object(1, Some(told(&Facts::Suspended, 1, Some(&ready)))), "Current", true),
        ("hibernated", object(1, now(&asleep)), "InProgress", false),
    ]
}

fn condition<'o>(object: &'o Value, type_: &str) -> &'o Value {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or(&Value::Null)
}

/// The rules of kstatus for a kind that it doesn't know (`kstatus/status/generic.go` and `core.go`).
fn kstatus(object: &Value) -> &'static str {
    let observed = &object["status"]["observedGeneration"];
    if !observed.is_null() && *observed != object["metadata"]["generation"] {
        return "InProgress";
    }
    if condition(object, "Reconciling")["status"] == "True" {
        return "InProgress";
    }
    if condition(object, "Stalled")["status"] == "True" {
        return "Failed";
    }
    match condition(object, "Ready")["status"].as_str() {
        Some("False" | "Unknown") => "InProgress",
        _ => "Current",
    }
}

/// The rule of `kubectl wait` (`kubectl/pkg/cmd/wait/condition.go`).
fn wait_ends(object: &Value) -> bool {
    let ready = condition(object, "Ready");
    let is_current = ready["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64();
    ready["status"] == "True" && is_current
}

#[test]
fn kstatus_and_kubectl_wait_see_a_pipeline_as_it_is() {
    for (name, object, expected, ends) in cases() {
        assert_eq!((kstatus(&object), wait_ends(&object)), (expected, ends), "{name}: {object:#}");
    }
}

#[test]
fn the_statuses_that_argo_cd_s_script_is_tried_on_are_the_operator_s() {
    let folder: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/argocd/iotpipeline.io/IoTPipeline/testdata");
    for (name, object, ..) in cases() {
        let path = folder.join(format!("{name}.yaml"));
        let yaml = serde_saphyr::to_string(&object).expect("it can be written");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &yaml).expect("it can be written");
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == yaml, "{} differs: UPDATE=1 writes it", path.display());
    }
}
