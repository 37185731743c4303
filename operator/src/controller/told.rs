//! The status that was last written of each pipeline, until the watch tells of it.

use std::sync::Arc;

use api::iotpipeline::{IoTPipeline, IoTPipelineStatus};
use kube::ResourceExt;

use super::recent::Recent;
use crate::cache::version;

/// By a pipeline's uid, the version that it had with this status.
#[derive(Default)]
pub(super) struct Told(Recent<Arc<(u64, IoTPipelineStatus)>>);

impl Told {
    /// Its status was written, and this is what the API server answered.
    pub(super) fn note(&self, written: IoTPipeline) {
        if let (Some(uid), Some(version), Some(status)) = (written.uid(), version(&written), written.status) {
            self.0.note(uid, Arc::new((version, status)));
        }
    }

    /// The pipeline with the newest status that is known.
    pub(super) fn newest(&self, pipeline: Arc<IoTPipeline>) -> Arc<IoTPipeline> {
        let told = pipeline.uid().and_then(|uid| self.0.latest(&uid));
        match told.filter(|told| version(pipeline.as_ref()).is_some_and(|known| known < told.0)) {
            None => pipeline,
            Some(told) => {
                let mut newest = Arc::unwrap_or_clone(pipeline);
                newest.metadata.resource_version = Some(told.0.to_string());
                newest.status = Some(told.1.clone());
                Arc::new(newest)
            }
        }
    }
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
