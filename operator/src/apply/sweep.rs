//! Deletes what a pipeline owns and no longer wants.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::{ApplyError, Pass, write_error};
use crate::observe::Children;
use crate::resources::issued::Certificate;
use crate::resources::names::{COMPONENT, Component};

impl Pass<'_> {
    /// Deletes what the pipeline owns and no longer wants.
    pub(super) async fn sweep(
        &mut self,
        children: &Children,
        withheld: &[Component],
    ) -> Result<(), ApplyError> {
        let Children {
            stateful_sets,
            deployments,
            services,
            config_maps,
            secrets,
            pods: _,
            claims: _,
            network_policies,
            disruption_budgets,
            cron_jobs,
            jobs,
            ingresses,
            routes: _,
            certificates,
            absent_secrets: _,
            events: _,
        } = children;
        self.sweep_kind::<Certificate>(certificates, withheld).await?;
        self.sweep_kind::<CronJob>(cron_jobs, withheld).await?;
        self.sweep_kind::<Job>(jobs, withheld).await?;
        self.sweep_kind::<StatefulSet>(stateful_sets, withheld).await?;
        self.sweep_kind::<Deployment>(deployments, withheld).await?;
        self.sweep_kind::<Service>(services, withheld).await?;
        self.sweep_kind::<ConfigMap>(config_maps, withheld).await?;
        self.sweep_kind::<Secret>(secrets, withheld).await?;
        self.sweep_kind::<NetworkPolicy>(network_policies, withheld).await?;
        self.sweep_kind::<PodDisruptionBudget>(disruption_budgets, withheld).await?;
        self.sweep_kind::<Ingress>(ingresses, withheld).await
    }

    pub(super) async fn sweep_kind<K>(
        &mut self,
        observed: &[K],
        withheld: &[Component],
    ) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        for live in observed {
            let name = live.name_any();
            let component = live.labels().get(COMPONENT);
            let is_kept = self.kept.contains(&(K::kind(&()).into_owned(), name.clone()));
            let is_withheld =
                withheld.iter().any(|part| component.is_some_and(|label| label == part.as_str()));
            let is_ours = self.owner_of(live) == Some(&self.pipeline.owner.uid);
            if is_kept || is_withheld || !is_ours || live.meta().deletion_timestamp.is_some() {
                continue;
            }
            tracing::info!(kind = %K::kind(&()), name, "deleting what is no longer wanted");
            self.delete(live, DeleteParams::background()).await?;
        }
        Ok(())
    }

    pub(super) async fn delete<K>(&mut self, live: &K, how: DeleteParams) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let name = live.name_any();
        let only_this = Preconditions { uid: live.uid(), resource_version: None };
        self.writes += 1;
        match self.api::<K>().delete(&name, &DeleteParams { preconditions: Some(only_this), ..how }).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(source) => Err(write_error::<K>("delete", &name, source)),
        }
    }
}
