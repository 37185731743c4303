//! The floor: the same objects, applied by a client that knows what it wants and asks nothing.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::iotpipeline::IoTPipeline;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fleet::{AT_ONCE, Fleet, make_namespaces};
use super::tally::Tally;
use crate::stage::MANAGED;

/// Where the copies are.
const PREFIX: &str = "floor";

/// What the operator has made, to be made again.
pub struct Floor {
    objects: Vec<(ApiResource, Value)>,
    workloads: usize,
    namespaces: usize,
}

/// What the bare client took.
pub struct Took {
    /// Until the last answer.
    pub applied: Duration,
    /// Until the fakes had made all workloads ready as well.
    pub ready: Duration,
}

impl Floor {
    /// Copies what a converged fleet consists of.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn of(client: &Client, fleet: &Fleet) -> Result<Self> {
        let mut objects = copies::<IoTPipeline>(client, "").await?;
        objects.extend(copies::<Secret>(client, MANAGED).await?);
        objects.extend(copies::<ConfigMap>(client, MANAGED).await?);
        objects.extend(copies::<Service>(client, MANAGED).await?);
        let before = objects.len();
        objects.extend(copies::<StatefulSet>(client, MANAGED).await?);
        objects.extend(copies::<Deployment>(client, MANAGED).await?);
        Ok(Self { workloads: objects.len() - before, objects, namespaces: fleet.namespaces() })
    }

    /// How many objects there are.
    pub fn objects(&self) -> usize {
        self.objects.len()
    }

    /// Applies them beside the others. The fakes play their part again.
    ///
    /// # Errors
    /// If one is refused, or not ready in time.
    pub async fn apply(&self, client: &Client, deadline: Duration) -> Result<Took> {
        make_namespaces(client, PREFIX, self.namespaces).await?;
        let sets = ready_ones(client, |set: &StatefulSet| {
            set.status.as_ref().is_some_and(|status| status.ready_replicas == set.spec.replicas)
        });
        let deployments = ready_ones(client, |deployment: &Deployment| {
            let status = deployment.status.as_ref();
            status.is_some_and(|status| status.ready_replicas == deployment.spec.replicas)
        });
        let start = Instant::now();
        let applied = stream::iter(&self.objects).map(async |(resource, object)| {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            api.patch(name, &PatchParams::apply("floor").force(), &Patch::Apply(object)).await
        });
        let applied = applied.buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(()));
        tokio::time::timeout(deadline, applied).await.context("the bare client is too slow")??;
        let applied = start.elapsed();
        let is_deployment = |object: &&(ApiResource, Value)| object.0.kind == "Deployment";
        let count = self.objects.iter().filter(is_deployment).count();
        let last = sets.reaches(self.workloads - count, deadline).await?;
        let ready = last.max(deployments.reaches(count, deadline).await?) - start;
        Ok(Took { applied, ready: ready.max(applied) })
    }
}

fn ready_ones<K>(client: &Client, is_ready: impl Fn(&K) -> bool + Send + Sync + 'static) -> Tally
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let is_ours = |object: &K| object.meta().namespace.as_ref().is_some_and(|name| name.starts_with(PREFIX));
    let config = watcher::Config::default().labels(MANAGED);
    Tally::new(Api::all(client.clone()), config, move |object| is_ours(object) && is_ready(object))
}

async fn copies<K>(client: &Client, selector: &str) -> Result<Vec<(ApiResource, Value)>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let resource = ApiResource::erase::<K>(&());
    let list = Api::<K>::all(client.clone()).list(&ListParams::default().labels(selector)).await?;
    let copy = |object: K| -> Result<(ApiResource, Value)> {
        let mut copy = serde_json::to_value(object)?;
        copy["apiVersion"] = resource.api_version.as_str().into();
        copy["kind"] = resource.kind.as_str().into();
        let namespace = copy["metadata"]["namespace"].as_str().unwrap_or_default();
        copy["metadata"]["namespace"] = namespace.replacen("fleet", PREFIX, 1).into();
        remove(&mut copy, &["status"]);
        let served = ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"];
        remove(&mut copy["metadata"], &served);
        if resource.kind == "Service" && copy["spec"]["clusterIP"] != "None" {
            remove(&mut copy["spec"], &["clusterIP", "clusterIPs"]);
        }
        Ok((resource.clone(), copy))
    };
    list.items.into_iter().map(copy).collect()
}

fn remove(value: &mut Value, keys: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !keys.contains(&key.as_str()));
    }
}
