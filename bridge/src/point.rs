//! One route, compiled: `write` makes a message's points of it.

mod write;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::route::{MeasurementPart, MessageProperty, Overflow, Retained, Route, RouteTag};
use api::topic::Level;

use crate::decode::{BadText, DecodeError, Decoder, Outline};
use crate::encode::{self, EncodeError};
use crate::memory::Memory;
use crate::properties::Properties;
use crate::route::Levels;
use crate::sparkplug::{Births, Ignored};
use crate::table::CompileError;
use crate::values::Values;

use self::write::Writer;

/// One route. Of many, a message's own is in no cache of the processor: so it is one line of one, which has 64 bytes.
#[derive(Debug)]
#[repr(align(64))]
pub struct CompiledRoute {
    /// Its name.
    pub name: Box<str>,
    /// The identifier of the subscription that feeds it.
    pub subscription: u32,
    /// Where the measurement's parts come from, unless it is always the route's own.
    measurement: Box<[MeasurementSource]>,
    /// The route's own measurement, escaped: the only one, or that above the bound, where the message would name it.
    own_measurement: Arc<[u8]>,
    kind: Arc<Kind>,
}

const _: () = assert!(size_of::<CompiledRoute>() == 64);

/// What a route has in common with others that differ in topics, names and measurements only. Many routes are
/// often of few kinds: then what a message needs is in the processor's cache, whichever route it takes.
#[derive(Debug)]
struct Kind {
    /// The slot where the payload names the measurement.
    measurement_slot: Option<usize>,
    tags: Vec<Tag>,
    fields: Vec<Field>,
    time_slot: Option<usize>,
    decoder: Decoder,
    skips_retained: bool,
    bound: Option<(usize, Overflow)>,
}

/// What routes that are compiled together share.
#[derive(Default)]
pub(crate) struct Shared {
    /// By what makes them.
    by_definition: HashMap<String, Arc<Kind>>,
    measurements: HashSet<Arc<[u8]>>,
}

/// One message, as the routes see it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'m> {
    /// Its topic.
    pub topic: &'m str,
    /// Where the topic's levels are.
    pub levels: &'m Levels,
    /// What was published.
    pub payload: &'m [u8],
    /// What came with it.
    pub properties: Properties<'m>,
    /// Whether the broker had retained it.
    pub retained: bool,
}

/// What a route made of a message that it does not refuse.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    /// Points; where each line ends is in the values.
    Points {
        /// Whether some of them went to the series for all others.
        overflowed: bool,
    },
    /// Nothing: it was retained.
    Skipped,
    /// Nothing: it would have made a series too many.
    Dropped,
    /// Nothing: there is nothing in it to store.
    Ignored(Ignored),
}

#[derive(Debug)]
struct Tag {
    name: String,
    /// `,name=`, escaped; a tag that is the same for all points has its value here too.
    key: Vec<u8>,
    source: TagSource,
}

#[derive(Clone, Debug)]
enum TagSource {
    Constant,
    Level(usize),
    Rest(usize),
    Slot(usize),
    User(String),
    ContentType,
}

#[derive(Debug)]
enum MeasurementSource {
    /// Escaped.
    Text(Vec<u8>),
    Level(usize),
    Rest(usize),
}

#[derive(Debug)]
struct Field {
    /// `name=`, escaped.
    key: Vec<u8>,
    slot: usize,
}

impl CompiledRoute {
    /// Compiles a route, which was checked, with the levels of its topic.
    ///
    /// # Errors
    /// If one of its names or texts can't be written.
    pub(crate) fn new(
        route: &Route,
        levels: &[Level],
        subscription: u32,
        shared: &mut Shared,
    ) -> Result<Self, CompileError> {
        let bad = |bad: BadText| CompileError::Name {
            route: route.name.clone(),
            name: bad.text,
            source: bad.source,
        };
        let names = route.measurement_captures().next().is_some();
        let own = if names { &route.name } else { route.measurement() };
        let measurement = if names { measurement(route, levels).map_err(bad)? } else { Vec::new() };
        Ok(Self {
            name: route.name.as_str().into(),
            subscription,
            measurement: measurement.into(),
            own_measurement: shared.measurement(written(own, encode::measurement).map_err(bad)?),
            kind: shared.kind(route, levels).map_err(bad)?,
        })
    }

