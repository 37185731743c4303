//! Plan → objects. Pure: no client, no clock, no randomness.
//!
//! One file per part; [`pod`] has what their pods share, [`names`] what their objects are called.

pub mod backup;
pub mod bridge;
pub mod dashboard;
pub mod exposure;
pub mod grafana;
pub mod influxdb;
pub mod issued;
pub mod mosquitto;
pub mod names;
mod network;
pub mod overlay;
pub mod password;
mod pod;
mod surroundings;

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ring::digest::{SHA256, digest};
use ring::hmac;

use crate::credentials::{Authorities, OUTDATED, ROTATED};
use crate::plan::{Broker, Dashboard, DatabasePlace, Identity, Plan, Sleep, Workload};
use backup::BackupObjects;
use exposure::{ROUTE, expose};
use issued::Certificate;
use names::Component;
pub use surroundings::Surroundings;

/// Every object that a pipeline consists of.
pub struct Desired {
    /// The pipeline's own certificate authority, with its key: no pod mounts it.
    pub authority: Option<Secret>,
    /// What cert-manager is asked for.
    pub certificates: Vec<Certificate>,
    /// The broker, unless it is external.
    pub broker: Option<BrokerObjects>,
    /// The database, unless it is external.
    pub database: Option<DatabaseObjects>,
    /// The bridge.
    pub bridge: Part<BridgeObjects>,
    /// The dashboard, if it is managed.
    pub dashboard: Part<DashboardObjects>,
    /// What a dashboard elsewhere reads a managed database by. The database tells it once, so it is kept here.
    pub dashboard_token: Option<Secret>,
    /// Backups, once there is something to copy.
    pub backups: Part<BackupObjects>,
    /// What restores the database.
    pub restore: Part<Job>,
    /// What is around the parts.
    pub surroundings: Surroundings,
}

/// A part that may have to wait for its token.
pub enum Part<T> {
    /// To be there.
    Wanted(T),
    /// Can't be made yet; what there is of it stays as it is.
    Withheld,
    /// Not to be there.
    Unwanted,
}

/// The broker's objects.
pub struct BrokerObjects {
    /// A password each, for the bridge and for users whose password is not given.
    pub user_secrets: Vec<Secret>,
    /// mosquitto's files.
    pub secret: Secret,
    /// How clients find it.
    pub service: Service,
    /// mosquitto.
    pub stateful_set: StatefulSet,
    /// The hash of the files that mosquitto rereads.
    pub live_hash: String,
}

/// The database's objects.
pub struct DatabaseObjects {
    /// The administrator's credentials. It stays when the pipeline goes, if the volume does: without it
    /// nobody could read the volume again.
    pub secret: Secret,
    /// How the bridge and the dashboard find it.
    pub service: Service,
    /// InfluxDB.
    pub stateful_set: StatefulSet,
}

/// The bridge's objects.
pub struct BridgeObjects {
    /// Its credentials.
    pub secret: Secret,
    /// Its configuration.
    pub config_map: ConfigMap,
    /// How the operator and Prometheus find it.
    pub service: Service,
    /// The bridge.
    pub stateful_set: StatefulSet,
    /// The hash of its configuration, as the bridge computes it.
    pub live_hash: String,
    /// What stands for the credentials that it shows the broker, as it tells them.
    pub login_revision: String,
    /// The hash of all that it rereads.
    pub mounted_hash: String,
}

/// The dashboard's objects.
pub struct DashboardObjects {
    /// Its credentials.
    pub secret: Secret,
    /// The data source and the dashboard.
    pub config_map: ConfigMap,
    /// How people find it.
    pub service: Service,
    /// Grafana.
    pub deployment: Deployment,
    /// The hash of the files that Grafana rereads.
    pub live_hash: String,
}

/// What the database lets the other parts do; nothing, as long as it isn't set up.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Tokens {
    /// May write the bucket.
    pub bridge: Option<String>,
    /// May read the bucket.
    pub dashboard: Option<String>,
}

