//! The dashboard: Grafana, with its data source and its dashboard from files.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{ConfigMap, Container, ContainerPort, EnvVar, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::names::Component;
use super::pod::{self, Pod, ProbePort};
use super::{DashboardObjects, dashboard, hash, keyed_hash, part_metadata, remembering, secret};
use crate::plan::{Plan, ServerTls, Workload};

/// The user of the public image; any image works with it.
const USER: i64 = 472;

const ADMIN: &str = "admin";

/// The uid of the data source within the pipeline's own Grafana.
const DATA_SOURCE: &str = "influxdb";

/// The dashboard's objects.
pub fn desired(
    plan: &Plan,
    workload: &Workload,
    password: &str,
    tls: Option<&ServerTls>,
    token: &str,
) -> DashboardObjects {
    let pipeline = &plan.pipeline;
    let names = &pipeline.names;
    let data_source = data_source(plan);
    let dashboard = dashboard::render(plan, &names.pipeline, &names.pipeline, DATA_SOURCE).to_string();
    // Grafana reads the data source, its token and the password at its start only.
    let restart_hash =
        keyed_hash(token.as_bytes(), &[data_source.as_bytes(), PROVIDER.as_bytes(), password.as_bytes()]);
    let mut data = vec![("username", ADMIN), ("password", password), ("token", token)];
    data.extend(tls.into_iter().flat_map(ServerTls::files));
    let mut mounted = vec!["password", "token"];
    mounted.extend(tls.into_iter().flat_map(|_| ["tls.crt", "tls.key"]));
    let certificate = tls.map_or("", |tls| &tls.pair.certificate);
    let port_name = if tls.is_some() { "https" } else { "http" };
    let pod = Pod {
        component: Component::Dashboard,
        user: USER,
        images: vec![workload.image.clone()],
        containers: vec![grafana(workload, tls.is_some())],
        volumes: vec![
            pod::config_volume(
                "provisioning",
                names.of_part(Component::Dashboard),
                &[
                    "datasource.yaml=datasources/iotpipeline.yaml",
                    "provider.yaml=dashboards/iotpipeline.yaml",
                ],
            ),
            pod::config_volume("dashboards", names.of_part(Component::Dashboard), &["dashboard.json"]),
            pod::secret_volume("secrets", names.of_part(Component::Dashboard), &mounted),
            pod::empty_dir("data"),
            pod::empty_dir("tmp"),
        ],
        restart_hash: Some(restart_hash),
        shared_processes: false,
        grace_seconds: 30,
    };
    DashboardObjects {
        live_hash: hash(&[dashboard.as_bytes(), certificate.as_bytes()]),
        secret: remembering(plan, secret(part_metadata(pipeline, Component::Dashboard), "Opaque", &data)),
        config_map: ConfigMap {
            metadata: part_metadata(pipeline, Component::Dashboard),
            data: Some(
                [
                    ("datasource.yaml", data_source),
                    ("provider.yaml", PROVIDER.into()),
                    ("dashboard.json", dashboard),
                ]
                .into_iter()
                .map(|(name, text)| (name.to_owned(), text))
                .collect(),
            ),
            ..ConfigMap::default()
        },
        service: pod::service(pipeline, Component::Dashboard, &[(port_name, 3000)]),
        deployment: Deployment {
            metadata: part_metadata(pipeline, Component::Dashboard),
            spec: DeploymentSpec {
                replicas: Some(1),
                revision_history_limit: Some(2),
                selector: LabelSelector {
                    match_labels: Some(names.selector(Component::Dashboard)),
                    ..LabelSelector::default()
                },
                // It keeps nothing, so the next is there before it goes.
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".into()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_surge: Some(IntOrString::Int(1)),
                        max_unavailable: Some(IntOrString::Int(0)),
                    }),
                }),
                template: pod::leaving_silent_nodes(pod::template(pipeline, pod)),
                ..DeploymentSpec::default()
            },
            status: None,
        },
    }
}

