//! Which parts of a hibernating pipeline are at rest.

use api::iotpipeline::IoTPipelineSpec;
use k8s_openapi::api::core::v1::Pod;

use crate::resources::names::Component;
use crate::workload::{is_copying, pods_of};

/// What is to have no pods. They go in the way of the data: when the broker has gone, nothing more is
/// acknowledged to devices; the bridge then stores what it has; and only then the database goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sleep {
    /// The broker: from the beginning.
    pub broker: bool,
    /// The bridges: when the broker has gone.
    pub bridge: bool,
    /// The database and the dashboard: when the bridges have gone, and nothing is copied from or to it any more.
    pub database: bool,
}

impl Sleep {
    pub(super) fn new(spec: &IoTPipelineSpec, pods: &[Pod]) -> Self {
        let has_gone = |component| pods_of(component, pods).next().is_none();
        let broker = spec.hibernate;
        let bridge = broker && has_gone(Component::Broker);
        Self { broker, bridge, database: bridge && has_gone(Component::Bridge) && !is_copying(pods) }
    }
}
