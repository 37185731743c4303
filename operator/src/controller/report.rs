//! Tells how a pipeline is: in its status, by events, and by when to look again.

use std::borrow::Cow;
use std::time::Duration;

use api::iotpipeline::{IoTPipeline, IoTPipelineStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use super::answers::{answer, causes, describe, is_late, is_unreachable};
use super::{Context, Error, events};
use crate::apply::{ApplyError, FIELD_MANAGER, ask_for_certificates};
use crate::cluster::by_name;
use crate::observe::{ObserveError, Observed};
use crate::plan::{Identity, Plan, Refusal, expiries, given_secrets};
use crate::resources::issued;
use crate::status::{Facts, status};

/// How often a status is written anew because the pipeline was another than known.
const TRIES: u32 = 3;

/// A failure that can't be told within this is told by a later pass.
const TELLING: Duration = Duration::from_secs(10);

/// What has failed for no longer than this goes away by itself,
const HICCUP: Duration = Duration::from_secs(2);

/// and if each time somebody else was faster, after this.
const CONFLICT: Duration = Duration::from_secs(6);

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
        Facts::Suspended { .. } | Facts::Asleep { .. } => 300,
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

/// What is missing may be what cert-manager has not been asked for yet.
pub(super) async fn refused(
    context: &Context,
    pipeline: &IoTPipeline,
    observed: &Observed,
    refusal: &Refusal,
) -> Result<Facts, Error> {
    let (reason, message) = (refusal.reason().into(), refusal.to_string());
    if !matches!(refusal, Refusal::NotIssued(_)) {
        return Ok(Facts::Refused { reason, message });
    }
    let identity = Identity::of(pipeline);
    let (desired, found) = (issued::desired(pipeline), &observed.children.certificates);
    match ask_for_certificates(&context.client, &context.cache, &identity, &desired, found).await {
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

/// A certificate's end is no event.
pub(super) fn before_expiry(pause: Duration, plan: &Plan, now: jiff::Timestamp) -> Duration {
    let left = expiries(plan).into_iter().filter_map(|(_, until)| {
        let left = Duration::try_from(until.duration_since(now)).ok()?;
        Some(left + Duration::from_secs(1))
    });
    left.fold(pause, Duration::min)
}

/// Reports a failure that doesn't go away by itself, of a pass that took so long. The pass comes again in any case.
pub(super) async fn tell(context: &Context, pipeline: &IoTPipeline, error: Error, took: Duration) -> Error {
    let lasts = context.failures.lasting(&super::key(pipeline));
    let lasts = if took_too_long(&error) { lasts.max(took) } else { lasts };
    let Some(facts) = to_tell(&error, lasts) else { return error };
    let facts = match facts {
        Facts::Failed { message, .. } if pipeline.spec.suspend => Facts::Suspended { failure: Some(message) },
        facts => facts,
    };
    let untold = match timeout(TELLING, report(context, pipeline, &facts)).await {
        Ok(Ok(_)) => return error,
        Ok(Err(untold)) => describe(&untold),
        Err(late) => describe(&late),
    };
    tracing::warn!(pipeline = super::key(pipeline), error = %untold, "a failure could not be told");
    error
}

/// Whether it has failed by taking long.
fn took_too_long(error: &Error) -> bool {
    matches!(error, Error::TooSlow) || is_late(error)
}

/// Failures that go away by themselves are not the user's business; the others are, and so are those that should have
/// gone away and have not. Passes have failed for so long.
fn to_tell(error: &Error, lasts: Duration) -> Option<Facts> {
    match enduring(error) {
        Some(reason) => Some(Facts::Failed { reason: reason.into(), message: describe(error) }),
        None => lasting(error, lasts, code(error) == Some(409)),
    }
}

/// In one word, what doesn't go away by itself.
pub(super) fn enduring(error: &Error) -> Option<&'static str> {
    match error {
        Error::Apply(ApplyError::NameTaken { .. }) | Error::Observe(ObserveError::NameTaken(_)) => {
            Some("NameTaken")
        }
        Error::Apply(ApplyError::StillGoing { .. }) => Some("WaitingForDeletion"),
        Error::Apply(_) | Error::Observe(_) => match code(error)? {
            403 => Some("Forbidden"),
            // Of what is to be made: the cluster doesn't have the kind.
            404 if matches!(error, Error::Apply(_)) => Some("KindNotFound"),
            400 | 422 => Some("ObjectRefused"),
            _ => None,
        },
        Error::Status(_) | Error::TooSlow => None,
    }
}

/// The code of the API server's answer, if there was one.
fn code(error: &Error) -> Option<u16> {
    causes(error).find_map(answer).map(|answer| answer.code)
}

/// What is told of a failure that has not gone away by itself. Bridges are not followed while passes fail, so it must
/// not look as if all were well.
fn lasting(error: &Error, lasts: Duration, is_conflict: bool) -> Option<Facts> {
    let patience = if is_conflict { CONFLICT } else { HICCUP };
    // Who can't be reached takes no status either.
    if lasts < patience || is_unreachable(error) {
        return None;
    }
    let text = describe(error);
    let what_to_do = match error {
        Error::TooSlow => {
            "see to the API server, the database and a Grafana outside of the cluster: one of them answers too \
             slowly"
        }
        _ if is_conflict => "somebody else changes it again and again: see to who that is",
        _ if text.contains("webhook") => "ask who runs that webhook",
        _ => "if that lasts, see to the API server, and to the operator's log",
    };
    let reason = match error {
        Error::Apply(_) => "WriteFailed",
        Error::Observe(_) => "ReadFailed",
        Error::TooSlow => "TooSlow",
        Error::Status(_) => return None,
    };
    let message = format!("{text}: {what_to_do}; until a pass succeeds, how the parts are is not known");
    Some(Facts::Failed { reason: reason.into(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, message: &str) -> Box<kube::Error> {
        let status = json!({"status": "Failure", "code": code, "reason": "x", "message": message});
        Box::new(kube::Error::Api(serde_json::from_value(status).expect("a status")))
    }

    fn write(source: Box<kube::Error>) -> Error {
        let (kind, name) = ("Service".into(), "lab-broker".into());
        Error::Apply(ApplyError::Write { verb: "apply", kind, name, source })
    }

    fn read(source: Box<kube::Error>) -> Error {
        Error::Observe(ObserveError::List { kind: "Secret".into(), source })
    }

    /// What is told of a failure after so many seconds of others.
    fn told(error: &Error, lasts: u64) -> Option<(String, String)> {
        match to_tell(error, Duration::from_secs(lasts))? {
            Facts::Failed { reason, message } => Some((reason, message)),
            other => panic!("{other:?}"),
        }
    }

    fn reason(error: &Error, lasts: u64) -> Option<String> {
        told(error, lasts).map(|(reason, _)| reason)
    }

    #[test]
    fn what_does_not_go_away_by_itself_is_told_at_once() {
        let cases = [
            (write(answered(403, "no")), "Forbidden"),
            (read(answered(403, "no")), "Forbidden"),
            (write(answered(404, "no")), "KindNotFound"),
            (write(answered(422, "no")), "ObjectRefused"),
            (Error::Observe(ObserveError::NameTaken("s".into())), "NameTaken"),
        ];
        for (error, expected) in cases {
            for lasts in [0, 9] {
                assert_eq!(reason(&error, lasts).as_deref(), Some(expected), "{error:?}");
            }
        }
    }

    #[test]
    fn what_should_have_gone_away_is_told_when_it_has_lasted_for_two_seconds() {
        for code in [401, 429, 500, 503, 504] {
            for (error, expected) in
                [(write(answered(code, "no")), "WriteFailed"), (read(answered(code, "no")), "ReadFailed")]
            {
                let reasons = [1, 2, 30].map(|lasts| reason(&error, lasts));
                assert_eq!(
                    reasons,
                    [None, Some(expected.to_owned()), Some(expected.to_owned())],
                    "{error:?}"
                );
            }
        }
        assert_eq!([0, 2].map(|lasts| reason(&Error::TooSlow, lasts)), [None, Some("TooSlow".to_owned())]);
        let unwritten = Error::Status(answered(500, "no"));
        assert_eq!([0, 2, 30].map(|lasts| reason(&unwritten, lasts)), [None, None, None]);
    }

    #[test]
    fn who_was_faster_a_few_times_is_nobody_s_business() {
        let reasons = [0, 5, 6].map(|lasts| reason(&write(answered(409, "no")), lasts));
        assert_eq!(reasons, [None, None, Some("WriteFailed".to_owned())]);
    }

    #[tokio::test]
    async fn an_api_server_that_is_away_is_not_told_and_one_that_hangs_is() {
        let away = || Box::new(kube::Error::Service("connection refused".into()));
        assert_eq!([write(away()), read(away())].map(|error| reason(&error, 30)), [None, None]);
        let late = timeout(Duration::ZERO, std::future::pending::<()>()).await.expect_err("it is late");
        let hangs = read(Box::new(kube::Error::Service(Box::new(late))));
        assert!(took_too_long(&hangs) && took_too_long(&Error::TooSlow));
        assert!(!took_too_long(&read(answered(500, "no"))));
        assert_eq!([1, 2].map(|lasts| reason(&hangs, lasts)), [None, Some("ReadFailed".to_owned())]);
    }

    #[test]
    fn what_is_told_of_a_lasting_failure_says_what_to_do() {
        let message = |error: &Error, lasts| told(error, lasts).expect("it is told").1;
        let webhook = write(answered(500, "failed calling webhook \"x\""));
        let until = "until a pass succeeds, how the parts are is not known";
        assert_eq!(
            message(&webhook, 2),
            format!(
                "apply Service lab-broker: failed calling webhook \"x\": ask who runs that webhook; {until}"
            )
        );
        assert!(message(&read(answered(500, "no")), 2).contains("see to the API server"));
        assert!(message(&write(answered(409, "no")), 6).contains("somebody else changes it"));
        assert!(message(&Error::TooSlow, 45).starts_with("give up after 45 s: see to"));
    }
}
