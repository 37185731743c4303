//! Tells how a pipeline is: in its status, by events, and by when to look again.

use std::borrow::Cow;
use std::time::Duration;

use api::iotpipeline::{IoTPipeline, IoTPipelineStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::answers::{answer, describe};
use super::{Context, Error, events};
use crate::apply::{ApplyError, FIELD_MANAGER};
use crate::cluster::by_name;
use crate::observe::ObserveError;
use crate::plan::{Plan, expiries, given_secrets};
use crate::status::{Facts, status};

/// How often a status is written anew because the pipeline was another than known.
const TRIES: u32 = 3;

/// Writes the status if it changed, and tells what a user should know. Returns when to look again.
pub(super) async fn report(
    context: &Context,
    pipeline: &IoTPipeline,
    facts: &Facts,
) -> Result<Duration, Error> {
    let now = Time(Timestamp::now());
    let generation = pipeline.metadata.generation;
    let api: Api<IoTPipeline> =
        Api::namespaced(context.client.clone(), &pipeline.namespace().unwrap_or_default());
    let mut known = Cow::Borrowed(pipeline);
    for tries_left in (0..TRIES).rev() {
        let before = known.status.as_ref();
        let next = status(facts, generation, before, &now);
        if before == Some(&next) {
            break;
        }
        match write_status(&api, &known, &next).await {
            Ok(written) => {
                context.told.note(written);
                events::publish(context, pipeline, before, &next).await;
                break;
            }
            Err(kube::Error::Api(refusal)) if refusal.code == 404 => break,
            // It isn't as it was known to be, by a change that the watch has not told of yet.
            Err(kube::Error::Api(refusal)) if refusal.code == 409 && tries_left > 0 => {
                match fresh(&api, pipeline).await? {
                    Some(fresh) => known = Cow::Owned(fresh),
                    None => break,
                }
            }
            Err(source) => return Err(Error::Status(Box::new(source))),
        }
    }
    Ok(look_again(pipeline, facts, &now))
}

/// Writes it if the pipeline is still as known.
async fn write_status(
    api: &Api<IoTPipeline>,
    known: &IoTPipeline,
    status: &IoTPipelineStatus,
) -> kube::Result<IoTPipeline> {
    let patch = Patch::Apply(json!({
        "apiVersion": IoTPipeline::api_version(&()),
        "kind": IoTPipeline::kind(&()),
        "metadata": {"resourceVersion": known.metadata.resource_version},
        "status": status,
    }));
    api.patch_status(&known.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &patch).await
}

/// The pipeline as it is, unless it has gone. By a list, which the operator may have anyway.
async fn fresh(api: &Api<IoTPipeline>, pipeline: &IoTPipeline) -> Result<Option<IoTPipeline>, Error> {
    let found =
        api.list(&by_name(&pipeline.name_any())).await.map_err(|source| Error::Status(Box::new(source)))?;
    Ok(found.items.into_iter().find(|fresh| fresh.uid() == pipeline.uid()))
}

/// Watches tell of nearly everything, and what is followed of nearly all else. These are for what neither does:
/// claims and events while something starts, and what is outside the cluster.
fn look_again(pipeline: &IoTPipeline, facts: &Facts, now: &Time) -> Duration {
    let seconds = match facts {
        Facts::Refused { .. } | Facts::Failed { .. } => 15,
        // Watches tell of the spec's next change, and of each pod that goes.
        Facts::Suspended | Facts::Asleep { .. } => 300,
        Facts::Applied(parts) if !parts.all_ready() => parts.patience(is_fresh(pipeline, now)),
        Facts::Applied(_) if given_secrets(pipeline).is_empty() => 600,
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

/// A certificate's end is no event.
pub(super) fn before_expiry(pause: Duration, plan: &Plan, now: jiff::Timestamp) -> Duration {
    let left = expiries(plan).into_iter().filter_map(|(_, until)| {
        let left = Duration::try_from(until.duration_since(now)).ok()?;
        Some(left + Duration::from_secs(1))
    });
    left.fold(pause, Duration::min)
}

/// Reports a failure that doesn't go away by itself. The pass comes again in any case.
pub(super) async fn tell(context: &Context, pipeline: &IoTPipeline, error: Error) -> Error {
    let Some(facts) = to_tell(&error) else { return error };
    if let Err(untold) = report(context, pipeline, &facts).await {
        tracing::warn!(pipeline = super::key(pipeline), error = %describe(&untold), "a failure could not be told");
    }
    error
}

/// Failures that go away by themselves are not the user's business; the others are.
fn to_tell(error: &Error) -> Option<Facts> {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let reason = match error {
        Error::Apply(ApplyError::NameTaken { .. }) | Error::Observe(ObserveError::NameTaken(_)) => {
            "NameTaken"
        }
        Error::Apply(ApplyError::StillGoing { .. }) => "WaitingForDeletion",
        Error::Apply(_) | Error::Observe(_) => match causes.find_map(answer)?.code {
            403 => "Forbidden",
            // Of what is to be made: the cluster doesn't have the kind.
            404 if matches!(error, Error::Apply(_)) => "KindNotFound",
            400 | 422 => "ObjectRefused",
            _ => return None,
        },
        Error::Status(_) | Error::TooSlow => return None,
    };
    Some(Facts::Failed { reason: reason.into(), message: describe(error) })
}
