//! What a schema can't say of routes.

use super::object::{ObjectField, ObjectPayload};
use super::path::{Path, PathError};
use super::payload::{FieldType, Payload};
use super::{MeasurementPart, Route, RouteTag, sparkplug};
use crate::topic::TopicError;

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
    /// A path leads nowhere, or to more than it may.
    #[error("route {route}: path {path:?}: {source}")]
    Path {
        /// The route's name.
        route: String,
        /// The path as given.
        path: String,
        /// What is wrong with it.
        source: PathError,
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
    /// The measurement needs what the topic does not give.
    #[error(
        "route {route}: measurement {measurement:?} needs a capture that the topic has not: write {{name}} for one of the topic's"
    )]
    MeasurementCapture {
        /// The route's name.
        route: String,
        /// The measurement as given.
        measurement: String,
    },
    /// Lines name their own.
    #[error("route {route}: lines of line protocol name their measurement: remove the route's")]
    MeasurementOfLines {
        /// The route's name.
        route: String,
    },
    /// Sparkplug's messages come in topics of one shape, and all of them are needed.
    #[error(
        "route {route}: topic {topic:?} is none for Sparkplug: write spBv1.0/{{group}}/+/{{node}}/{{device...}}, with names of your own; a group or a node may stand there for {{group}} or {{node}}"
    )]
    SparkplugTopic {
        /// The route's name.
        route: String,
        /// The topic as given.
        topic: String,
    },
    /// A tag without a place to come from, or with several.
    #[error("route {route}: tag {tag:?} comes from one place: give value, userProperty or from")]
    TagSource {
        /// The route's name.
        route: String,
        /// The tag's name.
        tag: String,
    },
    /// A field is changed in a way that its type has not.
    #[error("route {route}: field {field:?}: {what}")]
    Conversion {
        /// The route's name.
        route: String,
        /// The field's name.
        field: String,
        /// What to do.
        what: &'static str,
    },
    /// The bound is none.
    #[error("route {route}: series.limit {limit} does not exist: choose 1 to 100000")]
    Series {
        /// The route's name.
        route: String,
        /// The value as given.
        limit: i32,
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

/// Checks what a schema can't say of routes: names that clash, within a route and between routes,
/// and paths that lead nowhere. What passes can be compiled and stored.
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

impl Route {
    fn check(&self) -> Result<(), RouteError> {
        let route = || self.name.clone();
        if !(0..=2).contains(&self.qos) {
            return Err(RouteError::Qos { route: route(), qos: self.qos });
        }
        if let Some(bound) = self.series.as_ref().filter(|bound| !(1..=100_000).contains(&bound.limit)) {
            return Err(RouteError::Series { route: route(), limit: bound.limit });
        }
        let one_source = |tag: &&RouteTag| {
            [tag.value.is_some(), tag.user_property.is_some(), tag.from.is_some()]
                .iter()
                .filter(|given| **given)
                .count()
                == 1
                && tag.value.as_deref() != Some("")
        };
        if let Some(tag) = self.tags.iter().find(|tag| !one_source(tag)) {
            return Err(RouteError::TagSource { route: route(), tag: tag.name.clone() });
        }
        self.check_measurement()?;
        if matches!(self.payload, Payload::Sparkplug(_)) && !sparkplug::admits(&self.pattern()?) {
            return Err(RouteError::SparkplugTopic { route: route(), topic: self.topic.clone() });
        }
        self.check_conversions()?;
        if let Some(object) = self.payload.object() {
            self.check_paths(object)?;
        }
        self.check_names()
    }

    fn check_measurement(&self) -> Result<(), RouteError> {
        let route = self.name.clone();
        if matches!(self.payload, Payload::LineProtocol(_)) && self.measurement.is_some() {
            return Err(RouteError::MeasurementOfLines { route });
        }
        let pattern = self.pattern()?;
        let is_known = |part: &MeasurementPart<'_>| match part {
            MeasurementPart::Text(text) => !text.contains(['{', '}']),
            MeasurementPart::Capture(name) => pattern.captures().any(|capture| capture == *name),
        };
        let measurement = self.measurement();
        if !self.measurement_parts().iter().all(is_known) {
            return Err(RouteError::MeasurementCapture { route, measurement: measurement.into() });
        }
        // A line that starts with # is a comment.
        if measurement.is_empty() || measurement.starts_with(['_', '#']) {
            return Err(RouteError::ReservedName { route, name: measurement.into() });
        }
        Ok(())
    }

    fn check_conversions(&self) -> Result<(), RouteError> {
        let refuse = |field: &str, what| {
            Err(RouteError::Conversion { route: self.name.clone(), field: field.into(), what })
        };
        let is_factor = |scale: Option<f64>, offset: Option<f64>| {
            scale.is_none_or(|scale| scale.is_finite() && scale != 0.0) && offset.is_none_or(f64::is_finite)
        };
        const FACTOR: &str = "scale and offset are finite numbers, and scale is not 0";
        if let Payload::Float(number) = &self.payload
            && !is_factor(number.scale, number.offset)
        {
            return refuse(&number.field, FACTOR);
        }
        for field in self.payload.object().iter().flat_map(|object| &object.fields) {
            let is_scaled = field.scale.is_some() || field.offset.is_some();
            if is_scaled && field.field_type != FieldType::Float {
                return refuse(field.name(), "scale and offset make a float: declare type float");
            }
            if !is_factor(field.scale, field.offset) {
                return refuse(field.name(), FACTOR);
            }
            if !field.values.is_empty() && field.field_type != FieldType::String {
                return refuse(field.name(), "values makes texts: declare type string");
            }
        }
        Ok(())
    }

    fn check_paths(&self, object: &ObjectPayload) -> Result<(), RouteError> {
        let refuse = |path: &str| {
            let (route, path) = (self.name.clone(), path.to_owned());
            move |source| RouteError::Path { route, path, source }
        };
        let with_each = object.each.is_some();
        if let Some(each) = &object.each {
            Path::of_each(each).map_err(refuse(each))?;
        }
        for field in &object.fields {
            Path::of_field(&field.path, with_each).map_err(refuse(&field.path))?;
        }
        let tags = object.tags.iter().map(|tag| &tag.path);
        let time = object.timestamp.iter().map(|time| &time.path);
        let measurement = object.measurement.iter().map(|measurement| &measurement.path);
        for path in tags.chain(time).chain(measurement) {
            Path::of_value(path, with_each).map_err(refuse(path))?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), RouteError> {
        let route = || self.name.clone();
        let tags = self.all_tags();
        let mut names: Vec<&str> = tags.iter().map(String::as_str).collect();
        names.extend(self.payload.fields().into_iter().map(|(name, _)| name));
        let is_reserved = |name: &&&str| name.is_empty() || name.starts_with('_') || **name == "time";
        if let Some(name) = names.iter().find(is_reserved) {
            return Err(RouteError::ReservedName { route: route(), name: (*name).into() });
        }
        let wildcards: Vec<&ObjectField> = match self.payload.object() {
            Some(object) => object.fields.iter().filter(|field| field.is_wildcard()).collect(),
            None => Vec::new(),
        };
        for (place, field) in wildcards.iter().enumerate() {
            if field.name().starts_with('_') {
                return Err(RouteError::ReservedName { route: route(), name: field.name().into() });
            }
            let overlaps = |other: &&&ObjectField| {
                other.name() == field.name() && share_values(other.field_type, field.field_type)
            };
            if wildcards[..place].iter().any(|other| overlaps(&other)) {
                return Err(RouteError::NameTwice { route: route(), name: field.name().into() });
            }
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(RouteError::NameTwice { route: route(), name: pair[0].into() }),
            None => Ok(()),
        }
    }
}

/// Whether one value can be of both types.
fn share_values(one: FieldType, other: FieldType) -> bool {
    use FieldType::{Float, Integer};
    one == other || matches!((one, other), (Float, Integer) | (Integer, Float))
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
    fn a_capture_that_names_the_measurement_is_no_tag() {
        let route = route("{name: r, topic: '{kind}/{room}', measurement: 'm_{kind}', payload: {float: {}}}");
        assert!(check_routes(std::slice::from_ref(&route)).is_ok());
        assert_eq!(route.all_tags(), ["room"]);
        assert_eq!(route.fixed_measurement(), None);
        assert_eq!(
            refusal("{name: r, topic: 'a/{room}', measurement: '{kind}', payload: {float: {}}}"),
            "route r: measurement \"{kind}\" needs a capture that the topic has not: write {name} for one of the topic's"
        );
    }

    #[test]
    fn influxdb_s_reserved_names_are_refused() {
        for yaml in [
            "{name: r, topic: 'a/{time}', payload: {float: {}}}",
            "{name: r, topic: a, measurement: _m, payload: {float: {}}}",
            "{name: r, topic: a, measurement: '#m', payload: {float: {}}}",
            "{name: r, topic: a, tags: [{name: _t, value: x}], payload: {float: {}}}",
            "{name: r, topic: a, payload: {json: {fields: [{path: _value, type: float}]}}}",
        ] {
            assert!(refusal(yaml).contains("reserved by InfluxDB"), "{yaml}");
        }
    }

    #[test]
    fn two_tags_of_one_name_are_refused_wherever_they_come_from() {
        for yaml in [
            "{name: r, topic: 'a/{x}', tags: [{name: x, value: y}], payload: {float: {}}}",
            "{name: r, topic: 'a/{x}', payload: {cbor: {each: 'in.{x}', fields: [{path: '@', type: float}]}}}",
            "{name: r, topic: a, payload: {json: {fields: [{path: '*', type: float}, {path: 'b.*', type: integer}]}}}",
        ] {
            assert!(refusal(yaml).contains("names two of its tags and fields"), "{yaml}");
        }
    }

    #[test]
    fn a_tag_comes_from_one_place() {
        for tag in ["{name: t}", "{name: t, value: a, userProperty: b}", "{name: t, value: ''}"] {
            let yaml = format!("{{name: r, topic: a, tags: [{tag}], payload: {{float: {{}}}}}}");
            assert!(refusal(&yaml).contains("give value, userProperty or from"), "{tag}");
        }
    }

    #[test]
    fn a_conversion_fits_its_type() {
        let field = |field: &str| {
            refusal(&format!("{{name: r, topic: a, payload: {{json: {{fields: [{{path: v, {field}}}]}}}}}}"))
        };
        assert!(field("type: integer, scale: 0.1").ends_with("declare type float"));
        assert!(field("type: float, scale: 0").ends_with("scale is not 0"));
        assert!(field("type: float, values: {a: b}").ends_with("declare type string"));
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        for (payload, what) in [
            ("{each: readings, fields: [{path: v, type: float}]}", "readings.* is every element"),
            ("{fields: [{path: '@', type: float}]}", "without each"),
            ("{fields: [{path: v, type: float}], tags: [{path: '*'}]}", "for fields and for each only"),
        ] {
            let yaml = format!("{{name: r, topic: a, payload: {{messagePack: {payload}}}}}");
            assert!(refusal(&yaml).contains(what), "{yaml}: {}", refusal(&yaml));
        }
    }

    #[test]
    fn lines_name_their_own_measurement() {
        assert_eq!(
            refusal("{name: r, topic: a, measurement: m, payload: {lineProtocol: {}}}"),
            "route r: lines of line protocol name their measurement: remove the route's"
        );
    }

    #[test]
    fn a_sparkplug_route_takes_all_messages_of_its_nodes_and_tells_them_apart() {
        let route =
            |topic: &str| route(&format!("{{name: r, topic: '{topic}', payload: {{sparkplug: {{}}}}}}"));
        for topic in [
            "spBv1.0/{group}/+/{node}/{device...}",
            "spBv1.0/{plant}/+/{gateway}/{machine...}",
            "spBv1.0/Plant 1/+/{node}/{device...}",
            "spBv1.0/Plant 1/+/Edge/{device...}",
        ] {
            assert!(check_routes(&[route(topic)]).is_ok(), "{topic}");
        }
        for topic in [
            "spBv1.0/#",
            "spBv1.0/{group}/#",
            "spBv1.0/{group}/{type}/{node}/{device...}",
            "spBv1.0/{group}/DDATA/{node}/{device...}",
            "spBv1.0/+/+/{node}/{device...}",
            "spBv1.0/{group}/+/{node}/#",
            "spBv1.0/{group}/+/{node}/{device}",
            "spAv1.0/{group}/+/{node}/{device...}",
        ] {
            let message = check_routes(&[route(topic)]).expect_err(topic).to_string();
            assert!(message.ends_with(
                "is none for Sparkplug: write spBv1.0/{group}/+/{node}/{device...}, with names of your own; \
                 a group or a node may stand there for {group} or {node}"
            ), "{message}");
        }
        assert!(
            refusal("{name: r, topic: 'spBv1.0/{online}/+/{n}/{d...}', payload: {sparkplug: {}}}")
                .contains("names two of its tags and fields")
        );
    }

    #[test]
    fn two_routes_of_one_name_are_refused() {
        let one = route("{name: r, topic: a, payload: {float: {}}}");
        let message = check_routes(&[one.clone(), one]).expect_err("refused").to_string();
        assert_eq!(message, "two routes are named r: give one of them another name");
    }
}
