//! Spec + observed → [`Plan`], or why not. Pure: what takes a plan cannot fail.

use std::collections::BTreeMap;

use api::iotpipeline::{self, IoTPipeline, SecretKey, SecretName, TopicFilter, retention_seconds};
use api::route::{Route, RouteError, check_routes};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ResourceRequirements, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use crate::config::{Config, ImageReference};
use crate::credentials::Credentials;
use crate::observe::Observed;
use crate::resources::names::{Component, Names};

/// Everything that the objects are made from.
#[derive(Debug)]
pub struct Plan {
    /// Whose objects they are.
    pub pipeline: Identity,
    /// The broker.
    pub broker: Broker,
    /// The database.
    pub database: Database,
    /// The dashboard, if there is one.
    pub dashboard: Option<Dashboard>,
    /// The bridge.
    pub bridge: Workload,
    /// The volume for the bridge's stamps.
    pub bridge_volume: Volume,
    /// The password of the bridge's own user of a managed broker.
    pub bridge_password: String,
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
}

/// What a container of a part needs.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its image.
    pub image: ImageReference,
    /// CPU and memory.
    pub resources: ResourceRequirements,
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
#[derive(Debug)]
pub enum Broker {
    /// mosquitto.
    Managed(ManagedBroker),
    /// Somebody else's.
    External(ExternalBroker),
}

/// A broker that the operator runs.
#[derive(Debug)]
pub struct ManagedBroker {
    /// mosquitto.
    pub workload: Workload,
    /// The operator's own image, for the sidecar that tells mosquitto to reread its users.
    pub reloader: ImageReference,
    /// The volume.
    pub volume: Volume,
    /// Who may connect.
    pub users: Vec<User>,
}

/// A user of a managed broker.
#[derive(Debug)]
pub struct User {
    /// The name to connect with.
    pub name: String,
    /// The password.
    pub password: String,
    /// Whether the password is the operator's own, and so kept in a Secret of the pipeline.
    pub generated: bool,
    /// What the user may publish to.
    pub publish: Vec<TopicFilter>,
    /// What the user may subscribe to.
    pub subscribe: Vec<TopicFilter>,
}

/// A broker that is not the operator's.
#[derive(Debug)]
pub struct ExternalBroker {
    /// Its address.
    pub url: String,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// The certificate authority to trust.
    pub ca: Option<String>,
}

/// The database, and what is stored where.
#[derive(Debug)]
pub struct Database {
    /// The organization's name.
    pub organization: String,
    /// The bucket's name.
    pub bucket: String,
    /// Whose database it is.
    pub place: DatabasePlace,
}

/// Whose database it is.
#[derive(Debug)]
pub enum DatabasePlace {
    /// InfluxDB, run by the operator.
    Managed(ManagedDatabase),
    /// Somebody else's.
    External(ExternalDatabase),
}

/// A database that the operator runs.
#[derive(Debug)]
pub struct ManagedDatabase {
    /// InfluxDB.
    pub workload: Workload,
    /// The volume.
    pub volume: Volume,
    /// For how many seconds points are kept; 0 is for ever.
    pub retention_seconds: i64,
    /// The administrator's password.
    pub admin_password: String,
    /// The administrator's token.
    pub admin_token: String,
}

