//! The control loop: what triggers it, its steps, and what happens when one fails.

mod answers;
mod backups;
mod database;
mod events;
mod failures;
mod follow;
mod given;
mod parts;
mod recent;
mod refresh;
mod report;
mod told;
mod turn;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::iotpipeline::IoTPipeline;
use futures::StreamExt;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::{Client, ResourceExt};

use crate::apply::{ApplyError, apply, keep_or_collect};
use crate::cache::Cache;
use crate::config::Config;
use crate::http::{self, HttpError, Patient};
use crate::leader::fence::Fence;
use crate::metrics::{Metrics, Outcome};
use crate::observe::{ObserveError, children_of, observe};
use crate::plan::{Identity, Plan, expiries};
use crate::resources;
use crate::resources::names::Names;
use crate::status::Facts;
pub(crate) use answers::describe;
use backups::{Unmade, unmade};
use failures::{Counted, Failures};
use recent::Recent;
use report::{before_expiry, refused, report, tell};
use told::Told;
use turn::{Turn, Turns};

/// How many passes of a controller are under way: at work, waiting for their turn, or for an answer that takes long.
const CONCURRENCY: u16 = 16;

/// Between two passes for what has changed around a pipeline, so that one is enough for what comes together. A
/// change of its spec waits for none of it.
const BREATH: Duration = Duration::from_millis(250);

/// A pass must not hold its place for as long as somebody takes to answer.
const PASS_LIMIT: Duration = Duration::from_secs(45);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What every pass needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The operator's configuration.
    pub config: Config,
    /// Whether this operator may still write: it is below each of its clients.
    pub fence: Fence,
    /// For the bridge's status and for databases and dashboards without an authority of their own.
    pub http: reqwest::Client,
    /// For what is held back until there is news.
    patient: Patient,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    followed: follow::Followed,
    given: Arc<given::Given>,
    /// What the watches have told of the pipelines' objects.
    pub cache: Arc<Cache>,
    /// When content that pods read was first written, by its hash.
    written: Recent,
    /// When a pod was last touched, by its uid.
    touched: Recent,
    told: Told,
    /// The generation that a pass has just been for, by the pipeline's uid.
    passed: Recent<Option<i64>>,
    turns: Turns,
    /// Passes.
    failures: Failures,
    /// Writes of what makes backups.
    unmade: Failures,
    /// By pipeline, its uid and the latest generation that was worked for.
    generations: Mutex<HashMap<String, (Option<String>, i64)>>,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The cluster could not be changed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status could not be written.
    #[error("write the status")]
    Status(#[source] Box<kube::Error>),
    /// The pass took too long.
    #[error("give up after {} s", PASS_LIMIT.as_secs())]
    TooSlow,
}

impl Context {
    /// What passes need, from what `main` has made.
    ///
    /// # Errors
    /// If there is no HTTP client.
    pub fn new(
        client: Client,
        fence: Fence,
        config: Config,
        metrics: Arc<Metrics>,
    ) -> Result<Self, HttpError> {
        let http = http::client(None, &fence)?;
        let patient = Patient::new(&fence)?;
        let followed = follow::Followed::new();
        Ok(Self {
            client,
            config,
            fence,
            http,
            patient,
            followed,
            given: Arc::default(),
            metrics,
            cache: Arc::default(),
            written: Recent::default(),
            touched: Recent::default(),
            told: Told::default(),
            passed: Recent::default(),
            turns: Turns::default(),
            failures: Failures::default(),
            unmade: Failures::default(),
            generations: Mutex::default(),
        })
    }
}

/// Runs until it is dropped: one controller, or one for each namespace that the operator is limited to.
/// What a pass has not done by then, the next does.
pub async fn run(context: Arc<Context>) {
    let namespaces: Vec<Option<String>> = match context.config.namespaces.as_slice() {
        [] => vec![None],
        names => names.iter().cloned().map(Some).collect(),
    };
    let controllers = namespaces.into_iter().map(|namespace| run_in(context.clone(), namespace));
    futures::future::join_all(controllers).await;
}

