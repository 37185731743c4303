//! Every object that a pipeline is made of, as a reviewer can read it. `UPDATE=1` rewrites the files.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use iotpipeline_operator::plan::Plan;
use iotpipeline_operator::resources::{
    BridgeObjects, BrokerObjects, DashboardObjects, DatabaseObjects, Desired, desired,
};
use serde::Serialize;
use serde_json::Value;

use support::{Case, config, tokens};

const EXAMPLES: [(&str, &str); 2] = [("lab", "lab.yaml"), ("minimal", "minimal.yaml")];

fn check(case: &str, pipeline: &Path) {
    let read = Case::read(pipeline);
    let plan =
        || Plan::new(&read.pipeline, &read.observed, &config()).expect("the case's pipeline can be planned");
    let rendered = render(&desired(&plan(), &tokens()));
    assert_eq!(rendered, render(&desired(&plan(), &tokens())), "{case}: built twice, the objects differ");

    let file = golden().join(case).join("desired.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(golden().join(case)).expect("the case has a directory");
        fs::write(&file, &rendered).expect("the file can be written");
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == rendered,
        "{} has drifted: look at what changes with UPDATE=1 cargo test -p iotpipeline-operator --test golden\n{}",
        file.display(),
        first_difference(&committed, &rendered)
    );
}

fn first_difference(committed: &str, rendered: &str) -> String {
    let differs = committed.lines().zip(rendered.lines()).enumerate().find(|(_, (old, new))| old != new);
    match differs {
        Some((line, (old, new))) => format!("line {}:\n- {old}\n+ {new}", line + 1),
        None => "one is longer than the other".into(),
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// In the order of the apply; Secrets with their text, which is what a reviewer must see.
fn render(desired: &Desired) -> String {
    let Desired { authority, certificates, broker, database, bridge, dashboard } = desired;
    let mut documents: Vec<String> =
        authority.iter().map(document).chain(certificates.iter().map(document)).collect();
    if let Some(BrokerObjects { user_secrets, secret, service, stateful_set, live_hash: _ }) = broker {
        documents.extend(user_secrets.iter().map(document));
        documents.extend([document(secret), document(service), document(stateful_set)]);
    }
    if let Some(DatabaseObjects { secret, service, stateful_set }) = database {
        documents.extend([document(secret), document(service), document(stateful_set)]);
    }
    if let Some(BridgeObjects { secret, config_map, service, stateful_set, live_hash: _, mounted_hash: _ }) =
        bridge.wanted()
    {
        documents.extend([document(secret), document(config_map), document(service), document(stateful_set)]);
    }
    if let Some(DashboardObjects { secret, config_map, service, deployment, live_hash: _ }) =
        dashboard.wanted()
    {
        documents.extend([document(secret), document(config_map), document(service), document(deployment)]);
    }
    documents.join("---\n")
}

fn document(object: &impl Serialize) -> String {
    let mut value = serde_json::to_value(object).expect("an object is JSON");
    if value["kind"] == "Secret" {
        let secret: k8s_openapi::api::core::v1::Secret =
            serde_json::from_value(value.clone()).expect("it is a Secret");
        let text = |bytes: &k8s_openapi::ByteString| String::from_utf8_lossy(&bytes.0).into_owned();
        let data = secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), Value::String(text(bytes))));
        value["stringData"] = Value::Object(data.collect());
        value.as_object_mut().expect("an object").remove("data");
    }
    if let Some(json) = value["data"]["dashboard.json"].as_str() {
        let dashboard: Value = serde_json::from_str(json).expect("the dashboard is JSON");
        let pretty = serde_json::to_string_pretty(&dashboard).expect("it stays JSON");
        value["data"]["dashboard.json"] = Value::String(pretty);
    }
    let yaml = serde_saphyr::to_string(&value).expect("JSON is YAML");
    if yaml.ends_with('\n') { yaml } else { format!("{yaml}\n") }
}

#[test]
fn the_objects_of_each_example_are_the_committed_ones() {
    for (case, file) in EXAMPLES {
        check(case, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples").join(file));
    }
}

#[test]
fn the_objects_of_each_case_are_the_committed_ones() {
    let mut count = 0;
    for entry in fs::read_dir(golden()).expect("there are cases") {
        let directory = entry.expect("it can be read").path();
        let pipeline = directory.join("pipeline.yaml");
        if pipeline.exists() {
            count += 1;
            check(&directory.file_name().expect("it has a name").to_string_lossy(), &pipeline);
        }
    }
    assert!(count >= 8, "only {count} cases were found");
}
