//! Who may talk to whom. Devices and people come from anywhere, to the broker and the dashboard; everything else
//! is between the parts, or the operator's.
//!
//! Ports are those of the pods. More can be admitted by another policy: Kubernetes adds them up.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::Component;
use super::{Desired, part_metadata};
use crate::plan::{BackupPlace, Broker, DatabasePlace, Plan};

/// Name resolution; pods of OpenShift's listen on the second.
const DNS: [i32; 2] = [53, 5353];

/// A policy for each part that runs; none, where they are not wanted.
pub(super) fn policies(plan: &Plan, desired: &Desired) -> Vec<NetworkPolicy> {
    let Some(operator) = plan.operator_namespace.as_deref().map(operator) else { return Vec::new() };
    let broker = desired.broker.as_ref().map(|objects| ports(&objects.stateful_set.spec.template));
    let database = desired.database.as_ref().map(|objects| ports(&objects.stateful_set.spec.template));
    let part = |component| NetworkPolicyPeer {
        pod_selector: Some(matching(plan.pipeline.names.selector(component))),
        ..NetworkPolicyPeer::default()
    };
    let to_broker = match &plan.broker {
        Broker::Managed(_) => to(part(Component::Broker), broker.clone().unwrap_or_default()),
        Broker::External(_) => NetworkPolicyEgressRule::default(),
    };
    let to_database = match &plan.database.place {
        DatabasePlace::Managed(_) => to(part(Component::Database), database.clone().unwrap_or_default()),
        DatabasePlace::External(_) => NetworkPolicyEgressRule::default(),
    };
    let policy = |component, ingress, egress| NetworkPolicy {
        metadata: part_metadata(&plan.pipeline, component),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(matching(plan.pipeline.names.selector(component))),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    };
    let mut policies = Vec::new();
    policies.extend(broker.map(|ports| policy(Component::Broker, vec![from(None, ports)], Vec::new())));
    let copies = [
        plan.backups.as_ref().map(|backups| (Component::Backup, &backups.place)),
        plan.restore.as_ref().map(|restore| (Component::Restore, &restore.place)),
    ];
    let mut readers = vec![part(Component::Bridge), part(Component::Dashboard), operator.clone()];
    readers.extend(copies.iter().flatten().map(|(component, _)| part(*component)));
    policies.extend(
        database.map(|ports| policy(Component::Database, vec![from(Some(readers), ports)], Vec::new())),
    );
    policies.extend(copies.into_iter().flatten().map(|(component, place)| {
        let mut egress = vec![dns(), to_database.clone()];
        // A policy names no hosts, and S3 may be anywhere. Its port in the address is a Service's, where it is in the
        // cluster, and a policy is held against the pod's, which nobody has told us.
        let is_elsewhere = matches!(place, BackupPlace::S3(_));
        egress.extend(
            is_elsewhere.then(|| NetworkPolicyEgressRule { to: None, ports: Some(vec![any_port("TCP")]) }),
        );
        policy(component, Vec::new(), egress)
    }));
    policies.extend(desired.bridge.wanted().map(|objects| {
        let ports = ports(&objects.stateful_set.spec.template);
        policy(
            Component::Bridge,
            vec![from(Some(vec![operator]), ports)],
            vec![dns(), to_broker, to_database.clone()],
        )
    }));
    policies.extend(desired.dashboard.wanted().map(|objects| {
        let ports = ports(&objects.deployment.spec.template);
        policy(Component::Dashboard, vec![from(None, ports)], vec![dns(), to_database])
    }));
    policies
}

fn operator(namespace: &str) -> NetworkPolicyPeer {
    let label = |name: &str, value: &str| Some(matching([(name.to_owned(), value.to_owned())].into()));
    NetworkPolicyPeer {
        namespace_selector: label("kubernetes.io/metadata.name", namespace),
        pod_selector: label("app.kubernetes.io/name", "iotpipeline-operator"),
        ip_block: None,
    }
}

fn matching(labels: std::collections::BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

fn ports(template: &PodTemplateSpec) -> Vec<NetworkPolicyPort> {
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.map(|port| network_port(port.container_port, port.protocol.as_deref().unwrap_or("TCP"))).collect()
}

fn network_port(port: i32, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(IntOrString::Int(port)), protocol: Some(protocol.into()), end_port: None }
}

fn any_port(protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort { port: None, protocol: Some(protocol.into()), end_port: None }
}

fn from(peers: Option<Vec<NetworkPolicyPeer>>, ports: Vec<NetworkPolicyPort>) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: peers, ports: Some(ports) }
}

fn to(peer: NetworkPolicyPeer, ports: Vec<NetworkPolicyPort>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(vec![peer]), ports: Some(ports) }
}

fn dns() -> NetworkPolicyEgressRule {
    let ports = DNS.iter().flat_map(|port| ["UDP", "TCP"].map(|protocol| network_port(*port, protocol)));
    NetworkPolicyEgressRule { to: None, ports: Some(ports.collect()) }
}
