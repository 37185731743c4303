//! CPU and memory.

use std::collections::BTreeMap;

use api::iotpipeline;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Refusal;

/// A size in bytes; 0 if none is given.
pub(super) fn bytes(size: Option<&str>, field: &str) -> Result<u64, Refusal> {
    let Some(size) = size else { return Ok(0) };
    let bytes = crate::compare::nanos(size).map(|nanos| nanos / 1_000_000_000);
    let refusal = || Refusal::Quantity { field: field.into(), quantity: size.into() };
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0).ok_or_else(refusal)
}

/// What the pipeline asks for, or else small requests and no limits.
pub(super) fn resources(
    wanted: Option<&iotpipeline::Resources>,
    (cpu, memory): (&str, &str),
    field: &str,
) -> Result<ResourceRequirements, Refusal> {
    let quantities = |map: &BTreeMap<String, String>| -> Result<Option<BTreeMap<String, Quantity>>, Refusal> {
        let mut quantities = BTreeMap::new();
        for (name, quantity) in map {
            if crate::compare::nanos(quantity).is_none_or(|nanos| nanos < 0) {
                return Err(Refusal::Quantity {
                    field: format!("{field}.{name}"),
                    quantity: quantity.clone(),
                });
            }
            quantities.insert(name.clone(), Quantity(quantity.clone()));
        }
        Ok(Some(quantities).filter(|quantities| !quantities.is_empty()))
    };
    match wanted {
        Some(wanted) => Ok(ResourceRequirements {
            requests: quantities(&wanted.requests)?,
            limits: quantities(&wanted.limits)?,
            claims: None,
        }),
        None => Ok(ResourceRequirements {
            requests: Some(BTreeMap::from([
                ("cpu".into(), Quantity(cpu.into())),
                ("memory".into(), Quantity(memory.into())),
            ])),
            ..ResourceRequirements::default()
        }),
    }
}
