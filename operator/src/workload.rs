//! What the API server says of a part's pods: ready, or why not, in words that a user can act on.

mod backup;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    ContainerStatus, Event, PersistentVolumeClaim, Pod, PodCondition, PodStatus,
};
use kube::{Resource, ResourceExt};

use crate::observe::Children;
use crate::resources::names::{COMPONENT, Component};
use crate::status::Part;

pub use backup::{has_ended, is_copying, of_backups, of_restore};

/// A part that runs as a set.
pub fn of_stateful_set(component: Component, set: Option<&StatefulSet>, children: &Children) -> Part {
    let Some(set) = set else { return Part::not_ready("Creating", "waiting to be created") };
    let status = set.status.clone().unwrap_or_default();
    let wanted = set.spec.replicas.unwrap_or(1);
    let is_current = status.observed_generation >= set.metadata.generation;
    let is_updated =
        status.update_revision == status.current_revision || status.updated_replicas == Some(wanted);
    let is_ready = status.ready_replicas.unwrap_or(0) >= wanted;
    of_pods(component, is_current && is_updated && is_ready, children, warning(set, children))
}

/// A part that runs as a deployment.
pub fn of_deployment(component: Component, deployment: Option<&Deployment>, children: &Children) -> Part {
    let Some(deployment) = deployment else { return Part::not_ready("Creating", "waiting to be created") };
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let is_current = status.observed_generation >= deployment.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0);
    // The pod of before is there until the new one is ready, and counts as a ready one.
    let is_only = status.replicas.unwrap_or(0) <= updated;
    let is_ready = updated >= wanted && status.ready_replicas.unwrap_or(0) >= wanted && is_only;
    let refused = status.conditions.unwrap_or_default().into_iter().find(|condition| {
        condition.type_.as_deref() == Some("ReplicaFailure") && condition.status.as_deref() == Some("True")
    });
    if let Some(refused) = refused
        && !is_ready
    {
        return pod_refused(component, &refused.message.unwrap_or_default());
    }
    of_pods(component, is_current && is_ready, children, None)
}

/// Of what only events tell the cause: kind, name and uid. Where nothing is the matter, that is nothing.
pub fn unexplained(children: &Children) -> Vec<(&'static str, String, String)> {
    let Children { stateful_sets, jobs, pods, claims, .. } = children;
    let lacks_pods = |set: &&StatefulSet| {
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation.is_some() && status.replicas < set.spec.replicas.unwrap_or(1)
    };
    let sets = stateful_sets.iter().filter(lacks_pods).map(|set| ("StatefulSet", &set.metadata));
    let jobs = jobs.iter().filter(|job| backup::lacks_pods(job)).map(|job| ("Job", &job.metadata));
    let claims = claims.iter().filter(is_pending).map(|claim| ("PersistentVolumeClaim", &claim.metadata));
    let pods = pods.iter().filter(|pod| is_being_created(pod)).map(|pod| ("Pod", &pod.metadata));
    let all = sets.chain(jobs).chain(claims).chain(pods);
    all.map(|(kind, meta)| {
        (kind, meta.name.clone().unwrap_or_default(), meta.uid.clone().unwrap_or_default())
    })
    .collect()
}

fn is_pending(claim: &&PersistentVolumeClaim) -> bool {
    claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Pending"))
}

/// A node has it, and none of its containers is on the way.
fn is_being_created(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let is_creating = |container: &ContainerStatus| {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("ContainerCreating"))
    };
    let containers = status.container_statuses.unwrap_or_default();
    status.phase.as_deref() == Some("Pending") && containers.iter().any(is_creating)
}

/// The newest event about an object that says that something failed.
fn warning<'c, K: Resource>(object: &K, children: &'c Children) -> Option<&'c Event> {
    let uid = object.meta().uid.as_ref()?;
    let events = children.events.iter().filter(|event| event.involved_object.uid.as_ref() == Some(uid));
    // Those of a claim that has no class are not of the type Warning.
    let failed = events.filter(|event| event.reason.as_ref().is_some_and(|reason| reason.contains("Failed")));
    failed.max_by_key(|event| last_seen(event))
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| Some(series.last_observed_time.as_ref()?.0));
    let time = series.or_else(|| Some(event.last_timestamp.as_ref()?.0));
    time.or_else(|| Some(event.event_time.as_ref()?.0))
        .or_else(|| Some(event.metadata.creation_timestamp.as_ref()?.0))
}

/// The pods of a part.
pub fn pods_of(component: Component, pods: &[Pod]) -> impl Iterator<Item = &Pod> {
    pods.iter()
        .filter(move |pod| pod.labels().get(COMPONENT).is_some_and(|label| label == component.as_str()))
}

fn of_pods(component: Component, is_ready: bool, children: &Children, lacks: Option<&Event>) -> Part {
    if is_ready {
        return Part::ready("running");
    }
    let mut troubles = pods_of(component, &children.pods).filter_map(|pod| trouble(component, pod, children));
    let refused = || Some(pod_refused(component, lacks?.message.as_deref()?));
    troubles.next().or_else(refused).unwrap_or_else(|| {
        Part::not_ready("Starting", format!("waiting for the {} to start", component.as_str()))
    })
}

