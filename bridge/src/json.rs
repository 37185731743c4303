//! Decodes JSON payloads by a visitor compiled from the route's paths: strict, and without a tree.
//!
//! What no path names is checked for syntax and skipped. Of a key that comes twice, the last counts,
//! as for most readers. serde_json bounds the depth at 128.

use std::fmt;

use api::route::JsonPayload;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::decode::{DecodeError, Refused, Slot, Values, expected, expected_time};
use crate::value::{Kind, Scalar};

/// A JSON format, compiled.
#[derive(Debug)]
pub struct JsonDecoder {
    root: Node,
    /// What is wanted: fields, then tags, then the timestamp; a slot for each.
    targets: Vec<Target>,
    fields: usize,
}

#[derive(Debug)]
struct Target {
    path: String,
    kind: Kind,
    optional: bool,
}

/// A place in the JSON that paths lead to or through.
#[derive(Debug, Default)]
struct Node {
    children: Vec<Child>,
    /// Slots of the targets that are exactly here.
    targets: Vec<usize>,
}

#[derive(Debug)]
struct Child {
    key: Box<str>,
    index: Option<usize>,
    node: Node,
}

impl JsonDecoder {
    /// Compiles a format.
    pub fn new(json: &JsonPayload) -> Self {
        let fields = json.fields.iter().map(|field| Target {
            path: field.path.clone(),
            kind: Kind::Field(field.field_type),
            optional: field.optional,
        });
        let tags =
            json.tags.iter().map(|tag| Target { path: tag.path.clone(), kind: Kind::Tag, optional: true });
        let time = json.timestamp.iter().map(|time| Target {
            path: time.path.clone(),
            kind: Kind::Time(time.unit),
            optional: false,
        });
        let targets: Vec<Target> = fields.chain(tags).chain(time).collect();
        let mut root = Node::default();
        for (slot, target) in targets.iter().enumerate() {
            root.insert(&split_path(&target.path), slot);
        }
        Self { root, targets, fields: json.fields.len() }
    }

    pub(crate) fn decode(&self, payload: &[u8], values: &mut Values) -> Result<(), DecodeError> {
        values.reset(self.targets.len());
        let not_json = |error: serde_json::Error| DecodeError::NotJson(error.to_string());
        // Also what is skipped must be text.
        let text = std::str::from_utf8(payload).map_err(|_| DecodeError::NotUtf8)?;
        let mut json = serde_json::Deserializer::from_str(text);
        let visit = Visit { node: &self.root, targets: &self.targets, values, root: true };
        visit.deserialize(&mut json).map_err(not_json)?;
        json.end().map_err(not_json)?;
        for (target, slot) in self.targets.iter().zip(&mut values.slots) {
            match std::mem::take(slot) {
                Slot::Absent if target.optional => {}
                Slot::Absent => {
                    let hint = if matches!(target.kind, Kind::Field(_)) {
                        ", or declare the field optional"
                    } else {
                        ""
                    };
                    return Err(DecodeError::Missing { path: target.path.clone(), hint });
                }
                Slot::Refused(refused) => return Err(target.refuse(refused)),
                written => *slot = written,
            }
        }
        if (0..self.fields).all(|slot| values.get(slot).is_none()) {
            return Err(DecodeError::NoField);
        }
        Ok(())
    }
}

/// The keys of a path: joined by dots, where `\.` is a dot within a key.
fn split_path(path: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        let key = keys.last_mut().expect("there is always a last key");
        match character {
            '\\' if matches!(characters.peek(), Some('.' | '\\')) => key.extend(characters.next()),
            '.' => keys.push(String::new()),
            _ => key.push(character),
        }
    }
    keys
}

impl Target {
    fn refuse(&self, refused: Refused) -> DecodeError {
        let path = self.path.clone();
        match refused {
            Refused::Encode(source) => DecodeError::Encode { path, source },
            Refused::Type(found) => DecodeError::Value {
                path,
                found,
                expected: match self.kind {
                    Kind::Field(field_type) => expected(field_type),
                    Kind::Tag => "a text, a number, true or false",
                    Kind::Time(unit) => expected_time(unit),
                },
            },
        }
    }
}

impl Node {
    fn insert(&mut self, keys: &[String], slot: usize) {
        let Some((key, rest)) = keys.split_first() else { return self.targets.push(slot) };
        let place = self.children.iter().position(|child| *child.key == **key).unwrap_or_else(|| {
            let index = key.parse().ok();
            self.children.push(Child { key: key.as_str().into(), index, node: Self::default() });
            self.children.len() - 1
        });
        self.children[place].node.insert(rest, slot);
    }

