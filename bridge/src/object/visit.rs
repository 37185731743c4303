//! The visitor that finds a payload's values: strict, without a tree of them, and the same for all
//! encodings.
//!
//! What no path names is checked for syntax and skipped. Of a key that comes twice, the last counts,
//! as for most readers.

use std::fmt;
use std::ops::Range;

use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::ObjectDecoder;
use super::node::Node;
use crate::decode::DecodeError;
use crate::encode;
use crate::value::{Made, Scalar};
use crate::values::{MAX_POINTS, Refused, Slot, Values};

/// The most fields that wildcards find for one point.
const MAX_FOUND: usize = 256;

/// Visits one place of the payload.
pub(super) struct Visit<'v> {
    pub node: &'v Node,
    pub decoder: &'v ObjectDecoder,
    pub values: &'v mut Values,
    /// What slots' numbers are to be raised by.
    pub base: usize,
    /// The key that the last wildcard has met.
    pub key: Option<Range<usize>>,
    pub place: Place,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Place {
    Root,
    Element,
    Within,
}

impl<'de> DeserializeSeed<'de> for Visit<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if let Some(element) = &self.node.element {
            return self.begin(element)?.deserialize(deserializer);
        }
        if self.place == Place::Root && !self.decoder.has_each() {
            deserializer.deserialize_map(self)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'v> Visit<'v> {
    /// A point begins.
    fn begin<E: Error>(self, element: &'v Node) -> Result<Self, E> {
        if self.values.points() == MAX_POINTS {
            return Err(fault(self.values, DecodeError::TooManyPoints));
        }
        let base = self.values.begin_point();
        for capture in 0..self.values.captures.len() {
            let slot = self.values.captures[capture].clone();
            *self.values.slot_mut(base + self.decoder.layout.shared + capture) = slot;
        }
        Ok(Self { node: element, base, key: None, place: Place::Element, ..self })
    }

    fn store<E: Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        if self.place == Place::Root {
            return Err(E::invalid_type(scalar.unexpected(), &self));
        }
        for &slot in &self.node.slots {
            let start = self.values.text.len();
            let made = scalar.write(&self.decoder.targets[slot].want, &mut self.values.text);
            *self.values.slot_mut(self.base + slot) = match made {
                Ok(Made::Written) => Slot::Written(start..self.values.text.len()),
                Ok(Made::Nothing) => Slot::Absent,
                Ok(Made::Time(time)) => Slot::Time(time),
                Err(refused) => Slot::Refused(refused),
            };
        }
        let Some(key) = self.key else { return Ok(()) };
        for &wildcard in &self.node.wildcards {
            let found = &self.decoder.wildcards[wildcard];
            let start = self.values.text.len();
            match scalar.write(&found.want, &mut self.values.text) {
                Ok(Made::Written) if self.values.last_found().len() == MAX_FOUND => {
                    return Err(fault(self.values, DecodeError::TooManyFound(MAX_FOUND)));
                }
                Ok(Made::Written) => {
                    let value = start..self.values.text.len();
                    self.values.push_found(wildcard, key.clone(), value);
                }
                // A wildcard takes the values that have its type, and leaves the others.
                Ok(_) | Err(Refused::Type(_)) => {}
                Err(Refused::Encode(source)) => {
                    let path = found.path.clone();
                    return Err(fault(self.values, DecodeError::Encode { path, source }));
                }
            }
        }
        Ok(())
    }

    /// What is no value where one is wanted.
    fn refuse(&mut self, found: &str) {
        for &slot in &self.node.slots {
            *self.values.slot_mut(self.base + slot) = Slot::Refused(Refused::Type(found.into()));
        }
    }

    fn child(&mut self, place: usize, points: usize) -> Visit<'_> {
        let node = &self.node.children[place].node;
        node.clear(self.values, self.base, self.key.as_ref());
        if node.has_elements {
            self.values.truncate_points(points);
        }
        self.within(node, self.key.clone())
    }

    fn every(&mut self, node: &'v Node, key: Range<usize>) -> Visit<'_> {
        node.clear(self.values, self.base, Some(&key));
        if let Some(capture) = node.capture {
            self.values.capture(capture, &key);
        }
        self.within(node, Some(key))
    }

    fn within<'n>(&'n mut self, node: &'n Node, key: Option<Range<usize>>) -> Visit<'n> {
        Visit { node, decoder: self.decoder, values: self.values, base: self.base, key, place: Place::Within }
    }
}

