//! Makes the cluster what is desired: server-side apply with one field manager, and no write where
//! nothing would change.

mod backups;
mod claims;
mod content;
mod keep;
mod owner;
mod sweep;
mod touch;

use std::collections::BTreeSet;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;

use crate::cache::{Cache, Cached};
use crate::compare::is_contained;
use crate::observe::Children;
use crate::plan::{Identity, Plan};
use crate::resources::exposure::HTTPRoute;
use crate::resources::issued::Certificate;
use crate::resources::names::Component;
use crate::resources::{
    BridgeObjects, BrokerObjects, DashboardObjects, DatabaseObjects, Desired, Part, Surroundings, hash,
};

pub use content::{Content, Contents};
pub use keep::keep_or_collect;
pub use touch::touch;

/// Who owns the fields that the operator sets.
pub const FIELD_MANAGER: &str = "iotpipeline-operator";

/// On every object: the hash of what was applied, so that a field that is no longer desired is noticed.
pub(crate) const APPLIED_HASH: &str = "iotpipeline.io/applied-hash";

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
    /// Since when what pods mount is as it is.
    pub contents: Contents,
    /// Volumes that could not be enlarged, and why.
    pub not_grown: Vec<(Component, String)>,
    /// Why not all is there that makes backups: messages cross without it.
    pub refused_backup: Option<ApplyError>,
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
/// At the first object that could not be written, but for those of backups.
pub async fn apply(
    client: &Client,
    cache: &Cache,
    plan: &Plan,
    desired: &Desired,
    children: &Children,
) -> Result<Applied, ApplyError> {
    let mut pass = Pass::new(client, cache, &plan.pipeline);
    pass.absent_secrets = &children.absent_secrets;
    let Desired {
        authority,
        certificates,
        broker,
        database,
        bridge,
        dashboard,
        dashboard_token,
        backups,
        restore,
        surroundings,
    } = desired;
    let mut applied = Applied::default();
    pass.check_claims(&children.claims)?;
    pass.surroundings(children, surroundings).await?;
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
        applied.contents.broker.push(Content::of(&pass.one(&children.secrets, secret).await?));
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
        login_revision: _,
        mounted_hash: _,
    }) = bridge
    {
        applied.contents.bridge.push(Content::of(&pass.one(&children.secrets, secret).await?));
        applied.contents.bridge.push(Content::of(&pass.one(&children.config_maps, config_map).await?));
        pass.one(&children.services, service).await?;
        applied.bridge = Some(pass.one(&children.stateful_sets, stateful_set).await?);
    }
    if let Part::Wanted(DashboardObjects { secret, config_map, service, deployment, live_hash: _ }) =
        dashboard
    {
        applied.contents.dashboard.push(Content::of(&pass.one(&children.secrets, secret).await?));
        applied.contents.dashboard.push(Content::of(&pass.one(&children.config_maps, config_map).await?));
        pass.one(&children.services, service).await?;
        applied.dashboard = Some(pass.one(&children.deployments, deployment).await?);
        // After the Service, which says that there is one: else nobody would look for it when it is to go.
        for route in &surroundings.routes {
            pass.one(&children.routes, route).await?;
        }
    }
    if let Some(secret) = dashboard_token {
        pass.one(&children.secrets, secret).await?;
    }
    if let Part::Wanted(objects) = backups {
        match pass.backups(plan, objects, children).await {
            Err(error) if error.namespace_is_going() => return Err(error),
            made => applied.refused_backup = made.err(),
        }
    }
    if let Part::Wanted(job) = restore {
        pass.once(&children.jobs, job).await?;
    }
    let withheld: Vec<Component> = [
        (Component::Bridge, matches!(bridge, Part::Withheld)),
        (Component::Dashboard, matches!(dashboard, Part::Withheld)),
        (Component::Backup, matches!(backups, Part::Withheld)),
        (Component::Restore, matches!(restore, Part::Withheld)),
    ]
    .into_iter()
    .filter_map(|(component, withheld)| withheld.then_some(component))
    .collect();
    // Also one that the operator made, to which the spec refers now.
    pass.kept.extend(plan.given.iter().map(|name| ("Secret".to_owned(), name.clone())));
    pass.sweep(children, &withheld).await?;
    applied.not_grown = pass.grow(plan, &children.claims).await?;
    pass.renew_sets(plan, &children.stateful_sets, &applied.not_grown).await?;
    applied.writes = pass.writes;
    Ok(applied)
}

/// Asks cert-manager for certificates, before there can be a plan that needs them.
///
/// # Errors
/// If one could not be asked for.
pub async fn ask_for_certificates(
    client: &Client,
    cache: &Cache,
    pipeline: &Identity,
    desired: &[Certificate],
    observed: &[Certificate],
) -> Result<(), ApplyError> {
    let mut pass = Pass::new(client, cache, pipeline);
    for certificate in desired {
        pass.one(observed, certificate).await?;
    }
    Ok(())
}

