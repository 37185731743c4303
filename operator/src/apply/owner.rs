//! Whose an object is: what is another's is not written.

use kube::{Resource, ResourceExt};

use super::{ApplyError, Pass, write_error};
use crate::cache::Cached;
use crate::cluster::by_name;

impl Pass<'_> {
    pub(super) fn owner_of<'k, K: Resource>(&self, live: &'k K) -> Option<&'k str> {
        let owners = live.meta().owner_references.as_deref().unwrap_or_default();
        owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
    }

    /// An object without an owner is adopted: it was left behind on purpose.
    pub(super) fn check_owner<K: Resource<DynamicType = ()>>(&self, live: &K) -> Result<(), ApplyError> {
        let (kind, name) = (K::kind(&()).into_owned(), live.name_any());
        if live.meta().deletion_timestamp.is_some() || self.was_of_another(live) {
            return Err(ApplyError::StillGoing { kind, name });
        }
        match self.owner_of(live) {
            Some(owner) if owner != self.pipeline.owner.uid => Err(ApplyError::NameTaken { kind, name }),
            _ => Ok(()),
        }
    }

    /// Whether it belongs to a deleted pipeline of this name, and so is about to be collected.
    pub(super) fn was_of_another<K: Resource>(&self, live: &K) -> bool {
        let ours = &self.pipeline.owner;
        let owners = live.meta().owner_references.as_deref().unwrap_or_default();
        owners.iter().any(|owner| owner.kind == ours.kind && owner.name == ours.name && owner.uid != ours.uid)
    }

    /// The version of an object that no watch tells of, since it lacks the labels, if it may be written; none if it has
    /// gone again.
    pub(super) async fn version_of_unlabelled<K: Cached + std::fmt::Debug>(
        &self,
        name: &str,
    ) -> Result<Option<String>, ApplyError> {
        let found = self.api::<K>().list_metadata(&by_name(name)).await;
        let found = found.map_err(|source| write_error::<K>("list", name, source))?;
        let Some(live) = found.items.first() else { return Ok(None) };
        self.check_owner(live)?;
        match self.owner_of(live) {
            Some(_) => Ok(live.resource_version()),
            None => Err(ApplyError::NameTaken { kind: K::kind(&()).into_owned(), name: name.into() }),
        }
    }
}
