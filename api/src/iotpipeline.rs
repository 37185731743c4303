//! The `IoTPipeline` resource. Every doc comment on a field is what `kubectl explain` prints.
//!
//! What is large and mostly absent is boxed: the operator has a thousand pipelines in memory.
//!
//! Kinds of rule: bounds in the schema, CEL for what needs a message that says what to do
//! (see `schema`), and [`check_routes`](crate::route::check_routes) for names that clash between
//! parts of a route.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backup::{Backup, BackupStatus, RestoreFrom};
use crate::lifecycle::{DeletionPolicy, NetworkPolicySettings};
use crate::placement::{IngressSettings, PodSettings, RouteSettings, ServiceSettings};
use crate::route::Route;
use crate::schema::{INFLUX_NAME_RULES, rules};

/// What the user wants: one chain from devices to dashboard.
#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "iotpipeline.io",
    version = "v1alpha1",
    kind = "IoTPipeline",
    plural = "iotpipelines",
    shortname = "iotp",
    category = "iot",
    namespaced,
    status = "IoTPipelineStatus",
    derive = "PartialEq",
    doc = "A chain from devices to dashboard: an MQTT broker, a bridge that stores what is published, a database, and a dashboard.",
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 40")
        .message("a pipeline's name starts with a letter, has lower-case letters, digits and hyphens, and at most 40 characters, since services are named after it"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Broker","type":"string","jsonPath":".status.conditions[?(@.type==\"BrokerReady\")].reason"}"#,
    printcolumn = r#"{"name":"Database","type":"string","jsonPath":".status.conditions[?(@.type==\"DatabaseReady\")].reason"}"#,
    printcolumn = r#"{"name":"Dashboard","type":"string","jsonPath":".status.conditions[?(@.type==\"DashboardReady\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IoTPipelineSpec {
    /// The MQTT broker that devices publish to: mosquitto, unless external is given.
    #[serde(default)]
    pub broker: Broker,

    /// The database that stores the points: InfluxDB 2, unless external is given.
    #[serde(default)]
    pub database: Database,

    /// The dashboard: Grafana, unless external is given. Present (dashboard: {}): deployed. Absent: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<Dashboard>,

    /// The bridge that subscribes to the routes' topics and stores what is published.
    #[serde(default)]
    pub bridge: Bridge,

    /// The operator changes nothing while this is true; what runs goes on.
    #[serde(default)]
    pub suspend: bool,

    /// Nothing runs while this is true: no pods. Volumes and Secrets are kept.
    #[serde(default)]
    pub hibernate: bool,

    /// Whether volumes and the database's admin Secret outlive the pipeline (Retain), for a pipeline of the same
    /// name, or go with it (Delete).
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// The network policies, which admit only the pipeline's own traffic.
    #[serde(default)]
    pub network_policy: NetworkPolicySettings,

    /// The passwords and tokens that the operator makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,

    /// Which topics become which points. A change takes effect within seconds, without a restart.
    #[schemars(length(min = 1, max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub routes: Vec<Route>,
}

/// The MQTT broker: managed (storage, queue, users, image, resources) or external.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.external) || !(has(self.tls) || has(self.plain) || has(self.storage) || has(self.queue) || has(self.users) || has(self.image) || has(self.resources) || has(self.pod) || has(self.service))",
     "a broker is managed or external: remove external, or else tls, plain, storage, queue, users, image, resources, pod and service"),
    ("!has(oldSelf.storage) || has(self.storage) || has(self.external)",
     "storage can't be removed, since the volume has its size: keep it"),
    ("has(oldSelf.storage) || !has(self.storage) || has(oldSelf.external) || quantity(self.storage.size).compareTo(quantity('1Gi')) >= 0",
     "storage can't shrink: the volume has the default size of 1Gi, so give 1Gi or more"),
])))]
pub struct Broker {
    /// The certificate for MQTT over TLS, on port 8883. Absent: one of the pipeline's own authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// Whether port 1883 is open too, for MQTT without TLS, where passwords and messages can be read on their way.
    /// Absent: not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<bool>,

