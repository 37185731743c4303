//! Events: what a user should know, once each. They follow from a change of the status, so that neither
//! a restart nor a repetition of a pass repeats them.

use api::iotpipeline::{IoTPipeline, IoTPipelineStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType};

use super::Context;
use crate::status::HIBERNATING;

/// An event to publish.
type News<'a> = (EventType, &'a str, &'a str);

pub(super) async fn publish(
    context: &Context,
    pipeline: &IoTPipeline,
    before: Option<&IoTPipelineStatus>,
    after: &IoTPipelineStatus,
) {
    for (type_, reason, note) in news(before, after) {
        send(context, pipeline, type_, reason, note.to_owned()).await;
    }
}

pub(super) async fn database_changed(context: &Context, pipeline: &IoTPipeline, changes: &[&str]) {
    tracing::info!(pipeline = super::key(pipeline), changes = changes.join(", "), "set the database up");
    send(
        context,
        pipeline,
        EventType::Normal,
        "DatabaseSetUp",
        format!("the database: {}", changes.join(", ")),
    )
    .await;
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
        news.push((EventType::Warning, stalled.reason.as_str(), stalled.message.as_str()));
    }
    let Some(ready) = condition(Some(after), "Ready") else { return news };
    let was_ready = condition(before, "Ready").is_some_and(|old| old.status == "True");
    match (was_ready, ready.status == "True") {
        (false, true) => news.push((EventType::Normal, "Ready", ready.message.as_str())),
        (true, false) if stalled.is_none() => {
            let type_ = if ready.reason == HIBERNATING { EventType::Normal } else { EventType::Warning };
            news.push((type_, ready.reason.as_str(), ready.message.as_str()));
        }
        _ => {}
    }
    news
}

/// An event that can't be sent is no reason to stop.
async fn send(context: &Context, pipeline: &IoTPipeline, type_: EventType, reason: &str, mut note: String) {
    if let Some((end, _)) = note.char_indices().nth(900) {
        note.truncate(end);
    }
    let event =
        Event { type_, reason: reason.into(), note: Some(note), action: "Reconcile".into(), secondary: None };
    if let Err(error) = context.recorder.publish(&event, &pipeline.object_ref(&())).await {
        tracing::debug!(%error, "an event could not be sent");
    }
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
    fn a_refusal_is_told_once() {
        let first = refused("no", None);
        assert_eq!(news(None, &first).len(), 1);
        assert!(news(Some(&first), &refused("no", Some(&first))).is_empty());
        assert_eq!(news(Some(&first), &refused("still no", Some(&first))).len(), 1);
    }
}
