//! What `cargo xtask` tells the tests, by environment variables.

use std::path::PathBuf;
use std::sync::Once;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// The images of the parts, as `docker run` and the cluster know them.
#[derive(Clone, Copy, Debug)]
pub enum Image {
    /// The broker.
    Mosquitto,
    /// The database.
    InfluxDb,
}

impl Image {
    /// The image's name.
    ///
    /// # Errors
    /// If the environment doesn't say.
    pub fn name(self) -> Result<String> {
        let variable = match self {
            Self::Mosquitto => "IOTPIPELINE_IMAGE_MOSQUITTO",
            Self::InfluxDb => "IOTPIPELINE_IMAGE_INFLUXDB",
        };
        std::env::var(variable)
            .with_context(|| format!("{variable} is not set: run this through `cargo xtask test`"))
    }
}

/// A part's program on this machine, if it is to run as a process and not in Docker.
pub fn program(image: Image) -> Option<PathBuf> {
    std::env::var_os(match image {
        Image::Mosquitto => "IOTPIPELINE_MOSQUITTO_BIN",
        Image::InfluxDb => "IOTPIPELINE_INFLUXD_BIN",
    })
    .map(PathBuf::from)
}

/// Where mosquitto's SQLite plugin is, if not where the image has it.
pub fn mosquitto_plugin() -> Option<String> {
    std::env::var("IOTPIPELINE_MOSQUITTO_PLUGIN").ok()
}

/// Whether a stand-in takes Grafana's place, since its image can't be pulled here.
pub fn grafana_is_stand_in() -> bool {
    std::env::var("IOTPIPELINE_GRAFANA_IS_STAND_IN").is_ok_and(|value| value == "1")
}

/// A file or directory of this repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// An example that users copy.
///
/// # Errors
/// If it can't be read.
pub fn example(name: &str) -> Result<String> {
    let path = repository("manifests/examples").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The built bridge.
///
/// # Errors
/// If there is none.
pub fn bridge_binary() -> Result<PathBuf> {
    let path = std::env::var_os("IOTPIPELINE_BRIDGE_BIN")
        .map_or_else(|| repository("target/debug/iotpipeline-bridge"), PathBuf::from);
    path.canonicalize()
        .with_context(|| format!("no bridge at {}: cargo build -p iotpipeline-bridge", path.display()))
}

/// The built operator.
///
/// # Errors
/// If the environment doesn't say.
pub fn operator_binary() -> Result<PathBuf> {
    named("IOTPIPELINE_OPERATOR_BIN", "test")
}

/// A server that speaks S3.
///
/// # Errors
/// If the environment doesn't say.
pub fn s3_binary() -> Result<PathBuf> {
    named("IOTPIPELINE_S3_BIN", "test")
}

fn named(variable: &str, command: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.with_context(|| format!("{variable} is not set: run this through `cargo xtask {command}`"))
}

/// The built Telegraf, which the bench measures the bridge beside.
///
/// # Errors
/// If the environment doesn't say.
pub fn telegraf() -> Result<PathBuf> {
    named("IOTPIPELINE_TELEGRAF_BIN", "bench")
}

/// The folder with prometheus-operator, which the bench measures the operator beside, its definitions and its rights.
///
/// # Errors
/// If the environment doesn't say.
pub fn prometheus_operator() -> Result<PathBuf> {
    let variable = "IOTPIPELINE_PROMETHEUS_OPERATOR";
    let path = std::env::var_os(variable);
    path.map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run this through `cargo xtask bench operator`"))
}

/// Where the cluster's kubeconfig is.
pub fn kubeconfig_path() -> PathBuf {
    std::env::var_os("KUBECONFIG").map_or_else(|| repository("target/cluster/kubeconfig"), PathBuf::from)
}

fn kubeconfig() -> Result<Kubeconfig> {
    let path = kubeconfig_path();
    Kubeconfig::read_from(&path)
        .with_context(|| format!("no cluster at {}: run `cargo xtask cluster up`", path.display()))
}

/// TLS needs its cryptography chosen, once per process.
pub fn install_tls() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().ok();
    });
}

/// A client for the cluster.
///
/// # Errors
/// If there is no cluster.
pub async fn client() -> Result<Client> {
    install_tls();
    let config = Config::from_custom_kubeconfig(kubeconfig()?, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
