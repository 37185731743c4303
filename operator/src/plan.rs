//! Spec + observed → [`Plan`], or why not. Pure: what takes a plan cannot fail.

mod backup;
mod bridges;
mod external_broker;
mod given;
mod parts;
mod pod;
mod refusal;
mod requirements;
mod sleep;
mod tls;
mod volumes;
mod workload;

use std::collections::BTreeMap;

use api::iotpipeline::{self, IoTPipeline, TopicFilter};
use api::lifecycle::DeletionPolicy;
use api::placement::{IngressSettings, RouteSettings};
use api::route::{Route, check_routes};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use crate::certificate::Pair;
use crate::config::{Config, ImageReference};
use crate::credentials::Authorities;
use crate::observe::Observed;
use crate::resources::issued::{self, Certificate};
use crate::resources::names::{Component, Names};

pub use backup::{BACKUP, BackupPlace, BackupPod, Backups, Restore};
pub use bridges::Bridges;
pub use external_broker::ExternalBroker;
use given::Given;
pub use given::given_secrets;
use parts::{managed_broker, plan_dashboard, plan_database};
pub use pod::PodOverlay;
pub use refusal::{NOT_ISSUED, Refusal};
pub use sleep::Sleep;
pub use tls::{ServerTls, expiries, tls_of_parts};
use volumes::bridge_volume;
pub use workload::Workload;

/// Everything that the objects are made from. It and its parts hold credentials, so none can be printed.
pub struct Plan {
    /// Whose objects they are.
    pub pipeline: Identity,
    /// The broker.
    pub broker: Broker,
    /// The database.
    pub database: Database,
    /// Backups of a managed database, if there are to be some.
    pub backups: Option<Backups>,
    /// What a managed database begins with, if it has to be restored.
    pub restore: Option<Restore>,
    /// The dashboard, if there is one.
    pub dashboard: Option<Dashboard>,
    /// The bridge.
    pub bridge: Workload,
    /// How many bridges there are, and how many are to be.
    pub bridges: Bridges,
    /// The operator's namespace, if network policies are wanted.
    pub operator_namespace: Option<String>,
    /// What is at rest, or about to be.
    pub sleep: Sleep,
    /// The largest payload that the bridge stores, in bytes.
    pub max_message_size: Option<u32>,
    /// The volume for a bridge's stamps.
    pub bridge_volume: Volume,
    /// The password of the bridge's own user of a managed broker.
    pub bridge_password: String,
    /// The secret part of the bridge's client id at the broker.
    pub bridge_session: String,
    /// The pipeline's own authority, if it has one.
    pub authorities: Option<Authorities>,
    /// When passwords and tokens were made anew, by Secret, as far as they were.
    pub rotated: BTreeMap<String, String>,
    /// The tokens that are still of before that, by Secret.
    pub outdated: BTreeMap<String, String>,
    /// The Secrets that the spec refers to: whatever their labels, they are not the operator's to delete.
    pub given: Vec<String>,
    /// What cert-manager is asked for.
    pub certificates: Vec<Certificate>,
    /// Which topics become which points.
    pub routes: Vec<Route>,
}

/// Which pipeline it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What its objects are called.
    pub names: Names,
    /// What ties its objects to it.
    pub owner: OwnerReference,
    /// What ties volumes, and what they are useless without, to it; nothing, if they are to outlive it.
    pub keeper: Option<OwnerReference>,
}

/// A volume of a managed part.
#[derive(Clone, Debug)]
pub struct Volume {
    /// The size that is asked for.
    pub size: String,
    /// The storage class; the cluster's default, if none.
    pub class: Option<String>,
    /// The claim templates of the set as it is: they can't be changed.
    pub existing: Option<Vec<PersistentVolumeClaim>>,
}

/// The broker.
pub enum Broker {
    /// mosquitto.
    Managed(Box<ManagedBroker>),
    /// Somebody else's.
    External(ExternalBroker),
}

