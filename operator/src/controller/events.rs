//! Events: what a user should know, once each. They follow from a change of the status, so that neither
//! a restart nor a repetition of a pass repeats them.

use api::iotpipeline::{IoTPipeline, IoTPipelineStatus};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::Context;
use crate::apply::FIELD_MANAGER;
use crate::resources::hash;
use crate::status::HIBERNATING;

const NORMAL: &str = "Normal";
const WARNING: &str = "Warning";

/// An event to publish: type, reason, note.
type News<'a> = (&'static str, &'a str, &'a str);

pub(super) async fn publish(
    context: &Context,
    pipeline: &IoTPipeline,
    before: Option<&IoTPipelineStatus>,
    after: &IoTPipelineStatus,
) {
    for (type_, reason, note) in news(before, after) {
        send(context, pipeline, type_, reason, note).await;
    }
}

pub(super) async fn database_changed(context: &Context, pipeline: &IoTPipeline, changes: &[&str]) {
    tracing::info!(pipeline = super::key(pipeline), changes = changes.join(", "), "set the database up");
    let note = format!("the database: {}", changes.join(", "));
    send(context, pipeline, NORMAL, "DatabaseSetUp", &note).await;
}

fn condition<'a>(status: Option<&'a IoTPipelineStatus>, type_: &str) -> Option<&'a Condition> {
    status?.conditions.iter().find(|condition| condition.type_ == type_)
}

fn news<'a>(before: Option<&IoTPipelineStatus>, after: &'a IoTPipelineStatus) -> Vec<News<'a>> {
    let mut news = Vec::new();
    let stalled = condition(Some(after), "Stalled");
    if let Some(stalled) = stalled
        && condition(before, "Stalled").is_none_or(|old| old.message != stalled.message)
    {
        news.push((WARNING, stalled.reason.as_str(), stalled.message.as_str()));
    }
    let backup = condition(Some(after), "BackupReady").filter(|backup| backup.status == "False");
    if let Some(backup) = backup
        && condition(before, "BackupReady").is_none_or(|old| old.message != backup.message)
    {
        news.push((WARNING, backup.reason.as_str(), backup.message.as_str()));
    }
    let Some(ready) = condition(Some(after), "Ready") else { return news };
    let was_ready = condition(before, "Ready").is_some_and(|old| old.status == "True");
    let has_failed = |ready: &Condition| ready.status == "False" && !passes(&ready.reason);
    let had_failed = condition(before, "Ready").is_some_and(has_failed);
    match (was_ready, ready.status == "True") {
        (false, true) => news.push((NORMAL, "Ready", ready.message.as_str())),
        (true, false) if stalled.is_none() => {
            let type_ = if ready.reason == HIBERNATING { NORMAL } else { WARNING };
            news.push((type_, ready.reason.as_str(), ready.message.as_str()));
        }
        // Also if it never was ready. What follows from one failure to the next is in the status.
        (false, false) if stalled.is_none() && has_failed(ready) && !had_failed => {
            news.push((WARNING, ready.reason.as_str(), ready.message.as_str()));
        }
        _ => {}
    }
    news
}

/// Whether this is a reason for which a pipeline isn't ready on its way, too.
fn passes(reason: &str) -> bool {
    const ON_THE_WAY: [&str; 10] = [
        "Creating",
        "Starting",
        "Restarting",
        "Pending",
        "WaitingForDatabase",
        "Unreachable",
        "NotFound",
        "Draining",
        "Stopping",
        "WaitingForDeletion",
    ];
    let rests = reason.starts_with("Hibernat") || reason == "Suspended";
    rests || ON_THE_WAY.iter().any(|word| reason.ends_with(word))
}

/// An event that can't be sent is no reason to stop.
async fn send(context: &Context, pipeline: &IoTPipeline, type_: &str, reason: &str, note: &str) {
    let api: Api<Event> = Api::namespaced(context.client.clone(), &pipeline.namespace().unwrap_or_default());
    let event = event(pipeline, type_, reason, note, Timestamp::now());
    let sent = match api.create(&PostParams::default(), &event).await {
        Err(kube::Error::Api(status)) if status.code == 409 => count(&api, &event).await,
        sent => sent.map(|_| ()),
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "an event could not be sent");
    }
}

/// Its name follows from what it says, so that the same is one event, whichever operator tells it.
fn event(pipeline: &IoTPipeline, type_: &str, reason: &str, note: &str, now: Timestamp) -> Event {
    let uid = pipeline.uid().unwrap_or_default();
    let what = hash(&[uid.as_bytes(), type_.as_bytes(), reason.as_bytes(), note.as_bytes()]);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{}", pipeline.name_any(), &what[..16])),
            namespace: pipeline.namespace(),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".into()),
        event_time: Some(MicroTime(now)),
        note: Some(note.chars().take(900).collect()),
        reason: Some(reason.into()),
        regarding: Some(pipeline.object_ref(&())),
        reporting_controller: Some(FIELD_MANAGER.into()),
        reporting_instance: Some(FIELD_MANAGER.into()),
        type_: Some(type_.into()),
        ..Event::default()
    }
}

/// It has happened again.
async fn count(api: &Api<Event>, event: &Event) -> kube::Result<()> {
    let name = event.name_any();
    let known = api.get(&name).await?;
    let count = known.series.map_or(2, |series| series.count.saturating_add(1));
    let series = json!({"series": {"count": count, "lastObservedTime": event.event_time}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(series)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::status::{Facts, status};

    fn refused(message: &str, before: Option<&IoTPipelineStatus>) -> IoTPipelineStatus {
        let facts = Facts::Refused { reason: "InvalidSpec".into(), message: message.into() };
        status(&facts, Some(1), before, &Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn what_fails_from_the_start_is_told_once_and_a_start_is_not() {
        let failed = |reason: &str, before: Option<&IoTPipelineStatus>| {
            let facts = Facts::Failed { reason: reason.into(), message: reason.into() };
            status(&facts, Some(1), before, &Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH))
        };
        let starts = failed("BrokerStarting", None);
        assert!(news(None, &starts).is_empty());
        let fails = failed("BrokerErrImagePull", Some(&starts));
        assert_eq!(news(Some(&starts), &fails), [("Warning", "BrokerErrImagePull", "BrokerErrImagePull")]);
        assert_eq!(news(None, &failed("NameTaken", None)).len(), 1);
        let goes_on = failed("BrokerImagePullBackOff", Some(&fails));
        assert!(news(Some(&fails), &goes_on).is_empty());
        assert!(news(Some(&goes_on), &failed("BridgeStarting", Some(&goes_on))).is_empty());
    }

    #[test]
    fn a_refusal_is_told_once() {
        let first = refused("no", None);
        assert_eq!(news(None, &first).len(), 1);
        assert!(news(Some(&first), &refused("no", Some(&first))).is_empty());
        assert_eq!(news(Some(&first), &refused("still no", Some(&first))).len(), 1);
    }
}
