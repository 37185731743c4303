//! Makes the cluster what is desired: server-side apply with one field manager, and no write where
//! nothing would change.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::compare::{is_contained, nanos};
use crate::observe::Children;
use crate::plan::{Broker, DatabasePlace, Identity, Plan, Volume};
use crate::resources::issued::Certificate;
use crate::resources::names::{COMPONENT, CONFIG_HASH, Component};
use crate::resources::{
    BridgeObjects, BrokerObjects, DashboardObjects, DatabaseObjects, Desired, Part, hash,
};

/// Who owns the fields that the operator sets.
pub const FIELD_MANAGER: &str = "iotpipeline-operator";

/// On every object: the hash of what was applied, so that a field that is no longer desired is noticed.
const APPLIED_HASH: &str = "iotpipeline.io/applied-hash";

/// The workloads as the API server has them after the apply.
#[derive(Debug, Default)]
pub struct Applied {
    /// mosquitto's.
    pub broker: Option<StatefulSet>,
    /// InfluxDB's.
    pub database: Option<StatefulSet>,
    /// The bridge's.
    pub bridge: Option<StatefulSet>,
    /// Grafana's.
    pub dashboard: Option<Deployment>,
    /// Volumes that could not be enlarged, and why.
    pub not_grown: Vec<(Component, String)>,
    /// How many objects were written or deleted.
    pub writes: u32,
}

/// Why the cluster is not what is desired.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The name belongs to somebody else.
    #[error("{kind} {name} exists and is not this pipeline's: delete it, or give the pipeline another name")]
    NameTaken {
        /// The kind.
        kind: String,
        /// The object's name.
        name: String,
    },
    /// The object of a deleted pipeline of the same name is not gone yet.
    #[error("{kind} {name} of the deleted pipeline is still going")]
    StillGoing {
        /// The kind.
        kind: String,
        /// The object's name.
        name: String,
    },
    /// An object could not be written.
    #[error("{verb} {kind} {name}")]
    Write {
        /// What was tried.
        verb: &'static str,
        /// The kind.
        kind: String,
        /// The object's name.
        name: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// An object is not JSON; a fault of the operator.
    #[error("serialize an object")]
    Serialize(#[from] serde_json::Error),
}

impl ApplyError {
    /// Whether the API server knows no such kind of object.
    pub fn is_unknown_kind(&self) -> bool {
        let Self::Write { source, .. } = self else { return false };
        matches!(source.as_ref(), kube::Error::Api(status) if status.code == 404)
    }

    /// Whether nothing can be made any more because the namespace is being deleted, and the pipeline with
    /// it. The API server says so by the cause that namespace lifecycle admission gives.
    pub fn namespace_is_going(&self) -> bool {
        let Self::Write { source, .. } = self else { return false };
        let kube::Error::Api(status) = source.as_ref() else { return false };
        let causes = status.details.as_ref().map_or(&[][..], |details| &details.causes);
        causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// Writes what differs and deletes what is no longer desired.
///
/// # Errors
/// At the first object that could not be written.
pub async fn apply(
    client: &Client,
    plan: &Plan,
    desired: &Desired,
    children: &Children,
) -> Result<Applied, ApplyError> {
    let mut pass = Pass { client, pipeline: &plan.pipeline, kept: Vec::new(), writes: 0 };
    let Desired { authority, certificates, broker, database, bridge, dashboard } = desired;
    let mut applied = Applied::default();
    // What is signed is of no use without who signed it.
    if let Some(secret) = authority {
        pass.one(&children.secrets, secret).await?;
    }
    for certificate in certificates {
        pass.one(&children.certificates, certificate).await?;
    }
    // What a pod mounts comes before the pod, and what gives it a name in the network too.
    if let Some(BrokerObjects { user_secrets, secret, service, stateful_set, live_hash: _ }) = broker {
        for user in user_secrets {
            pass.one(&children.secrets, user).await?;
        }
        pass.one(&children.secrets, secret).await?;
        pass.one(&children.services, service).await?;
        applied.broker = Some(pass.one(&children.stateful_sets, stateful_set).await?);
    }
    if let Some(DatabaseObjects { secret, service, stateful_set }) = database {
        pass.one(&children.secrets, secret).await?;
        pass.one(&children.services, service).await?;
        applied.database = Some(pass.one(&children.stateful_sets, stateful_set).await?);
    }
    if let Part::Wanted(BridgeObjects {
        secret,
        config_map,
        service,
        stateful_set,
        live_hash: _,
        mounted_hash: _,
    }) = bridge
    {
        pass.one(&children.secrets, secret).await?;
        pass.one(&children.config_maps, config_map).await?;
        pass.one(&children.services, service).await?;
        applied.bridge = Some(pass.one(&children.stateful_sets, stateful_set).await?);
    }
    if let Part::Wanted(DashboardObjects { secret, config_map, service, deployment, live_hash: _ }) =
        dashboard
    {
        pass.one(&children.secrets, secret).await?;
        pass.one(&children.config_maps, config_map).await?;
        pass.one(&children.services, service).await?;
        applied.dashboard = Some(pass.one(&children.deployments, deployment).await?);
    }
    let withheld: Vec<Component> = [
        (Component::Bridge, matches!(bridge, Part::Withheld)),
        (Component::Dashboard, matches!(dashboard, Part::Withheld)),
    ]
    .into_iter()
    .filter_map(|(component, withheld)| withheld.then_some(component))
    .collect();
    pass.sweep(children, &withheld).await?;
    applied.not_grown = pass.grow(plan, &children.claims).await?;
    applied.writes = pass.writes;
    Ok(applied)
}

/// Asks cert-manager for certificates, before there can be a plan that needs them.
///
/// # Errors
/// If one could not be asked for.
pub async fn ask_for_certificates(
    client: &Client,
    pipeline: &Identity,
    desired: &[Certificate],
    observed: &[Certificate],
) -> Result<(), ApplyError> {
    let mut pass = Pass { client, pipeline, kept: Vec::new(), writes: 0 };
    for certificate in desired {
        pass.one(observed, certificate).await?;
    }
    Ok(())
}

/// Writes a set of a pipeline once more, with another content.
///
/// # Errors
/// If it could not be written.
pub async fn apply_again(
    client: &Client,
    plan: &Plan,
    desired: &StatefulSet,
) -> Result<StatefulSet, ApplyError> {
    let mut pass = Pass { client, pipeline: &plan.pipeline, kept: Vec::new(), writes: 0 };
    pass.one(&[], desired).await
}

/// Sets the annotation on a pod that makes the kubelet refresh its mounted files at once.
///
/// # Errors
/// If the API server refuses.
pub async fn touch(client: &Client, pod: &Pod, value: &str) -> Result<(), ApplyError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "annotations": {CONFIG_HASH: value}}});
    let written = api.patch_metadata(&pod.name_any(), &parameters(false), &Patch::Merge(patch)).await;
    match written {
        Ok(_) => Ok(()),
        // Gone, or another pod by now: the new one reads the new files.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(source) => Err(write_error::<Pod>("touch", &pod.name_any(), source)),
    }
}

