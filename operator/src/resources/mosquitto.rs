//! The broker: mosquitto 2.1 with SQLite persistence, and a sidecar that tells it to reread its users.

use std::fmt::Write;

use api::route::Route;
use k8s_openapi::api::core::v1::{Container, ContainerPort, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::names::Component;
use super::pod::{self, Pod};
use super::{BrokerObjects, hash, metadata, part_metadata, password, secret};
use crate::plan::{Identity, ManagedBroker, Plan, User};

/// The user that the bridge connects as. Names that start with iotpipeline- are refused to others.
pub const BRIDGE_USER: &str = "iotpipeline-bridge";

/// The user of the public image; any image works with it.
const USER: i64 = 1883;

const CONF: &str = include_str!("files/mosquitto.conf");

/// The broker's objects.
pub fn desired(plan: &Plan, broker: &ManagedBroker) -> BrokerObjects {
    let pipeline = &plan.pipeline;
    let passwd = passwd(plan, &broker.users);
    let acl = acl(plan, &broker.users);
    let generated = broker.users.iter().filter(|user| user.generated);
    BrokerObjects {
        user_secrets: [(BRIDGE_USER, plan.bridge_password.as_str())]
            .into_iter()
            .chain(generated.map(|user| (user.name.as_str(), user.password.as_str())))
            .map(|(user, password)| {
                secret(
                    metadata(pipeline, Component::Broker, pipeline.names.of_user(user)),
                    "kubernetes.io/basic-auth",
                    &[("username", user), ("password", password)],
                )
            })
            .collect(),
        live_hash: hash(&[passwd.as_bytes(), acl.as_bytes()]),
        secret: secret(
            part_metadata(pipeline, Component::Broker),
            "Opaque",
            &[("mosquitto.conf", &conf(broker)), ("passwd", &passwd), ("acl", &acl)],
        ),
        service: pod::service(pipeline, Component::Broker, "mqtt", 1883),
        stateful_set: pod::stateful_set(
            pipeline,
            Component::Broker,
            pod::template(pipeline, pod(pipeline, broker)),
            pod::claims(pipeline, Component::Broker, "data", &broker.volume),
        ),
    }
}

fn pod(pipeline: &Identity, broker: &ManagedBroker) -> Pod {
    Pod {
        component: Component::Broker,
        user: USER,
        images: vec![broker.workload.image.clone(), broker.reloader.clone()],
        containers: vec![mosquitto(broker), reloader(broker)],
        volumes: vec![pod::secret_volume("config", pipeline.names.of_part(Component::Broker), &[])],
        restart_hash: Some(hash(&[settings(&conf(broker)).as_bytes()])),
        shared_processes: true,
        grace_seconds: 30,
    }
}

fn conf(broker: &ManagedBroker) -> String {
    CONF.replace("max_queued_bytes 0", &format!("max_queued_bytes {}", broker.queue_bytes))
}

/// Without the comments: a better one restarts nobody's broker.
fn settings(conf: &str) -> String {
    conf.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

fn mosquitto(broker: &ManagedBroker) -> Container {
    Container {
        command: Some(vec!["mosquitto".into(), "-c".into(), "/etc/iotpipeline/mosquitto.conf".into()]),
        ports: Some(vec![ContainerPort { name: Some("mqtt".into()), container_port: 1883, ..port() }]),
        resources: Some(broker.workload.resources.clone()),
        volume_mounts: Some(vec![
            pod::read_only("config", "/etc/iotpipeline"),
            pod::mount("data", "/var/lib/mosquitto"),
        ]),
        startup_probe: Some(pod::tcp_probe("mqtt", 1, 120)),
        readiness_probe: Some(pod::tcp_probe("mqtt", 5, 2)),
        liveness_probe: Some(pod::tcp_probe("mqtt", 10, 6)),
        ..pod::container("mosquitto", &broker.workload.image)
    }
}

/// It runs as mosquitto's user, so it needs no right to send it a signal.
fn reloader(broker: &ManagedBroker) -> Container {
    let quantities = |cpu: &str, memory: &str| {
        [("cpu", cpu), ("memory", memory)]
            .into_iter()
            .filter(|(_, quantity)| !quantity.is_empty())
            .map(|(name, quantity)| (name.to_owned(), Quantity(quantity.to_owned())))
            .collect()
    };
    Container {
        args: Some(
            ["reload", "--watch", "/etc/iotpipeline", "--process", "mosquitto"].map(Into::into).to_vec(),
        ),
        resources: Some(ResourceRequirements {
            requests: Some(quantities("1m", "4Mi")),
            limits: Some(quantities("", "32Mi")),
            claims: None,
        }),
        volume_mounts: Some(vec![pod::read_only("config", "/etc/iotpipeline")]),
        ..pod::container("reload", &broker.reloader)
    }
}

fn port() -> ContainerPort {
    ContainerPort { protocol: Some("TCP".into()), ..ContainerPort::default() }
}

/// The bridge's password is random and known to nobody who may see this file, so it serves as the key
/// that salts are derived with: equal input, equal file.
fn passwd(plan: &Plan, users: &[User]) -> String {
    let key = plan.bridge_password.as_bytes();
    let mut lines = format!("{BRIDGE_USER}:{}\n", password::hashed(BRIDGE_USER, &plan.bridge_password, key));
    for user in users {
        let _ = writeln!(lines, "{}:{}", user.name, password::hashed(&user.name, &user.password, key));
    }
    lines
}

/// The bridge may read whatever its routes come to ask for: a route's filter that had to be let in here
/// first would be subscribed before mosquitto has reread this file, and what is published in between
/// would be acknowledged and never delivered. `#` leaves out the topics that begin with `$`.
fn acl(plan: &Plan, users: &[User]) -> String {
    let mut lines = format!("user {BRIDGE_USER}\ntopic read #\n");
    let mut filters: Vec<String> = plan
        .routes
        .iter()
        .filter_map(|route| route.pattern().ok())
        .map(|pattern| pattern.filter())
        .filter(|filter| filter.starts_with('$'))
        .collect();
    filters.sort_unstable();
    filters.dedup();
    for filter in filters {
        let _ = writeln!(lines, "topic read {filter}");
    }
    for own in ["dead-letter", "canary"] {
        let _ = writeln!(lines, "topic write iotpipeline/{}/{own}/#", plan.pipeline.names.pipeline);
    }
    let mut commands: Vec<String> = plan.routes.iter().filter_map(Route::command_filter).collect();
    commands.sort_unstable();
    commands.dedup();
    for filter in commands {
        let _ = writeln!(lines, "topic write {filter}");
    }
    for user in users {
        let _ = writeln!(lines, "\nuser {}", user.name);
        for filter in &user.publish {
            let _ = writeln!(lines, "topic write {}", filter.0);
        }
        for filter in &user.subscribe {
            let _ = writeln!(lines, "topic read {}", filter.0);
        }
    }
    lines
}
