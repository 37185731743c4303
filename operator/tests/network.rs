//! Who can reach whom, computed from the network policies by Kubernetes' rules: what no policy selects may do all;
//! what some select may do what one of them allows; and both ends must allow it.
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>

mod support;

use std::collections::BTreeMap;

use iotpipeline_operator::plan::Plan;
use iotpipeline_operator::resources::desired;
use iotpipeline_operator::resources::names::{Component, Names};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use support::{Case, config, tokens};

type Labels = BTreeMap<String, String>;

/// An end of a connection: a pod, or something outside of the cluster.
struct End {
    name: &'static str,
    /// Its namespace's name and its labels.
    pod: Option<(&'static str, Labels)>,
}

fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let wanted = selector.and_then(|selector| selector.match_labels.as_ref());
    wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

fn is_peer(peer: &NetworkPolicyPeer, end: &End) -> bool {
    assert!(peer.ip_block.is_none(), "not computed here");
    let Some((namespace, labels)) = &end.pod else { return false };
    let of_namespace = [("kubernetes.io/metadata.name".to_owned(), (*namespace).to_owned())].into();
    let in_namespace = match &peer.namespace_selector {
        Some(selector) => selects(Some(selector), &of_namespace),
        None => *namespace == "test",
    };
    in_namespace && selects(peer.pod_selector.as_ref(), labels)
}

fn allows(
    peers: Option<&Vec<NetworkPolicyPeer>>,
    ports: Option<&Vec<NetworkPolicyPort>>,
    end: &End,
    port: i32,
) -> bool {
    let peers = peers.is_none_or(|peers| peers.iter().any(|peer| is_peer(peer, end)));
    let is_it = |one: &NetworkPolicyPort| one.port == Some(IntOrString::Int(port));
    peers && ports.is_none_or(|ports| ports.iter().any(is_it))
}

fn reaches(policies: &[NetworkPolicy], from: &End, to: &End, port: i32) -> bool {
    let of = |end: &End| -> Option<Vec<_>> {
        let (namespace, labels) = end.pod.as_ref()?;
        let specs = policies.iter().filter_map(|policy| policy.spec.as_ref());
        let own: Vec<_> = specs
            .filter(|spec| *namespace == "test" && selects(spec.pod_selector.as_ref(), labels))
            .collect();
        (!own.is_empty()).then_some(own)
    };
    let leaves = of(from).is_none_or(|specs| {
        let mut rules = specs.iter().flat_map(|spec| spec.egress.iter().flatten());
        rules.any(|rule| allows(rule.to.as_ref(), rule.ports.as_ref(), to, port))
    });
    let enters = of(to).is_none_or(|specs| {
        let mut rules = specs.iter().flat_map(|spec| spec.ingress.iter().flatten());
        rules.any(|rule| allows(rule.from.as_ref(), rule.ports.as_ref(), from, port))
    });
    leaves && enters
}

fn ends() -> Vec<End> {
    let names = |pipeline: &str| Names { pipeline: pipeline.into(), namespace: "test".into() };
    let part = |name, component| End { name, pod: Some(("test", names("lab").labels(component))) };
    let operator: Labels = [("app.kubernetes.io/name".to_owned(), "iotpipeline-operator".to_owned())].into();
    vec![
        part("broker", Component::Broker),
        part("database", Component::Database),
        part("bridge", Component::Bridge),
        part("dashboard", Component::Dashboard),
        End { name: "operator", pod: Some(("iotpipeline-system", operator.clone())) },
        End { name: "impostor", pod: Some(("test", operator)) },
        End { name: "neighbour", pod: Some(("test", names("other").labels(Component::Bridge))) },
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
            name != &from.name && reaches(&policies, from, to, *port)
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
