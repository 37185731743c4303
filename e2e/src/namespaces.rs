//! A namespace of its own for each test.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::conditions::eventually_true;
use crate::{diagnostics, environment};

/// How long a namespace may take to go.
const GOES: Duration = Duration::from_secs(120);

/// Held by many tests at once, or by one that must be alone.
static ALONE: RwLock<()> = RwLock::const_new(());

/// A namespace, and the way to its cluster.
#[derive(Clone)]
pub struct Namespace {
    /// The client.
    pub client: Client,
    /// The namespace's name.
    pub name: String,
}

impl Namespace {
    /// Objects of one kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Makes a namespace that enforces the Pod Security Standard `restricted`.
    ///
    /// # Errors
    /// If the API server refuses, or there is one of the name.
    pub async fn create(client: Client, name: &str) -> Result<Self> {
        let namespaces: Api<v1::Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(manifest(name))?).await?;
        Ok(Self { client, name: name.to_owned() })
    }

    /// As [`create`](Self::create), but takes the one that is there, or that is going.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn ensure(client: Client, name: &str) -> Result<Self> {
        let namespaces: Api<v1::Namespace> = Api::all(client.clone());
        eventually_true(format!("namespace {name} has gone"), GOES, async || {
            let found = namespaces.get_opt(name).await?;
            Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_none()))
        })
        .await?;
        let parameters = PatchParams::apply("e2e").force();
        namespaces.patch(name, &parameters, &Patch::Apply(manifest(name))).await?;
        Ok(Self { client, name: name.to_owned() })
    }

    /// Begins to delete the namespace and all that is in it.
    pub async fn delete(&self) {
        let namespaces: Api<v1::Namespace> = Api::all(self.client.clone());
        if let Err(error) = namespaces.delete(&self.name, &DeleteParams::background()).await {
            eprintln!("can't delete namespace {}: {error}", self.name);
        }
    }
}

fn manifest(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/enforce-version": "latest",
        }},
    })
}

/// Runs a test in a namespace of its own. If the test fails, what is in the namespace is printed
/// before it is deleted; the variable `IOTPIPELINE_KEEP` keeps it.
///
/// # Panics
/// If the test fails.
pub async fn with_namespace(name: &str, test: impl AsyncFnOnce(Namespace) -> Result<()>) {
    let _others_too = ALONE.read().await;
    run([name], async |[namespace]| test(namespace).await).await;
}

/// As [`with_namespace`], while no other test runs: for what must happen within seconds.
///
/// # Panics
/// If the test fails.
pub async fn with_namespace_alone(name: &str, test: impl AsyncFnOnce(Namespace) -> Result<()>) {
    let _nobody_else = ALONE.write().await;
    run([name], async |[namespace]| test(namespace).await).await;
}

/// As [`with_namespace`], with several.
///
/// # Panics
/// If the test fails.
pub async fn with_namespaces<const N: usize>(
    names: [&str; N],
    test: impl AsyncFnOnce([Namespace; N]) -> Result<()>,
) {
    let _others_too = ALONE.read().await;
    run(names, test).await;
}

async fn run<const N: usize>(names: [&str; N], test: impl AsyncFnOnce([Namespace; N]) -> Result<()>) {
    let client = environment::client().await.expect("a cluster is there");
    let mut namespaces = Vec::new();
    for name in names {
        let name = unique(name);
        namespaces.push(Namespace::create(client.clone(), &name).await.expect("a namespace can be made"));
    }
    let given: [Namespace; N] = namespaces.clone().try_into().unwrap_or_else(|_| unreachable!());
    let outcome = AssertUnwindSafe(test(given)).catch_unwind().await;
    let failed = !matches!(outcome, Ok(Ok(())));
    for namespace in &namespaces {
        if failed {
            diagnostics::print(namespace).await;
        }
        if !failed || std::env::var_os("IOTPIPELINE_KEEP").is_none() {
            namespace.delete().await;
        }
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A name that no other run has.
fn unique(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("e2e-{name}-{:x}", now.as_micros() % 0x10_0000_0000)
}
