//! The status that was last written of each pipeline, until the watch tells of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::iotpipeline::{IoTPipeline, IoTPipelineStatus};
use kube::ResourceExt;

use super::key;
use crate::cache::version;

/// By pipeline.
#[derive(Default)]
pub(super) struct Told(Mutex<HashMap<String, Known>>);

#[derive(Default)]
struct Known {
    uid: Option<String>,
    /// The latest version that the watch has told of.
    heard: u64,
    /// A status that was written later, and its version.
    written: Option<(u64, IoTPipelineStatus)>,
}

impl Told {
    /// The watch tells of a pipeline.
    pub(super) fn heard(&self, pipeline: &IoTPipeline) {
        let Some(version) = version(pipeline) else { return };
        let mut pipelines = self.pipelines();
        let known = known(&mut pipelines, pipeline);
        known.heard = known.heard.max(version);
        known.written.take_if(|(written, _)| *written <= version);
    }

    /// Its status was written, and this is what the API server answered.
    pub(super) fn note(&self, mut written: IoTPipeline) {
        let (Some(version), Some(status)) = (version(&written), written.status.take()) else { return };
        let mut pipelines = self.pipelines();
        let known = known(&mut pipelines, &written);
        if known.heard < version {
            known.written = Some((version, status));
        }
    }

    /// The pipeline with the newest status that is known.
    pub(super) fn newest(&self, pipeline: Arc<IoTPipeline>) -> Arc<IoTPipeline> {
        let is_it = |known: &&Known| known.uid == pipeline.metadata.uid;
        let later =
            |(told, _): &&(u64, IoTPipelineStatus)| version(&*pipeline).is_some_and(|known| known < *told);
        let pipelines = self.pipelines();
        let written = pipelines.get(&key(&pipeline)).filter(is_it).and_then(|known| known.written.as_ref());
        let Some((version, status)) = written.filter(later).cloned() else { return pipeline };
        drop(pipelines);
        let mut newest = Arc::unwrap_or_clone(pipeline);
        newest.metadata.resource_version = Some(version.to_string());
        newest.status = Some(status);
        Arc::new(newest)
    }

    /// It has gone.
    pub(super) fn forget(&self, key: &str) {
        self.pipelines().remove(key);
    }

    fn pipelines(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of this pipeline: nothing, if it is another of the same name.
fn known<'k>(pipelines: &'k mut HashMap<String, Known>, pipeline: &IoTPipeline) -> &'k mut Known {
    let known = pipelines.entry(key(pipeline)).or_default();
    if known.uid != pipeline.metadata.uid {
        *known = Known { uid: pipeline.uid(), ..Known::default() };
    }
    known
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pipeline(uid: &str, version: u64, generation: i64) -> IoTPipeline {
        let pipeline = json!({
            "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
            "metadata": {"name": "lab", "namespace": "n", "uid": uid, "resourceVersion": version.to_string()},
            "spec": {"routes": []}, "status": {"observedGeneration": generation, "conditions": []},
        });
        serde_json::from_value(pipeline).expect("a pipeline")
    }

    #[test]
    fn what_was_written_is_kept_until_the_watch_tells_of_it() {
        let told = Told::default();
        let is_kept = || told.pipelines()["n/lab"].written.is_some();
        told.heard(&pipeline("a", 4, 1));
        told.note(pipeline("a", 5, 1));
        assert!(is_kept());
        told.heard(&pipeline("a", 5, 1));
        assert!(!is_kept());
        // The watch can be faster than the answer, and go back.
        told.note(pipeline("a", 5, 1));
        told.heard(&pipeline("a", 4, 1));
        assert!(!is_kept());
        told.note(pipeline("b", 3, 1));
        assert!(is_kept());
    }

    #[test]
    fn what_was_written_is_known_before_the_watch_tells_of_it() {
        let told = Told::default();
        told.note(pipeline("a", 5, 2));
        for (uid, version, known) in [("a", 4, (5, 2)), ("a", 5, (5, 1)), ("a", 6, (6, 1)), ("b", 4, (4, 1))]
        {
            let newest = told.newest(Arc::new(pipeline(uid, version, 1)));
            assert_eq!(*newest, pipeline(uid, known.0, known.1), "{uid} {version}");
        }
    }
}
