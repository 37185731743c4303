//! The broker: mosquitto 2.1 with SQLite persistence, and a sidecar that tells it to reread its users.

use std::fmt::Write;

use api::route::Route;
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodTemplateSpec, ResourceRequirements, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::names::{AUTHORITY_HASH, Component};
use super::pod::{self, Pod, ProbePort};
use super::{BrokerObjects, hash, metadata, part_metadata, password, remembering, secret};
use crate::plan::{Identity, ManagedBroker, Plan, Proof, ServerTls, User};

/// The user that the bridge connects as. Names that start with iotpipeline- are refused to others.
pub const BRIDGE_USER: &str = "iotpipeline-bridge";

/// The user of the public image; any image works with it.
const USER: i64 = 1883;

/// Where mosquitto says how many messages it has dropped. <https://mosquitto.org/man/mosquitto-8.html>
pub const DROPPED: &str = "$SYS/broker/publish/messages/dropped";

const CONF: &str = include_str!("files/mosquitto.conf");

/// Where the files are mounted.
const FILES: &str = "/etc/iotpipeline";

/// Where the sidecar says whether mosquitto listens.
const HEALTH: i32 = 8080;

/// A port that mosquitto listens on, for one kind of client.
struct Listener {
    name: &'static str,
    port: i32,
    settings: &'static str,
}

/// For users with passwords.
const TLS: Listener =
    Listener { name: "mqtts", port: 8883, settings: "certfile @FILES@/tls.crt\nkeyfile @FILES@/tls.key\n" };

/// For users with certificates: mosquitto takes the name from the certificate on all of a listener's connections, or
/// on none. It is open without such users too: so the first one restarts nothing. A file of authorities is read at the
/// start only, but a directory of them whenever one is met that is not known yet; clients are asked for certificates of
/// those that were there at the start.
const CERTIFICATES: Listener = Listener {
    name: "mqtts-cert",
    port: 8884,
    settings: "certfile @FILES@/tls.crt\nkeyfile @FILES@/tls.key\ncapath @FILES@\n\
               require_certificate true\nuse_identity_as_username true\n",
};

/// For users with passwords whose devices can't do TLS.
const PLAIN: Listener = Listener { name: "mqtt", port: 1883, settings: "" };

fn listeners(broker: &ManagedBroker) -> Vec<Listener> {
    let mut listeners = vec![TLS, CERTIFICATES];
    listeners.extend(broker.plain.then_some(PLAIN));
    listeners
}

/// The broker's objects.
pub fn desired(plan: &Plan, broker: &ManagedBroker) -> BrokerObjects {
    let pipeline = &plan.pipeline;
    let (passwd, acl) = (passwd(plan, &broker.users), acl(plan, &broker.users));
    let ServerTls { pair, ca } = &broker.tls;
    let mut files = vec![("passwd", &passwd), ("acl", &acl), ("tls.crt", &pair.certificate)];
    files.extend(broker.authorities.iter().map(|(name, authority)| (name.as_str(), authority)));
    let live = files.iter().map(|(_, text)| text.as_bytes()).collect::<Vec<_>>();
    let live_hash = hash(&live);
    let conf = conf(broker);
    files.extend([("mosquitto.conf", &conf), ("tls.key", &pair.key)]);
    files.extend(ca.as_ref().map(|ca| ("ca.crt", ca)));
    let files: Vec<(&str, &str)> = files.into_iter().map(|(name, text)| (name, text.as_str())).collect();
    let ports: Vec<_> = listeners(broker).iter().map(|listener| (listener.name, listener.port)).collect();
    BrokerObjects {
        user_secrets: user_secrets(plan, broker),
        live_hash,
        secret: secret(part_metadata(pipeline, Component::Broker), "Opaque", &files),
        service: pod::service(pipeline, Component::Broker, &ports),
        stateful_set: pod::stateful_set(
            pipeline,
            Component::Broker,
            template(pipeline, broker),
            pod::claims(pipeline, Component::Broker, "data", &broker.volume),
        ),
    }
}

