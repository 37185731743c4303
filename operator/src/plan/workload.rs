//! What the pods of a part need.

use api::iotpipeline::Resources;
use api::placement::{PodSettings, ServiceSettings};
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::Refusal;
use super::pod::PodOverlay;
use super::requirements::resources;
use crate::config::ImageReference;
use crate::resources::names::Component;

/// What the pods of a part need.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its image.
    pub image: ImageReference,
    /// CPU and memory.
    pub resources: ResourceRequirements,
    /// What the spec changes of its pods.
    pub pod: PodOverlay,
    /// What the spec says of its Service.
    pub service: Option<ServiceSettings>,
}

impl Workload {
    /// With these requests, if none are given.
    pub(super) fn new(
        component: Component,
        image: ImageReference,
        (wanted, requests): (Option<&Resources>, (&str, &str)),
        pod: Option<&PodSettings>,
        service: Option<&ServiceSettings>,
    ) -> Result<Self, Refusal> {
        let field = format!("{}.resources", component.as_str());
        Ok(Self {
            image,
            resources: resources(wanted, requests, &field)?,
            pod: PodOverlay::new(pod, component)?,
            service: service.cloned(),
        })
    }
}
