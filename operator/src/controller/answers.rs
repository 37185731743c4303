//! What an error says that came from the API server.

use std::time::Duration;

use kube::core::Status;
use tokio::time::error::Elapsed;

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
pub(super) fn answer<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Status> {
    match of_client(error)? {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// An error, and what it comes of.
pub(super) fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Whether the API server could not be reached at all. One that takes too long for this may answer others.
pub(super) fn is_unreachable(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_of_connection =
        |error: &kube::Error| matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_));
    causes(error).find_map(of_client).is_some_and(is_of_connection) && !is_late(error)
}

/// Whether something took too long.
pub(super) fn is_late(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<Elapsed>())
}

/// The error of the API server's client, if this is one.
fn of_client<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e kube::Error> {
    let boxed = || error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
    error.downcast_ref::<kube::Error>().or_else(boxed)
}

/// As long as an overloaded API server asks for.
pub(super) fn asked_to_wait(error: &(dyn std::error::Error + 'static)) -> Duration {
    let asked = causes(error).find_map(|error| Some(answer(error)?.details.as_ref()?.retry_after_seconds));
    Duration::from_secs(asked.unwrap_or(0).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::ApplyError;

    #[test]
    fn an_overloaded_api_server_is_given_the_time_that_it_asks_for() {
        let status = serde_json::from_value(json!({
            "status": "Failure", "code": 429, "reason": "TooManyRequests", "message": "later",
            "details": {"retryAfterSeconds": 7},
        }));
        let source = Box::new(kube::Error::Api(Box::new(status.expect("a status"))));
        let error = ApplyError::Write { verb: "apply", kind: "Service".into(), name: "s".into(), source };
        assert_eq!(asked_to_wait(&error), Duration::from_secs(7));
        assert_eq!(describe(&error), "apply Service s: later");
    }
}