/// Writes a set of a pipeline, which is there, once more, with another content.
///
/// # Errors
/// If it could not be written.
pub async fn apply_again(
    client: &Client,
    cache: &Cache,
    plan: &Plan,
    observed: &[StatefulSet],
    desired: &StatefulSet,
) -> Result<StatefulSet, ApplyError> {
    Pass::new(client, cache, &plan.pipeline).one(observed, desired).await
}

/// A version that no object has, since the first change of etcd's is its second: an apply with it makes an object, and
/// is refused if there is one of that name.
const NO_VERSION: &str = "1";

struct Pass<'a> {
    client: &'a Client,
    cache: &'a Cache,
    absent_secrets: &'a BTreeSet<String>,
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

impl<'a> Pass<'a> {
    fn new(client: &'a Client, cache: &'a Cache, pipeline: &'a Identity) -> Self {
        static NONE: BTreeSet<String> = BTreeSet::new();
        Self { client, cache, absent_secrets: &NONE, pipeline, kept: Vec::new(), writes: 0 }
    }
}

impl Pass<'_> {
    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.pipeline.names.namespace)
    }

    async fn one<K>(&mut self, observed: &[K], desired: &K) -> Result<K, ApplyError>
    where
        K: Cached + Clone + std::fmt::Debug,
    {
        let name = desired.name_any();
        self.keep(desired);
        let mut wanted = serde_json::to_value(desired)?;
        let digest = hash(&[wanted.to_string().as_bytes()]);
        wanted["metadata"]["annotations"][APPLIED_HASH] = digest.into();
        let live = observed.iter().find(|live| live.name_any() == name);
        match live {
            Some(live) => {
                let is_going = live.meta().deletion_timestamp.is_some();
                if is_going && self.owner_of(live) == Some(&self.pipeline.owner.uid) {
                    // The pass that its end brings about makes another.
                    return Ok(live.clone());
                }
                self.check_owner(live)?;
                if is_contained(&wanted, &serde_json::to_value(live)?) {
                    return Ok(live.clone());
                }
                if K::kind(&()) == "Secret" {
                    // It holds what is nowhere else, so what is written must follow from what it has now.
                    wanted["metadata"]["resourceVersion"] = live.resource_version().into();
                }
            }
            None => wanted["metadata"]["resourceVersion"] = NO_VERSION.into(),
        }
        // One with a credential that was made meanwhile holds another: the next pass reads it.
        let is_credential = K::kind(&()) == "Secret" && self.absent_secrets.contains(&name);
        let patched = match self.write::<K>(&name, &wanted).await {
            Err(kube::Error::Api(refusal)) if refusal.code == 409 && live.is_none() && !is_credential => {
                let version = self.version_of_unlabelled::<K>(&name).await?;
                wanted["metadata"]["resourceVersion"] = version.as_deref().unwrap_or(NO_VERSION).into();
                self.write(&name, &wanted).await
            }
            written => written,
        };
        let patched: K = patched.map_err(|source| write_error::<K>("apply", &name, source))?;
        self.cache.put(&patched);
        Ok(patched)
    }

    async fn write<K: Cached + std::fmt::Debug>(&mut self, name: &str, wanted: &Value) -> kube::Result<K> {
        self.writes += 1;
        tracing::debug!(kind = %K::kind(&()), name, "applying");
        self.api::<K>().patch(name, &parameters(true), &Patch::Apply(wanted)).await
    }

    async fn patch<K: Cached + std::fmt::Debug>(&self, name: &str, patch: Value) -> kube::Result<K> {
        let patched = self.api::<K>().patch(name, &parameters(false), &Patch::Merge(patch)).await;
        patched.inspect(|object| self.cache.put(object))
    }

    fn keep<K: Resource<DynamicType = ()>>(&mut self, desired: &K) {
        self.kept.push((K::kind(&()).into_owned(), desired.name_any()));
    }

    /// Makes what is not changed afterwards: claims and Jobs can't be.
    async fn once<K>(&mut self, observed: &[K], desired: &K) -> Result<(), ApplyError>
    where
        K: Cached + Clone + std::fmt::Debug,
    {
        match observed.iter().find(|live| live.name_any() == desired.name_any()) {
            Some(live) => {
                self.keep(desired);
                self.check_owner(live)
            }
            None => self.one(&[], desired).await.map(|_| ()),
        }
    }

    async fn surroundings(&mut self, children: &Children, wanted: &Surroundings) -> Result<(), ApplyError> {
        let Surroundings { network_policies, disruption_budgets, ingresses, routes } = wanted;
        for policy in network_policies {
            self.one(&children.network_policies, policy).await?;
        }
        for budget in disruption_budgets {
            self.one(&children.disruption_budgets, budget).await?;
        }
        for ingress in ingresses {
            self.one(&children.ingresses, ingress).await?;
        }
        // They are made with the dashboard. What is there is swept before the Service stops saying that there is one.
        routes.iter().for_each(|route| self.keep(route));
        self.sweep_kind::<HTTPRoute>(&children.routes, &[]).await
    }
}