    /// Whether the route's series are counted.
    pub fn has_bound(&self) -> bool {
        self.kind.bound.is_some()
    }

    /// Whether the route's messages hang together.
    pub fn is_sparkplug(&self) -> bool {
        matches!(self.kind.decoder, Decoder::Sparkplug(_))
    }

    /// Whether the route has to remember anything of its messages.
    pub fn has_memory(&self) -> bool {
        self.has_bound() || self.is_sparkplug()
    }

    /// Appends the message's points to `out`, a line each, or leaves `out` as it was. The points that
    /// have no time of their own get `stamp`, `stamp` + 1 and so on. Above the route's bound only what
    /// the `memory` of series admits is written.
    ///
    /// # Errors
    /// If the message, or one of its points, is not what the route declares, or can't be stored.
    pub fn write_points(
        &self,
        message: Message<'_>,
        stamp: i64,
        values: &mut Values,
        memory: Option<&mut Memory>,
        out: &mut Vec<u8>,
    ) -> Result<Written, DecodeError> {
        if message.retained && self.kind.skips_retained {
            return Ok(Written::Skipped);
        }
        let (births, series) = memory.map(|memory| (&mut memory.births, &mut memory.series)).unzip();
        if let Decoder::Sparkplug(sparkplug) = &self.kind.decoder {
            let mut none = Births::default();
            let births = births.unwrap_or(&mut none);
            if let Some(ignored) = sparkplug.decode(message.topic, message.payload, stamp, births, values)? {
                return Ok(Written::Ignored(ignored));
            }
        } else {
            self.kind.decoder.decode(message.payload, values)?;
        }
        let start = out.len();
        let mut ends = std::mem::take(&mut values.ends);
        ends.clear();
        let mut writer = Writer { route: self, message, values, stamp, series, overflowed: false };
        let written = writer.write(out, &mut ends);
        writer.end(&written);
        values.ends = ends;
        if !matches!(written, Ok(Written::Points { .. })) {
            out.truncate(start);
        }
        written
    }
}

impl Shared {
    /// The kind of a route, which another may have made.
    fn kind(&mut self, route: &Route, levels: &[Level]) -> Result<Arc<Kind>, BadText> {
        let definition = definition(route, levels);
        if let Some(kind) = self.by_definition.get(&definition) {
            return Ok(Arc::clone(kind));
        }
        let kind = Arc::new(Kind::new(route, levels)?);
        self.by_definition.insert(definition, Arc::clone(&kind));
        Ok(kind)
    }

    /// A measurement, which another route may have too.
    fn measurement(&mut self, escaped: Vec<u8>) -> Arc<[u8]> {
        if let Some(known) = self.measurements.get(escaped.as_slice()) {
            return Arc::clone(known);
        }
        let new: Arc<[u8]> = escaped.into();
        self.measurements.insert(Arc::clone(&new));
        new
    }
}

/// All that a route's kind is made of.
fn definition(route: &Route, levels: &[Level]) -> String {
    let captures: Vec<_> = levels
        .iter()
        .map(|level| match level {
            Level::Literal(_) => None,
            Level::One(name) => Some((false, name)),
            Level::Rest(name) => Some((true, name)),
        })
        .collect();
    let measurement: Vec<_> = route.measurement_captures().collect();
    let Route { name: _, topic: _, qos: _, measurement: _, tags, retained, series, payload } = route;
    serde_json::to_string(&(captures, measurement, tags, retained, series, payload))
        .expect("a route that was read can be written")
}

impl Kind {
    fn new(route: &Route, levels: &[Level]) -> Result<Self, BadText> {
        let mut taken = route.all_tags();
        taken.extend(route.payload.fields().into_iter().map(|(name, _)| name.into()));
        let (decoder, outline) = Decoder::new(&route.payload, taken)?;
        let tags = tags(route, levels, &outline)?;
        let fields = outline.fields.into_iter();
        let fields = fields.map(|(name, slot)| Ok(Field { key: key(b"", &name, encode::field)?, slot }));
        Ok(Self {
            measurement_slot: outline.measurement,
            tags,
            fields: fields.collect::<Result<_, BadText>>()?,
            time_slot: outline.time,
            decoder,
            skips_retained: route.retained == Retained::Skip,
            bound: route.series.as_ref().map(|bound| (bound.limit as usize, bound.overflow)),
        })
    }
}

