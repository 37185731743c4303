//! The bridge: its configuration, its credentials, and a pod with a small volume for its stamps; several,
//! if the load is shared.

use api::bridge_config::{BridgeConfig, DatabaseConfig, MqttConfig, Sharing};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, ContainerPort};

use super::mosquitto::{BRIDGE_USER, DROPPED};
use super::names::{BRIDGES, Component, POD_INDEX};
use super::pod::{self, Pod, ProbePort};
use super::{BridgeObjects, hash, keyed_hash, part_metadata, remembering, secret};
use crate::plan::{Broker, Database, DatabasePlace, Identity, Plan};

/// The volume of each, by which its claim is called.
pub const VOLUME: &str = "state";

const USER: i64 = 65532;

const CREDENTIALS: &str = "/etc/iotpipeline-credentials";

/// The secret part of its client id.
const SESSION: &str = "session";

/// The files by which the bridge logs in at the broker, and what stands for all of them.
const LOGIN: [&str; 4] = ["username", "password", BROKER_CERTIFICATE, BROKER_KEY];

const LOGIN_REVISION: &str = "login-revision";

const BROKER_CERTIFICATE: &str = "broker-client.crt";

const BROKER_KEY: &str = "broker-client.key";

const BROKER_CA: &str = "broker-ca.crt";

const DATABASE_CA: &str = "database-ca.crt";

/// The bridge's objects.
pub fn desired(plan: &Plan, token: &str) -> BridgeObjects {
    let pipeline = &plan.pipeline;
    let credentials = credentials(plan, token);
    let mut data: Vec<(&str, &str)> = credentials.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let login_revision = login_revision(plan, &data);
    data.push((LOGIN_REVISION, &login_revision));
    let config = render(&config(plan));
    let files: Vec<&[u8]> = data
        .iter()
        .flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()])
        .chain([config.as_bytes()])
        .collect();
    BridgeObjects {
        live_hash: hash(&[config.as_bytes()]),
        mounted_hash: keyed_hash(secret_key(plan, &data), &files),
        login_revision: login_revision.clone(),
        secret: remembering(plan, secret(part_metadata(pipeline, Component::Bridge), "Opaque", &data)),
        config_map: ConfigMap {
            metadata: part_metadata(pipeline, Component::Bridge),
            data: Some([("bridge.yaml".to_owned(), config)].into()),
            ..ConfigMap::default()
        },
        service: service(pipeline),
        stateful_set: of_size(
            plan.bridges.running,
            pod::stateful_set(
                pipeline,
                Component::Bridge,
                pod::template(pipeline, pod(plan)),
                pod::claims(pipeline, Component::Bridge, VOLUME, &plan.bridge_volume),
            ),
        ),
    }
}

/// The set without pods, which remembers how many bridges have a session at the broker.
pub(super) fn asleep(plan: &Plan, set: &mut StatefulSet) {
    set.spec.replicas = Some(0);
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(BRIDGES.into(), plan.bridges.running.to_string());
}

/// The set with so many pods.
pub fn of_size(bridges: u32, mut set: StatefulSet) -> StatefulSet {
    set.spec.replicas = i32::try_from(bridges).ok();
    set
}

/// A headless service reaches the bridge while it isn't ready, so that it can say why.
fn service(pipeline: &Identity) -> k8s_openapi::api::core::v1::Service {
    let mut service = pod::service(pipeline, Component::Bridge, &[("http", 9090)]);
    if let Some(spec) = &mut service.spec {
        spec.cluster_ip = Some("None".into());
        spec.publish_not_ready_addresses = Some(true);
    }
    service
}

fn pod(plan: &Plan) -> Pod {
    let pipeline = &plan.pipeline;
    Pod {
        component: Component::Bridge,
        user: USER,
        images: vec![plan.bridge.image.clone()],
        containers: vec![bridge(plan)],
        volumes: vec![
            pod::config_volume("config", pipeline.names.of_part(Component::Bridge), &[]),
            pod::secret_volume("credentials", pipeline.names.of_part(Component::Bridge), &[]),
        ],
        restart_hash: None,
        shared_processes: false,
        grace_seconds: 30,
    }
}

/// Another one with any other login.
fn login_revision(plan: &Plan, credentials: &[(&str, &str)]) -> String {
    let login = credentials.iter().filter(|(key, _)| LOGIN.contains(key));
    let login: Vec<&[u8]> = login.flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]).collect();
    keyed_hash(secret_key(plan, credentials), &login)
}

