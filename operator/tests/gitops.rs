//! How GitOps tools read a pipeline: by kstatus (Flux, Helm 4), by `kubectl wait`, and by the script for Argo CD in
//! `manifests/argocd/`, which e2e runs on the files that are written here.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use api::iotpipeline::{Endpoints, IoTPipelineStatus};
use iotpipeline_operator::status::{Facts, Part, Parts, status};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use support::ask;

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
fn object(generation: i64, status: IoTPipelineStatus) -> Value {
    json!({
        "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
        "metadata": {"name": "lab", "namespace": "default", "generation": generation},
        "status": status,
    })
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
    let now = |facts: &Facts| told(facts, 1, None);
    let unseen = IoTPipelineStatus { observed_generation: Some(-1), ..IoTPipelineStatus::default() };
    vec![
        // As the API server completes it by the definition: kstatus would take what has no status for done.
        ("new", object(1, unseen), "InProgress", false),
        ("starting", object(1, now(&applied(starting))), "InProgress", false),
        ("ready", object(1, ready.clone()), "Current", true),
        ("behind", object(1, now(&applied(behind))), "Current", true),
        ("refused", object(1, now(&refused)), "Failed", false),
        ("failed", object(1, now(&failed)), "InProgress", false),
        ("outdated", object(2, ready.clone()), "InProgress", false),
        ("suspended", object(1, told(&Facts::Suspended { failure: None }, 1, Some(&ready))), "Current", true),
        ("hibernated", object(1, now(&asleep)), "InProgress", false),
    ]
}

fn condition<'o>(object: &'o Value, type_: &str) -> &'o Value {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or(&Value::Null)
}

/// The rule of `kubectl wait` (`kubectl/pkg/cmd/wait/condition.go`).
fn wait_ends(object: &Value) -> bool {
    let ready = condition(object, "Ready");
    let is_current = ready["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64();
    ready["status"] == "True" && is_current
}

#[test]
fn kubectl_wait_ends_when_a_pipeline_is_ready() {
    for (name, object, _, ends) in cases() {
        assert_eq!(wait_ends(&object), ends, "{name}: {object:#}");
    }
}

#[test]
#[ignore = "needs kstatus: `cargo xtask test` runs it"]
fn kstatus_sees_a_pipeline_as_it_is() {
    let objects: Value = cases().into_iter().map(|(_, object, ..)| object).collect();
    let expected: Value = cases().into_iter().map(|(_, _, expected, _)| Value::from(expected)).collect();
    assert_eq!(ask("statuses", &objects), expected, "{objects:#}");
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