fn pod_refused(component: Component, message: &str) -> Part {
    let message = message.trim();
    let part = component.as_str();
    let what_to_do = if message.contains("exceeded quota") || message.contains("failed quota") {
        match component {
            Component::Backup | Component::Restore => "raise the quota".into(),
            _ => format!("raise the quota, or ask for less in {part}.resources"),
        }
    } else if message.contains("violates PodSecurity") {
        "let the namespace's Pod Security level admit it: restricted is enough for what the operator makes"
            .into()
    } else if message.contains("admission webhook") {
        "ask who runs that webhook".into()
    } else {
        "the namespace's quotas, limits and admission decide that".into()
    };
    Part::not_ready("PodRefused", format!("no pod of the {part} is admitted: {message}: {what_to_do}"))
}

/// A volume that a pod waits for.
fn volume_trouble(component: Component, children: &Children) -> Option<Part> {
    let is_its = |claim: &&PersistentVolumeClaim| {
        claim.labels().get(COMPONENT).is_some_and(|label| label == component.as_str())
    };
    let claim = children.claims.iter().filter(is_its).find(is_pending)?;
    let message = warning(claim, children).and_then(|event| event.message.as_deref());
    let why = message.unwrap_or("it is not provided yet").trim();
    let (claim, part) = (claim.name_any(), component.as_str());
    Some(Part::not_ready(
        "VolumePending",
        format!(
            "the volume of the claim {claim} is missing: {why}: see to its storage class (kubectl describe \
             persistentvolumeclaim {claim}); to take another one, delete claim and pipeline, and set {part}.storage.class"
        ),
    ))
}

/// The first thing that keeps a pod from being ready.
fn trouble(component: Component, pod: &Pod, children: &Children) -> Option<Part> {
    let name = pod.name_any();
    if pod.status.as_ref().is_some_and(is_cut_off) {
        return Some(cut_off(component, pod));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Part::not_ready("Restarting", format!("the pod {name} is being replaced")));
    }
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        if let Some(part) = volume_trouble(component, children) {
            return Some(part);
        }
        let message = condition.message.as_deref().unwrap_or("no node takes it");
        return Some(Part::not_ready("Unschedulable", format!("the pod {name} can't be placed: {message}")));
    }
    let mut containers = status.container_statuses.iter().flatten();
    containers.find_map(|container| container_trouble(&name, container)).or_else(|| {
        let event = warning(pod, children)?;
        let message = event.message.as_deref().unwrap_or_default().trim();
        Some(Part::not_ready(event.reason.as_deref()?, format!("the pod {name} can't start: {message}")))
    })
}

/// Whether its node has been silent for so long that Kubernetes no longer counts on it. A kubelet that takes a pod's
/// readiness away takes that of its containers too; only the node controller takes the pod's alone.
fn is_cut_off(status: &PodStatus) -> bool {
    let has = |type_: &str, state: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == type_ && condition.status == state)
    };
    let by_gate = |ready: &PodCondition| ready.reason.as_deref() == Some("ReadinessGatesNotReady");
    has("Ready", "False").is_some_and(|ready| !by_gate(ready)) && has("ContainersReady", "True").is_some()
}

/// The name of a pod's node.
pub(crate) fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("unknown")
}

fn cut_off(component: Component, pod: &Pod) -> Part {
    let node = node_of(pod);
    let then = match component {
        Component::Dashboard => "another pod takes its place soon".into(),
        _ => format!(
            "it goes on when the node is back; if the node is gone for good, delete it (kubectl delete node {node}), \
             and the pod's claim too if its volume was there and nowhere else"
        ),
    };
    Part::not_ready(
        "NodeNotReady",
        format!("the node {node} of the pod {} does not answer: {then}", pod.name_any()),
    )
}

fn container_trouble(pod: &str, container: &ContainerStatus) -> Option<Part> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        if matches!(reason.as_str(), "ContainerCreating" | "PodInitializing" | "") {
            return None;
        }
        let message = waiting.message.clone().unwrap_or_default();
        let ended = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        let last = ended.map(|ended| {
            let reason = ended.reason.as_deref().unwrap_or("it ended");
            format!(" (last: {reason}, exit code {})", ended.exit_code)
        });
        return Some(Part::not_ready(
            &reason,
            format!(
                "container {} of pod {pod}, image {}: {reason}: {message}{}",
                container.name,
                container.image,
                last.unwrap_or_default()
            ),
        ));
    }
    if let Some(ended) = &state.terminated {
        let reason =
            ended.reason.clone().filter(|reason| !reason.is_empty()).unwrap_or_else(|| "Terminated".into());
        return Some(Part::not_ready(
            &reason,
            format!("container {} of pod {pod} ended with exit code {}", container.name, ended.exit_code),
        ));
    }
    None
}