    /// Forgets what a key that comes again had given.
    fn clear(&self, values: &mut Values) {
        for &slot in &self.targets {
            values.slots[slot] = Slot::Absent;
        }
        self.children.iter().for_each(|child| child.node.clear(values));
    }
}

/// Visits one place of the JSON.
struct Visit<'v> {
    node: &'v Node,
    targets: &'v [Target],
    values: &'v mut Values,
    root: bool,
}

impl<'de> DeserializeSeed<'de> for Visit<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.root { deserializer.deserialize_map(self) } else { deserializer.deserialize_any(self) }
    }
}

impl Visit<'_> {
    fn store(self, scalar: Scalar<'_>) {
        for &slot in &self.node.targets {
            scalar.store(self.targets[slot].kind, slot, self.values);
        }
    }

    /// An object or an array where a value is wanted.
    fn refuse(&mut self, found: &str) {
        for &slot in &self.node.targets {
            self.values.slots[slot] = Slot::Refused(Refused::Type(found.into()));
        }
    }

    fn child(&mut self, place: usize) -> Visit<'_> {
        let node = &self.node.children[place].node;
        node.clear(self.values);
        Visit { node, targets: self.targets, values: self.values, root: false }
    }
}

impl<'de> Visitor<'de> for Visit<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.root { "an object" } else { "any value" })
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.store(Scalar::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.store(Scalar::Integer(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.store(i64::try_from(value).map_or(Scalar::Big(value), Scalar::Integer));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.store(Scalar::Float(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.store(Scalar::Text(value));
        Ok(())
    }

    /// null: as if the key were absent.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.refuse("an object");
        while let Some(place) = map.next_key_seed(Key(&self.node.children))? {
            match place {
                Some(place) => map.next_value_seed(self.child(place))?,
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.refuse("an array");
        for index in 0.. {
            let place = self.node.children.iter().position(|child| child.index == Some(index));
            let more = match place {
                Some(place) => seq.next_element_seed(self.child(place))?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// Finds the child that a key leads to, without keeping the key.
struct Key<'k>(&'k [Child]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|child| *child.key == *key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn keys(path: &str) -> Vec<String> {
        split_path(path)
    }

    #[test]
    fn a_path_is_cut_at_its_dots_but_not_at_escaped_ones() {
        assert_eq!(keys("a.b"), ["a", "b"]);
        assert_eq!(keys(r"a\.b.c"), ["a.b", "c"]);
        assert_eq!(keys(r"a\\.b"), [r"a\", "b"]);
        assert_eq!(keys(r"a\b"), [r"a\b"]);
        assert_eq!(keys("a."), ["a", ""]);
    }

    /// A decoder of one optional float, beside one that is always there.
    fn decoder(path: &str) -> JsonDecoder {
        let json = serde_json::json!({"fields": [
            {"path": path, "type": "float", "optional": true},
            {"path": "always", "type": "boolean"},
        ]});
        JsonDecoder::new(&serde_json::from_value(json).expect("a format"))
    }

    /// The plain way: through a tree.
    fn naive(value: &Value, path: &str) -> Option<Value> {
        keys(path)
            .iter()
            .try_fold(value, |value, key| match value {
                Value::Array(list) => list.get(key.parse::<usize>().ok()?),
                Value::Object(map) => map.get(key),
                _ => None,
            })
            .filter(|found| !found.is_null())
            .cloned()
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            (-1e9..1e9_f64).prop_map(Value::from),
            "[a-c\"\\\\é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab012]", inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_visitor_finds_what_a_tree_holds(inner in any_json(), path in "[ab012](\\.[ab012]){0,3}") {
            let message = serde_json::json!({"a": inner, "always": true});
            let mut values = Values::default();
            let decoded = decoder(&path).decode(message.to_string().as_bytes(), &mut values);
            match naive(&message, &path) {
                None => {
                    prop_assert_eq!(decoded, Ok(()));
                    prop_assert!(values.get(0).is_none());
                }
                Some(Value::Number(number)) => {
                    prop_assert_eq!(decoded, Ok(()));
                    let written = std::str::from_utf8(values.get(0).expect("a value")).expect("text");
                    prop_assert_eq!(written.parse().ok(), number.as_f64());
                }
                Some(_) => prop_assert!(matches!(decoded, Err(DecodeError::Value { .. })), "{:?}", decoded),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[{}\\[\\]\",:a0e. -]{0,40}") {
            for payload in [bytes.as_slice(), text.as_bytes()] {
                drop(decoder("a.0").decode(payload, &mut Values::default()));
            }
        }
    }
}