    /// The volume for sessions and for messages that wait. Absent: 1Gi of the default storage class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,

    /// How many bytes of payload may wait for a client that is away or slow, as the bridge is while the database is
    /// away. Above it, new messages for that client are acknowledged and dropped. Absent: 1Gi, and at most 4 million
    /// messages, which take 2 GB of the broker's memory if they are small. Example: 4Gi
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = rules(&[
        ("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))", "not a size: write a number with a unit, such as 1Gi"),
    ])))]
    pub queue: Option<String>,

    /// Who may connect, and what each may do. Nobody else can: there is no anonymous access.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub users: Vec<User>,

    /// The image of mosquitto, 2.1 or newer with the SQLite persistence plugin. Absent: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Box<Image>>,

    /// CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Where its pods run, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<PodSettings>>,

    /// Its Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSettings>,

    /// A broker that is not the operator's. It speaks MQTT 5 or 3.1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Box<ExternalBroker>>,
}

/// A user of the broker.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!(has(self.certificate) && has(self.passwordSecretRef))",
     "a user comes with a certificate or with a password: remove certificate or passwordSecretRef"),
])))]
pub struct User {
    /// The name to connect with.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules(&[
        ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
         "a user's name has lower-case letters, digits and hyphens, and starts and ends with a letter or a digit"),
        ("!self.startsWith('iotpipeline-')", "names that start with iotpipeline- are the operator's own: choose another"),
        ("!(self in ['bridge', 'broker', 'dashboard', 'database'])",
         "bridge, broker, dashboard and database are names of parts, and so of the operator's Secrets: choose another"),
    ])))]
    pub name: String,

    /// Where the password is. Absent: one is generated into the Secret <pipeline>-broker-<user>,
    /// key password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKey>,

    /// Present (certificate: {}): the user connects to port 8884 with a client certificate instead of a password. It is
    /// in the Secret <pipeline>-broker-<user>: tls.crt, tls.key, and ca.crt to know the broker by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,

    /// Topic filters that the user may publish to. Example: sensor/#
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub publish: Vec<TopicFilter>,

    /// Topic filters that the user may subscribe to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub subscribe: Vec<TopicFilter>,
}

/// A client certificate of the pipeline's own authority.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Certificate {}

/// The certificate that a part shows to its clients: of the pipeline's own authority, of an issuer, or given.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!(has(self.secretRef) && (has(self.issuerRef) || has(self.hosts)))",
     "a certificate is given or made: remove secretRef, or else issuerRef and hosts"),
])))]
pub struct Tls {
    /// The issuer of cert-manager that signs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,

    /// A Secret with tls.crt, tls.key, and ca.crt unless a public authority signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretName>,

    /// Host names and addresses by which clients outside the cluster reach it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)), extend("x-kubernetes-validations" = rules(&[
        ("self.all(host, host.matches('^([*][.])?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$|^[0-9a-f:]+$'))",
         "not a host: write a name such as mqtt.example.com, or an address, without a port"),
    ])))]
    pub hosts: Vec<String>,
}

/// An issuer of cert-manager.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// An Issuer of the pipeline's namespace, or a ClusterIssuer.
    #[serde(default)]
    pub kind: IssuerKind,
}

/// Where an issuer of cert-manager is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum IssuerKind {
    /// In the pipeline's namespace.
    #[default]
    Issuer,
    /// In no namespace.
    ClusterIssuer,
}

/// An MQTT topic filter without captures.
/// <https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html#_Toc3901247>
const TOPIC_FILTER_RULES: &[(&str, &str)] = &[(
    r"self.matches('^([^+#]*|[+])(/([^+#]*|[+]))*(/#)?$|^#$')",
    "not a topic filter: + stands for one whole level, # for all that remain and only as the last level; example: sensor/+/state",
)];