/// A broker that the operator runs.
pub struct ManagedBroker {
    /// mosquitto.
    pub workload: Box<Workload>,
    /// The operator's own image, for the sidecar that tells mosquitto to reread its users.
    pub reloader: ImageReference,
    /// The volume.
    pub volume: Volume,
    /// How many bytes of payload may wait for a client; 0 for the default bound.
    pub queue_bytes: u64,
    /// Its certificate.
    pub tls: ServerTls,
    /// Whether it can be reached without TLS too.
    pub plain: bool,
    /// The authorities that sign its users' certificates, the newest first: the names of their files, and PEM.
    pub authorities: Vec<(String, String)>,
    /// Of which of them mosquitto asks clients for certificates, by its file: it reads that at its start only.
    pub asked_for: String,
    /// Who may connect.
    pub users: Vec<User>,
}

/// A user of a managed broker.
pub struct User {
    /// The name to connect with.
    pub name: String,
    /// How the broker knows that it is this user.
    pub proof: Proof,
    /// What the user may publish to.
    pub publish: Vec<TopicFilter>,
    /// What the user may subscribe to.
    pub subscribe: Vec<TopicFilter>,
}

/// How the broker knows that it is this user.
pub enum Proof {
    /// A password that the user of the pipeline has given.
    GivenPassword(String),
    /// A password of the operator's own, which is kept in a Secret of the pipeline.
    OwnPassword(String),
    /// A certificate of the pipeline's authority, which is kept in a Secret too.
    Certificate(Pair),
}

/// The database, and what is stored where.
pub struct Database {
    /// The organization's name.
    pub organization: String,
    /// The bucket's name.
    pub bucket: String,
    /// Whose database it is.
    pub place: DatabasePlace,
}

/// Whose database it is.
pub enum DatabasePlace {
    /// InfluxDB, run by the operator.
    Managed(Box<ManagedDatabase>),
    /// Somebody else's.
    External(ExternalDatabase),
}

/// A database that the operator runs.
pub struct ManagedDatabase {
    /// InfluxDB.
    pub workload: Box<Workload>,
    /// The volume.
    pub volume: Volume,
    /// For how many seconds points are kept; 0 is for ever.
    pub retention_seconds: i64,
    /// The administrator's password.
    pub admin_password: String,
    /// The administrator's token.
    pub admin_token: String,
    /// Its certificate, if it speaks HTTPS.
    pub tls: Option<ServerTls>,
}

/// A database that is not the operator's.
pub struct ExternalDatabase {
    /// Its address.
    pub url: String,
    /// May write the bucket.
    pub token: String,
    /// May read the bucket.
    pub read_token: String,
    /// The certificate authority to trust.
    pub ca: Option<String>,
}

/// The dashboard.
pub enum Dashboard {
    /// Grafana, run by the operator.
    Managed {
        /// Grafana.
        workload: Box<Workload>,
        /// The administrator's password.
        password: String,
        /// The Ingress that leads to it.
        ingress: Option<IngressSettings>,
        /// The HTTPRoute that leads to it.
        route: Option<RouteSettings>,
        /// Its certificate, if it speaks HTTPS.
        tls: Option<ServerTls>,
    },
    /// Somebody else's.
    External {
        /// Its address.
        url: String,
        /// How to be let in.
        access: GrafanaAccess,
        /// The certificate authority to trust.
        ca: Option<String>,
    },
}

/// How an external Grafana lets the operator in.
#[derive(Clone)]
pub enum GrafanaAccess {
    /// A service account's token.
    Token(String),
    /// User name and password.
    Basic(String, String),
}

impl Broker {
    /// Where it is.
    pub fn url(&self, names: &Names) -> String {
        match self {
            Broker::Managed(_) => names.broker_url(),
            Broker::External(external) => external.url.clone(),
        }
    }

    /// The authorities to check it by, as PEM; the public ones, if none.
    pub fn ca(&self) -> Option<&str> {
        match self {
            Broker::Managed(managed) => managed.tls.ca.as_deref(),
            Broker::External(external) => external.ca.as_deref(),
        }
    }
}

impl Database {
    /// Where it is.
    pub fn url(&self, names: &Names) -> String {
        match &self.place {
            DatabasePlace::Managed(managed) => names.database_url(managed.tls.is_some()),
            DatabasePlace::External(external) => external.url.clone(),
        }
    }

