//! Turns a payload into line-protocol values, by the type that the route declares.
//!
//! A value of another type is refused, with two exceptions that don't change what the value means:
//! a whole number is taken for a float, and a float without a fraction (`3.0`) for an integer.

use std::ops::Range;

use api::route::{FieldType, Payload, ScalarPayload, TimestampUnit};

use crate::encode::{self, EncodeError};
use crate::json::JsonDecoder;

/// Why a payload is refused: what was found and what is expected, for the one who sent it.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not text at all.
    #[error("the payload is not UTF-8 text")]
    NotUtf8,
    /// A bare value of another type.
    #[error("the payload is {found}, and the route expects {expected}")]
    Payload {
        /// The payload, or its beginning.
        found: String,
        /// What the route declares.
        expected: &'static str,
    },
    /// Not JSON, or not an object.
    #[error("the payload is not a JSON object: {0}")]
    NotJson(String),
    /// A value of another type within a JSON payload.
    #[error("the value at {path} is {found}, and the route expects {expected}")]
    Value {
        /// Where.
        path: String,
        /// What is there.
        found: String,
        /// What the route declares.
        expected: &'static str,
    },
    /// A value is not there.
    #[error("there is no value at {path}: send one{hint}")]
    Missing {
        /// Where it should be.
        path: String,
        /// What else can be done.
        hint: &'static str,
    },
    /// All fields are optional, and none is there.
    #[error("none of the route's fields is in the payload")]
    NoField,
    /// The value can't be written.
    #[error("the value at {path} {source}")]
    Encode {
        /// Where.
        path: String,
        /// Why not.
        source: EncodeError,
    },
    /// The bare value can't be written.
    #[error("the payload {0}")]
    EncodePayload(EncodeError),
    /// The topic's part can't be a tag.
    #[error("the topic's level for the tag {tag:?} {source}")]
    Capture {
        /// The tag.
        tag: String,
        /// Why not.
        source: EncodeError,
    },
    /// InfluxDB limits the key of a series.
    #[error("measurement and tags have {0} bytes together, and InfluxDB takes at most {max}", max = encode::MAX_SERIES_BYTES)]
    SeriesTooLong(usize),
}

/// The values of one payload, each already written as line protocol has it. Reused from message to message.
#[derive(Debug, Default)]
pub struct Values {
    /// The written values, one after the other.
    pub(crate) text: Vec<u8>,
    /// Where the value of each declared field and tag is, in the order of declaration, fields first.
    pub(crate) slots: Vec<Slot>,
    /// The payload's own time, in nanoseconds.
    pub(crate) timestamp: Option<i64>,
}

/// One declared field or tag.
#[derive(Clone, Debug, Default)]
pub(crate) enum Slot {
    /// The payload has no such value.
    #[default]
    Absent,
    /// The value's place in the text.
    Written(Range<usize>),
    /// The value is refused.
    Refused(Refused),
}

/// Why one value is refused.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// Another type; what was found.
    Type(String),
    /// Can't be written.
    Encode(EncodeError),
}

impl Values {
    /// Forgets the message before; room for the declared values.
    pub(crate) fn reset(&mut self, slots: usize) {
        self.text.clear();
        self.slots.clear();
        self.slots.resize_with(slots, Slot::default);
        self.timestamp = None;
    }

    /// The written value, if there is one.
    pub(crate) fn get(&self, slot: usize) -> Option<&[u8]> {
        match self.slots.get(slot) {
            Some(Slot::Written(range)) => Some(&self.text[range.clone()]),
            _ => None,
        }
    }

    /// Writes a value into its slot.
    pub(crate) fn put(&mut self, slot: usize, write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) {
        let start = self.text.len();
        self.slots[slot] = match write(&mut self.text) {
            Ok(()) => Slot::Written(start..self.text.len()),
            Err(error) => Slot::Refused(Refused::Encode(error)),
        };
    }
}

/// A route's payload format, compiled.
#[derive(Debug)]
pub enum Decoder {
    /// The whole payload is one value.
    Scalar(FieldType),
    /// A JSON object.
    Json(JsonDecoder),
}

impl Decoder {
    /// Compiles a format.
    pub fn new(payload: &Payload) -> Self {
        match payload {
            Payload::Float(ScalarPayload { .. }) => Self::Scalar(FieldType::Float),
            Payload::Integer(ScalarPayload { .. }) => Self::Scalar(FieldType::Integer),
            Payload::Boolean(ScalarPayload { .. }) => Self::Scalar(FieldType::Boolean),
            Payload::String(ScalarPayload { .. }) => Self::Scalar(FieldType::String),
            Payload::Json(json) => Self::Json(JsonDecoder::new(json)),
        }
    }

    /// Decodes one payload into `values`: what the route's encoder needs, or why not.
    ///
    /// # Errors
    /// If the payload is not what the route declares.
    pub fn decode(&self, payload: &[u8], values: &mut Values) -> Result<(), DecodeError> {
        match self {
            Self::Scalar(field_type) => scalar(*field_type, payload, values),
            Self::Json(decoder) => decoder.decode(payload, values),
        }
    }
}