/// The token by which a Grafana elsewhere reads the database.
pub fn token_of_external(plan: &Plan, token: &str) -> Secret {
    let metadata = part_metadata(&plan.pipeline, Component::Dashboard);
    remembering(plan, secret(metadata, "Opaque", &[("token", token)]))
}

const PROVIDER: &str = include_str!("files/provider.yaml");

/// The file from which Grafana makes its data source. JSON is YAML, and needs no care for what is
/// within a text; only the token must stand as a block value.
fn data_source(plan: &Plan) -> String {
    let names = &plan.pipeline.names;
    let mut text = include_str!("files/datasource.yaml")
        .replace("@URL@", &literal(&plan.database.url(names)))
        .replace("@ORGANIZATION@", &literal(&plan.database.organization))
        .replace("@BUCKET@", &literal(&plan.database.bucket));
    if let Some(ca) = plan.database.ca() {
        text = text.replace("    version: Flux\n", "    version: Flux\n    tlsAuthWithCACert: true\n");
        text.push_str(&format!("    tlsCACert: {}\n", literal(ca)));
    }
    text
}

/// A text for one of Grafana's files, which replaces `$NAME`, `${NAME}` and `$__file{}` in every value
/// and takes `$$` for a dollar.
fn literal(text: &str) -> String {
    json!(text.replace('$', "$$")).to_string()
}

fn grafana(workload: &Workload, tls: bool) -> Container {
    let data = "/var/lib/grafana";
    let mut settings: Vec<EnvVar> = [
        ("GF_SERVER_HTTP_PORT", "3000"),
        ("GF_PATHS_DATA", data),
        ("GF_PATHS_LOGS", "/var/lib/grafana/log"),
        ("GF_PATHS_PLUGINS", "/var/lib/grafana/plugins"),
        ("GF_PATHS_PROVISIONING", "/etc/grafana/provisioning"),
        ("GF_SECURITY_ADMIN_USER", ADMIN),
        ("GF_SECURITY_ADMIN_PASSWORD__FILE", "/etc/grafana/secrets/password"),
        ("GF_LOG_MODE", "console"),
        ("GF_USERS_ALLOW_SIGN_UP", "false"),
        ("GF_ANALYTICS_REPORTING_ENABLED", "false"),
        ("GF_ANALYTICS_CHECK_FOR_UPDATES", "false"),
        ("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "false"),
        ("GF_PLUGINS_PREINSTALL_DISABLED", "true"),
        ("GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH", "/etc/grafana/dashboards/dashboard.json"),
    ]
    .map(|(name, value)| pod::env(name, value))
    .into();
    let port_name = if tls { "https" } else { "http" };
    if tls {
        settings.extend(
            [
                ("GF_SERVER_PROTOCOL", "https"),
                ("GF_SERVER_CERT_FILE", "/etc/grafana/secrets/tls.crt"),
                ("GF_SERVER_CERT_KEY", "/etc/grafana/secrets/tls.key"),
                // It then reads a renewed certificate without a restart.
                ("GF_SERVER_CERTS_WATCH_INTERVAL", "1m"),
            ]
            .map(|(name, value)| pod::env(name, value)),
        );
    }
    let probe = |period, failures| {
        Some(pod::http_probe("/api/health", ProbePort::Named(port_name), period, failures))
    };
    Container {
        env: Some(settings),
        ports: Some(vec![ContainerPort {
            name: Some(port_name.into()),
            container_port: 3000,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        resources: Some(workload.resources.clone()),
        volume_mounts: Some(vec![
            pod::read_only("provisioning", "/etc/grafana/provisioning"),
            pod::read_only("dashboards", "/etc/grafana/dashboards"),
            pod::read_only("secrets", "/etc/grafana/secrets"),
            pod::mount("data", data),
            pod::mount("tmp", "/tmp"),
        ]),
        startup_probe: probe(2, 150),
        readiness_probe: probe(5, 3),
        liveness_probe: probe(10, 6),
        ..pod::container("grafana", &workload.image)
    }
}
