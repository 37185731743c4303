//! A control plane without a cluster: etcd and kube-apiserver as processes on loopback.
//!
//! There is no kubelet, no controller of Kubernetes and no garbage collection: what they would write, a
//! test writes itself. The definition and the operator's roles are there, as `manifests/install.yaml` has
//! them, and each user is somebody of its own to the API server: to its rights, its fairness and its audit
//! log (`audit`).

pub mod audit;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Client, Config, ResourceExt, discovery};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::conditions::eventually_true;
use crate::environment;
use crate::programs::Program;
use crate::scratch::{Directory, free_port};

const STARTS: Duration = Duration::from_secs(60);

const ADDRESS: &str = "127.0.0.1";

/// Everything that is asked is written down once, when it is answered.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
";

/// Nothing of what was sent or answered.
const METADATA: &str = "- level: Metadata\n";

/// Of Secrets that are read, the answer too.
pub const SECRETS_THAT_ARE_READ: &str = "\
- level: RequestResponse
  verbs: [get, list, watch]
  resources: [{group: '', resources: [secrets]}]
";

/// Who asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum User {
    /// May do everything.
    Admin,
    /// The operator's service account, with the rights that the chart gives it.
    Operator,
    /// Plays what is not there; may do everything.
    Stage,
    /// Somebody to compare with; may do everything.
    Other,
    /// Another operator to compare with: its service account, with the rights that its makers give it.
    Anchor,
}

impl User {
    const ALL: [Self; 5] = [Self::Admin, Self::Operator, Self::Stage, Self::Other, Self::Anchor];

    /// As the audit log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "system:serviceaccount:iotpipeline-system:iotpipeline-operator",
            Self::Stage => "stage",
            Self::Other => "other",
            Self::Anchor => "system:serviceaccount:default:prometheus-operator",
        }
    }

    fn groups(self) -> &'static str {
        match self {
            Self::Operator => "system:serviceaccounts,system:serviceaccounts:iotpipeline-system",
            Self::Anchor => "system:serviceaccounts,system:serviceaccounts:default",
            Self::Admin | Self::Stage | Self::Other => "system:masters",
        }
    }
}

/// A running control plane. Ends when dropped, with all that it holds.
pub struct ControlPlane {
    /// The API server, to be killed and started again.
    pub api_server: Program,
    /// Its store.
    pub etcd: Program,
    /// Where the API server listens, on 127.0.0.1.
    pub port: u16,
    directory: Directory,
    certificate: String,
    tokens: Vec<(User, String)>,
}

impl ControlPlane {
    /// Starts both, and installs the definition and the operator's roles.
    ///
    /// # Errors
    /// If the environment names no programs, or they don't start.
    pub async fn start() -> Result<Self> {
        let manifest = std::fs::read_to_string(environment::repository("manifests/install.yaml"))?;
        let plane = Self::start_empty("").await?;
        plane.install(&manifest).await?;
        Ok(plane)
    }

    /// Starts both, with nothing in them. The audit log has what these rules say besides.
    ///
    /// # Errors
    /// If the environment names no programs, or they don't start.
    pub async fn start_empty(audit_rules: &str) -> Result<Self> {
        environment::install_tls();
        let directory = Directory::new("control-plane")?;
        let tokens = User::ALL.map(|user| (user, token())).to_vec();
        // Signs the tokens of service accounts too.
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([ADDRESS.to_owned()])?;
        let certificate = cert.pem();
        directory.write("certificate.pem", &certificate)?;
        directory.write("key.pem", &signing_key.serialize_pem())?;
        directory.write("audit-policy.yaml", &format!("{AUDIT_POLICY}{audit_rules}{METADATA}"))?;
        directory.write("tokens.csv", &token_file(&tokens))?;
        let etcd_port = free_port()?;
        let etcd = etcd(etcd_port, free_port()?, &directory).await?;
        let port = free_port()?;
        let api_server = api_server(port, etcd_port, &directory).await?;
        let plane = Self { api_server, etcd, port, directory, certificate, tokens };
        plane.is_ready().await?;
        Ok(plane)
    }

