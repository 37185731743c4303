//! When credentials are made anew: on request, by an annotation of the pipeline, and on a schedule. Each Secret
//! remembers when its own were made and for which request, so that every request is carried out once.

use api::iotpipeline::{IoTPipeline, retention_seconds};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

/// On a pipeline: any new value asks for new passwords and tokens.
pub const ROTATE: &str = "iotpipeline.io/rotate";

/// On a Secret: when its credentials were made anew, and for which value of the request.
pub const ROTATED: &str = "iotpipeline.io/rotated";

/// On a Secret: its token is of before that, since the database could not be asked for another.
pub const OUTDATED: &str = "iotpipeline.io/token-outdated";

/// What is asked for.
pub(super) struct Rotation<'a> {
    request: &'a str,
    every_seconds: Option<i64>,
    now: Timestamp,
}

/// Whether a Secret's credentials are to be made anew, and what it is to remember then.
pub(super) struct Turn {
    pub(super) is_due: bool,
    pub(super) rotated: Option<String>,
}

impl<'a> Rotation<'a> {
    pub(super) fn of(pipeline: &'a IoTPipeline, now: Timestamp) -> Self {
        let every = pipeline.spec.credentials.as_ref().and_then(|spec| spec.rotate_every.as_deref());
        Self {
            request: pipeline.annotations().get(ROTATE).map_or("", String::as_str),
            // The schema has checked it.
            every_seconds: every.and_then(|every| retention_seconds(every).ok()).filter(|every| *every > 0),
            now,
        }
    }

    pub(super) fn turn(&self, secret: Option<&Secret>) -> Turn {
        let anew = || Turn { is_due: true, rotated: Some(format!("{:.0} {}", self.now, self.request)) };
        let Some(secret) = secret else {
            return if self.request.is_empty() { Turn { is_due: true, rotated: None } } else { anew() };
        };
        let rotated = secret.annotations().get(ROTATED);
        let (made, request) = rotated.and_then(|text| text.split_once(' ')).unwrap_or_default();
        let created = secret.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let made: Option<Timestamp> = made.parse().ok().or(created);
        let age = made.map_or(0, |made| self.now.as_second() - made.as_second());
        let is_requested = !self.request.is_empty() && self.request != request;
        if is_requested || self.every_seconds.is_some_and(|every| age >= every) {
            return anew();
        }
        Turn { is_due: false, rotated: rotated.cloned() }
    }
}

/// Whether a Secret's token is of before the rotation that the Secret is to remember.
pub(super) fn has_outdated_token(secret: &Secret, rotated: Option<&String>) -> bool {
    let annotations = secret.annotations();
    annotations.contains_key(OUTDATED) || annotations.get(ROTATED) != rotated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(request: &str, every: &str, rotated: &str, now: &str) -> (bool, Option<String>) {
        let pipeline: IoTPipeline = serde_saphyr::from_str(&format!(
            "{{apiVersion: iotpipeline.io/v1alpha1, kind: IoTPipeline, \
             metadata: {{name: lab, annotations: {{{ROTATE}: '{request}'}}}}, \
             spec: {{routes: [], credentials: {{rotateEvery: {every}}}}}}}"
        ))
        .expect("a pipeline");
        let secret: Secret = serde_saphyr::from_str(&format!(
            "{{metadata: {{creationTimestamp: '2026-01-01T00:00:00Z', annotations: {{{rotated}}}}}}}"
        ))
        .expect("a Secret");
        let turn = Rotation::of(&pipeline, now.parse().expect("a time")).turn(Some(&secret));
        (turn.is_due, turn.rotated)
    }

    #[test]
    fn a_request_is_carried_out_once() {
        let now = "2026-01-02T00:00:00Z";
        assert_eq!(turn("", "0", "", now), (false, None));
        let done = "2026-01-02T00:00:00Z spring".to_owned();
        assert_eq!(turn("spring", "0", "", now), (true, Some(done.clone())));
        let remembered = format!("{ROTATED}: '{done}'");
        assert_eq!(turn("spring", "0", &remembered, now), (false, Some(done.clone())));
        assert_eq!(turn("", "0", &remembered, now), (false, Some(done)));
        let again = "2026-01-02T00:00:00Z a b".to_owned();
        assert_eq!(turn("a b", "0", &remembered, now), (true, Some(again.clone())));
        assert!(!turn("a b", "0", &format!("{ROTATED}: '{again}'"), now).0);
    }

    #[test]
    fn a_schedule_counts_from_when_the_credentials_were_made() {
        assert!(!turn("", "30d", "", "2026-01-30T23:59:59Z").0);
        assert_eq!(
            turn("", "30d", "", "2026-01-31T00:00:00Z"),
            (true, Some("2026-01-31T00:00:00Z ".to_owned()))
        );
        let remembered = format!("{ROTATED}: '2026-01-31T00:00:00Z '");
        assert!(!turn("", "30d", &remembered, "2026-03-01T00:00:00Z").0);
        assert!(turn("", "30d", &remembered, "2026-03-02T00:00:00Z").0);
    }
}