/// Ends the visit; the reason is what is told, not the reader's error.
fn fault<E: Error>(values: &mut Values, reason: DecodeError) -> E {
    values.fault = Some(reason);
    E::custom("refused")
}

impl<'de> Visitor<'de> for Visit<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match (self.place, self.decoder.has_each()) {
            (Place::Root, false) => "an object",
            (Place::Root, true) => "an object or an array",
            _ => "any value",
        })
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.store(Scalar::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.store(Scalar::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.store(i64::try_from(value).map_or(Scalar::Big(value), Scalar::Integer))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<(), E> {
        self.store(Scalar::Float(value as f64))
    }

    /// A fraction as the shortest decimal number that it is: 21.7 and not 21.700000762939453.
    fn visit_f32<E: Error>(self, value: f32) -> Result<(), E> {
        let shortest =
            if value.fract() == 0.0 { None } else { zmij::Buffer::new().format(value).parse().ok() };
        self.store(Scalar::Float(shortest.unwrap_or(f64::from(value))))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.store(Scalar::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.store(Scalar::Text(value))
    }

    fn visit_bytes<E: Error>(mut self, value: &[u8]) -> Result<(), E> {
        if self.place == Place::Root {
            return Err(E::invalid_type(Unexpected::Bytes(value), &self));
        }
        self.refuse("a byte string");
        Ok(())
    }

    /// null: as if the key, or the element, were absent.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        match self.place {
            Place::Root => return Err(E::invalid_type(Unexpected::Unit, &self)),
            Place::Element => self.values.truncate_points(self.values.points() - 1),
            Place::Within => {}
        }
        Ok(())
    }

    /// MessagePack's own types.
    fn visit_newtype_struct<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.refuse("an extension value");
        deserializer.deserialize_ignored_any(IgnoredAny).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.refuse("an object");
        let points = self.values.points();
        let node = self.node;
        while let Some(step) = map.next_key_seed(Key { node, text: &mut self.values.text })? {
            match (step, &node.every) {
                (Found::Child(place), _) => map.next_value_seed(self.child(place, points))?,
                (Found::Every(key), Some(every)) => map.next_value_seed(self.every(every, key))?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        if self.place == Place::Root && !self.decoder.has_each() {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        self.refuse("an array");
        let points = self.values.points();
        let node = self.node;
        for index in 0.. {
            let place = node.children.iter().position(|child| child.index == Some(index));
            let more = match (place, &node.every) {
                (Some(place), _) => seq.next_element_seed(self.child(place, points))?.is_some(),
                (None, Some(every)) => {
                    let key = append(&mut self.values.text, itoa::Buffer::new().format(index));
                    seq.next_element_seed(self.every(every, key))?.is_some()
                }
                (None, None) => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

fn append(text: &mut Vec<u8>, key: &str) -> Range<usize> {
    let start = text.len();
    text.extend_from_slice(key.as_bytes());
    start..text.len()
}

/// Finds where a key leads, and keeps it only if a wildcard meets it.
struct Key<'k> {
    node: &'k Node,
    text: &'k mut Vec<u8>,
}

enum Found {
    Child(usize),
    Every(Range<usize>),
    Nothing,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Found;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key: a text or a whole number")
    }

    fn visit_str<E>(self, key: &str) -> Result<Found, E> {
        Ok(match self.node.children.iter().position(|child| *child.key == *key) {
            Some(place) => Found::Child(place),
            None if self.node.every.is_some() => Found::Every(append(self.text, key)),
            None => Found::Nothing,
        })
    }

    fn visit_u64<E: Error>(self, key: u64) -> Result<Found, E> {
        self.visit_str(itoa::Buffer::new().format(key))
    }

    fn visit_i64<E: Error>(self, key: i64) -> Result<Found, E> {
        self.visit_str(itoa::Buffer::new().format(key))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Found, E> {
        Ok(Found::Nothing)
    }
}

impl Values {
    /// The key that led to what follows, for the points that begin there.
    fn capture(&mut self, capture: usize, key: &Range<usize>) {
        let key = String::from_utf8_lossy(&self.text[key.clone()]).into_owned();
        let start = self.text.len();
        let slot = match encode::tag(&mut self.text, &key) {
            Ok(()) if key.is_empty() => Slot::Absent,
            Ok(()) => Slot::Written(start..self.text.len()),
            Err(error) => Slot::Refused(Refused::Encode(error)),
        };
        self.captures.resize_with(self.captures.len().max(capture + 1), Slot::default);
        self.captures[capture] = slot;
    }
}
