//! What a spec says about a part's pods: one piece of a pod template, read by Kubernetes' own types.

use std::collections::BTreeMap;

use api::placement::PodSettings;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value, json};

use super::Refusal;
use crate::resources::names::Component;
use crate::resources::overlay::merge;

/// A piece of a pod template that is merged into the operator's. It changes nothing that the operator relies on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodOverlay(Value);

/// What of a pod is the operator's: its security, and how many processes it has.
const OWN_FIELDS: [&str; 7] = [
    "automountServiceAccountToken",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "restartPolicy",
    "securityContext",
    "shareProcessNamespace",
];

/// What of the operator's containers may be changed.
const FREE_FIELDS: [&str; 12] = [
    "env",
    "envFrom",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "name",
    "readinessProbe",
    "resources",
    "startupProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
];

impl PodOverlay {
    pub(super) fn new(settings: Option<&PodSettings>, component: Component) -> Result<Self, Refusal> {
        let Some(settings) = settings else { return Ok(Self::default()) };
        let field = format!("{}.pod", component.as_str());
        let refused = |message: String| Refusal::Pod { field: field.clone(), message };
        let mut template = named(settings);
        merge(&mut template, settings.overrides.as_ref().unwrap_or(&Value::Null));
        let read: PodTemplateSpec = serde_json::from_value(template.clone())
            .map_err(|error| refused(format!("{error}: write it as in a pod")))?;
        let read = serde_json::to_value(read).map_err(|error| refused(error.to_string()))?;
        if let Some(path) = unknown(&template, &read) {
            return Err(refused(format!("a pod template has no {path}: correct or remove it")));
        }
        match touched(&template, component) {
            Some(path) => Err(refused(format!("{path} is the operator's own: remove it"))),
            None => Ok(Self(template)),
        }
    }

    /// The template with this piece in it.
    pub fn over(&self, template: &PodTemplateSpec) -> PodTemplateSpec {
        let mut merged = json!(template);
        merge(&mut merged, &self.0);
        // Of two that the type takes, it takes the union too.
        serde_json::from_value(merged).expect("a merged pod template is one")
    }
}

/// The fields that have names of their own.
fn named(settings: &PodSettings) -> Value {
    let PodSettings {
        node_selector,
        tolerations,
        affinity,
        priority_class_name,
        annotations,
        labels,
        overrides: _,
    } = settings;
    let map = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| json!(map));
    json!({
        "metadata": present(vec![("annotations", map(annotations)), ("labels", map(labels))]),
        "spec": present(vec![
            ("nodeSelector", map(node_selector)),
            ("tolerations", (!tolerations.is_empty()).then(|| json!(tolerations))),
            ("affinity", affinity.clone()),
            ("priorityClassName", priority_class_name.as_ref().map(|name| json!(name))),
        ]),
    })
}

fn present(fields: Vec<(&str, Option<Value>)>) -> Value {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The first path that has no place in what was read.
fn unknown(given: &Value, read: &Value) -> Option<String> {
    let inner = |key: &str, given, read: Option<&Value>| match read {
        None => Some(key.to_owned()),
        Some(read) => unknown(given, read).map(|path| format!("{key}.{path}")),
    };
    match given {
        Value::Object(fields) => fields.iter().find_map(|(key, value)| inner(key, value, read.get(key))),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.into_iter().find_map(|(index, item)| inner(&index.to_string(), item, read.get(index)))
        }
        _ => None,
    }
}

/// The first path that the operator relies on.
fn touched(template: &Value, component: Component) -> Option<String> {
    let metadata = template["metadata"].as_object().into_iter().flatten();
    for (key, value) in metadata {
        if !["annotations", "labels"].contains(&key.as_str()) {
            return Some(format!("metadata.{key}"));
        }
        let is_ours = |name: &&String| {
            ["app.kubernetes.io/", "apps.kubernetes.io/", "iotpipeline.io/"]
                .iter()
                .any(|domain| name.starts_with(domain))
        };
        if let Some(name) = value.as_object().into_iter().flat_map(Map::keys).find(is_ours) {
            return Some(format!("metadata.{key}.{name}"));
        }
    }
    let spec = &template["spec"];
    if let Some(field) = OWN_FIELDS.iter().find(|field| spec.get(field).is_some()) {
        return Some(format!("spec.{field}"));
    }
    let list = |owner: &Value, key: &str| owner[key].as_array().cloned().unwrap_or_default();
    let (containers, volumes) = (component.containers(), component.volumes());
    let is_own =
        |item: &Value, names: &[&str]| item["name"].as_str().is_some_and(|name| names.contains(&name));
    if let Some(volume) = list(spec, "volumes").iter().find(|volume| is_own(volume, volumes)) {
        return Some(format!("spec.volumes[{}]", volume["name"].as_str().unwrap_or_default()));
    }
    list(spec, "containers").iter().filter(|container| is_own(container, containers)).find_map(|container| {
        let name = container["name"].as_str().unwrap_or_default();
        let field = container.as_object()?.keys().find(|key| !FREE_FIELDS.contains(&key.as_str()));
        let mounts = || list(container, "volumeMounts").iter().any(|mount| is_own(mount, volumes));
        let field = field.cloned().or_else(|| mounts().then(|| "volumeMounts".into()))?;
        Some(format!("spec.containers[{name}].{field}"))
    })
}
