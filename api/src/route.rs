//! Routes: which topics become which points. The same types are in the resource's spec and in the
//! bridge's configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{INFLUX_NAME_RULES, TOPIC_PATTERN_RULES, rules};
use crate::topic::{TopicError, TopicPattern};

/// A route: messages on matching topics are decoded and stored as points of one measurement.
/// Several routes may match one topic: each stores its own point. Their order does not matter.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Names the route in metrics, in the dashboard and in the dead-letter topic
    /// iotpipeline/<pipeline>/dead-letter/<route>.
    #[schemars(
        length(min = 1, max = 63),
        extend("x-kubernetes-validations" = rules(&[(
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "a route's name has lower-case letters, digits and hyphens, and starts and ends with a letter or a digit"
        )]))
    )]
    pub name: String,

    /// Which topics: levels separated by /. + matches one level and # (last) all that remain, as in MQTT;
    /// {name} matches one level and {name...} (last) all that remain, and their text becomes the tag `name`.
    /// Example: sensor/accelero/{axis}
    #[schemars(length(min = 1, max = 500), extend("x-kubernetes-validations" = rules(TOPIC_PATTERN_RULES)))]
    pub topic: String,

    /// The highest quality of service with which the broker delivers to the bridge: 0 (at most once),
    /// 1 (at least once) or 2 (exactly once).
    #[serde(default = "default_qos")]
    #[schemars(range(min = 0, max = 2))]
    pub qos: i32,

    /// The InfluxDB measurement that the points go to. Absent: the route's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub measurement: Option<String>,

    /// How the payload becomes fields. Exactly one format.
    pub payload: Payload,
}

fn default_qos() -> i32 {
    1
}

/// How a payload becomes fields. Types are declared, so a field never changes its type in InfluxDB
/// (360 after 341.7 is still a float).
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Payload {
    /// The whole payload is one number, always stored as a float.
    Float(ScalarPayload),
    /// The whole payload is one whole number (64-bit signed).
    Integer(ScalarPayload),
    /// The whole payload is true or false, on or off, 1 or 0, in any case.
    Boolean(ScalarPayload),
    /// The whole payload is UTF-8 text, at most 64 KiB.
    String(ScalarPayload),
    /// The payload is a JSON object.
    Json(JsonPayload),
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

fn default_field() -> String {
    "value".into()
}

/// A payload that is one JSON object.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonPayload {
    /// The fields to store, at least one.
    #[schemars(length(min = 1, max = 64))]
    pub fields: Vec<JsonField>,

    /// Values that become tags, beside the topic's captures. Numbers and booleans become their text.
    /// A tag that is absent, null or empty is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tags: Vec<JsonTag>,

    /// Where the point's time is. Absent: the time of reception.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<JsonTimestamp>,
}

/// A field of a JSON payload.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonField {
    /// Where the value is: keys joined by dots, a number for a place in an array; \. is a dot within a key.
    /// Example: battery.percent
    #[schemars(length(min = 1, max = 256))]
    pub path: String,

    /// The field's name. Absent: the path.
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

/// A tag of a JSON payload.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonTag {
    /// Where the value is, as for fields.
    #[schemars(length(min = 1, max = 256))]
    pub path: String,

    /// The tag's name. Absent: the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub name: Option<String>,
}

/// The time of a JSON payload.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonTimestamp {
    /// Where the value is, as for fields.
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

/// Why a route can't be used, though each of its fields is well-formed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The topic is not a pattern.
    #[error("route {route}: topic {topic:?}: {source}")]
    Topic {
        /// The route's name.
        route: String,
        /// The topic as given.
        topic: String,
        /// What is wrong with it.
        source: TopicError,
    },
    /// A point can't have two tags, or two fields, or a tag and a field, of one name.
    #[error("route {route}: {name:?} names two of its tags and fields: give one of them another name")]
    NameTwice {
        /// The route's name.
        route: String,
        /// The name.
        name: String,
    },
    /// InfluxDB reserves the name.
    #[error("route {route}: {name:?} is reserved by InfluxDB: choose another name")]
    ReservedName {
        /// The route's name.
        route: String,
        /// The name.
        name: String,
    },
    /// The quality of service is none.
    #[error("route {route}: qos {qos} does not exist: choose 0, 1 or 2")]
    Qos {
        /// The route's name.
        route: String,
        /// The value as given.
        qos: i32,
    },
    /// Two routes have one name.
    #[error("two routes are named {0}: give one of them another name")]
    RouteTwice(String),
}

