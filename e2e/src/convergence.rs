//! One pipeline's life before an API server with faults: applied, changed, and in the end the same objects
//! as without any fault.
//!
//! Fakes take the place of everything else (`stage`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::future::Either;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::api_proxy::{ApiProxy, Fault, Passed};
use crate::conditions::{Probe, eventually};
use crate::control_plane::{ControlPlane, User, apply};
use crate::replica::{LEASE, Replica};
use crate::stage::Stage;

/// How long a run may take to come to its end, whatever happens: a request that is held fails after half a
/// minute.
const CONVERGES: Duration = Duration::from_secs(90);

/// Nothing is written any more when nothing was for so long.
const QUIET: Duration = Duration::from_secs(2);

/// What is no state of the pipeline's: what the fakes make, and what is told or held for a while.
const LEFT_OUT: [&str; 4] = ["Pod", "Event", "Lease", "ControllerRevision"];

/// The objects of a namespace by kind and name, without what differs from one run to the other.
pub type State = BTreeMap<String, Value>;

/// A control plane and the fakes, for many runs at once.
pub struct Scene {
    plane: ControlPlane,
    stage: Stage,
    admin: Client,
    kinds: Vec<ApiResource>,
}

/// How a run ended.
pub struct Outcome {
    /// What there is in the end.
    pub state: State,
    /// Whether the fault has happened: a later one than there are moments doesn't.
    pub has_happened: bool,
    /// How much has passed the proxy.
    pub passed: Passed,
}

impl Scene {
    /// Starts both.
    ///
    /// # Errors
    /// If one doesn't start.
    pub async fn start() -> Result<Self> {
        let plane = ControlPlane::start().await?;
        let admin = plane.client(User::Admin).await?;
        let stage = Stage::start(&plane.client(User::Stage).await?).await?;
        let found = Discovery::new(admin.clone()).run().await?;
        let kinds = found.groups().flat_map(|group| group.recommended_resources());
        let kinds = kinds.filter(|(kind, capabilities)| {
            capabilities.scope == Scope::Namespaced
                && capabilities.supports_operation(verbs::LIST)
                && !LEFT_OUT.contains(&kind.kind.as_str())
        });
        let kinds = kinds.map(|(kind, _)| kind).collect();
        Ok(Self { plane, stage, admin, kinds })
    }