impl Tokens {
    /// Without those that a rotation is to replace.
    pub(crate) fn current(self, plan: &Plan) -> Self {
        let current = |part: Component, token: Option<String>| {
            let outdated = plan.outdated.get(&plan.pipeline.names.of_part(part));
            token.filter(|token| outdated != Some(token))
        };
        Self {
            bridge: current(Component::Bridge, self.bridge),
            dashboard: current(Component::Dashboard, self.dashboard),
        }
    }
}

/// The objects that the plan asks for.
pub fn desired(plan: &Plan, tokens: &Tokens) -> Desired {
    let broker = match &plan.broker {
        Broker::Managed(broker) => Some(mosquitto::desired(plan, broker)),
        Broker::External(_) => None,
    };
    let database = match &plan.database.place {
        DatabasePlace::Managed(database) => Some(influxdb::desired(&plan.pipeline, database)),
        DatabasePlace::External(_) => None,
    };
    let bridge = match &tokens.bridge {
        Some(token) => Part::Wanted(bridge::desired(plan, token)),
        None => Part::Withheld,
    };
    let dashboard = match (&plan.dashboard, &tokens.dashboard) {
        (Some(Dashboard::Managed { workload, password, tls, .. }), Some(token)) => {
            Part::Wanted(grafana::desired(plan, workload, password, tls.as_ref(), token))
        }
        (Some(Dashboard::Managed { .. }), None) => Part::Withheld,
        (Some(Dashboard::External { .. }) | None, _) => Part::Unwanted,
    };
    let dashboard_token = match (&plan.dashboard, &plan.database.place, &tokens.dashboard) {
        (Some(Dashboard::External { .. }), DatabasePlace::Managed(_), Some(token)) => {
            Some(grafana::token_of_external(plan, token))
        }
        _ => None,
    };
    let backups = match (&plan.backups, &tokens.bridge) {
        (Some(backups), Some(_)) if backups.refused.is_none() => Part::Wanted(backup::desired(plan, backups)),
        (Some(_), _) => Part::Withheld,
        (None, _) => Part::Unwanted,
    };
    let mut desired = Desired {
        authority: plan.authorities.as_ref().map(|own| authority(plan, own)),
        certificates: plan.certificates.clone(),
        broker,
        database,
        bridge,
        dashboard,
        dashboard_token,
        backups,
        restore: match &plan.restore {
            Some(from) if from.refused.is_none() => Part::Wanted(backup::restore(plan, from)),
            Some(_) => Part::Withheld,
            None => Part::Unwanted,
        },
        surroundings: Surroundings::default(),
    };
    place(plan, &mut desired);
    desired.surroundings = Surroundings::of(plan, &desired);
    put_to_sleep(plan, &mut desired);
    desired
}

/// Does to pods and Services what the spec says of them.
fn place(plan: &Plan, desired: &mut Desired) {
    if let (Some(objects), Broker::Managed(broker)) = (&mut desired.broker, &plan.broker) {
        expose(&mut objects.service, broker.workload.service.as_ref());
        overlay(&mut objects.stateful_set.spec.template, &broker.workload);
    }
    if let (Some(objects), DatabasePlace::Managed(database)) = (&mut desired.database, &plan.database.place) {
        overlay(&mut objects.stateful_set.spec.template, &database.workload);
    }
    if let Part::Wanted(objects) = &mut desired.bridge {
        overlay(&mut objects.stateful_set.spec.template, &plan.bridge);
    }
    if let (Part::Wanted(objects), Some(Dashboard::Managed { workload, route, .. })) =
        (&mut desired.dashboard, &plan.dashboard)
    {
        expose(&mut objects.service, workload.service.as_ref());
        if route.is_some() {
            objects.service.metadata.annotations.get_or_insert_default().insert(ROUTE.into(), "true".into());
        }
        overlay(&mut objects.deployment.spec.template, workload);
    }
}

