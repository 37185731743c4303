//! Decodes payloads of keys and values, whatever their encoding, by a visitor compiled from the route's
//! paths: `node` is the tree of paths, `visit` goes down it.

mod node;
mod visit;

use api::route::{ObjectField, ObjectPayload, ObjectTag, Path, Step};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny};

use self::node::{End, Node};
use self::visit::{Place, Visit};
use crate::cbor;
use crate::decode::{BadText, DecodeError, Outline};
use crate::encode;
use crate::value::{Scale, Texts, Want};
use crate::values::{Found, Layout, Refused, Slot, Values};

/// How deep a payload may be nested; serde_json's own limit.
const MAX_DEPTH: usize = 128;

/// How keys and values are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// RFC 8259.
    Json,
    /// RFC 8949.
    Cbor,
    /// <https://github.com/msgpack/msgpack/blob/master/spec.md>
    MessagePack,
}

/// A format, compiled.
#[derive(Debug)]
pub struct ObjectDecoder {
    encoding: Encoding,
    each: Option<String>,
    root: Node,
    /// What is wanted, a slot for each.
    targets: Vec<Target>,
    wildcards: Vec<Wildcard>,
    layout: Layout,
    /// Slots of fields.
    fields: Vec<usize>,
    /// Names that wildcards may not find.
    taken: Vec<String>,
}

#[derive(Debug)]
struct Target {
    path: String,
    want: Want,
    optional: bool,
    is_field: bool,
}

/// A field's path with a step that stands for every key.
#[derive(Debug)]
struct Wildcard {
    path: String,
    /// The name, cut where the key goes.
    name: Vec<String>,
    want: Want,
    optional: bool,
}

impl ObjectDecoder {
    /// Compiles a format; `taken` are the names of the point's other tags and fields.
    ///
    /// # Errors
    /// If a text for a value can't be written.
    pub(crate) fn new(
        encoding: Encoding,
        object: &ObjectPayload,
        mut taken: Vec<String>,
    ) -> Result<(Self, Outline), BadText> {
        let mut items = items(object)?;
        items.sort_by_key(|item| item.scope);
        let count = |scope| items.iter().filter(|item| item.scope == scope).count();
        let shared = count(Scope::Shared);
        let layout = Layout { shared, own: items.len() - shared };
        let (mut outline, mut root, mut element) = (Outline::default(), Node::default(), Node::default());
        let (mut targets, mut fields) = (Vec::new(), Vec::new());
        for (slot, item) in items.into_iter().enumerate() {
            match item.scope {
                Scope::Shared => root.insert(&item.steps, End::Slot(slot)),
                Scope::Capture => {}
                Scope::Own => element.insert(&item.steps, End::Slot(slot)),
            }
            match item.role {
                Role::Field(name) => {
                    outline.fields.push((name, slot));
                    fields.push(slot);
                }
                Role::Tag(name) => outline.tags.push((name, slot)),
                Role::Time => outline.time = Some(slot),
                Role::Measurement => outline.measurement = Some(slot),
            }
            targets.push(item.target);
        }
        let mut wildcards = Vec::new();
        for field in object.fields.iter().filter(|field| field.is_wildcard()) {
            element.insert(&steps(&field.path).steps, End::Wildcard(wildcards.len()));
            wildcards.push(Wildcard {
                path: field.path.clone(),
                name: field.name().split('*').map(str::to_owned).collect(),
                want: field_want(field)?,
                optional: field.optional,
            });
        }
        let each = object.each.clone();
        match &each {
            Some(each) => {
                let path = Path::of_each(each).expect("routes are checked before they are compiled");
                root.insert(&path.steps, End::Element(Box::new(element)));
            }
            None => root = element,
        }
        taken.sort_unstable();
        Ok((Self { encoding, each, root, targets, wildcards, layout, fields, taken }, outline))
    }

    fn has_each(&self) -> bool {
        self.each.is_some()
    }

    /// The name of a field that a wildcard has found.
    pub(crate) fn found_name(&self, found: &Found, values: &Values) -> String {
        let key = String::from_utf8_lossy(&values.text[found.key.clone()]);
        self.wildcards[found.wildcard].name.join(&*key)
    }

