//! The same question put to somebody else's program: cyclonus, which Kubernetes' network people test
//! implementations of policies with. `e2e/witness` is the way to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use iotpipeline_operator::resources::names::{Component, Names};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::rules::{End, Labels, NAMESPACE, Port, labels_of_namespace, passes};
use crate::support::ask;

/// A verdict of cyclonus'.
#[derive(Debug, Deserialize, Eq, PartialEq)]
struct Verdict {
    leaves: bool,
    enters: bool,
}

/// Who may want to talk to whom: all that there is around a pipeline of this name.
fn ends(pipeline: &str) -> Vec<End> {
    let labels = |pipeline: &str, component| {
        Names { pipeline: pipeline.into(), namespace: NAMESPACE.into() }.labels(component)
    };
    let part = |name, component| End { name, pod: Some((NAMESPACE, labels(pipeline, component))) };
    let pod = |name, namespace, app: &str| {
        let labels: Labels = [("app.kubernetes.io/name".to_owned(), app.to_owned())].into();
        End { name, pod: Some((namespace, labels)) }
    };
    let others = |name, namespace, pipeline: &str, component| End {
        name,
        pod: Some((namespace, labels(pipeline, component))),
    };
    vec![
        part("broker", Component::Broker),
        part("database", Component::Database),
        part("bridge", Component::Bridge),
        part("dashboard", Component::Dashboard),
        part("a backup", Component::Backup),
        part("a restore", Component::Restore),
        pod("operator", "iotpipeline-system", "iotpipeline-operator"),
        pod("somebody beside the operator", "iotpipeline-system", "shell"),
        pod("one that is called like the operator", NAMESPACE, "iotpipeline-operator"),
        pod("a pod in the namespace", NAMESPACE, "shell"),
        pod("Prometheus", "monitoring", "prometheus"),
        pod("name resolution", "kube-system", "coredns"),
        others("another pipeline's bridge", NAMESPACE, "another", Component::Bridge),
        others("another pipeline's database", NAMESPACE, "another", Component::Database),
        others("a bridge of this name elsewhere", "elsewhere", pipeline, Component::Bridge),
        End { name: "a device", pod: None },
    ]
}

/// Whatever a part listens on, names are resolved by, and what nobody has asked for.
const PORTS: [Port; 14] = [
    (1883, "TCP"),
    (8883, "TCP"),
    (8884, "TCP"),
    (8086, "TCP"),
    (9090, "TCP"),
    (3000, "TCP"),
    (8080, "TCP"),
    (53, "UDP"),
    (53, "TCP"),
    (5353, "UDP"),
    (5353, "TCP"),
    (443, "TCP"),
    (22, "TCP"),
    (8883, "UDP"),
];

/// The policies of a golden case, and the name of its pipeline.
fn policies(case: &Path) -> (Vec<NetworkPolicy>, String) {
    let text = fs::read_to_string(case.join("desired.yaml")).expect("the case has its objects");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("they are YAML");
    let name = documents[0]["metadata"]["labels"]["app.kubernetes.io/instance"].as_str();
    let name = name.expect("an object has its pipeline's name").to_owned();
    let policies = documents.into_iter().filter(|document| document["kind"] == "NetworkPolicy");
    (policies.map(|policy| serde_json::from_value(policy).expect("it is a policy")).collect(), name)
}

fn as_cyclonus_knows(end: &End) -> Value {
    match &end.pod {
        None => json!({"IP": "203.0.113.9"}),
        Some((namespace, labels)) => json!({"IP": "10.0.0.9", "Internal": {
            "Namespace": namespace, "NamespaceLabels": labels_of_namespace(namespace), "PodLabels": labels,
        }}),
    }
}

fn verdicts(policies: &[NetworkPolicy], traffics: &[(&End, &End, Port)]) -> Vec<Verdict> {
    let traffics = traffics.iter().map(|(from, to, (port, protocol))| {
        json!({
            "Source": as_cyclonus_knows(from), "Destination": as_cyclonus_knows(to),
            "ResolvedPort": port, "ResolvedPortName": "", "Protocol": protocol,
        })
    });
    let question = json!({"policies": policies, "traffics": traffics.collect::<Vec<_>>()});
    serde_json::from_value(ask("policies", &question)).expect("it answers with verdicts")
}

