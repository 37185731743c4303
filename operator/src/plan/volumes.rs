//! The volumes of managed parts: as they are, or as they are to be.

use api::iotpipeline;

use super::Volume;
use crate::observe::Observed;
use crate::resources::names::{Component, Names};

/// A part's volume: what is asked for, beside the claims of the set `set` as it is.
pub(super) fn volume(
    storage: Option<&iotpipeline::Storage>,
    default: &str,
    set: &str,
    observed: &Observed,
) -> Volume {
    let existing = observed.children.set(set);
    Volume {
        size: storage.map_or_else(|| default.to_owned(), |storage| storage.size.clone()),
        class: storage.and_then(|storage| storage.storage_class_name.clone()),
        existing: existing.and_then(|set| set.spec.volume_claim_templates.clone()),
    }
}

/// 1 MiB of stamps; some storage classes have a minimum. The class is the one that the pipeline names for
/// its other volumes.
pub(super) fn bridge_volume(
    spec: &iotpipeline::IoTPipelineSpec,
    names: &Names,
    observed: &Observed,
) -> Volume {
    let storage = spec.broker.storage.as_ref().or(spec.database.storage.as_ref());
    let class = storage.and_then(|storage| storage.storage_class_name.clone());
    Volume { class, ..volume(None, "64Mi", &names.of_part(Component::Bridge), observed) }
}