/// A database that is not the operator's.
#[derive(Debug)]
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
#[derive(Debug)]
pub enum Dashboard {
    /// Grafana, run by the operator.
    Managed {
        /// Grafana.
        workload: Workload,
        /// The administrator's password.
        password: String,
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
#[derive(Clone, Debug)]
pub enum GrafanaAccess {
    /// A service account's token.
    Token(String),
    /// User name and password.
    Basic(String, String),
}

/// Why a pipeline can't be carried out as it is. What exists stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A route that can't be used.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// A retention that the schema should have refused.
    #[error("database.retention: {0}")]
    Retention(String),
    /// A Secret that is not there.
    #[error("the Secret {name} does not exist: create it in the pipeline's namespace ({field} names it)")]
    NoSecret {
        /// The Secret's name.
        name: String,
        /// The field that names it.
        field: String,
    },
    /// A Secret without the key.
    #[error("the Secret {name} has no key {key}, or it is empty or not text: add it ({field} needs it)")]
    NoKey {
        /// The Secret's name.
        name: String,
        /// The key.
        key: String,
        /// The field that names it.
        field: String,
    },
    /// Resources that Kubernetes would not take.
    #[error("{field}: {quantity:?} is no quantity: write a number with a unit, such as 100m or 128Mi")]
    Quantity {
        /// The field.
        field: String,
        /// What it holds.
        quantity: String,
    },
    /// A topic that mosquitto's access file can't carry.
    #[error("{field}: the topic {topic:?} has a control character: choose another topic")]
    ControlCharacter {
        /// The field.
        field: String,
        /// The topic.
        topic: String,
    },
    /// A password that mosquitto's password file can't carry.
    #[error("the password of the user {0} has a line break or is longer than 1024 bytes: choose another")]
    Password(String),
}

impl Refusal {
    /// For a condition: what is the matter, in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::NoSecret { .. } => "SecretNotFound",
            Refusal::NoKey { .. } => "SecretIncomplete",
            Refusal::Routes(_)
            | Refusal::Retention(_)
            | Refusal::Quantity { .. }
            | Refusal::Password(_)
            | Refusal::ControlCharacter { .. } => "InvalidSpec",
        }
    }
}

/// The names of the Secrets that a spec refers to.
pub fn given_secrets(pipeline: &IoTPipeline) -> Vec<String> {
    let spec = &pipeline.spec;
    let mut names: Vec<&str> = Vec::new();
    for user in &spec.broker.users {
        names.extend(user.password_secret_ref.as_ref().map(|key| key.name.as_str()));
    }
    if let Some(external) = &spec.broker.external {
        names.extend(external.credentials_secret_ref.as_ref().map(|secret| secret.name.as_str()));
        names.extend(external.ca_secret_ref.as_ref().map(|key| key.name.as_str()));
    }
    if let Some(external) = &spec.database.external {
        names.push(&external.token_secret_ref.name);
        names.extend(external.read_token_secret_ref.as_ref().map(|key| key.name.as_str()));
        names.extend(external.ca_secret_ref.as_ref().map(|key| key.name.as_str()));
    }
    if let Some(external) = spec.dashboard.as_ref().and_then(|dashboard| dashboard.external.as_ref()) {
        names.push(&external.credentials_secret_ref.name);
        names.extend(external.ca_secret_ref.as_ref().map(|key| key.name.as_str()));
    }
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(Into::into).collect()
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
            None => Broker::Managed(managed_broker(&spec.broker, &names, observed, config)?),
            Some(external) => Broker::External(ExternalBroker {
                url: external.url.clone(),
                credentials: given.login(
                    external.credentials_secret_ref.as_ref(),
                    "broker.external.credentialsSecretRef",
                )?,
                ca: given.optional(external.ca_secret_ref.as_ref(), "broker.external.caSecretRef")?,
            }),
        };
        let dashboard = match &spec.dashboard {
            None => None,
            Some(dashboard) => Some(plan_dashboard(dashboard, &given, &observed.credentials, config)?),
        };
        Ok(Self {
            broker,
            database: plan_database(&spec.database, &names, observed, config)?,
            dashboard,
            bridge: Workload {
                image: config.image_of(&config.images.bridge, spec.bridge.image.as_ref()),
                resources: resources(spec.bridge.resources.as_ref(), ("10m", "16Mi"), "bridge.resources")?,
            },
            bridge_volume: bridge_volume(spec, &names, observed),
            bridge_password: observed.credentials.bridge.clone(),
            routes: spec.routes.clone(),
            pipeline: Identity { names, owner: owner(pipeline) },
        })
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

