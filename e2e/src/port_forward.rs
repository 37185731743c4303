//! The way from the host into the cluster: a listener on 127.0.0.1, forwarded by the API server. Where the
//! service speaks TLS, that is done here and checked here, so that clients need not know of it. Each connection is forwarded anew to the service's pod of that moment, so a client that
//! reconnects finds the pod that has taken the place of a killed one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;

use crate::environment::install_tls;
use crate::namespaces::Namespace;

/// A local port that leads to a service. Closed when dropped.
pub struct Forward {
    /// The port on 127.0.0.1.
    pub port: u16,
    task: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forward {
    /// Leads to a port of a service, by TLS if that is given.
    ///
    /// # Errors
    /// If there is no such service or port, or no local one.
    pub async fn to_service(namespace: &Namespace, name: &str, port: &str, tls: Option<Tls>) -> Result<Self> {
        let service = namespace.api::<Service>().get(name).await?;
        let spec = service.spec.unwrap_or_default();
        let named = |found: &ServicePort| found.name.as_deref() == Some(port);
        let port = spec.ports.unwrap_or_default().into_iter().find(named).context("no such port")?;
        let selector = selector(&spec.selector.unwrap_or_default());
        let target = Target { pods: namespace.api(), selector, port, tls };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { port, task: tokio::spawn(serve(listener, target)) })
    }
}

/// How to know a server, and to be known by it.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    server: ServerName<'static>,
}

impl Tls {
    /// To the server of this name, which these authorities vouch for; with a client's certificate and key, if given.
    /// All are PEM.
    ///
    /// # Errors
    /// If they can't be used.
    pub fn new(server: &str, authorities: &str, client: Option<(&str, &str)>) -> Result<Self> {
        install_tls();
        let certificates = |pem: &str| {
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().context("not PEM")
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities)? {
            roots.add(authority)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config.with_client_auth_cert(
                certificates(certificate)?,
                PrivateKeyDer::from_pem_slice(key.as_bytes()).context("no key")?,
            )?,
        };
        let server = ServerName::try_from(server.to_owned())?;
        Ok(Self { connector: Arc::new(config).into(), server })
    }
}

/// Where connections go.
#[derive(Clone)]
struct Target {
    pods: Api<Pod>,
    selector: String,
    port: ServicePort,
    tls: Option<Tls>,
}

fn selector(labels: &BTreeMap<String, String>) -> String {
    let terms: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    terms.join(",")
}

/// Connections live in the listener's task, so that they end with it.
async fn serve(listener: TcpListener, target: Target) {
    let mut connections = JoinSet::new();
    while let Ok((local, _)) = listener.accept().await {
        let target = target.clone();
        connections.spawn(async move {
            // A failure is the client's to notice: its connection ends.
            let _ = forward(local, &target).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(mut local: TcpStream, target: &Target) -> Result<()> {
    local.set_nodelay(true)?;
    let (pod, port) = target.pod().await?;
    let ports = [port];
    let opening = target.pods.portforward(&pod, &ports);
    let mut forwarder = tokio::time::timeout(Duration::from_secs(10), opening).await??;
    let mut remote = forwarder.take_stream(port).context("the stream is taken once")?;
    let refused = forwarder.take_error(port).context("the error is taken once")?;
    let pass = async {
        match &target.tls {
            None => tokio::io::copy_bidirectional(&mut local, &mut remote).await,
            Some(Tls { connector, server }) => {
                let mut remote = connector.connect(server.clone(), remote).await?;
                tokio::io::copy_bidirectional(&mut local, &mut remote).await
            }
        }
    };
    tokio::select! {
        _ = pass => {}
        _ = refused => {}
    }
    forwarder.abort();
    Ok(())
}

impl Target {
    /// The service's pod of this moment, a ready one if there is, and the port's number in it.
    async fn pod(&self) -> Result<(String, u16)> {
        let pods = self.pods.list(&ListParams::default().labels(&self.selector)).await?;
        let mut alive: Vec<Pod> =
            pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        alive.sort_by_key(|pod| !is_ready(pod));
        let Some(pod) = alive.first() else { bail!("no pod with {}", self.selector) };
        let number = match &self.port.target_port {
            Some(IntOrString::String(name)) => named_port(pod, name).context("no such named port")?,
            Some(IntOrString::Int(number)) => *number,
            None => self.port.port,
        };
        Ok((pod.name_any(), u16::try_from(number)?))
    }
}

fn named_port(pod: &Pod, name: &str) -> Option<i32> {
    let containers = &pod.spec.as_ref()?.containers;
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    Some(ports.find(|port| port.name.as_deref() == Some(name))?.container_port)
}

/// Whether a pod says that it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
