//! The control loop: what triggers it, its steps, and what happens when one fails.

mod database;
mod events;
mod follow;
mod parts;
mod refresh;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::iotpipeline::{IoTPipeline, IoTPipelineStatus};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::apply::{ApplyError, FIELD_MANAGER, apply, ask_for_certificates};
use crate::config::Config;
use crate::http::{self, HttpError};
use crate::leader::fence::Fence;
use crate::metrics::{Metrics, Outcome};
use crate::observe::{ObserveError, Observed, observe};
use crate::plan::{Identity, Plan, Refusal, expiries, given_secrets, owner};
use crate::resources::names::Names;
use crate::resources::{self, issued};
use crate::status::{Facts, status};

/// How many pipelines are worked on at once.
const CONCURRENCY: u16 = 8;

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
    /// What is counted.
    pub metrics: Arc<Metrics>,
    followed: follow::Followed,
    permits: Semaphore,
    failures: Mutex<HashMap<String, u32>>,
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
        let followed = follow::Followed::new();
        let permits = Semaphore::new(CONCURRENCY.into());
        Ok(Self { client, config, fence, http, metrics, followed, permits, failures: Mutex::default() })
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
    let watches = watch::Watches {
        client: context.client.clone(),
        namespace,
        metrics: context.metrics.clone(),
        relist: Duration::from_secs(context.config.relist_seconds),
    };
    let (store, pipelines) = watches.pipelines();
    context.metrics.add_store(store.clone());
    let known = store.clone();
    Controller::for_stream(pipelines, store)
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .watches_stream(watches.stateful_sets(), watch::pipeline_of)
        .watches_stream(watches.deployments(), watch::pipeline_of)
        .watches_stream(watches.services(), watch::pipeline_of)
        .watches_stream(watches.config_maps(), watch::pipeline_of)
        .watches_stream(watches.secrets(), move |secret| watch::pipelines_of_secret(&known, secret))
        .watches_stream(watches.pods(), watch::pipeline_of)
        .reconcile_on(context.followed.news())
        .run(reconcile, error_policy, context)
        .for_each(|result| async move {
            if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = result {
                tracing::warn!(error = %describe(&error), "a watch failed");
            }
        })
        .await;
}

async fn reconcile(pipeline: Arc<IoTPipeline>, context: Arc<Context>) -> Result<Action, Error> {
    if pipeline.metadata.deletion_timestamp.is_some() {
        // Owner references do the rest.
        return Ok(Action::await_change());
    }
    context.followed.pause(&key(&pipeline));
    let _permit = context.permits.acquire().await;
    let started = Instant::now();
    let result = match tokio::time::timeout(PASS_LIMIT, pass(&pipeline, &context)).await {
        Ok(result) => result,
        Err(_) => Err(Error::TooSlow),
    };
    let outcome = if result.is_ok() { Outcome::Success } else { Outcome::Failure };
    context.metrics.reconciled(outcome, started.elapsed());
    if result.is_ok() {
        context.failures().remove(&key(&pipeline));
    }
    result.map(|pause| pause.map_or_else(Action::await_change, Action::requeue))
}

/// One pass: what is, what is to be, make it so, say how it is.
async fn pass(pipeline: &IoTPipeline, context: &Arc<Context>) -> Result<Option<Duration>, Error> {
    let observed = match observe(&context.client, pipeline).await {
        Ok(observed) => observed,
        Err(error) => return Err(tell(context, pipeline, error.into()).await),
    };
    let plan = match Plan::new(pipeline, &observed, &context.config) {
        Ok(plan) => plan,
        Err(refusal) => {
            let facts = refused(context, pipeline, &observed, &refusal).await?;
            return report(context, pipeline, &facts).await.map(Some);
        }
    };
    let Names { namespace, pipeline: name } = &plan.pipeline.names;
    context.metrics.certificates(namespace, name, expiries(&plan));
    let database = database::access(context, pipeline, &plan, &observed).await;
    let desired = resources::desired(&plan, &database.tokens);
    let applied = match apply(&context.client, &plan, &desired, &observed.children).await {
        Ok(applied) => applied,
        Err(error) if error.namespace_is_going() => return Ok(None),
        Err(error) => return Err(tell(context, pipeline, error.into()).await),
    };
    let children = &observed.children;
    let (bridge, heard) = refresh::refresh(context, &desired, &plan, &applied, children).await?;
    let dashboard = parts::dashboard(context, &plan, &database, &applied, children).await;
    let facts = parts::facts(&plan, children, applied, database, bridge, dashboard);
    let pause = report(context, pipeline, &facts).await?;
    follow::follow(context, pipeline, &plan, heard);
    Ok(Some(before_expiry(pause, &plan, observed.now)))
}

