//! What goes wrong on the stage when a test wants it to: each in the words of the part that it is a fake of.

use std::sync::PoisonError;

use anyhow::Result;
use axum::http::StatusCode;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, ObjectReference, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::workloads::{Workload, make_ready};
use super::{Stage, Words};

impl Stage {
    /// The bridges of a namespace's pipeline say something else from now on, or again what they said first.
    pub fn bridges_say(&self, namespace: &str, words: Option<Words>) {
        self.seen.bridges.say((namespace.into(), "lab-bridge".into()), words);
    }

    /// A host answers every request so from now on, or again as it should.
    pub fn host_answers(&self, host: &str, answer: Option<(StatusCode, &str)>) {
        let mut refusals = self.seen.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some((code, message)) => refusals.insert(host.to_owned(), (code, message.to_owned())),
            None => refusals.remove(host),
        };
    }

    /// The kubelet writes this into the status of the part's first pod, and it is not ready.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn pod_is<W: Workload>(&self, namespace: &str, part: &str, status: Value) -> Result<()> {
        let name = format!("lab-{part}");
        self.set_broken(namespace, &name, true);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let status = Patch::Merge(json!({"status": status}));
        pods.patch_status(&format!("{name}-0"), &PatchParams::default(), &status).await?;
        let unready = json!({"status": {"readyReplicas": 0, "availableReplicas": 0}});
        let api: Api<W> = Api::namespaced(self.client.clone(), namespace);
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(unready)).await?;
        Ok(())
    }

    /// The part's first pod goes, and its controller makes it anew, as far as the API server lets it.
    ///
    /// # Errors
    /// If the API server refuses more than that.
    pub async fn pod_goes<W: Workload>(&self, namespace: &str, part: &str) -> Result<()> {
        let name = format!("lab-{part}");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.delete(&format!("{name}-0"), &DeleteParams::default().grace_period(0)).await?;
        self.made_ready::<W>(namespace, &name).await
    }

    /// The part's pod starts after all.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn pod_starts<W: Workload>(&self, namespace: &str, part: &str) -> Result<()> {
        let name = format!("lab-{part}");
        self.set_broken(namespace, &name, false);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let running = json!({"status": {"phase": "Running", "conditions": null, "containerStatuses": null}});
        let patch = Patch::Merge(running);
        match pods.patch_status(&format!("{name}-0"), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            patched => drop(patched?),
        }
        self.made_ready::<W>(namespace, &name).await
    }

    async fn made_ready<W: Workload>(&self, namespace: &str, name: &str) -> Result<()> {
        let api: Api<W> = Api::namespaced(self.client.clone(), namespace);
        let workload = api.get(name).await?;
        make_ready(&self.client, &self.seen, &workload).await
    }

    fn set_broken(&self, namespace: &str, name: &str, is_broken: bool) {
        let mut broken = self.seen.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let workload = (namespace.to_owned(), name.to_owned());
        if is_broken {
            broken.insert(workload);
        } else {
            broken.remove(&workload);
        }
    }
}

/// What a controller does whose pod the API server refuses. A set's only writes an event (`stateful_pod_control.go`:
/// "create Pod %s in StatefulSet %s failed error: %s"); a deployment's set of pods writes a condition, which
/// `deployment/sync.go` copies.
pub(super) async fn pod_refused<W: Workload>(
    client: &Client,
    workload: &W,
    pod: &str,
    why: &str,
) -> Result<()> {
    let (name, namespace) = (workload.name_any(), workload.namespace().unwrap_or_default());
    let kind = W::kind(&());
    let mut status = workload.ready_status(0);
    if kind == Deployment::kind(&()) {
        status["conditions"] =
            json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": why}]);
    } else {
        let message = format!("create Pod {pod} in StatefulSet {name} failed error: {why}");
        event(client, workload.object_ref(&()), "Warning", "FailedCreate", &message).await?;
    }
    let workloads: Api<W> = Api::namespaced(client.clone(), &namespace);
    workloads.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok(())
}

/// An event as the parts of Kubernetes write it.
///
/// # Errors
/// If the API server refuses.
pub async fn event(
    client: &Client,
    about: ObjectReference,
    type_: &str,
    reason: &str,
    message: &str,
) -> Result<()> {
    let namespace = about.namespace.clone().unwrap_or_default();
    let event: Event = serde_json::from_value(json!({
        "metadata": {"generateName": "fake-"}, "involvedObject": about, "type": type_, "reason": reason,
        "message": message, "count": 1, "source": {"component": "fake"},
        "firstTimestamp": jiff::Timestamp::now(), "lastTimestamp": jiff::Timestamp::now(),
    }))?;
    Api::<Event>::namespaced(client.clone(), &namespace).create(&PostParams::default(), &event).await?;
    Ok(())
}
