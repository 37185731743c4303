//! What triggers a pass. Each stream backs off for itself and keeps its errors: kube's controller would
//! otherwise pause every trigger for the fault of one.

use std::cell::Cell;
use std::fmt::Debug;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::iotpipeline::IoTPipeline;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::runtime::{Predicate, PredicateConfig, predicates};
use kube::runtime::{WatchStreamExt, reflector as reflect};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::{Sleep, sleep};

use super::Context;
use super::given::Given;
use crate::cache::{Cache, Cached};
use crate::metrics::Metrics;
use crate::resources::names::{INSTANCE, MANAGED};

/// A watch ends by itself after this, and goes on where it was. One that the network has swallowed is
/// noticed five seconds later.
const WATCH_SECONDS: u32 = 20;

/// The longest pause before a watch that failed is tried again; kube's own grows to a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// In which `kubectl apply` keeps what it was given:
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#kubectl-kubernetes-io-last-applied-configuration>.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// How many kinds are listed anew now and then.
const KINDS: u32 = 13;

/// How many objects are listed at once: a page is in memory as a whole.
const PAGE: u32 = 50;

/// Where to watch.
pub(super) struct Watches {
    client: Client,
    /// All, if none.
    pub(super) namespace: Option<String>,
    metrics: Arc<Metrics>,
    cache: Arc<Cache>,
    /// After this all is listed anew, so that no event that was lost stays so.
    relist: Duration,
    /// How many watches there are already.
    begun: Cell<u32>,
}

type Watched<K> = Result<K, watcher::Error>;

impl Watches {
    pub(super) fn new(context: &Context, namespace: Option<String>) -> Self {
        Self {
            client: context.client.clone(),
            namespace,
            metrics: context.metrics.clone(),
            cache: context.cache.clone(),
            relist: Duration::from_secs(context.config.relist_seconds),
            begun: Cell::default(),
        }
    }

    /// The pipelines themselves: a pass for every change of a spec or an annotation, none for one of a status.
    pub(super) fn pipelines(
        &self,
    ) -> (Store<IoTPipeline>, impl Stream<Item = Watched<IoTPipeline>> + Send + 'static) {
        let (store, writer) = reflector::store();
        let (api, mut relists) = (self.api::<IoTPipeline>(), self.relists());
        let watched = stream::repeat_with(move || watcher(api.clone(), config()).take_until(relists()))
            .flatten()
            .modify(|pipeline| {
                pipeline.metadata.managed_fields = None;
                // The whole spec again.
                pipeline.annotations_mut().remove(LAST_APPLIED);
            });
        let objects = reflect(writer, watched).applied_objects().backoff(Pauses::default()).predicate_filter(
            predicates::generation.combine(predicates::annotations),
            PredicateConfig::default(),
        );
        (store, self.without_errors(objects))
    }

    pub(super) fn stateful_sets(
        &self,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<StatefulSet>>> + Send + 'static {
        self.children()
    }

    pub(super) fn deployments(
        &self,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<Deployment>>> + Send + 'static {
        self.children()
    }

    pub(super) fn services(
        &self,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<Service>>> + Send + 'static {
        self.children()
    }

    pub(super) fn config_maps(
        &self,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<ConfigMap>>> + Send + 'static {
        self.children()
    }

    /// Users give some of them to other pipelines than their own.
    pub(super) fn secrets(
        &self,
        given: Arc<Given>,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<Secret>>> + Send + 'static {
        self.children_given(Some(given))
    }

    /// The Secrets that are not the operator's: users give some of them to pipelines. Their content is not asked
    /// for, and of those that nobody gives nothing is kept.
    pub(super) fn foreign_secrets(
        &self,
        given: Arc<Given>,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<Secret>>> + Send + 'static {
        let config = config().labels(&MANAGED.replace('=', "!="));
        let objects = watcher(self.api::<PartialObjectMeta<Secret>>(), config)
            .touched_objects()
            .backoff(Pauses::default())
            .try_filter(move |secret| ready(given.users_of(secret).next().is_some()));
        self.without_errors(objects)
    }

    pub(super) fn claims(
        &self,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<PersistentVolumeClaim>>> + Send + 'static {
        self.children()
    }

