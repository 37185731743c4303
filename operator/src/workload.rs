//! What the API server says of a part's pods: ready, or why not, in words that a user can act on.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use crate::resources::names::{COMPONENT, Component};
use crate::status::Part;

/// A part that runs as a set.
pub fn of_stateful_set(component: Component, set: Option<&StatefulSet>, pods: &[Pod]) -> Part {
    let Some(set) = set else { return Part::not_ready("Creating", "waiting to be created") };
    let status = set.status.clone().unwrap_or_default();
    let wanted = set.spec.replicas.unwrap_or(1);
    let is_current = status.observed_generation >= set.metadata.generation;
    let is_updated =
        status.update_revision == status.current_revision || status.updated_replicas == Some(wanted);
    let is_ready = status.ready_replicas.unwrap_or(0) >= wanted;
    of_pods(component, is_current && is_updated && is_ready, pods)
}

/// A part that runs as a deployment.
pub fn of_deployment(component: Component, deployment: Option<&Deployment>, pods: &[Pod]) -> Part {
    let Some(deployment) = deployment else { return Part::not_ready("Creating", "waiting to be created") };
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let is_current = status.observed_generation >= deployment.metadata.generation;
    let is_ready =
        status.updated_replicas.unwrap_or(0) >= wanted && status.ready_replicas.unwrap_or(0) >= wanted;
    let refused = status.conditions.unwrap_or_default().into_iter().find(|condition| {
        condition.type_.as_deref() == Some("ReplicaFailure") && condition.status.as_deref() == Some("True")
    });
    if let Some(refused) = refused
        && !is_ready
    {
        return Part::not_ready("PodRefused", refused.message.unwrap_or_default());
    }
    of_pods(component, is_current && is_ready, pods)
}

/// The pods of a part.
pub fn pods_of(component: Component, pods: &[Pod]) -> impl Iterator<Item = &Pod> {
    pods.iter()
        .filter(move |pod| pod.labels().get(COMPONENT).is_some_and(|label| label == component.as_str()))
}

fn of_pods(component: Component, is_ready: bool, pods: &[Pod]) -> Part {
    if is_ready {
        return Part::ready("running");
    }
    pods_of(component, pods).find_map(trouble).unwrap_or_else(|| {
        Part::not_ready("Starting", format!("waiting for the {} to start", component.as_str()))
    })
}

/// The first thing that keeps a pod from being ready.
fn trouble(pod: &Pod) -> Option<Part> {
    let name = pod.name_any();
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
        let message = condition.message.as_deref().unwrap_or("no node takes it");
        return Some(Part::not_ready("Unschedulable", format!("the pod {name} can't be placed: {message}")));
    }
    status.container_statuses.iter().flatten().find_map(|container| container_trouble(&name, container))
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
