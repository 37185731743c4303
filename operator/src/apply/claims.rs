//! Volumes that exist: how large they are. Their sets make them and never change them.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use super::{ApplyError, Pass, write_error};
use crate::compare::nanos;
use crate::plan::{Broker, DatabasePlace, Plan, Volume};
use crate::resources::names::{COMPONENT, Component};

impl Pass<'_> {
    /// Enlarges claims that are smaller than asked for. A storage class that can't is no failure.
    pub(super) async fn grow(
        &mut self,
        plan: &Plan,
        claims: &[PersistentVolumeClaim],
    ) -> Result<Vec<(Component, String)>, ApplyError> {
        let mut not_grown = Vec::new();
        for (component, volume) in volumes(plan) {
            let is_of_part = |claim: &&PersistentVolumeClaim| {
                claim.labels().get(COMPONENT).is_some_and(|label| label == component.as_str())
            };
            for claim in claims.iter().filter(is_of_part).filter(|claim| is_smaller(claim, &volume.size)) {
                let name = claim.name_any();
                let patch = json!({"spec": {"resources": {"requests": {"storage": volume.size}}}});
                match self.patch::<PersistentVolumeClaim>(&name, patch).await {
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

    /// Gives a set whose volumes have grown claim templates of the new size, which can't be changed: it is deleted
    /// without its pods, and the next pass makes another, which adopts them.
    pub(super) async fn renew_sets(
        &mut self,
        plan: &Plan,
        sets: &[StatefulSet],
        not_grown: &[(Component, String)],
    ) -> Result<(), ApplyError> {
        for (component, volume) in volumes(plan) {
            let name = self.pipeline.names.of_part(component);
            let has_grown = not_grown.iter().all(|(part, _)| *part != component);
            let outgrown = |set: &&StatefulSet| set.name_any() == name && is_outgrown(set, &volume.size);
            if let Some(set) = sets.iter().find(outgrown)
                && has_grown
                && set.metadata.deletion_timestamp.is_none()
            {
                tracing::info!(set = name, size = volume.size, "recreating the set around its pods");
                self.delete(set, DeleteParams::orphan()).await?;
            }
        }
        Ok(())
    }
}

fn volumes(plan: &Plan) -> impl Iterator<Item = (Component, &Volume)> {
    let broker = match &plan.broker {
        Broker::Managed(broker) => Some((Component::Broker, &broker.volume)),
        Broker::External(_) => None,
    };
    let database = match &plan.database.place {
        DatabasePlace::Managed(database) => Some((Component::Database, &database.volume)),
        DatabasePlace::External(_) => None,
    };
    let backups = plan.backups.as_ref().and_then(|backups| backups.volume.as_ref());
    broker.into_iter().chain(database).chain(backups.map(|volume| (Component::Backup, volume)))
}

fn is_outgrown(set: &StatefulSet, size: &str) -> bool {
    set.spec.volume_claim_templates.iter().flatten().any(|claim| is_smaller(claim, size))
}

fn is_smaller(claim: &PersistentVolumeClaim, size: &str) -> bool {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let has = requests.and_then(|requests| nanos(&requests.get("storage")?.0));
    has.is_some_and(|has| nanos(size).is_some_and(|wanted| has < wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_outgrown_by_a_larger_size_only() {
        let set: StatefulSet = serde_json::from_value(json!({"spec": {"volumeClaimTemplates": [
            {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
        ]}}))
        .expect("a set");
        assert_eq!(["512Mi", "1024Mi", "2Gi"].map(|size| is_outgrown(&set, size)), [false, false, true]);
    }
}