/// A certificate's end is no event.
fn before_expiry(pause: Duration, plan: &Plan, now: jiff::Timestamp) -> Duration {
    let left = expiries(plan).into_iter().filter_map(|(_, until)| {
        let left = Duration::try_from(until.duration_since(now)).ok()?;
        Some(left + Duration::from_secs(1))
    });
    left.fold(pause, Duration::min)
}

/// Reports a failure that doesn't go away by itself. The pass comes again in any case.
async fn tell(context: &Context, pipeline: &IoTPipeline, error: Error) -> Error {
    let Some(facts) = to_tell(&error) else { return error };
    report(context, pipeline, &facts).await.err().unwrap_or(error)
}

/// What is missing may be what cert-manager has not been asked for yet.
async fn refused(
    context: &Context,
    pipeline: &IoTPipeline,
    observed: &Observed,
    refusal: &Refusal,
) -> Result<Facts, Error> {
    let (reason, message) = (refusal.reason().into(), refusal.to_string());
    if !matches!(refusal, Refusal::NotIssued(_)) {
        return Ok(Facts::Refused { reason, message });
    }
    let identity = Identity { names: Names::of(pipeline), owner: owner(pipeline) };
    let (desired, found) = (issued::desired(pipeline), &observed.children.certificates);
    match ask_for_certificates(&context.client, &identity, &desired, found).await {
        Ok(()) => Ok(Facts::Refused { reason, message }),
        Err(error) if error.is_unknown_kind() => Ok(Facts::Refused {
            reason: "CertManagerNotFound".into(),
            message: "this cluster has no cert-manager, which issuerRef needs: install it \
                      (https://cert-manager.io/docs/installation/), or remove issuerRef"
                .into(),
        }),
        Err(error) => Err(error.into()),
    }
}

/// Failures that go away by themselves are not the user's business; the others are.
fn to_tell(error: &Error) -> Option<Facts> {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let reason = match error {
        Error::Apply(ApplyError::NameTaken { .. }) => "NameTaken",
        Error::Apply(ApplyError::StillGoing { .. }) => "WaitingForDeletion",
        Error::Apply(_) | Error::Observe(_) => match causes.find_map(answer)?.code {
            403 => "Forbidden",
            400 | 422 => "ObjectRefused",
            _ => return None,
        },
        Error::Status(_) | Error::TooSlow => return None,
    };
    Some(Facts::Failed { reason: reason.into(), message: describe(error) })
}

/// Writes the status if it changed, and tells what a user should know. Returns when to look again.
async fn report(context: &Context, pipeline: &IoTPipeline, facts: &Facts) -> Result<Duration, Error> {
    let now = Time(Timestamp::now());
    let generation = pipeline.metadata.generation;
    let known = pipeline.status.as_ref();
    if Some(&status(facts, generation, known, &now)) != known {
        // What is known may be older than what this operator wrote last, so ask before writing.
        let api: Api<IoTPipeline> =
            Api::namespaced(context.client.clone(), &pipeline.namespace().unwrap_or_default());
        let fresh =
            api.get_opt(&pipeline.name_any()).await.map_err(|source| Error::Status(Box::new(source)))?;
        if let Some(fresh) = fresh.filter(|fresh| fresh.uid() == pipeline.uid()) {
            let next = status(facts, generation, fresh.status.as_ref(), &now);
            if fresh.status.as_ref() != Some(&next) {
                write_status(&api, &pipeline.name_any(), &next).await?;
                events::publish(context, pipeline, fresh.status.as_ref(), &next).await;
            }
        }
    }
    Ok(look_again(pipeline, facts, &now))
}