    /// The authorities to check it by, as PEM; the public ones, if none.
    pub fn ca(&self) -> Option<&str> {
        match &self.place {
            DatabasePlace::Managed(managed) => managed.tls.as_ref()?.ca.as_deref(),
            DatabasePlace::External(external) => external.ca.as_deref(),
        }
    }
}

impl Plan {
    /// Decides what is to be.
    ///
    /// # Errors
    /// If the spec can't be carried out.
    pub fn new(pipeline: &IoTPipeline, observed: &Observed, config: &Config) -> Result<Self, Refusal> {
        check_routes(&pipeline.spec.routes)?;
        check_topics(&pipeline.spec)?;
        let spec = &pipeline.spec;
        let names = Names::of(pipeline);
        let given = Given(&observed.given);
        let broker = match &spec.broker.external {
            None => Broker::Managed(Box::new(managed_broker(spec, &names, observed, config)?)),
            Some(external) => Broker::External(ExternalBroker::new(external, &given)?),
        };
        let dashboard = match &spec.dashboard {
            None => None,
            Some(dashboard) => Some(plan_dashboard(spec, dashboard, &names, observed, config)?),
        };
        Ok(Self {
            broker,
            database: plan_database(spec, &names, observed, config)?,
            backups: Backups::new(pipeline, observed, config)?,
            restore: Restore::new(pipeline, observed, config)?,
            dashboard,
            bridge: Workload::new(
                Component::Bridge,
                config.image_of(&config.images.bridge, spec.bridge.image.as_deref()),
                (spec.bridge.resources.as_ref(), ("10m", "16Mi")),
                spec.bridge.pod.as_deref(),
                None,
            )?,
            bridges: Bridges::new(spec.bridge.replicas, &names, &observed.children),
            operator_namespace: config.namespace.clone().filter(|_| spec.network_policy.enabled),
            sleep: Sleep::new(spec, &observed.children.pods),
            max_message_size: spec.bridge.max_message_size,
            bridge_volume: bridge_volume(spec, &names, observed),
            bridge_password: observed.credentials.bridge.clone(),
            bridge_session: observed.credentials.session.clone(),
            given: given_secrets(pipeline),
            certificates: issued::desired(pipeline),
            rotated: observed.credentials.rotated.clone(),
            outdated: observed.credentials.outdated.clone(),
            authorities: observed.credentials.signed.as_ref().map(|signed| signed.authorities.clone()),
            routes: spec.routes.clone(),
            pipeline: Identity::of(pipeline),
        })
    }
}

impl Identity {
    /// That of this pipeline.
    pub fn of(pipeline: &IoTPipeline) -> Self {
        Self { names: Names::of(pipeline), owner: owner(pipeline), keeper: keeper(pipeline) }
    }
}

/// What ties an object to its pipeline. It doesn't block the pipeline's deletion, which would ask for
/// one more right.
pub fn owner(pipeline: &IoTPipeline) -> OwnerReference {
    OwnerReference {
        api_version: IoTPipeline::api_version(&()).into_owned(),
        kind: IoTPipeline::kind(&()).into_owned(),
        name: pipeline.name_any(),
        uid: pipeline.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// It is no controller: where a part becomes external, what it kept stays until the pipeline goes.
fn keeper(pipeline: &IoTPipeline) -> Option<OwnerReference> {
    match pipeline.spec.deletion_policy {
        DeletionPolicy::Retain => None,
        DeletionPolicy::Delete => Some(OwnerReference { controller: None, ..owner(pipeline) }),
    }
}

/// Topics are lines of a file: a line break in one would grant what the spec doesn't.
fn check_topics(spec: &iotpipeline::IoTPipelineSpec) -> Result<(), Refusal> {
    let routes = spec.routes.iter().map(|route| (format!("routes[{}]", route.name), &route.topic));
    let users = spec.broker.users.iter().flat_map(|user| {
        let filters = user.publish.iter().chain(&user.subscribe);
        filters.map(|filter| (format!("broker.users[{}]", user.name), &filter.0))
    });
    match routes.chain(users).find(|(_, topic)| topic.contains(char::is_control)) {
        Some((field, topic)) => Err(Refusal::ControlCharacter { field, topic: topic.clone() }),
        None => Ok(()),
    }
}