    /// Waits until the API server answers that it is ready.
    ///
    /// # Errors
    /// If the deadline passes.
    pub async fn is_ready(&self) -> Result<()> {
        let client = self.client(User::Admin).await?;
        let ready = eventually_true("the API server is ready", STARTS, async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await? == "ok")
        });
        ready.await.with_context(|| self.api_server.log(10))
    }

    /// How this user reaches the API server; on another port, through what listens there before it.
    ///
    /// # Errors
    /// Never: the text is one.
    pub fn kubeconfig_through(&self, port: u16, user: User) -> Result<Kubeconfig> {
        let token = self.tokens.iter().find(|(other, _)| *other == user).context("a user")?.1.clone();
        let authority = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &self.certificate);
        Ok(serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "plane", "cluster": {
                "server": format!("https://{ADDRESS}:{port}"),
                "certificate-authority-data": authority,
            }}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "plane", "context": {
                "cluster": "plane", "user": "user", "namespace": "iotpipeline-system",
            }}],
            "current-context": "plane",
        }))?)
    }

    /// The same as a file, for another process.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn kubeconfig_file(&self, user: User) -> Result<PathBuf> {
        let kubeconfig = serde_json::to_string(&self.kubeconfig_through(self.port, user)?)?;
        self.directory.write(&format!("kubeconfig-{user:?}").to_lowercase(), &kubeconfig)
    }

    /// A client that is this user.
    ///
    /// # Errors
    /// If it can't be made.
    pub async fn client(&self, user: User) -> Result<Client> {
        let kubeconfig = self.kubeconfig_through(self.port, user)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// Where the API server writes what it is asked.
    pub fn audit_log(&self) -> audit::AuditLog {
        audit::AuditLog::at(self.directory.path().join(AUDIT_LOG))
    }

    /// What a user applies to install the operator, without what would run in a cluster.
    ///
    /// # Errors
    /// If an object is refused, or the definition is not served in time.
    pub async fn install(&self, manifest: &str) -> Result<()> {
        let client = self.client(User::Admin).await?;
        for document in serde_saphyr::from_multiple::<Value>(manifest)? {
            if document["kind"] != "Deployment" {
                apply(&client, document).await?;
            }
        }
        let pipelines: Api<api::iotpipeline::IoTPipeline> = Api::all(client);
        eventually_true("the definition is served", STARTS, async || {
            pipelines.list(&Default::default()).await?;
            Ok(true)
        })
        .await
    }
}

/// Applies an object of any kind.
///
/// # Errors
/// If the API server doesn't know the kind, or refuses.
pub async fn apply(client: &Client, document: Value) -> Result<DynamicObject> {
    let object = DynamicObject::deserialize(&document)?;
    let types = object.types.as_ref().context("an object without a kind")?;
    let (resource, _) = discovery::pinned_kind(client, &GroupVersionKind::try_from(types)?).await?;
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let parameters = PatchParams::apply("iotpipeline-e2e").force();
    let name = object.name_any();
    api.patch(&name, &parameters, &Patch::Apply(&document))
        .await
        .with_context(|| format!("apply {} {name}", resource.kind))
}

/// The kinds of objects in namespaces that can be listed.
///
/// # Errors
/// If the API server doesn't say.
pub async fn namespaced_kinds(client: &Client) -> Result<Vec<ApiResource>> {
    let found = Discovery::new(client.clone()).run().await?;
    let kinds = found.groups().flat_map(|group| group.recommended_resources());
    let listed = kinds.filter(|(_, capabilities)| {
        capabilities.scope == Scope::Namespaced && capabilities.supports_operation(verbs::LIST)
    });
    Ok(listed.map(|(kind, _)| kind).collect())
}

const AUDIT_LOG: &str = "audit.log";

/// Good for as long as the process.
fn token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn token_file(tokens: &[(User, String)]) -> String {
    let lines = tokens.iter().map(|(user, token)| {
        let (name, groups) = (user.name(), user.groups());
        format!("{token},{name},{name},\"{groups}\"\n")
    });
    lines.collect()
}

async fn etcd(port: u16, peer_port: u16, directory: &Directory) -> Result<Program> {
    let url = |port| format!("http://{ADDRESS}:{port}");
    let data = directory.path().join("etcd").display().to_string();
    let arguments = [
        "--data-dir",
        &data,
        "--listen-client-urls",
        &url(port),
        "--advertise-client-urls",
        &url(port),
        "--listen-peer-urls",
        &url(peer_port),
        "--initial-advertise-peer-urls",
        &url(peer_port),
        "--initial-cluster",
        &format!("default={}", url(peer_port)),
        // A test's data need not outlive the machine.
        "--unsafe-no-fsync",
        "--quota-backend-bytes=8589934592",
        "--log-level=warn",
    ];
    start("IOTPIPELINE_ETCD_BIN", "etcd", &arguments).await
}

async fn api_server(port: u16, etcd_port: u16, directory: &Directory) -> Result<Program> {
    let file = |name: &str| directory.path().join(name).display().to_string();
    let arguments = [
        &format!("--bind-address={ADDRESS}"),
        &format!("--advertise-address={ADDRESS}"),
        &format!("--secure-port={port}"),
        &format!("--etcd-servers=http://{ADDRESS}:{etcd_port}"),
        &format!("--tls-cert-file={}", file("certificate.pem")),
        &format!("--tls-private-key-file={}", file("key.pem")),
        &format!("--service-account-key-file={}", file("certificate.pem")),
        &format!("--service-account-signing-key-file={}", file("key.pem")),
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/16",
        &format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC",
        // Nobody makes service accounts here, and no pod runs that would use one.
        "--disable-admission-plugins=ServiceAccount",
        // It would look for nodes' addresses, of which loopback is none.
        "--endpoint-reconciler-type=none",
        &format!("--audit-policy-file={}", file("audit-policy.yaml")),
        &format!("--audit-log-path={}", file(AUDIT_LOG)),
    ];
    start("IOTPIPELINE_KUBE_APISERVER_BIN", "kube-apiserver", &arguments).await
}

async fn start(variable: &str, part: &str, arguments: &[&str]) -> Result<Program> {
    let Some(program) = std::env::var_os(variable) else {
        bail!("{variable} is not set: run this through `cargo xtask`");
    };
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Program::start_new(program.into(), arguments, Directory::new(part)?).await
}
