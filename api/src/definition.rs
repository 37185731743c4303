//! The resource definition, as short as it can be said: it may have 80 KB.

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::iotpipeline::IoTPipeline;

/// The definition that is installed.
///
/// # Errors
/// If it is not JSON, which would be a fault of the derived types.
pub fn definition() -> serde_json::Result<Value> {
    let mut definition = serde_json::to_value(IoTPipeline::crd())?;
    without_null(&mut definition);
    let status =
        "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/conditions/items/properties";
    let fields = definition.pointer_mut(status).and_then(Value::as_object_mut);
    fields.into_iter().flat_map(Map::values_mut).for_each(first_sentence);
    // Until the operator has seen it. Without, kstatus takes what has no status for what is done.
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status";
    if let Some(status) = definition.pointer_mut(status) {
        status["default"] = json!({"observedGeneration": -1});
    }
    Ok(definition)
}

/// Where null is no value, the API server takes it for an absent field.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.retain(|key, value| key != "nullable" || !value.is_boolean());
            object.values_mut().for_each(without_null);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(without_null);
        }
        _ => {}
    }
}

fn first_sentence(field: &mut Value) {
    let text = field["description"].as_str().unwrap_or_default();
    if let Some((sentence, _)) = text.split_once(". ") {
        field["description"] = format!("{sentence}.").into();
    }
}