fn scalar(field_type: FieldType, payload: &[u8], values: &mut Values) -> Result<(), DecodeError> {
    values.reset(1);
    let text = std::str::from_utf8(payload).map_err(|_| DecodeError::NotUtf8)?;
    let bare = text.trim_ascii();
    let refuse = || DecodeError::Payload { found: quoted(text), expected: expected(field_type) };
    match field_type {
        FieldType::Float => {
            let number = bare.parse::<f64>().map_err(|_| refuse())?;
            if !number.is_finite() {
                return Err(refuse());
            }
            values.put(0, |out| encode::float(out, number));
        }
        FieldType::Integer => {
            let number = bare.parse().ok().or_else(|| whole(bare.parse().ok()?)).ok_or_else(refuse)?;
            values.put(0, |out| {
                encode::integer(out, number);
                Ok(())
            });
        }
        FieldType::Boolean => {
            let value = boolean(bare).ok_or_else(refuse)?;
            values.put(0, |out| {
                encode::boolean(out, value);
                Ok(())
            });
        }
        FieldType::String => values.put(0, |out| encode::string(out, text)),
    }
    match &values.slots[0] {
        Slot::Refused(Refused::Encode(error)) => Err(DecodeError::EncodePayload(*error)),
        _ => Ok(()),
    }
}

fn boolean(text: &str) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("true") || is("on") || text == "1" {
        Some(true)
    } else if is("false") || is("off") || text == "0" {
        Some(false)
    } else {
        None
    }
}

/// A float without a fraction, as far as floats tell whole numbers apart.
pub(crate) fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// What a declared type expects, in words.
pub(crate) fn expected(field_type: FieldType) -> &'static str {
    match field_type {
        FieldType::Float => "a finite number",
        FieldType::Integer => "a whole number of 64 bits",
        FieldType::Boolean => "true or false",
        FieldType::String => "a text",
    }
}

/// What a timestamp's unit expects, in words.
pub(crate) fn expected_time(unit: TimestampUnit) -> &'static str {
    match unit {
        TimestampUnit::S => "a time in seconds since 1970, between 1677 and 2262",
        TimestampUnit::Ms => "a time in milliseconds since 1970, between 1677 and 2262",
        TimestampUnit::Us => "a time in microseconds since 1970, between 1677 and 2262",
        TimestampUnit::Ns => "a time in nanoseconds since 1970, between 1677 and 2262",
        TimestampUnit::Rfc3339 => "a time such as 2026-11-22T20:00:00Z, between 1677 and 2262",
    }
}

/// A text in quotes for a reason, cut where it gets long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(field_type: FieldType, payload: &[u8]) -> Result<String, String> {
        let mut values = Values::default();
        Decoder::Scalar(field_type).decode(payload, &mut values).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(values.get(0).expect("a value").to_vec()).expect("text"))
    }

    #[test]
    fn a_whole_number_is_stored_as_a_float_where_one_is_declared() {
        assert_eq!(decoded(FieldType::Float, b"360"), Ok("360".into()));
        assert_eq!(decoded(FieldType::Float, b" 341.7\n"), Ok("341.7".into()));
    }

    #[test]
    fn an_integer_has_no_fraction() {
        assert_eq!(decoded(FieldType::Integer, b"-12"), Ok("-12i".into()));
        assert_eq!(decoded(FieldType::Integer, b"9223372036854775807"), Ok("9223372036854775807i".into()));
        assert_eq!(decoded(FieldType::Integer, b"3.0"), Ok("3i".into()));
        assert_eq!(
            decoded(FieldType::Integer, b"3.5"),
            Err("the payload is \"3.5\", and the route expects a whole number of 64 bits".into())
        );
        assert!(decoded(FieldType::Integer, b"9223372036854775808").is_err());
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for payload in ["NaN", "inf", "-Infinity", "1e999", "", "1,5", "0x10"] {
            assert!(decoded(FieldType::Float, payload.as_bytes()).is_err(), "{payload}");
        }
    }

    #[test]
    fn booleans_have_several_spellings() {
        for payload in ["true", "TRUE", "on", "On", "1", " 1 "] {
            assert_eq!(decoded(FieldType::Boolean, payload.as_bytes()), Ok("true".into()), "{payload}");
        }
        for payload in ["false", "OFF", "0"] {
            assert_eq!(decoded(FieldType::Boolean, payload.as_bytes()), Ok("false".into()), "{payload}");
        }
        assert!(decoded(FieldType::Boolean, b"yes").is_err());
    }

    #[test]
    fn text_keeps_its_spaces_and_must_be_utf_8() {
        assert_eq!(decoded(FieldType::String, b" a "), Ok("\" a \"".into()));
        assert_eq!(decoded(FieldType::String, b"\xff"), Err("the payload is not UTF-8 text".into()));
    }

    #[test]
    fn a_long_payload_is_cut_in_the_reason() {
        assert_eq!(quoted(&"é".repeat(41)), format!("\"{}\"…", "é".repeat(40)));
    }
}