/// What the users connect with, but for the passwords that are given; and what they know the broker by.
fn user_secrets(plan: &Plan, broker: &ManagedBroker) -> Vec<Secret> {
    let pipeline = &plan.pipeline;
    // Of one type, since a Secret can't change its own when a user comes to have a certificate.
    let of_user = |user: &str, proof: &[(&str, &str)]| {
        let mut data = vec![("username", user)];
        data.extend(proof);
        data.extend(broker.tls.ca.as_ref().map(|ca| ("ca.crt", ca.as_str())));
        let metadata = metadata(pipeline, Component::Broker, pipeline.names.of_user(user));
        remembering(plan, secret(metadata, "kubernetes.io/basic-auth", &data))
    };
    let mut secrets = vec![of_user(BRIDGE_USER, &[("password", &plan.bridge_password)])];
    secrets.extend(broker.users.iter().filter_map(|user| match &user.proof {
        Proof::GivenPassword(_) => None,
        Proof::OwnPassword(password) => Some(of_user(&user.name, &[("password", password)])),
        Proof::Certificate(pair) => {
            Some(of_user(&user.name, &[("tls.crt", &pair.certificate), ("tls.key", &pair.key)]))
        }
    }));
    secrets
}

fn template(pipeline: &Identity, broker: &ManagedBroker) -> PodTemplateSpec {
    let mut template = pod::template(pipeline, pod(pipeline, broker));
    let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    annotations.insert(AUTHORITY_HASH.into(), broker.asked_for.clone());
    template
}

fn pod(pipeline: &Identity, broker: &ManagedBroker) -> Pod {
    let conf = conf(broker);
    let settings = settings(&conf);
    Pod {
        component: Component::Broker,
        user: USER,
        images: vec![broker.workload.image.clone(), broker.reloader.clone()],
        containers: vec![mosquitto(broker), reloader(broker)],
        volumes: vec![pod::secret_volume("config", pipeline.names.of_part(Component::Broker), &[])],
        restart_hash: Some(hash(&[settings.as_bytes()])),
        shared_processes: true,
        grace_seconds: 30,
    }
}

fn conf(broker: &ManagedBroker) -> String {
    let mut conf = match broker.queue_bytes {
        0 => CONF.to_owned(),
        bytes => CONF
            .replace("max_queued_messages 4000000", "max_queued_messages 0")
            .replace("max_queued_bytes 1073741824", &format!("max_queued_bytes {bytes}")),
    };
    for Listener { port, settings, .. } in listeners(broker) {
        let _ = write!(conf, "\nlistener {port}\n{}", settings.replace("@FILES@", FILES));
    }
    conf
}

/// Without the comments: a better one restarts nobody's broker.
fn settings(conf: &str) -> String {
    conf.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

fn mosquitto(broker: &ManagedBroker) -> Container {
    let port = |listener: Listener| ContainerPort {
        name: Some(listener.name.into()),
        container_port: listener.port,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    // The sidecar answers: to a probe that connects and says nothing, TLS would answer with an error in the log.
    let probe =
        |period, failures| Some(pod::http_probe("/healthz", ProbePort::Number(HEALTH), period, failures));
    Container {
        command: Some(vec!["mosquitto".into(), "-c".into(), format!("{FILES}/mosquitto.conf")]),
        ports: Some(listeners(broker).into_iter().map(port).collect()),
        resources: Some(broker.workload.resources.clone()),
        volume_mounts: Some(vec![pod::read_only("config", FILES), pod::mount("data", "/var/lib/mosquitto")]),
        startup_probe: probe(1, 120),
        readiness_probe: probe(5, 2),
        liveness_probe: probe(10, 6),
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
            ["reload", "--watch", FILES, "--process", "mosquitto", "--port", &TLS.port.to_string()]
                .map(Into::into)
                .to_vec(),
        ),
        resources: Some(ResourceRequirements {
            requests: Some(quantities("1m", "4Mi")),
            limits: Some(quantities("", "32Mi")),
            claims: None,
        }),
        volume_mounts: Some(vec![pod::read_only("config", FILES)]),
        ..pod::container("reload", &broker.reloader)
    }
}

/// The bridge's password is random and known to nobody who may see this file, so it serves as the key
/// that salts are derived with: equal input, equal file.
fn passwd(plan: &Plan, users: &[User]) -> String {
    let key = plan.bridge_password.as_bytes();
    let mut lines = format!("{BRIDGE_USER}:{}\n", password::hashed(BRIDGE_USER, &plan.bridge_password, key));
    for User { name, proof, .. } in users {
        if let Proof::GivenPassword(password) | Proof::OwnPassword(password) = proof {
            let _ = writeln!(lines, "{name}:{}", password::hashed(name, password, key));
        }
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
    let _ = writeln!(lines, "topic read {DROPPED}");
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
