//! Routes: which topics become which points. The same types are in the resource's spec and in the
//! bridge's configuration.
//!
//! Here is the route itself; `payload` has the formats, `object` how keys and values become fields,
//! `path` the paths to them, `sparkplug` the topics of Sparkplug, and `check` what a schema can't say.

mod check;
mod object;
mod path;
mod payload;
mod sparkplug;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::check::{RouteError, check_routes};
pub use self::object::{
    ObjectField, ObjectMeasurement, ObjectPayload, ObjectTag, ObjectTimestamp, TimestampUnit,
};
pub use self::path::{Path, PathError, Step};
pub use self::payload::{
    BadQuality, FieldType, FloatPayload, LineProtocolPayload, Payload, Precision, ScalarPayload,
    SparkplugPayload, StringPayload,
};
pub use self::sparkplug::{NAMESPACE as SPARKPLUG_NAMESPACE, command_topic};
use crate::schema::{INFLUX_NAME_RULES, TOPIC_PATTERN_RULES, rules};
use crate::topic::TopicPattern;

/// A route: messages on matching topics are decoded and stored as points.
/// Several routes may match one topic: each stores its own points. Their order does not matter.
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

    /// The InfluxDB measurement that the points go to. {name} in it stands for what the topic's capture of that name
    /// holds, which is then no tag. Absent: the route's name. Example: '{quantity}'
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub measurement: Option<String>,

    /// Tags that come neither from the topic nor from the payload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tags: Vec<RouteTag>,

    /// What to do with messages that the broker had retained, which it delivers when the route is new: store or skip.
    /// Absent: store.
    #[serde(default, skip_serializing_if = "Retained::is_default")]
    pub retained: Retained,

    /// A bound on the series (measurement and tags) that the route may make. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<SeriesBound>,

    /// How the payload becomes fields. Exactly one format.
    pub payload: Payload,
}

fn default_qos() -> i32 {
    1
}

/// A tag of all points of a route.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "(has(self.value) ? 1 : 0) + (has(self.userProperty) ? 1 : 0) + (has(self.from) ? 1 : 0) == 1",
    "a tag comes from one place: give value, userProperty or from"
)])))]
pub struct RouteTag {
    /// The tag's name.
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules(INFLUX_NAME_RULES)))]
    pub name: String,

    /// The tag's value, the same for all points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub value: Option<String>,

    /// The user property of the MQTT 5 message whose value the tag gets, the last one of this name. Without one, or with an
    /// empty one, the point has no such tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub user_property: Option<String>,

    /// What else of the MQTT 5 message the tag gets: contentType. Without one the point has no such tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MessageProperty>,
}

/// A property of an MQTT 5 message.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MessageProperty {
    /// The content type, such as application/json.
    ContentType,
}

/// What to do with messages that the broker had retained.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Retained {
    /// Stored as any other.
    #[default]
    Store,
    /// Acknowledged and not stored.
    Skip,
}

impl Retained {
    fn is_default(&self) -> bool {
        *self == Self::Store
    }
}

/// A bound on the series that a route may make.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeriesBound {
    /// How many series the route may make, counted from each start of the bridge; each takes some 16 bytes of its memory.
    #[schemars(range(min = 1, max = 100_000))]
    pub limit: i32,

    /// What to do with a point that would make one more. Absent: deadLetter.
    #[serde(default, skip_serializing_if = "Overflow::is_default")]
    pub overflow: Overflow,
}

/// What to do with a point that would make one series too many.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Overflow {
    /// The message goes to the dead-letter topic.
    #[default]
    DeadLetter,
    /// The message is dropped, and counted.
    Drop,
    /// Stored, but with `__other__` for the value of each tag that is not the same for all points, and in the route's
    /// own measurement.
    Other,
}

impl Overflow {
    fn is_default(&self) -> bool {
        *self == Self::DeadLetter
    }
}

/// A part of a measurement's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MeasurementPart<'r> {
    /// This text.
    Text(&'r str),
    /// What the topic's capture of this name holds.
    Capture(&'r str),
}

impl Route {
    /// The measurement that the points go to, as it is written in the route.
    pub fn measurement(&self) -> &str {
        self.measurement.as_deref().unwrap_or(&self.name)
    }

    /// The measurement, if all points of the route go to the same.
    pub fn fixed_measurement(&self) -> Option<&str> {
        let from_payload = match &self.payload {
            Payload::LineProtocol(_) => true,
            payload => payload.object().is_some_and(|object| object.measurement.is_some()),
        };
        let from_topic = self.measurement_captures().next().is_some();
        (!from_payload && !from_topic).then(|| self.measurement())
    }

    /// The parts of the measurement's name.
    pub fn measurement_parts(&self) -> Vec<MeasurementPart<'_>> {
        let mut parts = Vec::new();
        let mut rest = self.measurement();
        while let Some((text, name, after)) = next_capture(rest) {
            if !text.is_empty() {
                parts.push(MeasurementPart::Text(text));
            }
            parts.push(MeasurementPart::Capture(name));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(MeasurementPart::Text(rest));
        }
        parts
    }

    /// The captures that make up the measurement.
    pub fn measurement_captures(&self) -> impl Iterator<Item = &str> {
        self.measurement_parts().into_iter().filter_map(|part| match part {
            MeasurementPart::Capture(name) => Some(name),
            MeasurementPart::Text(_) => None,
        })
    }

    /// The tags that every point of the route has.
    pub fn certain_tags(&self) -> Vec<String> {
        let pattern = self.pattern().ok();
        let captures = pattern.iter().flat_map(TopicPattern::captures);
        let constant = self.tags.iter().filter(|tag| tag.value.is_some()).map(|tag| tag.name.as_str());
        let is_tag = |name: &&str| self.measurement_captures().all(|capture| capture != *name);
        captures.filter(is_tag).chain(constant).map(Into::into).collect()
    }

    /// All tags that the route names, those of [`Route::certain_tags`] first.
    pub fn all_tags(&self) -> Vec<String> {
        let mut tags = self.certain_tags();
        let from_message = self.tags.iter().filter(|tag| tag.value.is_none());
        tags.extend(from_message.map(|tag| tag.name.clone()));
        tags.extend(self.payload.tags().into_iter().map(Into::into));
        tags
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
}

/// The text before the first `{name}`, the name, and the text after it.
fn next_capture(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}
