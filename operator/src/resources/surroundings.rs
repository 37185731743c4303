//! What is around the parts: who may reach them, by which ways, and how many of their pods may go at once.

use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::exposure::{HTTPRoute, ingress, route};
use super::names::Component;
use super::{Desired, network, part_metadata};
use crate::plan::{Dashboard, Plan};

/// What is around the parts.
#[derive(Default)]
pub struct Surroundings {
    /// Who may talk to whom.
    pub network_policies: Vec<NetworkPolicy>,
    /// How many pods may go at once.
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// The dashboard's Ingress.
    pub ingresses: Vec<Ingress>,
    /// The dashboard's HTTPRoute.
    pub routes: Vec<HTTPRoute>,
}

impl Surroundings {
    pub(super) fn of(plan: &Plan, desired: &Desired) -> Self {
        let (ingress_settings, route_settings) = match &plan.dashboard {
            Some(Dashboard::Managed { ingress, route, .. }) => (ingress.as_ref(), route.as_ref()),
            Some(Dashboard::External { .. }) | None => (None, None),
        };
        Self {
            network_policies: network::policies(plan, desired),
            disruption_budgets: bridges_budget(plan).into_iter().collect(),
            ingresses: ingress_settings
                .map(|settings| ingress(&plan.pipeline, settings))
                .into_iter()
                .collect(),
            routes: route_settings.map(|settings| route(&plan.pipeline, settings)).into_iter().collect(),
        }
    }
}

/// Several bridges go one after the other. A part of one pod has none: it could only keep its node from being
/// drained for ever, and its clients wait for it anyway.
fn bridges_budget(plan: &Plan) -> Option<PodDisruptionBudget> {
    (plan.bridges.running > 1).then(|| PodDisruptionBudget {
        metadata: part_metadata(&plan.pipeline, Component::Bridge),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(plan.pipeline.names.selector(Component::Bridge)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