fn overlay(template: &mut PodTemplateSpec, workload: &Workload) {
    *template = workload.pod.over(template);
}

/// Takes the pods away from what is to be at rest.
fn put_to_sleep(plan: &Plan, desired: &mut Desired) {
    let Sleep { broker, bridge, database } = plan.sleep;
    if let (true, Some(objects)) = (broker, &mut desired.broker) {
        objects.stateful_set.spec.replicas = Some(0);
    }
    if let (true, Part::Wanted(objects)) = (bridge, &mut desired.bridge) {
        bridge::asleep(plan, &mut objects.stateful_set);
    }
    if let (true, Some(objects)) = (database, &mut desired.database) {
        objects.stateful_set.spec.replicas = Some(0);
    }
    if let (true, Part::Wanted(objects)) = (database, &mut desired.dashboard) {
        objects.deployment.spec.replicas = Some(0);
    }
}

/// What a Secret is to remember of when its credentials were made anew, and whether its token was left out.
fn remembering(plan: &Plan, mut secret: Secret) -> Secret {
    let name = secret.metadata.name.clone().unwrap_or_default();
    let rotated = plan.rotated.get(&name).map(|when| (ROTATED.to_owned(), when.clone()));
    let token = secret.data.as_ref().and_then(|data| data.get("token"));
    let outdated = plan.outdated.get(&name);
    let is_outdated =
        token.zip(outdated).is_some_and(|(token, outdated)| token.0.as_slice() == outdated.as_bytes());
    let mark = is_outdated.then(|| (OUTDATED.to_owned(), "true".to_owned()));
    let annotations: BTreeMap<String, String> = rotated.into_iter().chain(mark).collect();
    secret.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    secret
}

fn authority(plan: &Plan, authorities: &Authorities) -> Secret {
    let Authorities { newest, before } = authorities;
    let trusted = authorities.trusted();
    let mut data = vec![("tls.crt", &*newest.certificate), ("tls.key", &*newest.key), ("ca.crt", &*trusted)];
    if let Some(before) = before {
        data.extend([("before.crt", &*before.certificate), ("before.key", &*before.key)]);
    }
    secret(part_metadata(&plan.pipeline, Component::Authority), "kubernetes.io/tls", &data)
}

impl<T> Part<T> {
    /// The part, if it is to be there.
    pub fn wanted(&self) -> Option<&T> {
        match self {
            Part::Wanted(part) => Some(part),
            Part::Withheld | Part::Unwanted => None,
        }
    }
}

/// SHA-256 in hex.
pub fn hash(parts: &[&[u8]]) -> String {
    hex(digest(&SHA256, &joined(parts)).as_ref())
}

/// A hash from which nobody without the key can find out a password by trying.
fn keyed_hash(key: &[u8], parts: &[&[u8]]) -> String {
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &joined(parts)).as_ref())
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        // The lengths keep two texts from becoming one by moving bytes between them.
        if parts.len() > 1 {
            all.extend_from_slice(&(part.len() as u64).to_be_bytes());
        }
        all.extend_from_slice(part);
    }
    all
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn metadata(pipeline: &Identity, component: Component, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(pipeline.names.namespace.clone()),
        labels: Some(pipeline.names.labels(component)),
        owner_references: Some(vec![pipeline.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn part_metadata(pipeline: &Identity, component: Component) -> ObjectMeta {
    metadata(pipeline, component, pipeline.names.of_part(component))
}

fn secret(metadata: ObjectMeta, type_: &str, data: &[(&str, &str)]) -> Secret {
    Secret {
        metadata,
        type_: Some(type_.into()),
        data: Some(
            data.iter()
                .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
                .collect::<BTreeMap<_, _>>(),
        ),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_one_part_is_that_of_its_bytes() {
        // The bridge computes the same over its file.
        assert_eq!(hash(&[b"abc"]), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