fn managed_broker(
    broker: &iotpipeline::Broker,
    names: &Names,
    observed: &Observed,
    config: &Config,
) -> Result<ManagedBroker, Refusal> {
    let given = Given(&observed.given);
    let mut users = Vec::with_capacity(broker.users.len());
    for user in &broker.users {
        let field = format!("broker.users[{}].passwordSecretRef", user.name);
        let own = given.optional(user.password_secret_ref.as_ref(), &field)?;
        let generated = own.is_none();
        let password =
            own.or_else(|| observed.credentials.users.get(&user.name).cloned()).unwrap_or_default();
        if password.contains(['\n', '\r', '\0']) || password.len() > 1024 {
            return Err(Refusal::Password(user.name.clone()));
        }
        users.push(User {
            name: user.name.clone(),
            password,
            generated,
            publish: user.publish.clone(),
            subscribe: user.subscribe.clone(),
        });
    }
    Ok(ManagedBroker {
        workload: Workload {
            image: config.image_of(&config.images.mosquitto, broker.image.as_ref()),
            resources: resources(broker.resources.as_ref(), ("20m", "32Mi"), "broker.resources")?,
        },
        reloader: config.image_of(&config.image, None),
        volume: volume(broker.storage.as_ref(), "1Gi", &names.of_part(Component::Broker), observed),
        users,
    })
}

fn plan_database(
    database: &iotpipeline::Database,
    names: &Names,
    observed: &Observed,
    config: &Config,
) -> Result<Database, Refusal> {
    let given = Given(&observed.given);
    let place = match &database.external {
        None => DatabasePlace::Managed(ManagedDatabase {
            workload: Workload {
                image: config.image_of(&config.images.influxdb, database.image.as_ref()),
                resources: resources(database.resources.as_ref(), ("50m", "128Mi"), "database.resources")?,
            },
            volume: volume(database.storage.as_ref(), "5Gi", &names.of_part(Component::Database), observed),
            retention_seconds: retention_seconds(database.retention.as_deref().unwrap_or("0"))
                .map_err(Refusal::Retention)?,
            admin_password: observed.credentials.database.password.clone(),
            admin_token: observed.credentials.database.token.clone(),
        }),
        Some(external) => {
            let token = given.value(&external.token_secret_ref, "database.external.tokenSecretRef")?;
            DatabasePlace::External(ExternalDatabase {
                url: external.url.trim_end_matches('/').to_owned(),
                read_token: given
                    .optional(
                        external.read_token_secret_ref.as_ref(),
                        "database.external.readTokenSecretRef",
                    )?
                    .unwrap_or_else(|| token.clone()),
                token,
                ca: given.optional(external.ca_secret_ref.as_ref(), "database.external.caSecretRef")?,
            })
        }
    };
    Ok(Database { organization: database.organization.clone(), bucket: database.bucket.clone(), place })
}

fn plan_dashboard(
    dashboard: &iotpipeline::Dashboard,
    given: &Given<'_>,
    credentials: &Credentials,
    config: &Config,
) -> Result<Dashboard, Refusal> {
    let Some(external) = &dashboard.external else {
        return Ok(Dashboard::Managed {
            workload: Workload {
                image: config.image_of(&config.images.grafana, dashboard.image.as_ref()),
                resources: resources(dashboard.resources.as_ref(), ("20m", "128Mi"), "dashboard.resources")?,
            },
            password: credentials.dashboard.clone(),
        });
    };
    let field = "dashboard.external.credentialsSecretRef";
    let secret = &external.credentials_secret_ref;
    let token = SecretKey { name: secret.name.clone(), key: "token".into() };
    let access = match (given.value(&token, field), given.login(Some(secret), field)) {
        (Ok(token), _) => GrafanaAccess::Token(token),
        (Err(_), Ok(Some((user, password)))) => GrafanaAccess::Basic(user, password),
        (Err(refusal), _) => return Err(refusal),
    };
    Ok(Dashboard::External {
        url: external.url.trim_end_matches('/').to_owned(),
        access,
        ca: given.optional(external.ca_secret_ref.as_ref(), "dashboard.external.caSecretRef")?,
    })
}

