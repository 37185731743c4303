//! Fixtures: a pipeline and the Secrets it refers to, through the real types.
#![allow(dead_code, reason = "each test uses what it needs")]

pub(crate) mod render;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use api::iotpipeline::IoTPipeline;
use iotpipeline_operator::certificate::Pair;
use iotpipeline_operator::config::Config;
use iotpipeline_operator::credentials::{Authorities, Credentials, DatabaseAdmin, Signed};
use iotpipeline_operator::observe::{Children, Observed};
use iotpipeline_operator::plan::tls_of_parts;
use iotpipeline_operator::resources::{Desired, Tokens};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

/// A pipeline, and what there is of it in a cluster where nothing was applied yet.
pub(crate) struct Case {
    pub(crate) pipeline: IoTPipeline,
    pub(crate) observed: Observed,
}

impl Case {
    pub(crate) fn read(file: &Path) -> Self {
        Self::parse(&fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
    }

    /// The first document is the pipeline, the others are Secrets.
    pub(crate) fn parse(text: &str) -> Self {
        let mut documents = text.split("\n---\n");
        let mut pipeline: IoTPipeline =
            serde_saphyr::from_str(documents.next().expect("there is a document")).expect("it is a pipeline");
        pipeline.metadata.namespace = Some("test".into());
        pipeline.metadata.uid = Some("00000000-0000-4000-8000-000000000000".into());
        pipeline.metadata.generation = Some(1);
        let given = documents.map(|document| {
            let mut secret: Secret = serde_saphyr::from_str(document).expect("it is a Secret");
            // As the API server does.
            let text = secret.string_data.take().unwrap_or_default();
            secret.data =
                Some(text.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect());
            (secret.metadata.name.clone().expect("it has a name"), secret)
        });
        let given: BTreeMap<String, Secret> = given.collect();
        let users = pipeline.spec.broker.users.iter();
        let credentials = Credentials {
            users: users.map(|user| (user.name.clone(), format!("generated-for-{}", user.name))).collect(),
            bridge: "generated-for-the-bridge".into(),
            session: "generated-for-the-session".into(),
            database: DatabaseAdmin {
                password: "generated-for-the-admin".into(),
                token: "generated-admin-token".into(),
                kept: true,
            },
            dashboard: "generated-for-grafana".into(),
            bridge_token: tokens().bridge,
            dashboard_token: tokens().dashboard,
            signed: signed(&pipeline),
            rotated: BTreeMap::new(),
            outdated: BTreeMap::new(),
        };
        let now = "2030-01-01T00:00:00Z".parse().expect("it is a time");
        Self { pipeline, observed: Observed { children: Children::default(), given, credentials, now } }
    }
}

/// As the operator makes them, but readable: what certificates hold is tested where they are made.
fn signed(pipeline: &IoTPipeline) -> Option<Signed> {
    let pair = |name: &str| Pair {
        certificate: format!("certificate-of-{name}\n"),
        key: format!("key-of-{name}\n"),
    };
    let parts = tls_of_parts(&pipeline.spec);
    let own = parts.into_iter().filter(|(_, tls)| tls.secret_ref.is_none() && tls.issuer_ref.is_none());
    let servers: BTreeMap<_, _> = own.map(|(part, _)| (part, pair(part.as_str()))).collect();
    let users = pipeline.spec.broker.users.iter().filter(|user| user.certificate.is_some());
    let clients: BTreeMap<_, _> = users.map(|user| (user.name.clone(), pair(&user.name))).collect();
    // By its name it is known where its file has a name by it.
    let newest = Pair { certificate: include_str!("authority.pem").into(), ..pair("the-authority") };
    let authorities = Authorities { newest, before: None };
    let is_needed = !servers.is_empty() || pipeline.spec.broker.external.is_none();
    is_needed.then_some(Signed { authorities, servers, clients })
}

/// The pod templates by part.
pub(crate) fn templates(desired: &Desired) -> Value {
    json!({
        "broker": desired.broker.as_ref().map(|objects| &objects.stateful_set.spec.template),
        "database": desired.database.as_ref().map(|objects| &objects.stateful_set.spec.template),
        "bridge": desired.bridge.wanted().map(|objects| &objects.stateful_set.spec.template),
        "dashboard": desired.dashboard.wanted().map(|objects| &objects.deployment.spec.template),
    })
}

/// Puts a question to `e2e/witness`, which has what Kubernetes' own people would say.
pub(crate) fn ask(question: &str, input: &Value) -> Value {
    let program = std::env::var_os("IOTPIPELINE_WITNESS_BIN");
    let program = program.expect("IOTPIPELINE_WITNESS_BIN is not set: run this through cargo xtask");
    let mut command = Command::new(program);
    let mut child =
        command.arg(question).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it has an input");
    stdin.write_all(input.to_string().as_bytes()).expect("it reads the question");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the witness: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("it answers in JSON")
}

pub(crate) fn tokens() -> Tokens {
    Tokens { bridge: Some("token-that-writes".into()), dashboard: Some("token-that-reads".into()) }
}

/// The chart's defaults.
pub(crate) fn config() -> Config {
    serde_saphyr::from_str(
        &"
image: {registry: ghcr.io, repository: iotpipeline/operator, tag: VERSION}
images:
  pullSecrets: []
  mosquitto: {registry: docker.io, repository: library/eclipse-mosquitto, tag: 2.1-alpine}
  influxdb: {registry: docker.io, repository: library/influxdb, tag: 2.9.1}
  grafana: {registry: docker.io, repository: grafana/grafana, tag: 12.4.10}
  bridge: {registry: ghcr.io, repository: iotpipeline/bridge, tag: VERSION, pullPolicy: IfNotPresent}
namespaces: []
namespace: iotpipeline-system
"
        .replace("VERSION", env!("CARGO_PKG_VERSION")),
    )
    .expect("the configuration is one")
}
