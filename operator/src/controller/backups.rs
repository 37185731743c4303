//! What keeps backups from being made: told of them, and of nothing else, since messages cross without them.

use std::time::Duration;

use api::iotpipeline::IoTPipeline;
use kube::ResourceExt;

use super::answers::describe;
use super::failures::Counted;
use super::report::enduring;
use super::{Context, Error, LONGEST_PAUSE};
use crate::apply::ApplyError;
use crate::status::Part;

/// What has failed for no longer than this goes away by itself.
const HICCUP: Duration = Duration::from_secs(10);

/// What became of that which makes backups.
pub(super) struct Unmade {
    /// What to tell, if something is the matter.
    pub(super) told: Option<Part>,
    /// When to try again at the latest.
    pub(super) again: Duration,
}

/// What is told of something that was refused, and when it is tried again.
pub(super) fn unmade(context: &Context, pipeline: &IoTPipeline, refused: Option<ApplyError>) -> Unmade {
    let key = super::key(pipeline);
    let Some(error) = refused.map(Error::Apply) else {
        context.unmade.end(&key);
        return Unmade { told: None, again: Duration::MAX };
    };
    let lasts = context.unmade.lasting(&key);
    let Counted { pause, is_news } = context.unmade.count(key.clone(), &error);
    if is_news {
        tracing::warn!(pipeline = key, error = %describe(&error), "backups can't be made");
    }
    if enduring(&error).is_some() {
        return Unmade { told: told(&error, false), again: LONGEST_PAUSE };
    }
    context.cache.distrust(&pipeline.namespace().unwrap_or_default(), &pipeline.name_any());
    Unmade { told: told(&error, lasts > HICCUP), again: pause }
}

/// As `Ready` would tell it, if more depended on it.
fn told(error: &Error, is_lasting: bool) -> Option<Part> {
    let reason = enduring(error).or_else(|| is_lasting.then_some("WriteFailed"))?;
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
    fn what_stays_is_told_at_once_and_a_hiccup_if_it_lasts() {
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
