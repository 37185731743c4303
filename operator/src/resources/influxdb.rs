//! The database: InfluxDB 2. It starts empty; the operator sets it up through its API.

use k8s_openapi::api::core::v1::{Container, ContainerPort};

use super::names::Component;
use super::pod::{self, Pod, ProbePort};
use super::{DatabaseObjects, hash, part_metadata, secret};
use crate::plan::{Identity, ManagedDatabase, ServerTls};

/// The name of the administrator.
pub const ADMIN: &str = "admin";

/// The user of the public image; any image works with it.
const USER: i64 = 1000;

const DATA: &str = "/var/lib/influxdb2";

const CERTIFICATE: &str = "/etc/iotpipeline";

/// The database's objects.
pub fn desired(pipeline: &Identity, database: &ManagedDatabase) -> DatabaseObjects {
    let mut kept = part_metadata(pipeline, Component::Database);
    kept.owner_references = pipeline.keeper.clone().map(|keeper| vec![keeper]);
    let (name, tls) = (pipeline.names.of_part(Component::Database), database.tls.as_ref());
    let mut data =
        vec![("username", ADMIN), ("password", &*database.admin_password), ("token", &*database.admin_token)];
    data.extend(tls.into_iter().flat_map(ServerTls::files));
    let mut volumes = vec![pod::empty_dir("tmp")];
    volumes.extend(tls.map(|_| pod::secret_volume("tls", name, &["tls.crt", "tls.key"])));
    DatabaseObjects {
        secret: secret(kept, "Opaque", &data),
        service: pod::service(pipeline, Component::Database, &[(port_name(database), 8086)]),
        stateful_set: pod::stateful_set(
            pipeline,
            Component::Database,
            pod::template(
                pipeline,
                Pod {
                    component: Component::Database,
                    user: USER,
                    images: vec![database.workload.image.clone()],
                    containers: vec![influxd(database)],
                    volumes,
                    // influxd reads it at its start only.
                    restart_hash: tls.map(|tls| hash(&[tls.pair.certificate.as_bytes()])),
                    shared_processes: false,
                    grace_seconds: 60,
                },
            ),
            pod::claims(pipeline, Component::Database, "data", &database.volume),
        ),
    }
}

fn port_name(database: &ManagedDatabase) -> &'static str {
    if database.tls.is_some() { "https" } else { "http" }
}

fn influxd(database: &ManagedDatabase) -> Container {
    let file = |name: &str| format!("{DATA}/{name}");
    let mut settings = vec![
        pod::env("INFLUXD_BOLT_PATH", &file("influxd.bolt")),
        pod::env("INFLUXD_SQLITE_PATH", &file("influxd.sqlite")),
        pod::env("INFLUXD_ENGINE_PATH", &file("engine")),
        pod::env("INFLUXD_HTTP_BIND_ADDRESS", ":8086"),
        pod::env("INFLUXD_REPORTING_DISABLED", "true"),
        pod::env("INFLUXD_UI_DISABLED", "false"),
        pod::env("HOME", "/tmp"),
    ];
    let mut mounts = vec![pod::mount("data", DATA), pod::mount("tmp", "/tmp")];
    if database.tls.is_some() {
        settings.push(pod::env("INFLUXD_TLS_CERT", &format!("{CERTIFICATE}/tls.crt")));
        settings.push(pod::env("INFLUXD_TLS_KEY", &format!("{CERTIFICATE}/tls.key")));
        mounts.push(pod::read_only("tls", CERTIFICATE));
    }
    let probe = |path, period, failures| {
        Some(pod::http_probe(path, ProbePort::Named(port_name(database)), period, failures))
    };
    Container {
        command: Some(vec!["influxd".into()]),
        env: Some(settings),
        ports: Some(vec![ContainerPort {
            name: Some(port_name(database).into()),
            container_port: 8086,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        resources: Some(database.workload.resources.clone()),
        volume_mounts: Some(mounts),
        // Opening a large engine takes its time.
        startup_probe: probe("/health", 1, 600),
        readiness_probe: probe("/health", 5, 3),
        liveness_probe: probe("/ping", 10, 6),
        ..pod::container("influxdb", &database.workload.image)
    }
}
