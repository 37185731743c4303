//! Who can reach whom, computed from the network policies: by our own reading of Kubernetes' rules, and by cyclonus'.

mod rules;
#[path = "../support/mod.rs"]
mod support;
mod witness;

use iotpipeline_operator::plan::Plan;
use iotpipeline_operator::resources::desired;
use iotpipeline_operator::resources::names::{Component, Names};
use rules::{End, Labels, NAMESPACE, passes};
use support::{Case, config, tokens};

fn ends() -> Vec<End> {
    let names = |pipeline: &str| Names { pipeline: pipeline.into(), namespace: NAMESPACE.into() };
    let part = |name, component| End { name, pod: Some((NAMESPACE, names("lab").labels(component))) };
    let operator: Labels = [("app.kubernetes.io/name".to_owned(), "iotpipeline-operator".to_owned())].into();
    vec![
        part("broker", Component::Broker),
        part("database", Component::Database),
        part("bridge", Component::Bridge),
        part("dashboard", Component::Dashboard),
        End { name: "operator", pod: Some(("iotpipeline-system", operator.clone())) },
        End { name: "impostor", pod: Some((NAMESPACE, operator)) },
        End { name: "neighbour", pod: Some((NAMESPACE, names("other").labels(Component::Bridge))) },
        End { name: "outside", pod: None },
    ]
}

/// A line for each end: what it reaches.
fn matrix(spec: &str) -> String {
    let head = "apiVersion: iotpipeline.io/v1alpha1\nkind: IoTPipeline\nmetadata: {name: lab}\nspec: ";
    let case = Case::parse(&format!("{head}{spec}"));
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
    let policies = desired(&plan, &tokens()).surroundings.network_policies;
    let targets = [
        ("broker", 8883),
        ("database", 8086),
        ("bridge", 9090),
        ("dashboard", 3000),
        ("broker", 22),
        ("outside", 53),
        ("outside", 443),
    ];
    let line = |from: &End| {
        let ends = ends();
        let reached = targets.iter().filter(|(name, port)| {
            let to = ends.iter().find(|end| end.name == *name).expect("the target is an end");
            // Names are resolved by UDP too.
            let protocols: &[&'static str] = if *port == 53 { &["TCP", "UDP"] } else { &["TCP"] };
            let all =
                |protocol: &&'static str| passes(&policies, from, to, (*port, protocol)) == (true, true);
            name != &from.name && protocols.iter().all(all)
        });
        let reached: Vec<String> = reached.map(|(name, port)| format!("{name}:{port}")).collect();
        format!("{}: {}\n", from.name, reached.join(" "))
    };
    ends().iter().map(line).collect()
}

const ROUTES: &str = "dashboard: {}, routes: [{name: r, topic: a, payload: {float: {}}}]";

#[test]
fn only_the_chain_s_traffic_is_admitted() {
    let expected = "\
broker: 
database: 
bridge: broker:8883 database:8086 outside:53
dashboard: database:8086 outside:53
operator: broker:8883 database:8086 bridge:9090 dashboard:3000 outside:53 outside:443
impostor: broker:8883 dashboard:3000 outside:53 outside:443
neighbour: broker:8883 dashboard:3000 outside:53 outside:443
outside: broker:8883 dashboard:3000
";
    assert_eq!(matrix(&format!("{{{ROUTES}}}")), expected);
}

#[test]
fn a_backup_reaches_s3_on_whichever_port_its_pods_have() {
    let backup = "backup: {s3: {url: 'https://s3.lab/copies', credentialsSecretRef: {name: s}}}";
    let head = "apiVersion: iotpipeline.io/v1alpha1\nkind: IoTPipeline\nmetadata: {name: lab}\nspec: ";
    let case = Case::parse(&format!("{head}{{database: {{{backup}}}, {ROUTES}}}"));
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
    let policies = desired(&plan, &tokens()).surroundings.network_policies;
    let labels = plan.pipeline.names.labels(Component::Backup);
    let from = End { name: "backup", pod: Some((NAMESPACE, labels)) };
    let reached = |name: &str, port| {
        let ends = ends();
        let to = ends.iter().find(|end| end.name == name).expect("it is an end");
        passes(&policies, &from, to, port) == (true, true)
    };
    assert!(reached("database", (8086, "TCP")));
    assert!(reached("outside", (9000, "TCP")) && reached("outside", (53, "UDP")));
    assert!(!reached("outside", (9000, "UDP")) && !reached("bridge", (9090, "TCP")));
}

#[test]
fn the_way_to_external_parts_is_open() {
    let spec = format!(
        "{{broker: {{external: {{url: 'mqtt://b:1883'}}}}, \
          database: {{external: {{url: 'http://d:8086', tokenSecretRef: {{name: s, key: k}}}}}}, {ROUTES}}}\n---\n\
         metadata: {{name: s}}\nstringData: {{k: t}}"
    );
    let matrix = matrix(&spec);
    assert!(
        matrix
            .contains("bridge: broker:8883 database:8086 dashboard:3000 broker:22 outside:53 outside:443\n"),
        "{matrix}"
    );
    assert!(
        matrix.contains("dashboard: broker:8883 database:8086 broker:22 outside:53 outside:443\n"),
        "{matrix}"
    );
    assert!(matrix.contains("outside: broker:8883 database:8086 dashboard:3000 broker:22"), "{matrix}");
}

#[test]
fn without_policies_all_is_open() {
    let matrix = matrix(&format!("{{networkPolicy: {{enabled: false}}, {ROUTES}}}"));
    assert!(
        matrix.contains("outside: broker:8883 database:8086 bridge:9090 dashboard:3000 broker:22\n"),
        "{matrix}"
    );
}
