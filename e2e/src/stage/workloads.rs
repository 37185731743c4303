//! Fake controllers and kubelets: a set's or deployment's pods are made, run, and are counted as ready.

use std::fmt::Debug;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Seen, trouble};

/// As many as kube-controller-manager has workers for each kind.
const AT_ONCE: usize = 5;

/// What has pods.
pub trait Workload:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// How many pods, from which template, and what the status says when all are ready.
    ///
    /// # Errors
    /// If the template is none.
    fn wanted(&self) -> Result<(i32, Value)>;
    /// Whether the status says so already.
    fn is_settled(&self) -> bool;
    /// What the status says with so many pods, all of which are ready.
    fn ready_status(&self, pods: i32) -> Value;
}

impl Workload for StatefulSet {
    fn wanted(&self) -> Result<(i32, Value)> {
        let mut template = serde_json::to_value(&self.spec.template)?;
        let claims = self.spec.volume_claim_templates.iter().flatten().map(|claim| {
            let name = claim.name_any();
            let claim_name = format!("{name}-{}-0", self.name_any());
            json!({"name": name, "persistentVolumeClaim": {"claimName": claim_name}})
        });
        let mut volumes = template["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        volumes.extend(claims);
        template["spec"]["volumes"] = volumes.into();
        Ok((self.spec.replicas.unwrap_or(1), template))
    }

    fn is_settled(&self) -> bool {
        self.status.as_ref().is_some_and(|status| {
            status.observed_generation == self.metadata.generation
                && status.ready_replicas.unwrap_or(0) == self.spec.replicas.unwrap_or(1)
        })
    }

    fn ready_status(&self, pods: i32) -> Value {
        json!({
            "observedGeneration": self.metadata.generation,
            "replicas": pods,
            "readyReplicas": pods,
            "availableReplicas": pods,
            "currentReplicas": pods,
            "updatedReplicas": pods,
            "currentRevision": "fake",
            "updateRevision": "fake",
        })
    }
}

impl Workload for Deployment {
    fn wanted(&self) -> Result<(i32, Value)> {
        Ok((self.spec.replicas.unwrap_or(1), serde_json::to_value(&self.spec.template)?))
    }

    fn is_settled(&self) -> bool {
        self.status.as_ref().is_some_and(|status| {
            status.observed_generation == self.metadata.generation
                && status.ready_replicas.unwrap_or(0) == self.spec.replicas.unwrap_or(1)
        })
    }

    fn ready_status(&self, pods: i32) -> Value {
        json!({
            "observedGeneration": self.metadata.generation,
            "replicas": pods,
            "readyReplicas": pods,
            "availableReplicas": pods,
            "updatedReplicas": pods,
        })
    }
}

/// Makes everything of a kind ready, as it comes.
pub(super) async fn play<W: Workload>(client: Client, seen: Arc<Seen>, managed: &'static str) {
    let config = watcher::Config::default().labels(managed);
    let changes = watcher(Api::<W>::all(client.clone()), config).default_backoff().applied_objects();
    changes
        .filter_map(|change| ready(change.ok()))
        .for_each_concurrent(AT_ONCE, |workload| {
            let (client, seen) = (client.clone(), seen.clone());
            async move {
                let set = (workload.namespace().unwrap_or_default(), workload.name_any());
                if workload.is_settled() || seen.is_broken(&set) {
                    return;
                }
                if let Err(error) = make_ready(&client, &seen, &workload).await {
                    eprintln!("the fake controller: {} {}: {error:#}", W::kind(&()), workload.name_any());
                }
            }
        })
        .await;
}

pub(super) async fn make_ready<W: Workload>(client: &Client, seen: &Seen, workload: &W) -> Result<()> {
    let (name, namespace) = (workload.name_any(), workload.namespace().unwrap_or_default());
    let (count, template) = workload.wanted()?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    for number in 0..count {
        let pod = pod(workload, &template, number)?;
        let pod_name = pod.name_any();
        match pods.create(&PostParams::default(), &pod).await {
            // Made before; it runs.
            Err(kube::Error::Api(status)) if status.code == 409 => continue,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return trouble::pod_refused(client, workload, &pod_name, &status.message).await;
            }
            made => made?,
        };
        let address = address();
        seen.bridges.add_pod(address.clone(), (namespace.clone(), name.clone()));
        let running = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": "2026-01-01T00:00:00Z",
        }});
        pods.patch_status(&pod_name, &PatchParams::default(), &Patch::Merge(running)).await?;
    }
    let workloads: Api<W> = Api::namespaced(client.clone(), &namespace);
    let status = json!({"status": workload.ready_status(count)});
    workloads.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

fn pod<W: Workload>(workload: &W, template: &Value, number: i32) -> Result<Pod> {
    let mut pod = template.clone();
    let name = format!("{}-{number}", workload.name_any());
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["namespace"] = workload.namespace().into();
    pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = number.to_string().into();
    pod["metadata"]["ownerReferences"] = json!([workload.controller_owner_ref(&())]);
    Ok(serde_json::from_value(pod)?)
}

/// An address that no other pod has.
fn address() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::net::Ipv4Addr::from_bits((10 << 24) | number).to_string()
}