struct Pass<'a> {
    client: &'a Client,
    pipeline: &'a Identity,
    /// Kind and name of every object that was desired.
    kept: Vec<(String, String)>,
    writes: u32,
}

fn parameters(force: bool) -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), force, ..PatchParams::default() }
}

fn write_error<K: Resource<DynamicType = ()>>(
    verb: &'static str,
    name: &str,
    source: kube::Error,
) -> ApplyError {
    ApplyError::Write { verb, kind: K::kind(&()).into_owned(), name: name.into(), source: Box::new(source) }
}

impl Pass<'_> {
    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.pipeline.names.namespace)
    }

    async fn one<K>(&mut self, observed: &[K], desired: &K) -> Result<K, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let name = desired.name_any();
        self.kept.push((K::kind(&()).into_owned(), name.clone()));
        let mut wanted = serde_json::to_value(desired)?;
        let digest = hash(&[wanted.to_string().as_bytes()]);
        wanted["metadata"]["annotations"][APPLIED_HASH] = digest.into();
        match observed.iter().find(|live| live.name_any() == name) {
            Some(live) => {
                self.check_owner(live)?;
                if is_contained(&wanted, &serde_json::to_value(live)?) {
                    return Ok(live.clone());
                }
            }
            None => {
                let unlabelled = self.api::<K>().get_opt(&name).await;
                if let Some(live) = unlabelled.map_err(|source| write_error::<K>("get", &name, source))? {
                    self.check_owner(&live)?;
                    if self.owner_of(&live).is_none() {
                        return Err(ApplyError::NameTaken { kind: K::kind(&()).into_owned(), name });
                    }
                }
            }
        }
        self.writes += 1;
        tracing::debug!(kind = %K::kind(&()), name, "applying");
        let patched = self.api::<K>().patch(&name, &parameters(true), &Patch::<Value>::Apply(wanted)).await;
        patched.map_err(|source| write_error::<K>("apply", &name, source))
    }

    fn owner_of<'k, K: Resource>(&self, live: &'k K) -> Option<&'k str> {
        let owners = live.meta().owner_references.as_deref().unwrap_or_default();
        owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
    }

    /// An object without an owner is adopted: it was left behind on purpose.
    fn check_owner<K: Resource<DynamicType = ()>>(&self, live: &K) -> Result<(), ApplyError> {
        let (kind, name) = (K::kind(&()).into_owned(), live.name_any());
        let owners = live.meta().owner_references.as_deref().unwrap_or_default();
        match owners.iter().find(|owner| owner.controller == Some(true)) {
            Some(owner) if owner.uid == self.pipeline.owner.uid => {}
            None => {}
            Some(owner)
                if owner.kind == self.pipeline.owner.kind && owner.name == self.pipeline.owner.name =>
            {
                return Err(ApplyError::StillGoing { kind, name });
            }
            Some(_) => return Err(ApplyError::NameTaken { kind, name }),
        }
        match live.meta().deletion_timestamp {
            Some(_) => Err(ApplyError::StillGoing { kind, name }),
            None => Ok(()),
        }
    }

    /// Deletes what the pipeline owns and no longer wants.
    async fn sweep(&mut self, children: &Children, withheld: &[Component]) -> Result<(), ApplyError> {
        let Children {
            stateful_sets,
            deployments,
            services,
            config_maps,
            secrets,
            certificates,
            pods: _,
            claims: _,
            events: _,
        } = children;
        self.sweep_kind::<Certificate>(certificates, withheld).await?;
        self.sweep_kind::<StatefulSet>(stateful_sets, withheld).await?;
        self.sweep_kind::<Deployment>(deployments, withheld).await?;
        self.sweep_kind::<Service>(services, withheld).await?;
        self.sweep_kind::<ConfigMap>(config_maps, withheld).await?;
        self.sweep_kind::<Secret>(secrets, withheld).await
    }

    async fn sweep_kind<K>(&mut self, observed: &[K], withheld: &[Component]) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        for live in observed {
            let name = live.name_any();
            let component = live.labels().get(COMPONENT);
            let is_kept = self.kept.contains(&(K::kind(&()).into_owned(), name.clone()));
            let is_withheld =
                withheld.iter().any(|part| component.is_some_and(|label| label == part.as_str()));
            let is_ours = self.owner_of(live) == Some(&self.pipeline.owner.uid);
            if is_kept || is_withheld || !is_ours || live.meta().deletion_timestamp.is_some() {
                continue;
            }
            let only_this = Preconditions { uid: live.uid(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::background() };
            tracing::info!(kind = %K::kind(&()), name, "deleting what is no longer wanted");
            self.writes += 1;
            match self.api::<K>().delete(&name, &parameters).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(source) => return Err(write_error::<K>("delete", &name, source)),
            }
        }
        Ok(())
    }

    /// Enlarges claims that are smaller than asked for. A storage class that can't is no failure.
    async fn grow(
        &mut self,
        plan: &Plan,
        claims: &[PersistentVolumeClaim],
    ) -> Result<Vec<(Component, String)>, ApplyError> {
        let mut not_grown = Vec::new();
        let mut volumes: Vec<(Component, &Volume)> = Vec::new();
        if let Broker::Managed(broker) = &plan.broker {
            volumes.push((Component::Broker, &broker.volume));
        }
        if let DatabasePlace::Managed(database) = &plan.database.place {
            volumes.push((Component::Database, &database.volume));
        }
        for (component, volume) in volumes {
            let is_of_part = |claim: &&PersistentVolumeClaim| {
                claim.labels().get(COMPONENT).is_some_and(|label| label == component.as_str())
            };
            for claim in claims.iter().filter(is_of_part).filter(|claim| is_smaller(claim, &volume.size)) {
                let name = claim.name_any();
                match self.enlarge(&name, &volume.size).await {
                    Ok(_) => self.writes += 1,
                    Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422 => {
                        let why =
                            format!("the volume {name} can't grow to {}: {}", volume.size, status.message);
                        not_grown.push((component, why));
                    }
                    Err(source) => {
                        return Err(write_error::<PersistentVolumeClaim>("enlarge", &name, source));
                    }
                }
            }
        }
        Ok(not_grown)
    }

    async fn enlarge(&self, claim: &str, size: &str) -> kube::Result<PersistentVolumeClaim> {
        let patch = Patch::Merge(json!({"spec": {"resources": {"requests": {"storage": size}}}}));
        self.api::<PersistentVolumeClaim>().patch(claim, &parameters(false), &patch).await
    }
}

fn is_smaller(claim: &PersistentVolumeClaim, size: &str) -> bool {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let has = requests.and_then(|requests| nanos(&requests.get("storage")?.0));
    has.is_some_and(|has| nanos(size).is_some_and(|wanted| has < wanted))
}