    /// A run in a new namespace, in which one thing goes wrong. It must end as `expected`, if that is known.
    ///
    /// # Errors
    /// If it ends otherwise, or not at all.
    pub async fn run(&self, namespace: &str, fault: Fault, expected: Option<&State>) -> Result<Outcome> {
        apply(&self.admin, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
            .await?;
        let mut kubeconfig =
            serde_json::to_value(self.plane.kubeconfig_through(self.plane.port, User::Other)?)?;
        kubeconfig["contexts"][0]["context"]["namespace"] = namespace.into();
        let proxy = ApiProxy::start(&serde_json::from_value(kubeconfig)?).await?;
        proxy.arm(fault);
        let changed = Arc::new(Mutex::new(Vec::new()));
        let secrets = Api::<Secret>::namespaced(self.admin.clone(), namespace);
        let guard = tokio::spawn(note_changes(secrets, changed.clone()));
        let name = "operator";
        let proxied = self.stage.proxy.as_str();
        let mut operator = Replica::start(proxy.kubeconfig(), name, namespace, Some(proxied)).await?;
        let state = {
            let life = std::pin::pin!(self.life(namespace, &proxy, expected));
            let happened = std::pin::pin!(proxy.happened());
            let is_deadly = matches!(fault, Fault::LoseWrite(_) | Fault::LoseAnswer(_));
            match futures::future::select(life, happened).await {
                Either::Left((state, _)) => state,
                Either::Right(((), life)) if is_deadly => {
                    operator.process.signal("KILL").await?;
                    operator.process.ended().await?;
                    // Nobody holds it any more; waiting until it runs out would only take time.
                    let leases = Api::<Lease>::namespaced(self.admin.clone(), namespace);
                    leases.delete(LEASE, &DeleteParams::default()).await?;
                    operator = Replica::start(proxy.kubeconfig(), name, namespace, Some(proxied)).await?;
                    life.await
                }
                Either::Right(((), life)) => life.await,
            }
        };
        let state = state.with_context(|| format!("{fault:?}: {}", operator.process.log(30)))?;
        guard.abort();
        let changed = changed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ensure!(changed.is_empty(), "{fault:?}: credentials that were written have changed: {changed:?}");
        Ok(Outcome { state, has_happened: proxy.has_happened(), passed: proxy.passed() })
    }

    /// What the user does, and what there is in the end.
    async fn life(&self, namespace: &str, proxy: &ApiProxy, expected: Option<&State>) -> Result<State> {
        for spec in [first(), second()] {
            let pipeline = json!({
                "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
                "metadata": {"name": "lab", "namespace": namespace}, "spec": spec,
            });
            apply(&self.admin, pipeline).await?;
            self.is_ready(namespace).await?;
        }
        let mut last = (proxy.passed().writes, tokio::time::Instant::now());
        eventually("the same as without a fault, and quiet", CONVERGES, async || {
            let state = self.state(namespace).await?;
            if let Some(different) = expected.and_then(|expected| difference(expected, &state)) {
                return Ok(Probe::NotYet(different));
            }
            let writes = proxy.passed().writes;
            if writes != last.0 {
                last = (writes, tokio::time::Instant::now());
            }
            let is_quiet = last.1.elapsed() >= QUIET;
            Ok(if is_quiet { Probe::Found(state) } else { Probe::NotYet("it still writes".into()) })
        })
        .await
    }

    /// Waits until the pipeline is ready as it was applied last.
    async fn is_ready(&self, namespace: &str) -> Result<()> {
        let pipelines: Api<api::iotpipeline::IoTPipeline> = Api::namespaced(self.admin.clone(), namespace);
        eventually("the pipeline is ready", CONVERGES, async || {
            let pipeline = pipelines.get("lab").await?;
            let conditions = pipeline.status.map(|status| status.conditions).unwrap_or_default();
            let is_ready = conditions.iter().any(|condition| {
                condition.type_ == "Ready"
                    && condition.status == "True"
                    && condition.observed_generation == pipeline.metadata.generation
            });
            let told =
                || conditions.iter().map(|c| format!("{} {} {}", c.type_, c.status, c.message)).collect();
            Ok(if is_ready { Probe::Found(()) } else { Probe::NotYet(told()) })
        })
        .await
    }

    async fn state(&self, namespace: &str) -> Result<State> {
        let mut state = State::new();
        for kind in &self.kinds {
            let api: Api<DynamicObject> = Api::namespaced_with(self.admin.clone(), namespace, kind);
            for object in api.list(&ListParams::default()).await? {
                let name = format!("{} {}", kind.kind, object.name_any());
                state.insert(name, stripped(&kind.kind, namespace, &object)?);
            }
        }
        Ok(state)
    }
}

/// A pipeline with every part.
fn first() -> Value {
    json!({
        "broker": {"users": [{"name": "one", "publish": ["a/#"]}, {"name": "two", "publish": ["b/#"]}]},
        "database": {"organization": "o", "bucket": "b", "retention": "30d"},
        "dashboard": {},
        "routes": [{"name": "r", "topic": "a/{place}", "payload": {"float": {"field": "v"}}}],
    })
}

/// The same without a user and the dashboard, with another route and retention.
fn second() -> Value {
    json!({
        "broker": {"users": [{"name": "one", "publish": ["a/#"]}]},
        "database": {"organization": "o", "bucket": "b", "retention": "60d"},
        "routes": [{"name": "r", "topic": "a/{room}", "payload": {"float": {"field": "v"}}}],
    })
}

/// What is the same in every run. Credentials are drawn, so of a Secret only the keys are; hashes follow
/// from credentials.
fn stripped(kind: &str, namespace: &str, object: &DynamicObject) -> Result<Value> {
    let mut value = serde_json::to_value(object)?;
    if kind == "Secret" {
        for value in value["data"].as_object_mut().into_iter().flat_map(|data| data.values_mut()) {
            *value = "drawn".into();
        }
    }
    let status = if kind == "IoTPipeline" { value["status"].clone() } else { Value::Null };
    let metadata = &value["metadata"];
    let mut kept = json!({
        "labels": metadata["labels"], "annotations": metadata["annotations"],
        "owners": metadata["ownerReferences"], "finalizers": metadata["finalizers"],
        "spec": value["spec"], "data": value["data"], "status": status,
    });
    strip(&mut kept);
    Ok(serde_json::from_str(&kept.to_string().replace(namespace, "NAMESPACE"))?)
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["uid", "clusterIP", "clusterIPs", "lastTransitionTime"] {
                fields.remove(name);
            }
            for (name, value) in fields {
                if name.ends_with("-hash") {
                    *value = "a hash".into();
                }
                strip(value);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

/// The first object that is not the same.
fn difference(expected: &State, found: &State) -> Option<String> {
    let names = expected.keys().chain(found.keys());
    let mut different = names.filter(|name| expected.get(*name) != found.get(*name));
    different.next().map(|name| format!("{name}: {:?} instead of {:?}", found.get(name), expected.get(name)))
}

/// Follows the Secrets: a credential that was written once must not be another later.
async fn note_changes(secrets: Api<Secret>, changed: Arc<Mutex<Vec<String>>>) {
    let mut known: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut events = watcher(secrets, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Some(event) = events.next().await {
        let Ok(secret) = event else { continue };
        for key in ["password", "token"] {
            let Some(value) = secret.data.as_ref().and_then(|data| data.get(key)) else { continue };
            let name = format!("{} {key}", secret.name_any());
            if known.insert(name.clone(), value.0.clone()).is_some_and(|before| before != value.0) {
                changed.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            }
        }
    }
}
