//! Reads what is in the cluster. The only randomness is here: credentials that do not exist yet.

use std::collections::{BTreeMap, BTreeSet};

use api::iotpipeline::IoTPipeline;
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::apply::APPLIED_HASH;
use crate::cache::{Cache, Cached};
use crate::credentials::{self, Credentials, NoCredential};
use crate::plan::{NOT_ISSUED, given_secrets, owner};
use crate::resources::exposure::{HTTPRoute, ROUTE};
use crate::resources::issued::{self, Certificate};
use crate::resources::names::Names;
use crate::workload;

/// What is in the cluster, as far as it matters to one pipeline.
#[derive(Default)]
pub struct Observed {
    /// The pipeline's objects.
    pub children: Children,
    /// Secrets that the spec refers to, as far as they exist.
    pub given: BTreeMap<String, Secret>,
    /// The operator's own credentials, kept or new.
    pub credentials: Credentials,
    /// When that was.
    pub now: Timestamp,
}

/// The objects that carry the pipeline's labels.
#[derive(Default)]
pub struct Children {
    /// Sets.
    pub stateful_sets: Vec<StatefulSet>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// Services.
    pub services: Vec<Service>,
    /// Configuration.
    pub config_maps: Vec<ConfigMap>,
    /// Credentials.
    pub secrets: Vec<Secret>,
    /// Pods of the sets and deployments.
    pub pods: Vec<Pod>,
    /// Claims of the sets.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Who may talk to whom.
    pub network_policies: Vec<NetworkPolicy>,
    /// How many pods may go at once.
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// Backups on schedule.
    pub cron_jobs: Vec<CronJob>,
    /// Backups on demand, and restores.
    pub jobs: Vec<Job>,
    /// Ways to the dashboard.
    pub ingresses: Vec<Ingress>,
    /// Ways to the dashboard, where the cluster has the Gateway API.
    pub routes: Vec<HTTPRoute>,
    /// What cert-manager was asked for.
    pub certificates: Vec<Certificate>,
    /// Secrets of which the API server has just said that there are none.
    pub absent_secrets: BTreeSet<String>,
    /// What was said of those of which nothing else tells the cause.
    pub events: Vec<Event>,
}

impl Children {
    /// The set of this name.
    pub fn set(&self, name: &str) -> Option<&StatefulSet> {
        self.stateful_sets.iter().find(|set| set.metadata.name.as_deref() == Some(name))
    }
}