    pub(crate) fn decode(&self, payload: &[u8], values: &mut Values) -> Result<(), DecodeError> {
        values.reset(self.layout);
        if self.each.is_none() {
            values.begin_point();
        }
        let read = match self.encoding {
            Encoding::Json => self.read_json(payload, values)?,
            Encoding::Cbor => {
                let mut cbor = cbor::Deserializer::new(payload);
                self.read(&mut cbor, values).and_then(|()| cbor.end()).map_err(|error| error.to_string())
            }
            Encoding::MessagePack => {
                let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
                reader.set_max_depth(MAX_DEPTH);
                let read = self.read(&mut reader, values).map_err(in_words);
                read.and_then(|()| match IgnoredAny::deserialize(&mut reader) {
                    // It ends here, as it must.
                    Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(()),
                    _ => Err("something follows it".into()),
                })
            }
        };
        if let Err(reason) = read {
            let not_it = DecodeError::NotObject { expected: self.expected(), reason };
            return Err(values.fault.take().unwrap_or(not_it));
        }
        self.check(values)
    }

    fn read_json(&self, payload: &[u8], values: &mut Values) -> Result<Result<(), String>, DecodeError> {
        // Also what is skipped must be text.
        let text = std::str::from_utf8(payload).map_err(|_| DecodeError::NotUtf8)?;
        let mut json = serde_json::Deserializer::from_str(text);
        let read = self.read(&mut json, values).and_then(|()| json.end());
        Ok(read.map_err(|error| error.to_string()))
    }

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D, values: &mut Values) -> Result<(), D::Error> {
        let visit = Visit { node: &self.root, decoder: self, values, base: 0, key: None, place: Place::Root };
        visit.deserialize(deserializer)
    }

    fn expected(&self) -> &'static str {
        match (self.encoding, &self.each) {
            (Encoding::Json, None) => "a JSON object",
            (Encoding::Json, Some(_)) => "JSON",
            (Encoding::Cbor, None) => "a CBOR map",
            (Encoding::Cbor, Some(_)) => "CBOR",
            (Encoding::MessagePack, None) => "a MessagePack map",
            (Encoding::MessagePack, Some(_)) => "MessagePack",
        }
    }

    /// Whether each point has what it must have.
    fn check(&self, values: &Values) -> Result<(), DecodeError> {
        if values.points() == 0 {
            return Err(DecodeError::NoElement(self.each.clone().unwrap_or_default()));
        }
        for slot in 0..self.layout.shared {
            self.check_slot(values, 0, slot)?;
        }
        for point in 0..values.points() {
            for slot in self.layout.shared..self.targets.len() {
                self.check_slot(values, point, slot)?;
            }
            let found = values.found(point);
            if found.is_empty() && self.fields.iter().all(|slot| values.get(point, *slot).is_none()) {
                return Err(DecodeError::NoField);
            }
            if !self.wildcards.is_empty() {
                self.check_found(values, point)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn check_slot(&self, values: &Values, point: usize, slot: usize) -> Result<(), DecodeError> {
        match values.slot(point, slot) {
            Slot::Written(_) | Slot::Time(_) => Ok(()),
            other => self.check_other(other, point, slot),
        }
    }

    fn check_other(&self, found: &Slot, point: usize, slot: usize) -> Result<(), DecodeError> {
        let target = &self.targets[slot];
        match found {
            Slot::Written(_) | Slot::Time(_) => Ok(()),
            Slot::Absent if target.optional => Ok(()),
            Slot::Absent => {
                let hint = if target.is_field { ", or declare the field optional" } else { "" };
                Err(DecodeError::Missing { path: self.place(&target.path, point), hint })
            }
            Slot::Refused(Refused::Encode(source)) => {
                Err(DecodeError::Encode { path: self.place(&target.path, point), source: *source })
            }
            Slot::Refused(Refused::Type(found)) => Err(DecodeError::Value {
                path: self.place(&target.path, point),
                found: found.clone(),
                expected: target.want.expected(),
            }),
        }
    }

    /// What wildcards found must have names of its own.
    fn check_found(&self, values: &Values, point: usize) -> Result<(), DecodeError> {
        let found = values.found(point);
        let is_missing = |wildcard: &usize| found.iter().all(|found| found.wildcard != *wildcard);
        let mut missing = (0..self.wildcards.len()).filter(|place| !self.wildcards[*place].optional);
        if let Some(place) = missing.find(is_missing) {
            let path = self.place(&self.wildcards[place].path, point);
            return Err(DecodeError::Missing { path, hint: ", or declare the field optional" });
        }
        let mut names: Vec<String> = found.iter().map(|found| self.found_name(found, values)).collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
        let is_bad = |name: &&String| {
            name.is_empty()
                || name.starts_with('_')
                || *name == "time"
                || self.taken.binary_search(name).is_ok()
        };
        match twice.or_else(|| names.iter().find(is_bad)) {
            Some(name) => Err(DecodeError::FoundName(name.clone())),
            None => Ok(()),
        }
    }

    /// A path, and of which point.
    fn place(&self, path: &str, point: usize) -> String {
        match &self.each {
            Some(_) => format!("{path} of element {}", point + 1),
            None => path.into(),
        }
    }
}

/// What is wrong with MessagePack.
fn in_words(error: rmp_serde::decode::Error) -> String {
    use rmp_serde::decode::Error::{DepthLimitExceeded, InvalidDataRead, InvalidMarkerRead};
    match error {
        InvalidMarkerRead(_) | InvalidDataRead(_) => "it ends too early".into(),
        DepthLimitExceeded => "it is nested too deeply".into(),
        error => error.to_string(),
    }
}

fn field_want(field: &ObjectField) -> Result<Want, BadText> {
    if let Some(scale) = Scale::new(field.scale, field.offset) {
        return Ok(Want::Scaled(scale));
    }
    let texts = Texts::new(&field.values, encode::string).map_err(BadText::from)?;
    Ok(texts.map_or(Want::Field(field.field_type), Want::OneOf))
}

fn tag_want(tag: &ObjectTag) -> Result<Want, BadText> {
    let texts = Texts::new(&tag.values, encode::tag).map_err(BadText::from)?;
    Ok(texts.map_or(Want::Tag, Want::OneOf))
}

/// One value that is wanted, before it has a slot.
struct Item<'o> {
    scope: Scope,
    role: Role,
    steps: Vec<Step<'o>>,
    target: Target,
}

/// In the order of slots.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Scope {
    /// All points share the value.
    Shared,
    /// A key that led to the point.
    Capture,
    /// Each point has its own.
    Own,
}

