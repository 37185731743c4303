//! What a pipeline's objects are called, and the labels that find them again.

use std::collections::BTreeMap;

use api::iotpipeline::IoTPipeline;
use kube::ResourceExt;

/// Selects every object of the operator's.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=iotpipeline-operator";

/// The label that holds the pipeline's name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";

/// The label that holds the part's name.
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// On a set's pod: its number, which Kubernetes 1.28 and newer set.
/// <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-index-label>
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// On a pod: the hash of the files that its process rereads. A change makes the kubelet refresh them.
pub const CONFIG_HASH: &str = "iotpipeline.io/config-hash";

/// On a pod template: the hash of what its process reads at its start only.
pub const RESTART_HASH: &str = "iotpipeline.io/restart-hash";

/// On the broker's pod template: which authority mosquitto asks clients for certificates of, by the name of its file.
pub const AUTHORITY_HASH: &str = "iotpipeline.io/authority-hash";

/// On the bridges' set while it hibernates: how many bridges have a session at the broker.
pub const BRIDGES: &str = "iotpipeline.io/bridges";

/// A part of a pipeline.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Component {
    /// mosquitto.
    Broker,
    /// InfluxDB.
    Database,
    /// The bridge.
    Bridge,
    /// Grafana.
    Dashboard,
    /// The pipeline's own certificate authority: a Secret, and nothing that runs.
    Authority,
    /// What makes backups of the database.
    Backup,
    /// What restores one.
    Restore,
}

impl Component {
    /// As in labels and in names of objects.
    pub fn as_str(self) -> &'static str {
        match self {
            Component::Broker => "broker",
            Component::Database => "database",
            Component::Bridge => "bridge",
            Component::Dashboard => "dashboard",
            Component::Authority => "ca",
            Component::Backup => "backup",
            Component::Restore => "restore",
        }
    }

    /// The operator's own containers in its pods.
    pub fn containers(self) -> &'static [&'static str] {
        match self {
            Component::Broker => &["mosquitto", "reload"],
            Component::Database => &["influxdb"],
            Component::Bridge => &["bridge"],
            Component::Dashboard => &["grafana"],
            Component::Authority => &[],
            Component::Backup | Component::Restore => &["backup"],
        }
    }

    /// The operator's own volumes in its pods.
    pub fn volumes(self) -> &'static [&'static str] {
        match self {
            Component::Broker => &["config", "data"],
            Component::Database => &["data", "tls", "tmp"],
            Component::Bridge => &["config", "credentials", "state"],
            Component::Dashboard => &["dashboards", "data", "provisioning", "secrets", "tmp"],
            Component::Authority => &[],
            Component::Backup | Component::Restore => &["backups", "database", "s3"],
        }
    }

    /// The program that runs.
    fn program(self) -> &'static str {
        match self {
            Component::Broker => "mosquitto",
            Component::Database => "influxdb",
            Component::Bridge => "iotpipeline-bridge",
            Component::Dashboard => "grafana",
            Component::Authority | Component::Backup | Component::Restore => "iotpipeline-operator",
        }
    }
}

/// The names of a pipeline's objects.
#[derive(Clone, Debug)]
pub struct Names {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its namespace, and theirs.
    pub namespace: String,
}

impl Names {
    /// Those of this pipeline.
    pub fn of(pipeline: &IoTPipeline) -> Self {
        Self { pipeline: pipeline.name_any(), namespace: pipeline.namespace().unwrap_or_default() }
    }

    /// The name of a part's objects.
    pub fn of_part(&self, component: Component) -> String {
        format!("{}-{}", self.pipeline, component.as_str())
    }

    /// The Secret with the generated password of a user.
    pub fn of_user(&self, user: &str) -> String {
        format!("{}-broker-{user}", self.pipeline)
    }

    /// The host name of a part's Service, from within the cluster.
    pub fn host(&self, component: Component) -> String {
        format!("{}.{}.svc", self.of_part(component), self.namespace)
    }

    /// The names by which a part is reached: by its Service, and through `kubectl port-forward`.
    pub fn hosts(&self, component: Component) -> Vec<String> {
        let (part, host) = (self.of_part(component), self.host(component));
        let in_namespace = format!("{part}.{}", self.namespace);
        vec![part, in_namespace, format!("{host}.cluster.local"), host, "localhost".into()]
    }

    /// The Secret with the certificate that cert-manager makes for a part.
    pub fn of_issued(&self, component: Component) -> String {
        format!("{}-tls", self.of_part(component))
    }

    /// The address of the managed broker.
    pub fn broker_url(&self) -> String {
        format!("mqtts://{}:8883", self.host(Component::Broker))
    }

    /// The address of the managed database.
    pub fn database_url(&self, tls: bool) -> String {
        format!("{}://{}:8086", http(tls), self.host(Component::Database))
    }

    /// The address of the managed dashboard.
    pub fn dashboard_url(&self, tls: bool) -> String {
        format!("{}://{}:3000", http(tls), self.host(Component::Dashboard))
    }

    /// Where the bridge says how it is.
    pub fn bridge_status_url(&self) -> String {
        format!("http://{}:9090/status", self.host(Component::Bridge))
    }

    /// A name that no other pipeline of this cluster has at a broker or dashboard they share. Neither
    /// name has an underscore, so that two pairs of names never make one.
    pub fn unique(&self) -> String {
        format!("iotpipeline_{}_{}", self.namespace, self.pipeline)
    }

    /// Selects a part's pods.
    pub fn selector(&self, component: Component) -> BTreeMap<String, String> {
        BTreeMap::from([
            (INSTANCE.into(), self.pipeline.clone()),
            (COMPONENT.into(), component.as_str().into()),
            ("app.kubernetes.io/part-of".into(), "iotpipeline".into()),
        ])
    }

    /// The labels of a part's objects.
    pub fn labels(&self, component: Component) -> BTreeMap<String, String> {
        let mut labels = self.selector(component);
        labels.insert("app.kubernetes.io/name".into(), component.program().into());
        labels.insert("app.kubernetes.io/managed-by".into(), "iotpipeline-operator".into());
        labels
    }

    /// Selects every object of the pipeline.
    pub fn all(&self) -> String {
        format!("{MANAGED},{INSTANCE}={}", self.pipeline)
    }
}

fn http(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}
