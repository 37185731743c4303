//! Kubernetes' rules of network policies, as far as ours need them: what no policy selects may do all; what some
//! select may do what one of them allows; and both ends must allow it.
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(crate) type Labels = BTreeMap<String, String>;

/// Where the pipelines of these tests are.
pub(crate) const NAMESPACE: &str = "test";

/// An end of a connection: a pod, or something outside of the cluster.
pub(crate) struct End {
    pub(crate) name: &'static str,
    /// Its namespace's name and its labels.
    pub(crate) pod: Option<(&'static str, Labels)>,
}

/// A port, and the protocol that it is of.
pub(crate) type Port = (i32, &'static str);

/// What Kubernetes labels each namespace with.
pub(crate) fn labels_of_namespace(name: &str) -> Labels {
    [("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into()
}

fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let wanted = selector.and_then(|selector| selector.match_labels.as_ref());
    wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

fn is_peer(peer: &NetworkPolicyPeer, end: &End) -> bool {
    assert!(peer.ip_block.is_none(), "not computed here");
    let Some((namespace, labels)) = &end.pod else { return false };
    let in_namespace = match &peer.namespace_selector {
        Some(selector) => selects(Some(selector), &labels_of_namespace(namespace)),
        None => *namespace == NAMESPACE,
    };
    in_namespace && selects(peer.pod_selector.as_ref(), labels)
}

fn allows(
    peers: Option<&Vec<NetworkPolicyPeer>>,
    ports: Option<&Vec<NetworkPolicyPort>>,
    end: &End,
    (port, protocol): Port,
) -> bool {
    let peers = peers.is_none_or(|peers| peers.iter().any(|peer| is_peer(peer, end)));
    let is_it = |one: &NetworkPolicyPort| {
        one.port.as_ref().is_none_or(|one| *one == IntOrString::Int(port))
            && one.protocol.as_deref() == Some(protocol)
    };
    peers && ports.is_none_or(|ports| ports.iter().any(is_it))
}

/// Whether the one may leave for the other, and whether the other lets it enter.
pub(crate) fn passes(policies: &[NetworkPolicy], from: &End, to: &End, port: Port) -> (bool, bool) {
    let of = |end: &End| -> Option<Vec<_>> {
        let (namespace, labels) = end.pod.as_ref()?;
        let specs = policies.iter().filter_map(|policy| policy.spec.as_ref());
        let own: Vec<_> = specs
            .filter(|spec| *namespace == NAMESPACE && selects(spec.pod_selector.as_ref(), labels))
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
    (leaves, enters)
}
