//! One pipeline's life before an API server with faults: applied, changed, and in the end the same objects
//! as without any fault.
//!
//! Fakes take the place of everything else (`stage`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::iotpipeline::IoTPipeline;
use futures::StreamExt;
use futures::future::Either;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::config::Kubeconfig;
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value, json};

use crate::api_proxy::{ApiProxy, Fault, Passed};
use crate::conditions::{Probe, eventually};
use crate::control_plane::{ControlPlane, User, apply, namespaced_kinds};
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
    /// May do everything.
    pub admin: Client,
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
        let mut kinds = namespaced_kinds(&admin).await?;
        kinds.retain(|kind| !LEFT_OUT.contains(&kind.kind.as_str()));
        Ok(Self { plane, stage, admin, kinds })
    }

    /// Where the API server listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.plane.port
    }

    /// Makes a namespace, and says how its operator reaches the API server on this port.
    ///
    /// # Errors
    /// If the namespace can't be made.
    pub async fn kubeconfig(&self, namespace: &str, port: u16) -> Result<Kubeconfig> {
        apply(&self.admin, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
            .await?;
        let mut kubeconfig = serde_json::to_value(self.plane.kubeconfig_through(port, User::Other)?)?;
        kubeconfig["contexts"][0]["context"]["namespace"] = namespace.into();
        Ok(serde_json::from_value(kubeconfig)?)
    }

    /// Starts the namespace's operator.
    ///
    /// # Errors
    /// If it can't be started.
    pub async fn operator(&self, kubeconfig: &Kubeconfig, namespace: &str) -> Result<Replica> {
        Replica::start(kubeconfig, "operator", namespace, Some(&self.stage.proxy)).await
    }

    /// Applies the namespace's pipeline.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn apply(&self, namespace: &str, spec: Value) -> Result<()> {
        let pipeline = json!({
            "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
            "metadata": {"name": "lab", "namespace": namespace}, "spec": spec,
        });
        apply(&self.admin, pipeline).await.map(drop)
    }

    /// A run in a new namespace, in which one thing goes wrong. It must end as `expected`, if that is known.
    ///
    /// # Errors
    /// If it ends otherwise, or not at all.
    pub async fn run(&self, namespace: &str, fault: Fault, expected: Option<&State>) -> Result<Outcome> {
        let proxy = ApiProxy::start(&self.kubeconfig(namespace, self.port()).await?).await?;
        proxy.arm(fault);
        let changed = Arc::new(Mutex::new(Vec::new()));
        let secrets = Api::<Secret>::namespaced(self.admin.clone(), namespace);
        let guard = tokio::spawn(note_changes(secrets, changed.clone()));
        let mut operator = self.operator(proxy.kubeconfig(), namespace).await?;
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
                    operator = self.operator(proxy.kubeconfig(), namespace).await?;
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
            self.apply(namespace, spec).await?;
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
    ///
    /// # Errors
    /// If the deadline passes.
    pub async fn is_ready(&self, namespace: &str) -> Result<()> {
        eventually("the pipeline is ready", CONVERGES, async || {
            Ok(match self.is_ready_now(namespace).await? {
                Ok(()) => Probe::Found(()),
                Err(instead) => Probe::NotYet(instead),
            })
        })
        .await
    }

    /// Whether it is, and what its status says if it isn't.
    ///
    /// # Errors
    /// If there is no pipeline.
    pub async fn is_ready_now(&self, namespace: &str) -> Result<Result<(), String>> {
        let pipelines: Api<IoTPipeline> = Api::namespaced(self.admin.clone(), namespace);
        let pipeline = pipelines.get("lab").await?;
        let conditions = pipeline.status.map(|status| status.conditions).unwrap_or_default();
        let is_ready = conditions.iter().any(|condition| {
            condition.type_ == "Ready"
                && condition.status == "True"
                && condition.observed_generation == pipeline.metadata.generation
        });
        let told = conditions.iter().map(|told| format!("{} {} {}; ", told.type_, told.status, told.message));
        Ok(if is_ready { Ok(()) } else { Err(told.collect()) })
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
pub fn first() -> Value {
    json!({
        "broker": {"users": [{"name": "one", "publish": ["a/#"]}, {"name": "two", "publish": ["b/#"]}]},
        "database": {"organization": "o", "bucket": "b", "retention": "30d"},
        "dashboard": {},
        "routes": [{"name": "r", "topic": "a/{place}", "payload": {"float": {"field": "v"}}}],
    })
}

/// The same without a user and the dashboard, with another route and retention.
pub fn second() -> Value {
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
        let keys = value["data"].as_object().into_iter().flat_map(|data| data.keys());
        // An authority's file is named after it.
        let keys = keys.map(|key| if key.ends_with(".0") { "authority.0" } else { key.as_str() });
        let drawn: Map<String, Value> = keys.map(|key| (key.to_owned(), "drawn".into())).collect();
        value["data"] = drawn.into();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped_of(data: Value) -> Result<Value> {
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": "a", "namespace": "run-1", "uid": "1", "resourceVersion": "1",
            "annotations": {"x/applied-hash": "1"}, "ownerReferences": [{"apiVersion": "v", "kind": "K", "name": "o", "uid": "2"}],
        }});
        object["data"] = data;
        let object = serde_json::from_value(object)?;
        stripped("ConfigMap", "run-1", &object)
    }

    #[test]
    fn a_run_s_own_names_are_left_out_and_what_was_written_is_not() -> Result<()> {
        let one = stripped_of(json!({"url": "http://a.run-1.svc"}))?;
        assert_eq!(one["data"]["url"], "http://a.NAMESPACE.svc");
        assert_eq!(one["owners"], json!([{"apiVersion": "v", "kind": "K", "name": "o"}]));
        assert_eq!(one["annotations"]["x/applied-hash"], "a hash");
        let (one, two) =
            (State::from([("a".into(), one)]), State::from([("a".into(), stripped_of(json!({}))?)]));
        assert!(difference(&one, &one).is_none() && difference(&one, &two).is_some());
        assert!(difference(&one, &State::new()).is_some() && difference(&State::new(), &one).is_some());
        Ok(())
    }
}
