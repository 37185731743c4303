//! The chart says what the rest of the repository says: the same resource definition, the same
//! values in values.yaml and in their schema, the same objects in manifests/install.yaml.
//! `UPDATE=1` rewrites what is generated.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const CHART: &str = "charts/iotpipeline-operator";
const DEFINITION: &str = "iotpipelines.iotpipeline.io.yaml";
const NAMESPACE: &str = "iotpipeline-system";

/// A namespace that is held to the strictest standard for pods. The chart's objects follow.
const PREAMBLE: &str = "\
# Generated (cargo xtask generate): the chart with its default values, for those without Helm.
# kubectl apply --server-side --filename manifests/install.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: iotpipeline-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Compares a committed file with what it is generated from.
fn check(path: &str, generated: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(root().join(path), generated).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    assert!(read(path) == generated, "{path} has drifted: run `cargo xtask generate`");
}

#[test]
fn the_chart_has_the_committed_resource_definition() {
    check(&format!("{CHART}/files/{DEFINITION}"), &read(&format!("crds/{DEFINITION}")));
}

#[test]
fn the_chart_is_of_this_version() {
    let chart: Value = serde_saphyr::from_str(&read(&format!("{CHART}/Chart.yaml"))).expect("Chart.yaml");
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_notes_have_the_smallest_example() {
    let example = read("manifests/examples/minimal.yaml");
    let resource = &example[example.find("apiVersion:").expect("a resource")..];
    let notes = read(&format!("{CHART}/templates/NOTES.txt"));
    assert!(notes.contains(resource), "NOTES.txt has another than manifests/examples/minimal.yaml");
}

#[test]
fn values_and_their_schema_have_the_same_keys() {
    let values: Value = serde_saphyr::from_str(&read(&format!("{CHART}/values.yaml"))).expect("values.yaml");
    let schema: Value =
        serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).expect("values.schema.json");
    let mut differences = Vec::new();
    compare("", &values, &schema, &schema, &mut differences);
    assert_eq!(differences, Vec::<String>::new());
}

/// Properties that no default stands for.
const WITHOUT_DEFAULT: [&str; 6] = [
    ".global",
    ".enabled",
    ".resources.claims",
    ".affinity.nodeAffinity",
    ".affinity.podAffinity",
    ".affinity.podAntiAffinity",
];

fn compare(path: &str, value: &Value, schema: &Value, root: &Value, differences: &mut Vec<String>) {
    if !path.is_empty() && schema["description"].as_str().is_none_or(str::is_empty) {
        differences.push(format!("{path} has no description in the schema"));
    }
    let resolved = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(&reference[1..]).expect("a reference within the schema"),
        None => schema,
    };
    let (Some(values), Some(properties)) = (value.as_object(), resolved["properties"].as_object()) else {
        return;
    };
    if resolved["additionalProperties"] != Value::Bool(false) {
        differences.push(format!("{path} admits unknown keys"));
    }
    for (key, value) in values {
        match properties.get(key) {
            Some(property) => compare(&format!("{path}.{key}"), value, property, root, differences),
            None => differences.push(format!("{path}.{key} is not in the schema")),
        }
    }
    for key in properties.keys().filter(|key| !values.contains_key(*key)) {
        let key = format!("{path}.{key}");
        if !WITHOUT_DEFAULT.contains(&key.as_str()) {
            differences.push(format!("{key} is not in values.yaml"));
        }
    }
}

#[test]
#[ignore = "needs helm: `cargo xtask test` runs it"]
fn the_committed_manifest_is_the_chart_rendered() {
    let rendered = rendered(&["--namespace", NAMESPACE, "--set", "crds.keep=false"]);
    check("manifests/install.yaml", &manifest(&rendered));
}