enum Role {
    Field(String),
    Tag(String),
    Time,
    Measurement,
}

/// All values that are wanted but those of wildcards.
fn items(object: &ObjectPayload) -> Result<Vec<Item<'_>>, BadText> {
    let item = |role, path: &'_ str, want, optional| {
        let is_field = matches!(role, Role::Field(_));
        let target = Target { path: path.into(), want, optional, is_field };
        (role, target)
    };
    let mut items = Vec::new();
    let mut add = |path, (role, target)| {
        let Path { from_root, steps } = steps(path);
        let scope = if from_root && object.each.is_some() { Scope::Shared } else { Scope::Own };
        items.push(Item { scope, role, steps, target });
    };
    for field in object.fields.iter().filter(|field| !field.is_wildcard()) {
        add(
            &field.path,
            item(Role::Field(field.name().into()), &field.path, field_want(field)?, field.optional),
        );
    }
    for tag in &object.tags {
        add(&tag.path, item(Role::Tag(tag.name().into()), &tag.path, tag_want(tag)?, true));
    }
    if let Some(time) = &object.timestamp {
        add(&time.path, item(Role::Time, &time.path, Want::Time(time.unit), false));
    }
    if let Some(measurement) = &object.measurement {
        add(&measurement.path, item(Role::Measurement, &measurement.path, Want::Measurement, true));
    }
    for name in object.each.iter().flat_map(|each| Path::of_each(each)).flat_map(|path| captures(&path)) {
        let (role, target) = item(Role::Tag(name.clone()), &format!("{{{name}}}"), Want::Tag, true);
        items.push(Item { scope: Scope::Capture, role, steps: Vec::new(), target });
    }
    Ok(items)
}

fn captures(path: &Path<'_>) -> Vec<String> {
    path.captures().map(str::to_owned).collect()
}

fn steps(path: &str) -> Path<'_> {
    Path::of_field(path, true).expect("routes are checked before they are compiled")
}

#[cfg(test)]
mod tests;