/// Something random that is known to nobody who may read the pods.
fn secret_key<'a>(plan: &'a Plan, credentials: &[(&str, &'a str)]) -> &'a [u8] {
    match &plan.broker {
        Broker::Managed(_) => plan.bridge_password.as_bytes(),
        Broker::External(_) => {
            credentials.iter().find(|(key, _)| *key == "token").map_or(b"", |(_, token)| token.as_bytes())
        }
    }
}

fn bridge(plan: &Plan) -> Container {
    Container {
        args: Some(["run", "--config", "/etc/iotpipeline/bridge.yaml"].map(Into::into).to_vec()),
        ports: Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: 9090,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        env: Some(vec![pod::env_of_label("IOTPIPELINE_MEMBER", POD_INDEX)]),
        resources: Some(plan.bridge.resources.clone()),
        volume_mounts: Some(vec![
            pod::read_only("config", "/etc/iotpipeline"),
            pod::read_only("credentials", CREDENTIALS),
            pod::mount(VOLUME, "/var/lib/iotpipeline"),
        ]),
        readiness_probe: Some(pod::http_probe("/readyz", ProbePort::Named("http"), 1, 1)),
        liveness_probe: Some(pod::http_probe("/livez", ProbePort::Named("http"), 10, 6)),
        ..pod::container("bridge", &plan.bridge.image)
    }
}

/// The files beside the configuration, by name.
fn credentials(plan: &Plan, token: &str) -> Vec<(&'static str, String)> {
    let mut files = vec![("token", token.to_owned())];
    match &plan.broker {
        Broker::Managed(_) => {
            files.push(("username", BRIDGE_USER.to_owned()));
            files.push(("password", plan.bridge_password.clone()));
            files.push((SESSION, plan.bridge_session.clone()));
        }
        Broker::External(external) => {
            if let Some((username, password)) = &external.login {
                files.push(("username", username.clone()));
                files.push(("password", password.clone()));
            }
            if let Some((certificate, key)) = &external.certificate {
                files.push((BROKER_CERTIFICATE, certificate.clone()));
                files.push((BROKER_KEY, key.clone()));
            }
        }
    }
    files.extend(plan.broker.ca().map(|ca| (BROKER_CA, ca.to_owned())));
    files.extend(plan.database.ca().map(|ca| (DATABASE_CA, ca.to_owned())));
    files
}

/// The bridge's configuration.
pub fn config(plan: &Plan) -> BridgeConfig {
    let names = &plan.pipeline.names;
    let file = |name: &str| format!("{CREDENTIALS}/{name}");
    let external = match &plan.broker {
        Broker::Managed(_) => None,
        Broker::External(external) => Some(external),
    };
    let login = external.is_none_or(|external| external.login.is_some());
    let certificate = external.is_some_and(|external| external.certificate.is_some());
    BridgeConfig {
        pipeline: names.pipeline.clone(),
        mqtt: MqttConfig {
            url: plan.broker.url(names),
            client_id: names.unique(),
            dropped_topic: matches!(plan.broker, Broker::Managed(_)).then(|| DROPPED.into()),
            // Whoever else has an account there could take the session away. How others' brokers name it is theirs.
            secret_client_id_file: external.is_none().then(|| file(SESSION)),
            username_file: login.then(|| file("username")),
            password_file: login.then(|| file("password")),
            ca_file: plan.broker.ca().map(|_| file(BROKER_CA)),
            certificate_file: certificate.then(|| file(BROKER_CERTIFICATE)),
            key_file: certificate.then(|| file(BROKER_KEY)),
            login_revision_file: Some(file(LOGIN_REVISION)),
            receive_maximum: 10_000,
            keep_alive_seconds: 30,
            session_expiry_seconds: 86_400,
            max_packet_size: 2_000_000,
        },
        database: database(plan, &plan.database, file),
        sharing: plan
            .bridges
            .shared
            .then(|| Sharing { group: names.unique(), members: plan.bridges.members }),
        max_message_size: plan.max_message_size,
        // What others own is not written to without a message of theirs.
        canary: matches!(plan.broker, Broker::Managed(_))
            && matches!(plan.database.place, DatabasePlace::Managed(_)),
        routes: plan.routes.clone(),
    }
}

fn database(plan: &Plan, database: &Database, file: impl Fn(&str) -> String) -> DatabaseConfig {
    DatabaseConfig {
        url: database.url(&plan.pipeline.names),
        organization: database.organization.clone(),
        bucket: database.bucket.clone(),
        token_file: file("token"),
        ca_file: database.ca().map(|_| file(DATABASE_CA)),
    }
}

/// As YAML. What the types hold is always YAML, so an error could only be a fault of the library.
fn render(config: &BridgeConfig) -> String {
    serde_saphyr::to_string(config).expect("the bridge's configuration is YAML")
}