/// Without what is Helm's own: its marks on the objects, and blank lines, which differ between its versions.
fn manifest(rendered: &str) -> String {
    let marks = ["# Source:", "helm.sh/chart:", "app.kubernetes.io/managed-by:"];
    let mut text = PREAMBLE.to_owned();
    for document in rendered.split("---\n").map(str::trim).filter(|document| !document.is_empty()) {
        text.push_str("---\n");
        for line in document.lines() {
            if !marks.iter().any(|mark| line.trim_start().starts_with(mark)) {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[test]
#[ignore = "needs helm: `cargo xtask test` runs it"]
fn helm_finds_no_fault_with_the_chart() {
    let output = helm("lint", &["--strict"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
#[ignore = "needs helm: `cargo xtask test` runs it"]
fn what_the_chart_does_not_take_is_refused() {
    for (refused, word) in [
        ("image.tagg=1", "tagg"),
        ("images.mosquitto.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=sha256:12", "digest"),
        ("image.repository=ghcr.io/a/b:1", "repository"),
        ("images.grafana.tag=12", "tag"),
        ("images.pullSecrets={mirror}", "pullSecrets"),
        ("namespaces={Lab}", "namespaces"),
        ("logFormat=xml", "logFormat"),
        ("replicas=-1", "replicas"),
        ("metrics.service.port=0", "port"),
        ("serviceAccount.create=false", "serviceAccount.name"),
    ] {
        let output = helm("template", &["--set", refused]);
        assert!(!output.status.success(), "{refused} is admitted");
        assert!(said(&output).contains(word), "{refused}: {}", said(&output));
    }
}

#[test]
#[ignore = "needs helm: `cargo xtask test` runs it"]
fn rights_end_where_the_named_namespaces_do() {
    let everywhere = rendered(&["--set", "rbac.aggregate=false"]);
    // One for the election, in the operator's own namespace.
    assert!(everywhere.contains("kind: ClusterRoleBinding"));
    assert_eq!(everywhere.matches("kind: Role\nmetadata:").count(), 1);
    let named = rendered(&["--set", "namespaces={lab,home}"]);
    assert!(!named.contains("kind: ClusterRole"));
    assert_eq!(named.matches("kind: Role\nmetadata:").count(), 3);
    assert_eq!(named.matches("kind: RoleBinding\nmetadata:").count(), 3);
}

#[test]
#[ignore = "needs helm: `cargo xtask test` runs it"]
fn several_operators_are_spread_and_not_drained_at_once() {
    let marks = ["kind: PodDisruptionBudget", "topologySpreadConstraints:"];
    let (one, two) = (rendered(&[]), rendered(&["--set", "replicas=2"]));
    assert!(marks.iter().all(|mark| !one.contains(mark) && two.contains(mark)));
}

#[test]
#[ignore = "needs helm: `cargo xtask test` runs it"]
fn one_registry_can_serve_every_image() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let values = format!("images.registry=mirror.example.com:5000,image.digest={digest}");
    let text = rendered(&["--set", &values]);
    assert!(text.contains(&format!("image: \"mirror.example.com:5000/iotpipeline/operator@{digest}\"")));
    assert!(
        text.contains("\n      registry: \"mirror.example.com:5000\"\n"),
        "the parts have other registries"
    );
}

#[test]
#[ignore = "needs helm: `cargo xtask test` runs it"]
fn the_resource_definition_outlives_the_release_unless_told_otherwise() {
    let kept = "helm.sh/resource-policy: keep";
    assert!(rendered(&[]).contains(kept));
    assert!(!rendered(&["--set", "crds.keep=false"]).contains(kept));
    assert!(!rendered(&["--set", "crds.install=false"]).contains("kind: CustomResourceDefinition"));
}

fn rendered(arguments: &[&str]) -> String {
    let output = helm("template", arguments);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("helm writes UTF-8")
}

/// Runs helm on the chart: the local cluster's, or else the one on the PATH.
fn helm(verb: &str, arguments: &[&str]) -> Output {
    let of_the_cluster = root().join("target/cluster/bin/helm");
    let program = if of_the_cluster.exists() { of_the_cluster } else { "helm".into() };
    let mut command = Command::new(program);
    command.arg(verb).args((verb == "template").then_some("iotpipeline-operator"));
    command.arg(root().join(CHART)).args(arguments);
    command.output().unwrap_or_else(|error| {
        panic!("helm: {error}: install Helm 3 or 4, or run `cargo xtask cluster up`, which puts it into target/cluster/bin")
    })
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}
