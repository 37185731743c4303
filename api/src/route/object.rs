//! How an object becomes a point, or several: the same for JSON, CBOR and MessagePack.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path::Path;
use super::payload::FieldType;
use crate::schema::{INFLUX_NAME_RULES, rules};

/// A payload of keys and values.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectPayload {
    /// Where the values are that make a point each, for a payload of several: a path in which * stands for every
    /// element of an array or every key of an object, and {name} too, whose text becomes the tag `name`. All other
    /// paths then start at such a value; @ is the value itself, and $.key a key of the whole payload. At most 1000 points a
    /// message; if one is refused, the message is. Examples: readings.* or rooms.{room}, or * for an array at the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub each: Option<String>,

    /// The fields to store, at least one.
    #[schemars(length(min = 1, max = 64))]
    pub fields: Vec<ObjectField>,

    /// Values that become tags, beside the topic's captures. Numbers and booleans become their text.
    /// A tag that is absent, null or empty is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tags: Vec<ObjectTag>,

    /// Where the point's time is. Absent: the time of reception.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<ObjectTimestamp>,

    /// Where the measurement's name is. A point without it (absent, null or empty) goes to the route's measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measurement: Option<ObjectMeasurement>,
}

/// A field of an object.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.type == 'float' || !(has(self.scale) || has(self.offset))",
     "scale and offset make a float: declare type float"),
    ("self.type == 'string' || !has(self.values)", "values makes texts: declare type string"),
])))]
pub struct ObjectField {
    /// Where the value is: keys joined by dots, a number for a place in an array; \. is a dot within a key.
    /// One step may be *: then every key there that no other path names, and whose value has the declared type,
    /// gives a field. Examples: battery.percent or sensors.*.celsius
    #[schemars(length(min = 1, max = 256))]
    pub path: String,

    /// The field's name, in which * stands for the key that * met in the path. Absent: the path, or that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub name: Option<String>,

    /// The field's type. A value of another type is refused to the dead-letter topic;
    /// a whole number is taken for a float where a float is declared.
    #[serde(rename = "type")]
    pub field_type: FieldType,

    /// Whether a message without this value (absent or null) is still stored, without the field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,

    /// What a float is multiplied by. Example: 0.1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,

    /// What is added to a float, after scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,

    /// Texts for values, in a field of type string: {"0": closed, "1": open}. A value that is not among them is
    /// refused, unless * is there, which stands for all others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub values: BTreeMap<String, String>,
}

/// A tag of an object.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectTag {
    /// Where the value is, as for fields, but without *.
    #[schemars(length(min = 1, max = 256))]
    pub path: String,

    /// The tag's name. Absent: the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub name: Option<String>,

    /// Texts for values, as for fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub values: BTreeMap<String, String>,
}

/// The time of an object.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectTimestamp {
    /// Where the value is, as for tags.
    #[schemars(length(min = 1, max = 256))]
    pub path: String,

    /// What the value counts since 1970-01-01T00:00:00Z, or rfc3339 for text such as 2026-11-22T20:00:00Z.
    pub unit: TimestampUnit,
}

/// What a timestamp counts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TimestampUnit {
    /// Seconds; a fraction is kept.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
    /// Text as RFC 3339 has it.
    Rfc3339,
}

/// The measurement of an object.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeasurement {
    /// Where the name is, as for tags.
    #[schemars(length(min = 1, max = 256))]
    pub path: String,
}

impl ObjectPayload {
    /// The tags that a point gets: those that `each` captures, then those that are declared.
    pub fn tag_names(&self) -> Vec<&str> {
        let each = self.each.as_deref().and_then(|each| Path::of_each(each).ok());
        let captures: Vec<&str> = each.iter().flat_map(Path::captures).collect();
        captures.into_iter().chain(self.tags.iter().map(ObjectTag::name)).collect()
    }
}

impl ObjectField {
    /// The field's name in InfluxDB; for a wildcard, what is made of each key.
    pub fn name(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None if self.is_wildcard() => "*",
            None => own_name(&self.path),
        }
    }

    /// Whether its fields are as many as keys are found.
    pub fn is_wildcard(&self) -> bool {
        Path::of_field(&self.path, true).is_ok_and(|path| path.has_wildcard())
    }
}

impl ObjectTag {
    /// The tag's name in InfluxDB.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| own_name(&self.path))
    }
}

/// A path as a name.
fn own_name(path: &str) -> &str {
    match path {
        "@" => "value",
        _ => path.strip_prefix("$.").unwrap_or(path),
    }
}