impl JsonField {
    /// The field's name in InfluxDB.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.path)
    }
}

impl JsonTag {
    /// The tag's name in InfluxDB.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.path)
    }
}

impl Payload {
    /// The fields that a point gets, with their types.
    pub fn fields(&self) -> Vec<(&str, FieldType)> {
        match self {
            Payload::Float(scalar) => vec![(&scalar.field, FieldType::Float)],
            Payload::Integer(scalar) => vec![(&scalar.field, FieldType::Integer)],
            Payload::Boolean(scalar) => vec![(&scalar.field, FieldType::Boolean)],
            Payload::String(scalar) => vec![(&scalar.field, FieldType::String)],
            Payload::Json(json) => json.fields.iter().map(|field| (field.name(), field.field_type)).collect(),
        }
    }

    /// The tags that a point gets from its payload.
    pub fn tags(&self) -> Vec<&str> {
        match self {
            Payload::Json(json) => json.tags.iter().map(JsonTag::name).collect(),
            _ => Vec::new(),
        }
    }
}

impl Route {
    /// The measurement that the points go to.
    pub fn measurement(&self) -> &str {
        self.measurement.as_deref().unwrap_or(&self.name)
    }

    /// The topic, parsed.
    ///
    /// # Errors
    /// If it is not a topic pattern.
    pub fn pattern(&self) -> Result<TopicPattern, RouteError> {
        self.topic.parse().map_err(|source| RouteError::Topic {
            route: self.name.clone(),
            topic: self.topic.clone(),
            source,
        })
    }

    fn check(&self) -> Result<(), RouteError> {
        let route = || self.name.clone();
        if !(0..=2).contains(&self.qos) {
            return Err(RouteError::Qos { route: route(), qos: self.qos });
        }
        let pattern = self.pattern()?;
        let mut names: Vec<&str> = pattern.captures().collect();
        names.extend(self.payload.tags());
        names.extend(self.payload.fields().into_iter().map(|(name, _)| name));
        if let Some(name) =
            names.iter().chain([&self.measurement()]).find(|name| name.starts_with('_') || name.is_empty())
        {
            return Err(RouteError::ReservedName { route: route(), name: (*name).into() });
        }
        if let Some(name) = names.iter().find(|name| **name == "time") {
            return Err(RouteError::ReservedName { route: route(), name: (*name).into() });
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(RouteError::NameTwice { route: route(), name: pair[0].into() }),
            None => Ok(()),
        }
    }
}

/// Checks what a schema can't say of routes: names that clash, within a route and between routes.
/// What passes can be compiled and stored.
///
/// # Errors
/// The first fault, in words that say what to do.
pub fn check_routes(routes: &[Route]) -> Result<(), RouteError> {
    routes.iter().try_for_each(Route::check)?;
    let mut names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(RouteError::RouteTwice(pair[0].into())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(yaml: &str) -> Route {
        serde_saphyr::from_str(yaml).expect("the test's route is one")
    }

    fn refusal(yaml: &str) -> String {
        check_routes(&[route(yaml)]).expect_err("the route is refused").to_string()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let route = route("{name: rooms, topic: rooms/+, payload: {float: {}}}");
        assert_eq!(route.qos, 1);
        assert_eq!(route.measurement(), "rooms");
        assert_eq!(route.payload.fields(), [("value", FieldType::Float)]);
    }

    #[test]
    fn a_capture_and_a_field_of_one_name_are_refused() {
        assert_eq!(
            refusal("{name: r, topic: 'a/{value}', payload: {float: {}}}"),
            "route r: \"value\" names two of its tags and fields: give one of them another name"
        );
    }

    #[test]
    fn influxdb_s_reserved_names_are_refused() {
        for yaml in [
            "{name: r, topic: 'a/{time}', payload: {float: {}}}",
            "{name: r, topic: a, measurement: _m, payload: {float: {}}}",
            "{name: r, topic: a, payload: {json: {fields: [{path: _value, type: float}]}}}",
        ] {
            assert!(refusal(yaml).contains("reserved by InfluxDB"), "{yaml}");
        }
    }

    #[test]
    fn two_routes_of_one_name_are_refused() {
        let one = route("{name: r, topic: a, payload: {float: {}}}");
        let message = check_routes(&[one.clone(), one]).expect_err("refused").to_string();
        assert_eq!(message, "two routes are named r: give one of them another name");
    }
}
