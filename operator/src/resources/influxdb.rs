//! The database: InfluxDB 2. It starts empty; the operator sets it up through its API.

use k8s_openapi::api::core::v1::{Container, ContainerPort};

use super::names::Component;
use super::pod::{self, Pod};
use super::{DatabaseObjects, part_metadata, secret};
use crate::plan::{Identity, ManagedDatabase};

/// The name of the administrator.
pub const ADMIN: &str = "admin";

/// The user of the public image; any image works with it.
const USER: i64 = 1000;

const DATA: &str = "/var/lib/influxdb2";

/// The database's objects.
pub fn desired(pipeline: &Identity, database: &ManagedDatabase) -> DatabaseObjects {
    let mut kept = part_metadata(pipeline, Component::Database);
    kept.owner_references = pipeline.keeper.clone().map(|keeper| vec![keeper]);
    DatabaseObjects {
        secret: secret(
            kept,
            "Opaque",
            &[("username", ADMIN), ("password", &database.admin_password), ("token", &database.admin_token)],
        ),
        service: pod::service(pipeline, Component::Database, "http", 8086),
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
                    volumes: vec![pod::empty_dir("tmp")],
                    restart_hash: None,
                    shared_processes: false,
                    grace_seconds: 60,
                },
            ),
            pod::claims(pipeline, Component::Database, "data", &database.volume),
        ),
    }
}

fn influxd(database: &ManagedDatabase) -> Container {
    let file = |name: &str| format!("{DATA}/{name}");
    Container {
        command: Some(vec!["influxd".into()]),
        env: Some(vec![
            pod::env("INFLUXD_BOLT_PATH", &file("influxd.bolt")),
            pod::env("INFLUXD_SQLITE_PATH", &file("influxd.sqlite")),
            pod::env("INFLUXD_ENGINE_PATH", &file("engine")),
            pod::env("INFLUXD_HTTP_BIND_ADDRESS", ":8086"),
            pod::env("INFLUXD_REPORTING_DISABLED", "true"),
            pod::env("INFLUXD_UI_DISABLED", "false"),
            pod::env("HOME", "/tmp"),
        ]),
        ports: Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: 8086,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        resources: Some(database.workload.resources.clone()),
        volume_mounts: Some(vec![pod::mount("data", DATA), pod::mount("tmp", "/tmp")]),
        // Opening a large engine takes its time.
        startup_probe: Some(pod::http_probe("/health", "http", 1, 600)),
        readiness_probe: Some(pod::http_probe("/health", "http", 5, 3)),
        liveness_probe: Some(pod::http_probe("/ping", "http", 10, 6)),
        ..pod::container("influxdb", &database.workload.image)
    }
}