async fn write_status(api: &Api<IoTPipeline>, name: &str, status: &IoTPipelineStatus) -> Result<(), Error> {
    let patch = Patch::Apply(json!({
        "apiVersion": IoTPipeline::api_version(&()),
        "kind": IoTPipeline::kind(&()),
        "status": status,
    }));
    match api.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::Status(Box::new(source))),
    }
}

/// Watches tell of nearly everything, and what is followed of nearly all else. These are for what neither does:
/// claims and events while something starts, and what is outside the cluster.
fn look_again(pipeline: &IoTPipeline, facts: &Facts, now: &Time) -> Duration {
    let seconds = match facts {
        Facts::Refused { .. } | Facts::Failed { .. } => 15,
        Facts::Applied(parts) if !parts.all_ready() => parts.patience(is_fresh(pipeline, now)),
        Facts::Applied(_) if given_secrets(pipeline).is_empty() => 300,
        Facts::Applied(_) => 60,
    };
    Duration::from_secs(seconds)
}

/// Whether it is not ready for less than a minute: what is the matter may yet be told.
fn is_fresh(pipeline: &IoTPipeline, now: &Time) -> bool {
    let conditions = pipeline.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "False");
    ready.next().is_none_or(|ready| now.0.duration_since(ready.last_transition_time.0).as_secs() < 60)
}

/// Twice as long after every failure in a row, each pipeline for itself; longer if the API server asks for it.
fn error_policy(pipeline: Arc<IoTPipeline>, error: &Error, context: Arc<Context>) -> Action {
    let mut failures = context.failures();
    let count = failures.entry(key(&pipeline)).or_insert(0);
    *count += 1;
    let pause = Duration::from_secs(1 << (*count - 1).min(5)).min(LONGEST_PAUSE).max(asked_to_wait(error));
    tracing::warn!(
        pipeline = key(&pipeline),
        error = %describe(error),
        "a pass failed; again in {} s", pause.as_secs()
    );
    Action::requeue(pause)
}

/// As long as an overloaded API server asks for, in good measure.
fn asked_to_wait(error: &(dyn std::error::Error + 'static)) -> Duration {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let asked = causes.find_map(|error| Some(answer(error)?.details.as_ref()?.retry_after_seconds));
    Duration::from_secs(asked.unwrap_or(0).into()).min(PASS_LIMIT)
}

impl Context {
    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<String, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(pipeline: &IoTPipeline) -> String {
    format!("{}/{}", pipeline.namespace().unwrap_or_default(), pipeline.name_any())
}

/// An error with its causes. Of an answer of the API server, what it said; not the whole answer.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let answer = answer(error);
        let said = answer.map_or_else(|| error.to_string(), |status| status.message.clone());
        if !text.ends_with(&said) {
            let separator = if text.is_empty() { "" } else { ": " };
            text.extend([separator, &said]);
        }
        next = if answer.is_some() { None } else { error.source() };
    }
    text
}

/// What the API server answered, if this is its answer. The steps' errors have it in a box.
fn answer<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Status> {
    let boxed = || error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
    match error.downcast_ref::<kube::Error>().or_else(boxed)? {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overloaded_api_server_is_given_the_time_that_it_asks_for() {
        let status = serde_json::from_value(json!({
            "status": "Failure", "code": 429, "reason": "TooManyRequests", "message": "later",
            "details": {"retryAfterSeconds": 7},
        }));
        let source = Box::new(kube::Error::Api(Box::new(status.expect("a status"))));
        let error = Error::Apply(ApplyError::Write {
            verb: "apply",
            kind: "Service".into(),
            name: "s".into(),
            source,
        });
        assert_eq!(asked_to_wait(&error), Duration::from_secs(7));
        assert_eq!(describe(&error), "apply Service s: later");
    }
}