/// What both programs said of a pair and a port, where they differ, and how many they were asked for.
fn differences(policies: &[NetworkPolicy], ours: &[NetworkPolicy], pipeline: &str) -> (Vec<String>, usize) {
    let ends = ends(pipeline);
    let pairs = ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to)));
    let pairs = pairs.filter(|(from, to)| from.name != to.name);
    let traffics: Vec<_> = pairs.flat_map(|(from, to)| PORTS.map(|port| (from, to, port))).collect();
    let verdicts = verdicts(policies, &traffics);
    assert_eq!(verdicts.len(), traffics.len());
    let differ = traffics.iter().zip(verdicts).filter_map(|((from, to, port), theirs)| {
        let (leaves, enters) = passes(ours, from, to, *port);
        let ours = Verdict { leaves, enters };
        let (from, to) = (from.name, to.name);
        (ours != theirs).then(|| format!("{from} to {to}, {port:?}: we say {ours:?}, cyclonus {theirs:?}"))
    });
    (differ.collect(), traffics.len())
}

fn cases() -> Vec<std::path::PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(golden).expect("there are cases");
    entries.map(|entry| entry.expect("it can be read").path()).collect()
}

#[test]
#[ignore = "needs cyclonus: `cargo xtask test` runs it"]
fn cyclonus_says_the_same_of_each_pair_and_port_in_each_golden_case() {
    let (mut differ, mut asked, mut ports) = (Vec::new(), 0, BTreeSet::new());
    let cases = cases();
    for case in &cases {
        let (policies, pipeline) = policies(case);
        let (of_case, count) = differences(&policies, &policies, &pipeline);
        let name = case.file_name().expect("it has a name").display();
        differ.extend(of_case.into_iter().map(|difference| format!("{name}: {difference}")));
        asked += count;
        ports.extend(policies.iter().flat_map(ports_of));
    }
    println!("{asked} questions in {} cases, {} differences", cases.len(), differ.len());
    assert!(cases.len() >= 15, "only {} cases", cases.len());
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    let unasked: Vec<_> = ports.iter().filter(|port| !PORTS.iter().any(|(one, _)| one == *port)).collect();
    assert!(unasked.is_empty(), "the policies have ports that nobody asked for: {unasked:?}");
}

#[test]
#[ignore = "needs cyclonus: `cargo xtask test` runs it"]
fn cyclonus_finds_out_where_a_policy_says_something_else() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/minimal");
    let (policies, pipeline) = policies(&golden);
    let mut open = policies.clone();
    let database = open.iter_mut().find(|policy| policy.metadata.name.as_deref() == Some("home-database"));
    let spec = database.and_then(|policy| policy.spec.as_mut()).expect("the database has a policy");
    spec.ingress.iter_mut().flatten().for_each(|rule| rule.from = None);
    let (differ, _) = differences(&open, &policies, &pipeline);
    let expected = "a device to database, (8086, \"TCP\"): we say Verdict { leaves: true, enters: false }, \
                    cyclonus Verdict { leaves: true, enters: true }";
    assert!(differ.iter().any(|difference| difference == expected), "{}", differ.join("\n"));
}

fn ports_of(policy: &NetworkPolicy) -> Vec<i32> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let spec = policy.spec.as_ref();
    let enter = spec.into_iter().flat_map(|spec| spec.ingress.iter().flatten());
    let leave = spec.into_iter().flat_map(|spec| spec.egress.iter().flatten());
    let ports = enter.flat_map(|rule| rule.ports.iter().flatten());
    let ports = ports.chain(leave.flat_map(|rule| rule.ports.iter().flatten()));
    ports
        .filter_map(|port| match &port.port {
            Some(IntOrString::Int(number)) => Some(*number),
            None => None,
            other => panic!("not a number: {other:?}"),
        })
        .collect()
}
