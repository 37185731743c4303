//! What outlives a pipeline or goes with it, as its deletion policy says: volumes, and the Secret without which the
//! database's is useless.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::{ApplyError, Pass, write_error};
use crate::cache::{Cache, Cached};
use crate::observe::Children;
use crate::plan::Identity;
use crate::resources::names::{COMPONENT, Component};

/// Ties it to the pipeline, or frees it of it, also where nothing else can be done for the pipeline. With the set's own
/// retention policy volumes would go whenever the set does, also where a part becomes external.
///
/// # Errors
/// If one object could not be written; the others are.
pub async fn keep_or_collect(
    client: &Client,
    cache: &Cache,
    pipeline: &Identity,
    children: &mut Children,
) -> Result<(), ApplyError> {
    let pass = Pass::new(client, cache, pipeline);
    let mut outcome: Result<(), ApplyError> = Ok(());
    for claim in &mut children.claims {
        let tied = pass.tie(claim).await;
        outcome = outcome.and(tied);
    }
    let name = pipeline.names.of_part(Component::Database);
    let secret = children.secrets.iter_mut().find(|secret| secret.name_any() == name);
    // One that somebody else's controller looks after is not the pipeline's to keep.
    if let Some(secret) = secret
        && pass.check_owner(secret).is_ok()
    {
        let tied = pass.tie(secret).await;
        outcome = outcome.and(tied);
    }
    outcome
}

impl Pass<'_> {
    /// What is about to be collected is left alone.
    async fn tie<K: Cached + std::fmt::Debug>(&self, live: &mut K) -> Result<(), ApplyError> {
        if live.meta().deletion_timestamp.is_some() || self.was_of_another(live) {
            return Ok(());
        }
        let Some(owners) = changed_owners(live.meta(), self.pipeline) else { return Ok(()) };
        let name = live.name_any();
        let version = live.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": owners}});
        *live = self.patch(&name, patch).await.map_err(|source| write_error::<K>("patch", &name, source))?;
        Ok(())
    }

    /// Volumes of a deleted pipeline of this name are to be gone before a set adopts them. That of backups holds up
    /// nothing but backups.
    pub(super) fn check_claims(&self, claims: &[PersistentVolumeClaim]) -> Result<(), ApplyError> {
        let is_of_another = |claim: &&PersistentVolumeClaim| {
            let is_of_backups =
                claim.labels().get(COMPONENT).is_some_and(|label| label == Component::Backup.as_str());
            !is_of_backups && claim.metadata.deletion_timestamp.is_none() && self.was_of_another(*claim)
        };
        match claims.iter().find(is_of_another) {
            Some(claim) => {
                let kind = "PersistentVolumeClaim".into();
                Err(ApplyError::StillGoing { kind, name: claim.name_any() })
            }
            None => Ok(()),
        }
    }
}

/// The owners as they are to be, if they are not. Somebody else's stay.
fn changed_owners(metadata: &ObjectMeta, pipeline: &Identity) -> Option<Vec<OwnerReference>> {
    let owners = metadata.owner_references.clone().unwrap_or_default();
    let (ours, mut wanted): (Vec<OwnerReference>, Vec<OwnerReference>) =
        owners.into_iter().partition(|owner| owner.uid == pipeline.owner.uid);
    let keepers: Vec<OwnerReference> = pipeline.keeper.iter().cloned().collect();
    if ours == keepers {
        return None;
    }
    wanted.extend(keepers);
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::names::Names;

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), name: "lab".into(), ..OwnerReference::default() }
    }

    fn changed(owners: &[&str], keeper: Option<&str>) -> Option<Vec<String>> {
        let owners = owners.iter().map(|uid| owner(uid)).collect();
        let metadata = ObjectMeta { owner_references: Some(owners), ..ObjectMeta::default() };
        let names = Names { pipeline: "lab".into(), namespace: "n".into() };
        let pipeline = Identity { names, owner: owner("ours"), keeper: keeper.map(owner) };
        changed_owners(&metadata, &pipeline).map(|owners| owners.into_iter().map(|owner| owner.uid).collect())
    }

    #[test]
    fn a_claim_is_tied_to_the_pipeline_and_freed_of_it_and_others_stay() {
        assert_eq!(changed(&[], None), None);
        assert_eq!(changed(&["other"], Some("ours")), Some(vec!["other".into(), "ours".into()]));
        assert_eq!(changed(&["ours", "other"], None), Some(vec!["other".into()]));
        // In any order, since not only the operator writes them.
        for owners in [["other", "ours"], ["ours", "other"]] {
            assert_eq!(changed(&owners, Some("ours")), None);
        }
    }
}