/// An MQTT topic filter, such as sensor/+/state or sensor/#
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(extend("x-kubernetes-validations" = rules(TOPIC_FILTER_RULES), "minLength" = 1, "maxLength" = 512))]
pub struct TopicFilter(pub String);

/// A broker that is not the operator's.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalBroker {
    /// mqtt://host:port, or mqtts:// for TLS; or over WebSocket ws://host:port/path, or wss:// (path absent: /mqtt).
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules(&[
        ("self.matches('^(mqtts?://[^/@ ?#]+|wss?://[^/@ ?#]+(/[^@ ?#]*)?)$')", "not a broker's address: write mqtt://host:port or mqtts://host:port, ws://host:port/path or wss://host:port/path; user and password go into credentialsSecretRef"),
    ])))]
    pub url: String,

    /// A Secret with the keys username and password, or tls.crt and tls.key (a client certificate, for TLS), or
    /// all four. Absent: the bridge connects without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretName>,

    /// The certificate authority to trust (PEM). Absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
}

/// The database: managed (retention, storage, image, resources) or external.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.external) || !(has(self.tls) || has(self.retention) || has(self.storage) || has(self.image) || has(self.resources) || has(self.pod) || has(self.backup) || has(self.restoreFrom))",
     "a database is managed or external: remove external, or else tls, retention, storage, image, resources, pod, backup and restoreFrom"),
    ("has(self.external) || has(oldSelf.external) || self.organization == oldSelf.organization",
     "the organization of a managed database can't be changed, since what is stored would stay behind: make another pipeline"),
    ("!has(oldSelf.storage) || has(self.storage) || has(self.external)",
     "storage can't be removed, since the volume has its size: keep it"),
    ("has(oldSelf.storage) || !has(self.storage) || has(oldSelf.external) || quantity(self.storage.size).compareTo(quantity('5Gi')) >= 0",
     "storage can't shrink: the volume has the default size of 5Gi, so give 5Gi or more"),
])))]
pub struct Database {
    /// InfluxDB's organization.
    #[serde(default = "default_organization")]
    #[schemars(length(min = 1, max = 128))]
    pub organization: String,

    /// InfluxDB's bucket, which holds the points. That of a managed database is renamed, with its points.
    #[serde(default = "default_bucket")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub bucket: String,

    /// For how long points are kept: a whole number with the unit s, m, h, d or w, at least 1h; 0 is for ever.
    /// Absent: 0. Example: 30d
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-validations" = rules(&[
        ("self.matches('^(0|[1-9][0-9]{0,8}s|[1-9][0-9]{0,7}m|[1-9][0-9]{0,5}h|[1-9][0-9]{0,4}d|[1-9][0-9]{0,3}w)$')",
         "not a retention: write a whole number with the unit s, m, h, d or w, such as 30d, or 0 to keep points for ever"),
        ("!self.matches('^[1-9][0-9]{0,8}[sm]$') || int(self.substring(0, self.size() - 1)) >= (self.endsWith('m') ? 60 : 3600)",
         "InfluxDB keeps points for at least 1h: write 1h or more, or 0 to keep them for ever"),
    ])))]
    pub retention: Option<String>,

    /// Present (tls: {}): HTTPS. Absent: HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// The volume. Absent: 5Gi of the default storage class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,

    /// The image of InfluxDB 2. Absent: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Box<Image>>,

    /// CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Where its pods run, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<PodSettings>>,

    /// Backups of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Box<Backup>>,

    /// The backup that the bucket begins with, where it doesn't exist yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_from: Option<Box<RestoreFrom>>,

    /// A database with InfluxDB 2's API that is not the operator's. Organization and bucket must exist there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Box<ExternalDatabase>>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            organization: default_organization(),
            bucket: default_bucket(),
            retention: None,
            tls: None,
            storage: None,
            image: None,
            resources: None,
            pod: None,
            backup: None,
            restore_from: None,
            external: None,
        }
    }
}

