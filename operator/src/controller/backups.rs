//! What keeps backups from being made: told of them, and of nothing else, since messages cross without them.

use std::time::Duration;

use api::iotpipeline::IoTPipeline;
use kube::ResourceExt;

use super::answers::describe;
use super::report::enduring;
use super::{Context, Error, LONGEST_PAUSE};
use crate::apply::ApplyError;
use crate::status::Part;

/// After what may go away by itself.
const SOON: Duration = Duration::from_secs(5);

/// What became of that which makes backups.
pub(super) struct Unmade {
    /// What to tell, if something is the matter.
    pub(super) told: Option<Part>,
    /// When to try again at the latest.
    pub(super) again: Duration,
}

/// What is told of something that was refused, and when it is tried again.
pub(super) fn unmade(context: &Context, pipeline: &IoTPipeline, refused: Option<ApplyError>) -> Unmade {
    let Some(error) = refused.map(Error::Apply) else {
        return Unmade { told: None, again: Duration::MAX };
    };
    tracing::warn!(pipeline = super::key(pipeline), error = %describe(&error), "backups can't be made");
    if enduring(&error).is_some() {
        return Unmade { told: told(&error, false), again: LONGEST_PAUSE };
    }
    context.cache.distrust(&pipeline.namespace().unwrap_or_default(), &pipeline.name_any());
    let uid = pipeline.uid().unwrap_or_default();
    let is_repeated = context.unmade.is_within(&uid, LONGEST_PAUSE);
    context.unmade.note(uid, ());
    Unmade { told: told(&error, is_repeated), again: SOON }
}

/// As `Ready` would tell it, if more depended on it.
fn told(error: &Error, is_repeated: bool) -> Option<Part> {
    let reason = enduring(error).or_else(|| is_repeated.then_some("WriteFailed"))?;
    Some(Part::not_ready(reason, describe(error)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(code: u16) -> Error {
        let status = json!({"status": "Failure", "code": code, "reason": "x", "message": "exceeded quota"});
        let source = Box::new(kube::Error::Api(serde_json::from_value(status).expect("a status")));
        let (kind, name) = ("PersistentVolumeClaim".into(), "lab-backup".into());
        Error::Apply(ApplyError::Write { verb: "apply", kind, name, source })
    }

    #[test]
    fn what_stays_is_told_at_once_and_a_hiccup_from_its_second_time_on() {
        let message = "apply PersistentVolumeClaim lab-backup: exceeded quota";
        for (code, reason) in [(403, "Forbidden"), (404, "KindNotFound"), (422, "ObjectRefused")] {
            assert_eq!(told(&refused(code), false), Some(Part::not_ready(reason, message)));
        }
        let (kind, name) = ("PersistentVolumeClaim".to_owned(), "lab-backup".to_owned());
        let going = Error::Apply(ApplyError::StillGoing { kind: kind.clone(), name: name.clone() });
        let taken = Error::Apply(ApplyError::NameTaken { kind, name });
        let reasons = [going, taken].map(|error| told(&error, false).map(|part| part.reason));
        assert_eq!(reasons, [Some("WaitingForDeletion".to_owned()), Some("NameTaken".to_owned())]);
        for code in [409, 500, 504] {
            assert_eq!(told(&refused(code), false), None);
            assert_eq!(told(&refused(code), true), Some(Part::not_ready("WriteFailed", message)));
        }
    }
}