type Write = fn(&mut Vec<u8>, &str) -> Result<(), EncodeError>;

fn written(text: &str, write: Write) -> Result<Vec<u8>, BadText> {
    let mut out = Vec::new();
    write(&mut out, text).map_err(|source| BadText { text: text.into(), source })?;
    Ok(out)
}

/// `name=`, escaped, after something.
fn key(before: &[u8], name: &str, write: Write) -> Result<Vec<u8>, BadText> {
    let mut key = before.to_vec();
    key.append(&mut written(name, write)?);
    key.push(b'=');
    Ok(key)
}

fn tags(route: &Route, levels: &[Level], outline: &Outline) -> Result<Vec<Tag>, BadText> {
    let measurement: Vec<&str> = route.measurement_captures().collect();
    let mut tags = Vec::new();
    let mut add = |name: &str, source, value: Option<&str>| {
        let mut key = key(b",", name, encode::tag)?;
        if let Some(value) = value {
            key.append(&mut written(value, encode::tag)?);
        }
        tags.push(Tag { key, name: name.into(), source });
        Ok::<_, BadText>(())
    };
    for (place, level) in levels.iter().enumerate() {
        match level {
            Level::One(Some(name)) if !measurement.contains(&name.as_str()) => {
                add(name, TagSource::Level(place), None)?;
            }
            Level::Rest(Some(name)) if !measurement.contains(&name.as_str()) => {
                add(name, TagSource::Rest(place), None)?;
            }
            _ => {}
        }
    }
    for (name, slot) in &outline.tags {
        add(name, TagSource::Slot(*slot), None)?;
    }
    for tag in &route.tags {
        add(&tag.name, tag_source(tag), tag.value.as_deref())?;
    }
    // InfluxDB finds a series faster when its tags come sorted.
    tags.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(tags)
}

fn tag_source(tag: &RouteTag) -> TagSource {
    match (&tag.user_property, tag.from) {
        (Some(name), _) => TagSource::User(name.clone()),
        (None, Some(MessageProperty::ContentType)) => TagSource::ContentType,
        (None, None) => TagSource::Constant,
    }
}

fn measurement(route: &Route, levels: &[Level]) -> Result<Vec<MeasurementSource>, BadText> {
    let source = |part| match part {
        MeasurementPart::Text(text) => written(text, encode::measurement).map(MeasurementSource::Text),
        MeasurementPart::Capture(name) => {
            let captures = |level: &Level| match level {
                Level::One(capture) | Level::Rest(capture) => capture.as_deref() == Some(name),
                Level::Literal(_) => false,
            };
            let place = levels.iter().position(captures).unwrap_or(levels.len());
            Ok(match levels.get(place) {
                Some(Level::Rest(_)) => MeasurementSource::Rest(place),
                _ => MeasurementSource::Level(place),
            })
        }
    };
    route.measurement_parts().into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_of_one_kind_only_if_they_differ_in_names_topics_and_measurements_alone() {
        let shared = &mut Shared::default();
        let mut kind = |text: &str| {
            let route: Route = serde_saphyr::from_str(&format!("{{name: r, {text}}}")).expect("a route");
            let pattern = route.pattern().expect("a topic");
            CompiledRoute::new(&route, pattern.levels(), 1, shared).expect("it compiles").kind
        };
        let one = kind("topic: 'a/{x}', payload: {float: {}}");
        assert!(Arc::ptr_eq(&one, &kind("topic: 'b/{x}', measurement: m, qos: 0, payload: {float: {}}")));
        for other in [
            "topic: 'a/{y}', payload: {float: {}}",
            "topic: '{x}/a', payload: {float: {}}",
            "topic: 'a/{x...}', payload: {float: {}}",
            "topic: 'a/{x}', measurement: '{x}', payload: {float: {}}",
            "topic: 'a/{x}', payload: {float: {field: y}}",
            "topic: 'a/{x}', payload: {integer: {}}",
            "topic: 'a/{x}', tags: [{name: t, value: v}], payload: {float: {}}",
            "topic: 'a/{x}', retained: skip, payload: {float: {}}",
            "topic: 'a/{x}', series: {limit: 5}, payload: {float: {}}",
        ] {
            assert!(!Arc::ptr_eq(&one, &kind(other)), "{other}");
        }
    }
}