fn default_organization() -> String {
    "iot".into()
}

fn default_bucket() -> String {
    "iot".into()
}

/// A database that is not the operator's.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalDatabase {
    /// http://host:port or https://host:port, with a path if the API is under one.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules(HTTP_URL_RULES)))]
    pub url: String,

    /// A token that may write the bucket.
    pub token_secret_ref: SecretKey,

    /// A token that may read the bucket, for the dashboard. Absent: tokenSecretRef's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_token_secret_ref: Option<SecretKey>,

    /// The certificate authority to trust (PEM). Absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
}

const HTTP_URL_RULES: &[(&str, &str)] = &[(
    "self.matches('^https?://[^/@ ?#]+(/[^@ ?#]*)?$')",
    "not an address: write http://host:port or https://host:port, with a path if it has one, without a query; credentials go into the Secret",
)];

/// The dashboard: managed (image, resources) or external.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.external) || !(has(self.tls) || has(self.image) || has(self.resources) || has(self.pod) || has(self.service) || has(self.ingress) || has(self.route))",
     "a dashboard is managed or external: remove external, or else tls, image, resources, pod, service, ingress and route"),
])))]
pub struct Dashboard {
    /// Present (tls: {}): HTTPS. Absent: HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// The image of Grafana. Absent: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Box<Image>>,

    /// CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Where its pods run, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<PodSettings>>,

    /// Its Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSettings>,

    /// An Ingress that leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSettings>,

    /// An HTTPRoute that leads to it, where the cluster has the Gateway API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteSettings>,

    /// A Grafana that is not the operator's: the data source and the dashboard are put there by its API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Box<ExternalDashboard>>,
}

/// A Grafana that is not the operator's.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalDashboard {
    /// http://host:port or https://host:port, with a path if Grafana is under one.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules(HTTP_URL_RULES)))]
    pub url: String,

    /// A Secret with the key token (a service account's), or the keys username and password.
    pub credentials_secret_ref: SecretName,

    /// The certificate authority to trust (PEM). Absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
}

/// The bridge between broker and database.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    /// How many bridges share the load, over shared subscriptions. It can be changed at any time: a bridge leaves
    /// when nothing waits for it at the broker. Absent: one bridge with subscriptions of its own. Only such a one
    /// gets the messages that the broker retains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: Option<i32>,

    /// The largest payload that is stored, in bytes; a larger one becomes a dead letter. Absent: what fits into a
    /// packet of 2000000 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_000_000))]
    pub max_message_size: Option<u32>,

    /// The bridge's image. Absent: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Box<Image>>,

    /// CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Where its pods run, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<PodSettings>>,
}

/// The passwords and tokens that the operator makes. They are made anew at once when the pipeline's annotation
/// iotpipeline.io/rotate gets another value.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// How often they are made anew: a whole number with the unit h, d or w. Absent: only on request. Example: 30d
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 8), extend("x-kubernetes-validations" = rules(&[
        ("self.matches('^[1-9][0-9]{0,4}[hdw]$')", "not a period: write a whole number with the unit h, d or w, such as 30d"),
    ])))]
    pub rotate_every: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!isQuantity(self.size) || !isQuantity(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
     "storage can't shrink: give the size it had, or more"),
    ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
     "the storage class of an existing volume can't be changed: make another pipeline"),
])))]
pub struct Storage {
    /// The size, such as 5Gi. It can grow, where the storage class allows that, but not shrink.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = rules(&[
        ("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))", "not a size: write a number with a unit, such as 5Gi"),
    ])))]
    pub size: String,

    /// The storage class. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Which image, field by field instead of the operator's default for the part.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The registry, such as registry.example.com:5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub registry: Option<String>,

    /// The repository, such as library/eclipse-mosquitto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub repository: Option<String>,

    /// The tag. Not used where a digest is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub tag: Option<String>,

    /// The digest, such as sha256:…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 135), extend("x-kubernetes-validations" = rules(&[
        ("self.matches('^sha256:[0-9a-f]{64}$')", "not a digest: write sha256: and 64 hexadecimal digits"),
    ])))]
    pub digest: Option<String>,

    /// When the image is pulled. Absent: Kubernetes' own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,

    /// Secrets of type kubernetes.io/dockerconfigjson to pull with, beside the operator's own list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub pull_secrets: Vec<SecretName>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum PullPolicy {
    /// At every start of a pod.
    Always,
    /// If the node doesn't have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

