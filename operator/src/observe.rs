//! Reads what is in the cluster. The only randomness is here: credentials that do not exist yet.

use std::collections::BTreeMap;

use api::iotpipeline::IoTPipeline;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::credentials::{self, Credentials, NoCredential};
use crate::plan::given_secrets;
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
    /// What cert-manager was asked for.
    pub certificates: Vec<Certificate>,
    /// What was said of those of which nothing else tells the cause.
    pub events: Vec<Event>,
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
    /// A credential could not be made.
    #[error(transparent)]
    Credentials(#[from] NoCredential),
}

/// Reads everything that the plan and the status depend on.
///
/// # Errors
/// If the API server doesn't answer.
pub async fn observe(client: &Client, pipeline: &IoTPipeline) -> Result<Observed, ObserveError> {
    let names = Names::of(pipeline);
    let (stateful_sets, deployments, services, config_maps, secrets, pods, claims) = tokio::try_join!(
        list::<StatefulSet>(client, &names),
        list::<Deployment>(client, &names),
        list::<Service>(client, &names),
        list::<ConfigMap>(client, &names),
        list::<Secret>(client, &names),
        list::<Pod>(client, &names),
        list::<PersistentVolumeClaim>(client, &names),
    )?;
    let certificates = match asks_cert_manager(pipeline, &secrets) {
        true => certificates(client, &names).await?,
        false => Vec::new(),
    };
    let mut children = Children {
        stateful_sets,
        deployments,
        services,
        config_maps,
        secrets,
        pods,
        claims,
        certificates,
        events: Vec::new(),
    };
    children.events = events(client, &names, &children).await;

    // A Secret that lost its labels still has the password that devices use.
    for name in credentials::secret_names(pipeline) {
        if !children.secrets.iter().any(|secret| secret.metadata.name.as_ref() == Some(&name)) {
            children.secrets.extend(secret(client, &names, &name).await?);
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

/// Whether the pipeline names an issuer of cert-manager, or has named one: what that made is still there then.
fn asks_cert_manager(pipeline: &IoTPipeline, secrets: &[Secret]) -> bool {
    let is_issued = |secret: &Secret| secret.annotations().contains_key("cert-manager.io/certificate-name");
    !issued::desired(pipeline).is_empty() || secrets.iter().any(is_issued)
}

/// None, where cert-manager is not installed.
async fn certificates(client: &Client, names: &Names) -> Result<Vec<Certificate>, ObserveError> {
    match list::<Certificate>(client, names).await {
        Err(ObserveError::List { source, .. }) if is_not_found(&source) => Ok(Vec::new()),
        found => found,
    }
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

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

async fn list<K>(client: &Client, names: &Names) -> Result<Vec<K>, ObserveError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &names.namespace);
    let found = api.list(&ListParams::default().labels(&names.all())).await;
    found
        .map(|list| list.items)
        .map_err(|source| ObserveError::List { kind: K::kind(&()).into_owned(), source: Box::new(source) })
}

async fn secret(client: &Client, names: &Names, name: &str) -> Result<Option<Secret>, ObserveError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &names.namespace);
    api.get_opt(name)
        .await
        .map_err(|source| ObserveError::Secret { name: name.into(), source: Box::new(source) })
}
