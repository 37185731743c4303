//! Since when what pods mount is as it is, so that pods are not told of what they began with.

use jiff::Timestamp;
use kube::Resource;

use super::FIELD_MANAGER;

/// Since when the files that pods mount are as they are.
#[derive(Debug, Default)]
pub struct Contents {
    /// mosquitto's.
    pub broker: Vec<Content>,
    /// The bridge's.
    pub bridge: Vec<Content>,
    /// Grafana's.
    pub dashboard: Vec<Content>,
}

/// Since when a Secret or a ConfigMap is as it is, by the API server's clock, in whole seconds.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    /// When it was made.
    pub made: Option<Timestamp>,
    /// When the operator last changed it.
    pub changed: Option<Timestamp>,
}

impl Content {
    /// The API server keeps the time of each manager's last change:
    /// <https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers>.
    pub(super) fn of<K: Resource>(object: &K) -> Self {
        let ours = object.meta().managed_fields.iter().flatten();
        let ours = ours.filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
        Self {
            made: object.meta().creation_timestamp.as_ref().map(|time| time.0),
            changed: ours.filter_map(|entry| Some(entry.time.as_ref()?.0)).max(),
        }
    }
}
