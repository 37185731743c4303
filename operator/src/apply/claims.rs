//! Volumes that exist: to whom they belong, and how large they are. Their sets make them and never change them.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};

use super::{ApplyError, Pass, parameters, write_error};
use crate::compare::nanos;
use crate::plan::{Broker, DatabasePlace, Identity, Plan, Volume};
use crate::resources::names::{COMPONENT, Component};

impl Pass<'_> {
    /// Ties the claims to the pipeline, or frees them of it. With the set's own retention policy they would go
    /// whenever the set does, also where a part becomes external.
    pub(super) async fn keep_or_collect(
        &mut self,
        claims: &[PersistentVolumeClaim],
    ) -> Result<(), ApplyError> {
        for claim in claims.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()) {
            let name = claim.name_any();
            if self.was_of_another(claim) {
                return Err(ApplyError::StillGoing { kind: "PersistentVolumeClaim".into(), name });
            }
            let Some(owners) = changed_owners(claim, self.pipeline) else { continue };
            let version = &claim.metadata.resource_version;
            let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": owners}});
            self.writes += 1;
            let patched = self.patch_claim(&name, patch).await;
            patched.map_err(|source| write_error::<PersistentVolumeClaim>("patch", &name, source))?;
        }
        Ok(())
    }

    /// Enlarges claims that are smaller than asked for. A storage class that can't is no failure.
    pub(super) async fn grow(
        &mut self,
        plan: &Plan,
        claims: &[PersistentVolumeClaim],
    ) -> Result<Vec<(Component, String)>, ApplyError> {
        let mut not_grown = Vec::new();
        let mut volumes: Vec<(Component, &Volume)> = Vec::new();
        if let Broker::Managed(broker) = &plan.broker {
            volumes.push((Component::Broker, &broker.volume));
        }
        if let DatabasePlace::Managed(database) = &plan.database.place {
            volumes.push((Component::Database, &database.volume));
        }
        for (component, volume) in volumes {
            let is_of_part = |claim: &&PersistentVolumeClaim| {
                claim.labels().get(COMPONENT).is_some_and(|label| label == component.as_str())
            };
            for claim in claims.iter().filter(is_of_part).filter(|claim| is_smaller(claim, &volume.size)) {
                let name = claim.name_any();
                let patch = json!({"spec": {"resources": {"requests": {"storage": volume.size}}}});
                match self.patch_claim(&name, patch).await {
                    Ok(_) => self.writes += 1,
                    Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422 => {
                        let why =
                            format!("the volume {name} can't grow to {}: {}", volume.size, status.message);
                        not_grown.push((component, why));
                    }
                    Err(source) => {
                        return Err(write_error::<PersistentVolumeClaim>("enlarge", &name, source));
                    }
                }
            }
        }
        Ok(not_grown)
    }

    async fn patch_claim(&self, claim: &str, patch: Value) -> kube::Result<PersistentVolumeClaim> {
        self.api::<PersistentVolumeClaim>().patch(claim, &parameters(false), &Patch::Merge(patch)).await
    }
}

/// The claim's owners as they are to be, if they are not. Somebody else's stay.
fn changed_owners(claim: &PersistentVolumeClaim, pipeline: &Identity) -> Option<Vec<OwnerReference>> {
    let owners = claim.metadata.owner_references.clone().unwrap_or_default();
    let others = owners.iter().filter(|owner| owner.uid != pipeline.owner.uid);
    let wanted: Vec<OwnerReference> = others.chain(&pipeline.keeper).cloned().collect();
    (wanted != owners).then_some(wanted)
}

fn is_smaller(claim: &PersistentVolumeClaim, size: &str) -> bool {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let has = requests.and_then(|requests| nanos(&requests.get("storage")?.0));
    has.is_some_and(|has| nanos(size).is_some_and(|wanted| has < wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::names::Names;

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), name: "lab".into(), ..OwnerReference::default() }
    }

    fn changed(owners: &[&str], keeper: Option<&str>) -> Option<Vec<String>> {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.owner_references = Some(owners.iter().map(|uid| owner(uid)).collect());
        let names = Names { pipeline: "lab".into(), namespace: "n".into() };
        let pipeline = Identity { names, owner: owner("ours"), keeper: keeper.map(owner) };
        changed_owners(&claim, &pipeline).map(|owners| owners.into_iter().map(|owner| owner.uid).collect())
    }

    #[test]
    fn a_claim_is_tied_to_the_pipeline_and_freed_of_it_and_others_stay() {
        assert_eq!(changed(&[], None), None);
        assert_eq!(changed(&["other"], Some("ours")), Some(vec!["other".into(), "ours".into()]));
        assert_eq!(changed(&["other", "ours"], Some("ours")), None);
        assert_eq!(changed(&["ours", "other"], None), Some(vec!["other".into()]));
    }
}
