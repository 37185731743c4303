//! The smallest write: an annotation of a pod.

use k8s_openapi::api::core::v1::Pod;
use kube::api::Patch;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::{ApplyError, parameters, write_error};
use crate::cache::Cache;
use crate::resources::names::CONFIG_HASH;

/// Sets the annotation on a pod that makes the kubelet refresh its mounted files at once.
///
/// # Errors
/// If the API server refuses.
pub async fn touch(client: &Client, cache: &Cache, pod: &Pod, value: &str) -> Result<(), ApplyError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "annotations": {CONFIG_HASH: value}}});
    match api.patch(&pod.name_any(), &parameters(false), &Patch::Merge(patch)).await {
        Ok(touched) => {
            cache.put(&touched);
            Ok(())
        }
        // Gone, or another pod by now: the new one reads the new files.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
        Err(source) => Err(write_error::<Pod>("touch", &pod.name_any(), source)),
    }
}
