//! Schema extensions that schemars does not derive: CEL rules and list types, as Kubernetes reads them.
//! <https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/>

use schemars::Schema;
#[cfg(feature = "crd")]
use schemars::{SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// `x-kubernetes-validations`: CEL rules, each with the message that a refused user reads.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// An object of Kubernetes', whose schema would be larger than the definition may be. The operator reads it by
/// its type, and refuses what that doesn't know.
#[cfg(feature = "crd")]
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A list of such.
#[cfg(feature = "crd")]
pub(crate) fn any_objects(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": any_object(generator)})
}

/// A copy of json's schema, without saying everything again: the definition has a limit of size, and the
/// API server one for what all rules together may cost. What the rules refuse, the operator refuses too.
pub(crate) fn as_for_json(schema: &mut Schema) {
    let payload = schema.get_mut("properties").and_then(Value::as_object_mut);
    for format in payload.into_iter().flat_map(Map::values_mut) {
        for field in
            format.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
        {
            shorten(field);
        }
    }
}

/// The same of S3, which a backup goes to and comes from.
#[cfg(feature = "crd")]
pub(crate) fn as_for_backup(schema: &mut Schema) {
    let s3 = schema.get_mut("properties").and_then(|fields| fields.pointer_mut("/s3/properties"));
    for field in s3.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        shorten_to(field, "As for backup.");
    }
}

fn shorten(schema: &mut Value) {
    shorten_to(schema, "As for json.");
}

fn shorten_to(schema: &mut Value, text: &str) {
    let Some(object) = schema.as_object_mut() else { return };
    object.entry("description").and_modify(|old| *old = text.into());
    object.remove("x-kubernetes-validations");
    for (name, inner) in object {
        match name.as_str() {
            "properties" => inner
                .as_object_mut()
                .into_iter()
                .flat_map(Map::values_mut)
                .for_each(|inner| shorten_to(inner, text)),
            "items" => shorten_to(inner, text),
            _ => {}
        }
    }
}

const CAPTURE_TWICE: &str = "a capture may be named only once in a topic: give each {name} its own name";

/// A literal topic level, `+`, `{capture}`; levels are joined by `/`, the last may be `#` or `{rest...}`.
pub(crate) const TOPIC_PATTERN_RULES: &[(&str, &str)] = &[
    (
        r"self.matches('^([^+#{}]*|[+]|[{][A-Za-z][A-Za-z0-9_]*[}])(/([^+#{}]*|[+]|[{][A-Za-z][A-Za-z0-9_]*[}]))*(/#|/[{][A-Za-z][A-Za-z0-9_]*[.][.][.][}])?$|^#$|^[{][A-Za-z][A-Za-z0-9_]*[.][.][.][}]$')",
        "not a topic pattern: + and {name} each stand for one whole level, # and {name...} for all that remain and only as the last level; a name starts with a letter, followed by letters, digits and _; example: sensor/{room}/+/{rest...}",
    ),
    (
        "!self.startsWith('$share/')",
        "shared subscriptions are not for routes: remove $share/<group>/ from the topic",
    ),
    ("self.split('{', 10).size() <= 9", "a topic may have at most 8 captures"),
    (
        // Split so that each `{name}` is a piece of its own. The limits, and what is done to a piece, keep the rule
        // within the API server's estimate of what a rule may cost.
        r"self.replace('{', '\n{').replace('}', '}\n').split('\n', 17).all(piece, !piece.startsWith('{') || self.indexOf(piece) == self.lastIndexOf(piece))",
        CAPTURE_TWICE,
    ),
    (
        "!self.endsWith('...}') || self.indexOf(self.find('[{][^{}]*[.][.][.][}]$').replace('...}', '}')) < 0",
        CAPTURE_TWICE,
    ),
];

/// Names of measurements, fields and tags.
/// <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/#naming-restrictions>
pub(crate) const INFLUX_NAME_RULES: &[(&str, &str)] = &[
    ("!self.startsWith('_')", "names that start with _ are reserved by InfluxDB: choose another"),
    (r"!self.matches('[\\n\\r\\t]')", "a name cannot hold a line break or a tab"),
];
