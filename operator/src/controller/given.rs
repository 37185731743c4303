//! Which Secrets are given to which pipelines. A cluster has tens of thousands that are given to none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::iotpipeline::IoTPipeline;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use crate::plan::given_secrets;

/// The names, by the pipelines that have any.
#[derive(Default)]
pub(super) struct Given(Mutex<HashMap<ObjectRef<IoTPipeline>, Vec<String>>>);

impl Given {
    /// Notes what a pipeline is given. Before the Secrets are read, so that none changes unnoticed in between.
    pub(super) fn note(&self, pipeline: &IoTPipeline) {
        let (pipeline, secrets) = (ObjectRef::from_obj(pipeline), given_secrets(pipeline));
        match secrets.is_empty() {
            true => drop(self.names().remove(&pipeline)),
            false => drop(self.names().insert(pipeline, secrets)),
        }
    }

    /// Forgets a pipeline that has gone.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        self.names().remove(&ObjectRef::new(name).within(namespace));
    }

    /// The pipelines that a Secret is given to.
    pub(super) fn users_of<K: Resource>(
        &self,
        secret: &K,
    ) -> impl Iterator<Item = ObjectRef<IoTPipeline>> + use<K> {
        let (name, namespace) = (secret.name_any(), secret.namespace());
        let is_user = |(pipeline, secrets): &(&ObjectRef<IoTPipeline>, &Vec<String>)| {
            pipeline.namespace == namespace && secrets.contains(&name)
        };
        let users: Vec<_> =
            self.names().iter().filter(is_user).map(|(pipeline, _)| pipeline.clone()).collect();
        users.into_iter()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<ObjectRef<IoTPipeline>, Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use kube::api::ObjectMeta;
    use serde_json::json;

    use super::*;

    fn pipeline(name: &str, secret: Option<&str>) -> IoTPipeline {
        let reference = secret.map(|name| json!({"name": name, "key": "password"}));
        let pipeline = json!({
            "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline",
            "metadata": {"name": name, "namespace": "plant"},
            "spec": {"broker": {"users": [{"name": "u", "passwordSecretRef": reference}]}, "routes": []},
        });
        serde_json::from_value(pipeline).expect("a pipeline")
    }

    fn users(given: &Given, namespace: &str, secret: &str) -> Vec<String> {
        let (name, namespace) = (Some(secret.into()), Some(namespace.into()));
        let metadata = ObjectMeta { name, namespace, ..ObjectMeta::default() };
        let secret = Secret { metadata, ..Secret::default() };
        let mut users: Vec<_> = given.users_of(&secret).map(|pipeline| pipeline.name).collect();
        users.sort();
        users
    }

    #[test]
    fn a_secret_concerns_those_that_it_is_given_to_at_this_moment() {
        let given = Given::default();
        given.note(&pipeline("a", Some("shared")));
        given.note(&pipeline("b", Some("shared")));
        given.note(&pipeline("c", None));
        assert_eq!(users(&given, "plant", "shared"), ["a", "b"]);
        assert!(users(&given, "elsewhere", "shared").is_empty());
        assert!(users(&given, "plant", "another").is_empty());
        given.forget("plant", "a");
        assert_eq!(users(&given, "plant", "shared"), ["b"]);
        given.note(&pipeline("a", Some("another")));
        given.note(&pipeline("b", None));
        assert!(users(&given, "plant", "shared").is_empty());
        assert_eq!(users(&given, "plant", "another"), ["a"]);
        assert_eq!(given.names().len(), 1);
    }
}