/// CPU and memory, as in a container of Kubernetes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is set aside, such as {cpu: 100m, memory: 128Mi}.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, String>,

    /// What can't be exceeded, such as {memory: 256Mi}.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, String>,
}

/// A Secret in the pipeline's namespace.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A key of a Secret in the pipeline's namespace.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// What the operator has seen. Written by the operator only.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IoTPipelineStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready (a message can cross the whole chain), Reconciling, Stalled, Suspended, BrokerReady, DatabaseReady,
    /// BridgeReady, DashboardReady, BackupReady (the last backup was made).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Where the parts are reached from within the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// The last complete backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
}

/// Where the parts are reached from within the cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// The broker, such as mqtts://lab-broker.default.svc:8883
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// The database, such as http://lab-database.default.svc:8086
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The dashboard, such as http://lab-dashboard.default.svc:3000
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<String>,
}

/// A retention in seconds, 0 for ever.
///
/// # Errors
/// The text, if it is none that the schema admits.
pub fn retention_seconds(retention: &str) -> Result<i64, String> {
    if retention == "0" {
        return Ok(0);
    }
    let refused = || {
        format!(
            "{retention:?} is no retention: write a whole number with the unit s, m, h, d or w, such as 30d"
        )
    };
    let unit = match retention.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        Some('w') => 604_800,
        _ => return Err(refused()),
    };
    let number: i64 = retention[..retention.len() - 1].parse().map_err(|_| refused())?;
    number.checked_mul(unit).filter(|seconds| *seconds >= 3_600).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::definition::definition;

    const CRD: &str = "../crds/iotpipelines.iotpipeline.io.yaml";

    #[test]
    fn the_committed_resource_definition_is_the_generated_one() {
        // Of a step of two spaces, or of folded lines, half of the file would be indentation.
        let options = serde_saphyr::ser_options! { indent_step: 1, folded_wrap_chars: 1000 };
        let mut generated = String::new();
        let definition = definition().expect("the definition is JSON");
        serde_saphyr::to_fmt_writer_with_options(&mut generated, &definition, options)
            .expect("the definition is YAML");
        let generated = generated.replace("- \n", "-\n");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CRD);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &generated).expect("the definition can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == generated, "{CRD} has drifted: run `cargo xtask generate`");
        assert!(committed.len() <= 80 * 1024, "{CRD} has {} bytes, more than 80 KB", committed.len());
    }

    #[test]
    fn every_field_is_documented() {
        fn undocumented(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                if field["description"].as_str().is_none_or(str::is_empty) {
                    found.push(path.clone());
                }
                undocumented(&path, field, found);
            }
            if schema["items"].is_object() {
                undocumented(path, &schema["items"], found);
            }
        }
        let crd = definition().expect("the definition is JSON");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let mut found = Vec::new();
        undocumented("spec", &schema["spec"], &mut found);
        undocumented("status", &schema["status"], &mut found);
        assert!(found.is_empty(), "without a description: {found:?}");
    }

    #[test]
    fn retention_is_counted_in_seconds() {
        assert_eq!(retention_seconds("0"), Ok(0));
        assert_eq!(retention_seconds("60m"), Ok(3_600));
        assert_eq!(retention_seconds("30d"), Ok(2_592_000));
        for refused in ["59m", "", "d", "1y", "-1d", "1.5h"] {
            assert!(retention_seconds(refused).is_err(), "{refused}");
        }
    }
}