    pub(super) fn pods(&self) -> impl Stream<Item = Watched<PartialObjectMeta<Pod>>> + Send + 'static {
        self.children()
    }

    pub(super) fn network_policies(
        &self,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<NetworkPolicy>>> + Send + 'static {
        self.children()
    }

    pub(super) fn disruption_budgets(
        &self,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<PodDisruptionBudget>>> + Send + 'static {
        self.children()
    }

    pub(super) fn cron_jobs(
        &self,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<CronJob>>> + Send + 'static {
        self.children()
    }

    pub(super) fn jobs(&self) -> impl Stream<Item = Watched<PartialObjectMeta<Job>>> + Send + 'static {
        self.children()
    }

    pub(super) fn ingresses(
        &self,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<Ingress>>> + Send + 'static {
        self.children()
    }

    /// Labelled objects only: foreign Secrets are neither sent nor kept. What the cache knows already is no
    /// reason for a pass, and that is most of what the operator writes itself.
    fn children<K>(&self) -> impl Stream<Item = Watched<PartialObjectMeta<K>>> + Send + use<K> + 'static
    where
        K: Cached + Debug + Send + Sync,
    {
        self.children_given::<K>(None)
    }

    /// The same, of a kind that can be given to pipelines.
    fn children_given<K>(
        &self,
        given: Option<Arc<Given>>,
    ) -> impl Stream<Item = Watched<PartialObjectMeta<K>>> + Send + use<K> + 'static
    where
        K: Cached + Debug + Send + Sync,
    {
        let (api, mut relists) = (self.api::<K>(), self.relists());
        let config = config().labels(MANAGED);
        let (cache, namespace) = (self.cache.clone(), self.namespace.clone());
        let objects = stream::repeat_with(move || watcher(api.clone(), config.clone()).take_until(relists()))
            .flatten()
            .flat_map(move |event| {
                stream::iter(match event {
                    Ok(event) => news(&cache, namespace.as_deref(), given.as_deref(), &event),
                    Err(error) => vec![Err(error)],
                })
            })
            .backoff(Pauses::default());
        self.without_errors(objects)
    }

    /// The ends of a watch, after which it lists anew: not when others do, since lists take memory.
    fn relists(&self) -> impl FnMut() -> Pin<Box<Sleep>> + Send + use<> {
        let (before, relist) = (self.begun.get() % KINDS, self.relist);
        self.begun.set(before + 1);
        // The pipelines last: until all are listed, they are in memory twice.
        let mut first = Some(relist * (KINDS - before) / KINDS);
        move || Box::pin(sleep(first.take().unwrap_or(relist)))
    }

    fn api<A>(&self) -> Api<A>
    where
        A: Resource<Scope = NamespaceResourceScope>,
        A::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn without_errors<K, S>(&self, objects: S) -> impl Stream<Item = Watched<K>> + Send + use<K, S> + 'static
    where
        K: Resource<DynamicType = ()> + Send + 'static,
        S: Stream<Item = Watched<K>> + Send + 'static,
    {
        let metrics = self.metrics.clone();
        objects.filter_map(move |object| {
            if let Err(error) = &object {
                let kind = K::kind(&());
                metrics.watch_failed(&kind);
                tracing::warn!(%kind, error = cause(error), "a watch failed; it is tried again");
            }
            ready(object.ok().map(Ok))
        })
    }
}

/// An object of each pipeline that an event is news to, without its content.
fn news<K: Cached>(
    cache: &Cache,
    watched: Option<&str>,
    given: Option<&Given>,
    event: &Event<K>,
) -> Vec<Watched<PartialObjectMeta<K>>> {
    let own = cache.follow(watched, event);
    // What the operator wrote for one pipeline, others have not heard of.
    let object = match event {
        Event::Apply(object) | Event::Delete(object) => Some(object),
        Event::InitApply(object) if !own.is_empty() => Some(object),
        Event::InitApply(_) | Event::Init | Event::InitDone => None,
    };
    let users = given.zip(object).into_iter().flat_map(|(given, object)| given.users_of(object));
    let own = own.iter().filter_map(|key| {
        let (namespace, name) = key.split_once('/')?;
        Some(ObjectRef::<IoTPipeline>::new(name).within(namespace))
    });
    let of_pipeline = |pipeline: ObjectRef<IoTPipeline>| {
        let labels = Some([(INSTANCE.to_owned(), pipeline.name.clone())].into());
        // kube's controller wants a name; the object's own may not be known.
        let (name, namespace) = (Some(pipeline.name), pipeline.namespace);
        ObjectMeta { name, namespace, labels, ..ObjectMeta::default() }.into_response_partial()
    };
    own.chain(users).map(of_pipeline).map(Ok).collect()
}

/// kube's pauses, up to the longest.
#[derive(Default)]
struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST_PAUSE))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// kube's own text repeats the whole answer of the API server, twice.
fn cause(error: &watcher::Error) -> String {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        watcher::Error::WatchError(status) => return status.message.clone(),
        other => return other.to_string(),
    };
    super::describe(source)
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE)
}

/// By label rather than by owner: what is retained has no owner, and pods have their set.
pub(super) fn pipeline_of<K: Resource>(object: PartialObjectMeta<K>) -> Option<ObjectRef<IoTPipeline>> {
    let name = object.labels().get(INSTANCE)?;
    let namespace = object.metadata.namespace.as_deref()?;
    Some(ObjectRef::new(name).within(namespace))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_operator_writes_for_one_pipeline_is_news_to_those_that_are_given_it() {
        let (cache, given) = (Cache::default(), Given::default());
        let token = json!({"name": "central-database", "key": "token"});
        let edge = json!({
            "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
            "metadata": {"name": "edge", "namespace": "plant"},
            "spec": {"broker": {"users": [{"name": "u", "passwordSecretRef": token}]}, "routes": []},
        });
        given.note(&serde_json::from_value(edge).expect("a pipeline"));
        let secret = |version: &str| -> Secret {
            let metadata = json!({
                "name": "central-database", "namespace": "plant", "resourceVersion": version,
                "labels": {INSTANCE: "central"},
            });
            serde_json::from_value(json!({"metadata": metadata})).expect("a Secret")
        };
        let told = |event: &Event<Secret>| -> Vec<String> {
            let objects = news(&cache, None, Some(&given), event).into_iter();
            objects.filter_map(|object| Some(pipeline_of(object.ok()?)?.name)).collect()
        };
        assert!(told(&Event::Init).is_empty() && told(&Event::InitDone).is_empty());
        cache.put(&secret("7"));
        assert_eq!(told(&Event::Apply(secret("7"))), ["edge"]);
        assert!(told(&Event::InitApply(secret("7"))).is_empty());
        assert_eq!(told(&Event::InitApply(secret("8"))), ["central", "edge"]);
        assert_eq!(told(&Event::Delete(secret("9"))), ["central", "edge"]);
    }
}