async fn run_in(context: Arc<Context>, namespace: Option<String>) {
    let watches = watch::Watches::new(&context, namespace);
    let (store, pipelines) = watches.pipelines();
    context.metrics.add_store(store.clone());
    let (given, forgetful, own) = (context.given.clone(), context.clone(), watches.namespace.clone());
    Controller::for_stream(pipelines, store)
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .watches_stream(watches.stateful_sets(), watch::pipeline_of)
        .watches_stream(watches.deployments(), watch::pipeline_of)
        .watches_stream(watches.services(), watch::pipeline_of)
        .watches_stream(watches.config_maps(), watch::pipeline_of)
        .watches_stream(watches.secrets(given.clone()), watch::pipeline_of)
        .watches_stream(watches.foreign_secrets(given.clone()), move |secret| given.users_of(&secret))
        .watches_stream(watches.pods(), watch::pipeline_of)
        .reconcile_on(context.followed.news())
        .watches_stream(watches.claims(), watch::pipeline_of)
        .watches_stream(watches.network_policies(), watch::pipeline_of)
        .watches_stream(watches.disruption_budgets(), watch::pipeline_of)
        .watches_stream(watches.ingresses(), watch::pipeline_of)
        .watches_stream(watches.cron_jobs(), watch::pipeline_of)
        .watches_stream(watches.jobs(), watch::pipeline_of)
        .run(reconcile, error_policy, context)
        .for_each(|result| {
            match result {
                Err(error @ kube::runtime::controller::Error::QueueError(_)) => {
                    tracing::warn!(error = %describe(&error), "a watch failed");
                }
                // News goes to every controller: of another's pipelines it knows nothing.
                Err(kube::runtime::controller::Error::ObjectNotFound(gone))
                    if own.is_none() || own == gone.namespace =>
                {
                    forgetful.forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
                }
                _ => {}
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile(pipeline: Arc<IoTPipeline>, context: Arc<Context>) -> Result<Action, Error> {
    if pipeline.metadata.deletion_timestamp.is_some() {
        // Owner references do the rest. That it has gone is only told of what is looked for again.
        return Ok(Action::requeue(LONGEST_PAUSE));
    }
    context.followed.pause(&key(&pipeline));
    if context.is_outdated(&pipeline) {
        // The watch goes on from there, and comes to what it is now.
        return Ok(Action::requeue(LONGEST_PAUSE));
    }
    let (uid, generation) = (pipeline.uid().unwrap_or_default(), pipeline.metadata.generation);
    if context.passed.within(&uid, BREATH) == Some(generation) {
        return Ok(Action::requeue(BREATH));
    }
    let pipeline = context.told.newest(pipeline);
    let mut turn = Turn::take(&context.turns).await;
    let started = Instant::now();
    let passed = tokio::time::timeout(PASS_LIMIT, pass(&pipeline, &context, &mut turn)).await;
    let result = match passed.unwrap_or(Err(Error::TooSlow)) {
        Err(Error::Apply(error)) if error.namespace_is_going() => Ok(None),
        Err(error) => Err(tell(&context, &pipeline, error, started.elapsed()).await),
        done => done,
    };
    context.passed.note(uid, generation);
    let outcome = if result.is_ok() { Outcome::Success } else { Outcome::Failure };
    context.metrics.reconciled(outcome, started.elapsed());
    if result.is_ok() {
        context.failures.end(&key(&pipeline));
    }
    result.map(|pause| pause.map_or_else(Action::await_change, Action::requeue))
}

/// One pass: what is, what is to be, make it so, say how it is.
async fn pass(
    pipeline: &IoTPipeline,
    context: &Arc<Context>,
    turn: &mut Turn<'_>,
) -> Result<Option<Duration>, Error> {
    let (client, cache) = (&context.client, &context.cache);
    let mut children = children_of(client, cache, pipeline).await?;
    // Before all that ends a pass: who deletes a pipeline that is suspended or refused relies on its policy, too.
    keep_or_collect(client, cache, &Identity::of(pipeline), &mut children).await?;
    if pipeline.spec.suspend {
        return report(context, pipeline, &Facts::Suspended { failure: None }).await.map(Some);
    }
    context.given.note(pipeline);
    let observed = observe(client, cache, pipeline, children).await?;
    let mut plan = match Plan::new(pipeline, &observed, &context.config) {
        Ok(plan) => plan,
        Err(refusal) => {
            let facts = refused(context, pipeline, &observed, &refusal).await?;
            return report(context, pipeline, &facts).await.map(Some);
        }
    };
    let Names { namespace, pipeline: name } = &plan.pipeline.names;
    context.metrics.certificates(namespace, name, expiries(&plan));
    let database = turn.unless_long(database::access(context, pipeline, &plan, &observed)).await;
    // A database that has its bucket is not restored.
    plan.restore = plan.restore.filter(|_| database.is_restored(&observed.children));
    let desired = resources::desired(&plan, &database.tokens);
    let mut applied = apply(client, cache, &plan, &desired, &observed.children).await?;
    let Unmade { told, again } = unmade(context, pipeline, applied.refused_backup.take());
    let children = &observed.children;
    if plan.sleep.broker {
        let pause = report(context, pipeline, &parts::asleep(&plan, children, told)).await?;
        return Ok(Some(pause.min(again)));
    }
    let refreshed = refresh::refresh(context, &desired, &plan, &applied, children);
    let refreshed = turn.unless_long(refreshed).await?;
    let dashboard = parts::dashboard(context, &plan, &database, &applied, children);
    let dashboard = turn.unless_long(dashboard).await;
    let revokes_in = database.revokes_in;
    let facts = parts::facts(&plan, children, applied, database, refreshed.bridge, dashboard, told);
    let pause = report(context, pipeline, &facts).await?;
    let pause = revokes_in.map_or(pause, |left| pause.min(left + Duration::from_secs(1)));
    follow::follow(context, pipeline, &plan, refreshed.heard);
    let pause = if refreshed.is_pending { refresh::TOUCH_AGAIN } else { pause };
    Ok(Some(before_expiry(pause.min(again), &plan, observed.now)))
}

/// Each pipeline for itself.
fn error_policy(pipeline: Arc<IoTPipeline>, error: &Error, context: Arc<Context>) -> Action {
    context.cache.distrust(&pipeline.namespace().unwrap_or_default(), &pipeline.name_any());
    let Counted { pause, .. } = context.failures.count(key(&pipeline), error);
    tracing::warn!(
        pipeline = key(&pipeline),
        error = %describe(error),
        "a pass failed; again in {} s", pause.as_secs()
    );
    Action::requeue(pause)
}

impl Context {
    /// Whether it was worked for a later spec already. A list can be answered with what was; who follows it
    /// brings back a user that was removed, with another password.
    fn is_outdated(&self, pipeline: &IoTPipeline) -> bool {
        let now = (pipeline.uid(), pipeline.metadata.generation.unwrap_or(0));
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = generations.entry(key(pipeline)).or_default();
        let is_outdated = latest.0 == now.0 && now.1 < latest.1;
        if !is_outdated {
            *latest = now;
        }
        is_outdated
    }

    /// It has gone. Each pass asks for another, so of each that goes a controller tells once that it isn't there.
    fn forget(&self, namespace: &str, name: &str) {
        let key = format!("{namespace}/{name}");
        self.failures.end(&key);
        self.unmade.end(&key);
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        self.followed.pause(&key);
        self.given.forget(namespace, name);
        self.cache.trust(namespace, name);
    }
}

fn key(pipeline: &IoTPipeline) -> String {
    format!("{}/{}", pipeline.namespace().unwrap_or_default(), pipeline.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pipeline(uid: &str, generation: i64) -> IoTPipeline {
        let pipeline = json!({
            "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
            "metadata": {"name": "lab", "namespace": "n", "uid": uid, "generation": generation},
            "spec": {"routes": []},
        });
        serde_json::from_value(pipeline).expect("a pipeline")
    }

    fn context() -> Context {
        let config = "{image: {repository: o}, images: {mosquitto: {repository: m}, influxdb: {repository: i}, \
                      grafana: {repository: g}, bridge: {repository: b}}}";
        let config = serde_saphyr::from_str(config).expect("a configuration");
        let fence = Fence::open();
        let cluster = kube::Config::new("http://127.0.0.1:1".parse().expect("an address"));
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = crate::cluster::client(&cluster, &fence).expect("a client");
        Context::new(client, fence, config, Arc::default()).expect("a context")
    }

    #[tokio::test]
    async fn of_a_pipeline_that_has_gone_nothing_is_kept() {
        let context = Arc::new(context());
        let gone = Arc::new(pipeline("a", 2));
        context.is_outdated(&gone);
        error_policy(gone, &Error::TooSlow, context.clone());
        let kept = || {
            let generations = context.generations.lock().expect("nobody panics").len();
            (!context.failures.lasting("n/lab").is_zero(), generations)
        };
        assert_eq!(kept(), (true, 1));
        context.forget("n", "other");
        assert_eq!(kept(), (true, 1));
        context.forget("n", "lab");
        assert_eq!(kept(), (false, 0));
    }

    #[tokio::test]
    async fn no_spec_is_worked_for_that_is_older_than_one_before() {
        let context = context();
        let outdated = [("a", 2), ("a", 1), ("a", 2), ("a", 3), ("b", 1)]
            .map(|(uid, generation)| context.is_outdated(&pipeline(uid, generation)));
        assert_eq!(outdated, [false, true, false, false, false]);
    }
}
