//! What a message holds, and how it becomes fields.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::object::ObjectPayload;
use crate::schema::{INFLUX_NAME_RULES, as_for_json, rules};

/// How a payload becomes fields. Types are declared, so a field never changes its type in InfluxDB
/// (360 after 341.7 is still a float).
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Payload {
    /// The whole payload is one number, always stored as a float.
    Float(FloatPayload),
    /// The whole payload is one whole number (64-bit signed).
    Integer(ScalarPayload),
    /// The whole payload is true or false, on or off, 1 or 0, in any case.
    Boolean(ScalarPayload),
    /// The whole payload is UTF-8 text, at most 64 KiB.
    String(StringPayload),
    /// The payload is a JSON object, or holds several.
    Json(ObjectPayload),
    /// The payload is a CBOR map with texts or whole numbers for keys, or holds several (RFC 8949). As for json.
    /// Tags are passed over; byte strings can't be stored.
    #[schemars(transform = as_for_json)]
    Cbor(ObjectPayload),
    /// The payload is a MessagePack map with texts or whole numbers for keys, or holds several. As for json.
    /// Binary and extension values can't be stored.
    #[schemars(transform = as_for_json)]
    MessagePack(ObjectPayload),
    /// The payload is InfluxDB line protocol, one line or several, at most 1000. Each line keeps its measurement, and gets
    /// the tags of the topic and of the route beside its own.
    LineProtocol(LineProtocolPayload),
    /// The payload is Sparkplug B's (version 3.0). The topic is spBv1.0/{group}/+/{node}/{device...}: each metric becomes a
    /// field of its name, at its own time. An alias stands for what the last birth certificate told; the bridge asks a node
    /// for a new one where it is missing or messages were lost, for which an external broker must let it publish to
    /// spBv1.0/+/NCMD/+. Left out, and counted: null, transient, DataSet, Template, Bytes, File and arrays.
    Sparkplug(SparkplugPayload),
}

/// A payload that is one bare value.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalarPayload {
    /// The name of the field that holds the value.
    #[serde(default = "default_field")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub field: String,
}

/// A payload that is one bare number.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FloatPayload {
    /// The name of the field that holds the value.
    #[serde(default = "default_field")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub field: String,

    /// What the number is multiplied by. Example: 0.1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,

    /// What is added to the number, after scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,
}

/// A payload that is one bare text.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StringPayload {
    /// The name of the field that holds the value.
    #[serde(default = "default_field")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub field: String,

    /// Texts to store instead: {"0": closed, "1": open}. A payload that is not among them, without the spaces around
    /// it, is refused, unless * is there, which stands for all others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub values: BTreeMap<String, String>,
}

fn default_field() -> String {
    "value".into()
}

/// A payload of line protocol.
/// <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LineProtocolPayload {
    /// What the lines' timestamps count since 1970-01-01T00:00:00Z. A line without one gets the time of reception.
    #[serde(default)]
    pub precision: Precision,
}

/// What a line's timestamp counts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Precision {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds, as line protocol itself has it.
    #[default]
    Ns,
}

/// A payload of Sparkplug B.
/// <https://sparkplug.eclipse.org/specification/version/3.0/documents/sparkplug-specification-3.0.0.pdf>
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SparkplugPayload {
    /// The name of the field that says whether a node or a device is there: true with its birth, false with its death.
    #[serde(default = "default_online")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub online: String,

    /// What to do with a metric whose property Quality is not 192 (good): skip or store. Absent: skip.
    #[serde(default, skip_serializing_if = "BadQuality::is_default")]
    pub bad_quality: BadQuality,
}

fn default_online() -> String {
    "online".into()
}

/// What to do with a metric that its sender doesn't call good.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BadQuality {
    /// Left out, and counted: among the others nobody could tell it from a good one.
    #[default]
    Skip,
    /// Stored as any other.
    Store,
}

impl BadQuality {
    fn is_default(&self) -> bool {
        *self == Self::Skip
    }
}

/// The type of a field in InfluxDB.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FieldType {
    /// 64-bit floating point.
    Float,
    /// 64-bit signed.
    Integer,
    /// true or false.
    Boolean,
    /// UTF-8 text, at most 64 KiB.
    String,
}

impl Payload {
    /// The mapping of a payload of keys and values.
    pub fn object(&self) -> Option<&ObjectPayload> {
        match self {
            Payload::Json(object) | Payload::Cbor(object) | Payload::MessagePack(object) => Some(object),
            _ => None,
        }
    }

    /// The fields that a point gets, with their types, as far as the route names them: not those of a
    /// wildcard, nor those of line protocol, nor the metrics of Sparkplug.
    pub fn fields(&self) -> Vec<(&str, FieldType)> {
        match self {
            Payload::Float(number) => vec![(&number.field, FieldType::Float)],
            Payload::Integer(scalar) => vec![(&scalar.field, FieldType::Integer)],
            Payload::Boolean(scalar) => vec![(&scalar.field, FieldType::Boolean)],
            Payload::String(text) => vec![(&text.field, FieldType::String)],
            Payload::Json(object) | Payload::Cbor(object) | Payload::MessagePack(object) => {
                let named = object.fields.iter().filter(|field| !field.is_wildcard());
                named.map(|field| (field.name(), field.field_type)).collect()
            }
            Payload::LineProtocol(_) => Vec::new(),
            Payload::Sparkplug(sparkplug) => vec![(&sparkplug.online, FieldType::Boolean)],
        }
    }

    /// The tags that a point gets from its payload, as far as the route names them.
    pub fn tags(&self) -> Vec<&str> {
        self.object().map(ObjectPayload::tag_names).unwrap_or_default()
    }
}