fn volume(storage: Option<&iotpipeline::Storage>, default: &str, set: &str, observed: &Observed) -> Volume {
    let existing = observed.children.stateful_sets.iter().find(|existing| existing.name_any() == set);
    Volume {
        size: storage.map_or_else(|| default.to_owned(), |storage| storage.size.clone()),
        class: storage.and_then(|storage| storage.storage_class_name.clone()),
        existing: existing.and_then(|set| set.spec.volume_claim_templates.clone()),
    }
}

/// 1 MiB of stamps; some storage classes have a minimum. The class is the one that the pipeline names for
/// its other volumes.
fn bridge_volume(spec: &iotpipeline::IoTPipelineSpec, names: &Names, observed: &Observed) -> Volume {
    let storage = spec.broker.storage.as_ref().or(spec.database.storage.as_ref());
    let class = storage.and_then(|storage| storage.storage_class_name.clone());
    Volume { class, ..volume(None, "64Mi", &names.of_part(Component::Bridge), observed) }
}

/// What the pipeline asks for, or else small requests and no limits.
fn resources(
    wanted: Option<&iotpipeline::Resources>,
    (cpu, memory): (&str, &str),
    field: &str,
) -> Result<ResourceRequirements, Refusal> {
    let quantities = |map: &BTreeMap<String, String>| -> Result<Option<BTreeMap<String, Quantity>>, Refusal> {
        let mut quantities = BTreeMap::new();
        for (name, quantity) in map {
            if crate::compare::nanos(quantity).is_none_or(|nanos| nanos < 0) {
                return Err(Refusal::Quantity {
                    field: format!("{field}.{name}"),
                    quantity: quantity.clone(),
                });
            }
            quantities.insert(name.clone(), Quantity(quantity.clone()));
        }
        Ok(Some(quantities).filter(|quantities| !quantities.is_empty()))
    };
    match wanted {
        Some(wanted) => Ok(ResourceRequirements {
            requests: quantities(&wanted.requests)?,
            limits: quantities(&wanted.limits)?,
            claims: None,
        }),
        None => Ok(ResourceRequirements {
            requests: Some(BTreeMap::from([
                ("cpu".into(), Quantity(cpu.into())),
                ("memory".into(), Quantity(memory.into())),
            ])),
            ..ResourceRequirements::default()
        }),
    }
}

/// The Secrets that the spec refers to, as far as they exist.
struct Given<'a>(&'a BTreeMap<String, Secret>);

impl Given<'_> {
    fn value(&self, key: &SecretKey, field: &str) -> Result<String, Refusal> {
        let refused = || (key.name.clone(), field.to_owned());
        let secret = self.0.get(&key.name).ok_or_else(|| {
            let (name, field) = refused();
            Refusal::NoSecret { name, field }
        })?;
        let value = secret.data.as_ref().and_then(|data| data.get(&key.key));
        // Files and `kubectl create secret --from-file` end in a line break that nobody means.
        value
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
            .filter(|text| !text.is_empty())
            .ok_or_else(|| {
                let (name, field) = refused();
                Refusal::NoKey { name, key: key.key.clone(), field }
            })
    }

    fn optional(&self, key: Option<&SecretKey>, field: &str) -> Result<Option<String>, Refusal> {
        key.map(|key| self.value(key, field)).transpose()
    }

    fn login(&self, secret: Option<&SecretName>, field: &str) -> Result<Option<(String, String)>, Refusal> {
        let Some(secret) = secret else { return Ok(None) };
        let key = |key: &str| SecretKey { name: secret.name.clone(), key: key.into() };
        Ok(Some((self.value(&key("username"), field)?, self.value(&key("password"), field)?)))
    }
}