/// Why the cluster could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A kind of object could not be listed.
    #[error("list {kind}")]
    List {
        /// The kind.
        kind: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// A Secret could not be read.
    #[error("get the Secret {name}")]
    Secret {
        /// Its name.
        name: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// A Secret of another's has the name of one that holds credentials of the pipeline.
    #[error("the Secret {0} exists and is not this pipeline's: delete it, or give the pipeline another name")]
    NameTaken(String),
    /// A credential could not be made.
    #[error(transparent)]
    Credentials(#[from] NoCredential),
}

/// Reads the pipeline's objects, but for those of kinds that not every cluster has.
///
/// # Errors
/// If the API server doesn't answer.
pub async fn children_of(
    client: &Client,
    cache: &Cache,
    pipeline: &IoTPipeline,
) -> Result<Children, ObserveError> {
    let names = Names::of(pipeline);
    let cluster = Cluster { client, cache };
    let (workloads, content, around, copies) = tokio::try_join!(
        async {
            tokio::try_join!(
                list::<StatefulSet>(cluster, &names),
                list::<Deployment>(cluster, &names),
                list::<Pod>(cluster, &names),
                list::<PersistentVolumeClaim>(cluster, &names),
            )
        },
        async {
            tokio::try_join!(
                list::<Service>(cluster, &names),
                list::<ConfigMap>(cluster, &names),
                list::<Secret>(cluster, &names),
            )
        },
        async {
            tokio::try_join!(
                list::<NetworkPolicy>(cluster, &names),
                list::<PodDisruptionBudget>(cluster, &names),
                list::<Ingress>(cluster, &names),
            )
        },
        async { tokio::try_join!(list::<CronJob>(cluster, &names), list::<Job>(cluster, &names)) },
    )?;
    let (stateful_sets, deployments, pods, claims) = workloads;
    let (services, config_maps, secrets) = content;
    let (network_policies, disruption_budgets, ingresses) = around;
    let (cron_jobs, jobs) = copies;
    let mut children = Children {
        stateful_sets,
        deployments,
        services,
        config_maps,
        secrets,
        pods,
        claims,
        network_policies,
        disruption_budgets,
        cron_jobs,
        jobs,
        ingresses,
        ..Children::default()
    };
    children.events = events(client, &names, &children).await;
    cache.trust(&names.namespace, &names.pipeline);
    Ok(children)
}

/// Reads everything else that the plan and the status depend on.
///
/// # Errors
/// If the API server doesn't answer, or a Secret of somebody else's has a name that the pipeline needs.
pub async fn observe(
    client: &Client,
    cache: &Cache,
    pipeline: &IoTPipeline,
    mut children: Children,
) -> Result<Observed, ObserveError> {
    let (names, cluster) = (Names::of(pipeline), Cluster { client, cache });
    if asks_cert_manager(pipeline, &children.secrets) {
        children.certificates = if_known(list::<Certificate>(cluster, &names).await)?;
    }
    if has_route(pipeline, &children.services) {
        children.routes = if_known(list::<HTTPRoute>(cluster, &names).await)?;
    }
    // A Secret that lost its labels still has the password that devices use.
    let is_known =
        |name: &String| children.secrets.iter().any(|secret| secret.metadata.name.as_ref() == Some(name));
    let missing: Vec<_> =
        credentials::secret_names(pipeline).into_iter().filter(|name| !is_known(name)).collect();
    let found = try_join_all(missing.iter().map(|name| secret(client, &names, name))).await?;
    for (name, found) in missing.into_iter().zip(found) {
        match found {
            Some(secret) if is_of(&secret, pipeline) => children.secrets.push(secret),
            Some(_) => return Err(ObserveError::NameTaken(name)),
            None => {
                children.absent_secrets.insert(name);
            }
        }
    }
    let mut given = BTreeMap::new();
    for name in given_secrets(pipeline) {
        if let Some(secret) = secret(client, &names, &name).await? {
            given.insert(name, secret);
        }
    }
    let now = Timestamp::now();
    let credentials = credentials::complete(pipeline, &children.secrets, now)?;
    Ok(Observed { children, given, credentials, now })
}

/// Whether a Secret without the pipeline's labels is one of its own: it is owned, also if its owner is a pipeline of
/// this name that has gone, or the operator has written it. What others made is neither read nor taken over.
fn is_of(secret: &Secret, pipeline: &IoTPipeline) -> bool {
    let ours = owner(pipeline);
    let owners = secret.metadata.owner_references.iter().flatten();
    let is_owned = owners.into_iter().any(|owner| owner.kind == ours.kind && owner.name == ours.name);
    is_owned || secret.annotations().contains_key(APPLIED_HASH)
}

/// Whether the pipeline names an issuer of cert-manager, or may have named one: then what that made is still there, or
/// the status says that it was waited for, or that something else was refused meanwhile.
fn asks_cert_manager(pipeline: &IoTPipeline, secrets: &[Secret]) -> bool {
    let is_issued = |secret: &Secret| secret.annotations().contains_key("cert-manager.io/certificate-name");
    let mut conditions = pipeline.status.iter().flat_map(|status| &status.conditions);
    !issued::desired(pipeline).is_empty()
        || secrets.iter().any(is_issued)
        || conditions.any(|condition| {
            condition.reason == NOT_ISSUED || (condition.type_ == "Stalled" && condition.status == "True")
        })
}

/// Whether the pipeline asks for a route to its dashboard, or has asked for one.
fn has_route(pipeline: &IoTPipeline, services: &[Service]) -> bool {
    let wanted = pipeline.spec.dashboard.as_ref().is_some_and(|dashboard| dashboard.route.is_some());
    wanted || services.iter().any(|service| service.annotations().contains_key(ROUTE))
}

/// The API server, and what it is known to have.
#[derive(Clone, Copy)]
struct Cluster<'a> {
    client: &'a Client,
    cache: &'a Cache,
}

async fn list<K>(cluster: Cluster<'_>, names: &Names) -> Result<Vec<K>, ObserveError>
where
    K: Cached + Clone + std::fmt::Debug,
{
    if let Some(known) = cluster.cache.objects(&names.namespace, &names.pipeline) {
        return Ok(known);
    }
    let api: Api<K> = Api::namespaced(cluster.client.clone(), &names.namespace);
    let found = api.list(&ListParams::default().labels(&names.all())).await;
    let found = found
        .map_err(|source| ObserveError::List { kind: K::kind(&()).into_owned(), source: Box::new(source) })?;
    let version = found.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
    cluster.cache.replace(&names.namespace, &names.pipeline, &found.items, version);
    Ok(found.items)
}

/// Without them everything works, and less is told.
async fn events(client: &Client, names: &Names, children: &Children) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(client.clone(), &names.namespace);
    let mut found = Vec::new();
    for (kind, name, uid) in workload::unexplained(children) {
        let about = format!("involvedObject.kind={kind},involvedObject.name={name},involvedObject.uid={uid}");
        match api.list(&ListParams::default().fields(&about).limit(50)).await {
            Ok(list) => found.extend(list.items),
            Err(error) => tracing::debug!(%error, kind, name, "events can't be read"),
        }
    }
    found
}

/// A kind that the cluster doesn't have has no objects.
fn if_known<K>(found: Result<Vec<K>, ObserveError>) -> Result<Vec<K>, ObserveError> {
    match found {
        Err(ObserveError::List { source, .. }) if is_not_found(&source) => Ok(Vec::new()),
        found => found,
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

async fn secret(client: &Client, names: &Names, name: &str) -> Result<Option<Secret>, ObserveError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &names.namespace);
    api.get_opt(name)
        .await
        .map_err(|source| ObserveError::Secret { name: name.into(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_certificate_that_was_waited_for_is_looked_for_when_it_is_no_longer_asked_for() {
        let asks_if = |type_: &str, tls: serde_json::Value, reason: &str, annotation: &str| {
            let condition = json!({
                "type": type_, "status": "True", "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            let pipeline = json!({
                "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline", "metadata": {"name": "lab"},
                "spec": {"broker": {"tls": tls}, "routes": []}, "status": {"conditions": [condition]},
            });
            let secret = json!({"metadata": {"name": "lab-broker-tls", "annotations": {annotation: "x"}}});
            let pipeline = serde_json::from_value(pipeline).expect("a pipeline");
            asks_cert_manager(&pipeline, &[serde_json::from_value(secret).expect("a Secret")])
        };
        let asks = |tls, reason: &str, annotation: &str| asks_if("Ready", tls, reason, annotation);
        assert!(!asks(json!({}), "Ready", "other"));
        assert!(asks_if("Stalled", json!({}), "InvalidSpec", "other"));
        assert!(asks(json!({"issuerRef": {"name": "plant"}}), "Ready", "other"));
        assert!(asks(json!({}), "Ready", "cert-manager.io/certificate-name"));
        assert!(asks(json!({}), "WaitingForCertificate", "other"));
    }

    #[test]
    fn a_secret_of_another_s_is_not_the_pipeline_s_for_its_name() {
        let pipeline = json!({
            "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
            "metadata": {"name": "lab", "namespace": "n", "uid": "u"}, "spec": {"routes": []},
        });
        let pipeline: IoTPipeline = serde_json::from_value(pipeline).expect("a pipeline");
        let is_ours = |metadata| {
            let secret = serde_json::from_value(json!({"metadata": metadata})).expect("a Secret");
            is_of(&secret, &pipeline)
        };
        let owned = |kind: &str, name: &str| json!({"ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u"}]});
        assert!(!is_ours(json!({"name": "lab-database"})));
        assert!(!is_ours(owned("Deployment", "lab")) && !is_ours(owned("IoTPipeline", "other")));
        // It lost its labels, or outlived its pipeline and lost them.
        assert!(is_ours(owned("IoTPipeline", "lab")));
        assert!(is_ours(json!({"annotations": {APPLIED_HASH: "1"}})));
    }
}
