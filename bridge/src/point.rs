//! One route, compiled: `write` makes a message's points of it.

mod write;

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

/// One route.
#[derive(Debug)]
pub struct CompiledRoute {
    /// Its name.
    pub name: String,
    /// The identifier of the subscription that feeds it.
    pub subscription: u32,
    measurement: Vec<MeasurementSource>,
    /// The slot where the payload names the measurement.
    measurement_slot: Option<usize>,
    /// The measurement above the bound, where the message would name it.
    own_measurement: Vec<u8>,
    tags: Vec<Tag>,
    fields: Vec<Field>,
    time_slot: Option<usize>,
    decoder: Decoder,
    skips_retained: bool,
    bound: Option<(usize, Overflow)>,
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
    pub(crate) fn new(route: &Route, levels: &[Level], subscription: u32) -> Result<Self, CompileError> {
        let bad = |bad: BadText| CompileError::Name {
            route: route.name.clone(),
            name: bad.text,
            source: bad.source,
        };
        let mut taken = route.all_tags();
        taken.extend(route.payload.fields().into_iter().map(|(name, _)| name.into()));
        let (decoder, outline) = Decoder::new(&route.payload, taken).map_err(bad)?;
        let tags = tags(route, levels, &outline).map_err(bad)?;
        let fields = outline.fields.into_iter();
        let fields = fields.map(|(name, slot)| Ok(Field { key: key(b"", &name, encode::field)?, slot }));
        let fields = fields.collect::<Result<_, BadText>>().map_err(bad)?;
        let own =
            if route.measurement_captures().next().is_some() { &route.name } else { route.measurement() };
        Ok(Self {
            name: route.name.clone(),
            subscription,
            measurement: measurement(route, levels).map_err(bad)?,
            measurement_slot: outline.measurement,
            own_measurement: written(own, encode::measurement).map_err(bad)?,
            tags,
            fields,
            time_slot: outline.time,
            decoder,
            skips_retained: route.retained == Retained::Skip,
            bound: route.series.as_ref().map(|bound| (bound.limit as usize, bound.overflow)),
        })
    }

    /// Whether the route's series are counted.
    pub fn has_bound(&self) -> bool {
        self.bound.is_some()
    }

    /// Whether the route's messages hang together.
    pub fn is_sparkplug(&self) -> bool {
        matches!(self.decoder, Decoder::Sparkplug(_))
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
        if message.retained && self.skips_retained {
            return Ok(Written::Skipped);
        }
        let (births, series) = memory.map(|memory| (&mut memory.births, &mut memory.series)).unzip();
        if let Decoder::Sparkplug(sparkplug) = &self.decoder {
            let mut none = Births::default();
            let births = births.unwrap_or(&mut none);
            if let Some(ignored) = sparkplug.decode(message.topic, message.payload, stamp, births, values)? {
                return Ok(Written::Ignored(ignored));
            }
        } else {
            self.decoder.decode(message.payload, values)?;
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
