//! Turns a payload into line-protocol values, by the type that the route declares.
//!
//! A value of another type is refused, with two exceptions that don't change what the value means:
//! a whole number is taken for a float, and a float without a fraction (`3.0`) for an integer.

use api::route::{FieldType, Payload, Precision, TimestampUnit};

use crate::encode::{self, EncodeError};
use crate::lines::{self, LineError};
use crate::object::{Encoding, ObjectDecoder};
use crate::sparkplug::{SparkplugDecoder, SparkplugError};
use crate::value::{Scale, Texts};
use crate::values::{Layout, MAX_LINE_BYTES, MAX_POINTS, Slot, Values};

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
    /// Not in the route's encoding, or not an object.
    #[error("the payload is not {expected}: {reason}")]
    NotObject {
        /// What the route declares.
        expected: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A value of another type within a payload of keys and values.
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
    /// There is nothing to make a point of.
    #[error("there is nothing at {0}: send at least one element")]
    NoElement(String),
    /// A message's points have times of their own only so far.
    #[error("the message has more than {MAX_POINTS} points: send several messages")]
    TooManyPoints,
    /// A message that would take too much memory.
    #[error("the message's points have more than {MAX_LINE_BYTES} bytes together: send several messages")]
    TooManyBytes,
    /// A point with more fields than anybody wants.
    #[error("a wildcard finds more than {0} fields for one point: name those to store")]
    TooManyFound(usize),
    /// A key can't be a field's name here.
    #[error(
        "a wildcard finds a key that makes the field {0:?}, which is a name of InfluxDB's own or of another tag or field: give the wildcard a name such as x_*"
    )]
    FoundName(String),
    /// The payload's lines are not all good.
    #[error("line {line} of the payload: {source}")]
    Line {
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        source: LineError,
    },
    /// No line at all.
    #[error("the payload has no line of line protocol")]
    NoLine,
    /// Not a message of Sparkplug's, or one that can't be understood.
    #[error(transparent)]
    Sparkplug(#[from] SparkplugError),
    /// The topic's part can't be a measurement.
    #[error("the measurement {found} that the topic makes {reason}")]
    Measurement {
        /// The measurement, quoted.
        found: String,
        /// Why not.
        reason: &'static str,
    },
    /// A part of the topic can't be a part of the measurement.
    #[error("the topic's part for the measurement {0}")]
    MeasurementText(EncodeError),
    /// A property of the message can't be a tag.
    #[error("the message's property for the tag {0:?} is not UTF-8 text")]
    Property(String),
    /// The route may make no more series.
    #[error(
        "the point would make more than the {0} series of the route: raise series.limit, or see which tag has so many values"
    )]
    TooManySeries(usize),
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
    /// A part of the topic, or a property of the message, can't be a tag.
    #[error("the text for the tag {tag:?} {source}")]
    Tag {
        /// The tag.
        tag: String,
        /// Why not.
        source: EncodeError,
    },
    /// InfluxDB limits the key of a series.
    #[error("measurement and tags have {0} bytes together, and InfluxDB takes at most {max}", max = encode::MAX_SERIES_BYTES)]
    SeriesTooLong(usize),
}

/// A text of a route that can't be written, and why not.
#[derive(Debug)]
pub(crate) struct BadText {
    pub text: String,
    pub source: EncodeError,
}

impl From<(String, EncodeError)> for BadText {
    fn from((text, source): (String, EncodeError)) -> Self {
        Self { text, source }
    }
}

/// What a decoder puts into which slot.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// Fields by name.
    pub fields: Vec<(String, usize)>,
    /// Tags by name.
    pub tags: Vec<(String, usize)>,
    pub time: Option<usize>,
    pub measurement: Option<usize>,
}

/// A route's payload format, compiled.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// The whole payload is one value.
    Scalar(FieldType),
    /// The whole payload is one number, which is changed.
    Scaled(Scale),
    /// The whole payload is one of several texts.
    OneOf(Texts),
    /// Keys and values.
    Object(Box<ObjectDecoder>),
    /// Line protocol.
    Lines(Precision),
    /// Sparkplug B, which takes more than a payload to be decoded.
    Sparkplug(SparkplugDecoder),
}

impl Decoder {
    /// Compiles a format; `taken` are the names of the point's other tags and fields.
    ///
    /// # Errors
    /// If a text for a value can't be written.
    pub(crate) fn new(payload: &Payload, taken: Vec<String>) -> Result<(Self, Outline), BadText> {
        let object = |encoding, object, taken| {
            let (decoder, outline) = ObjectDecoder::new(encoding, object, taken)?;
            Ok((Self::Object(Box::new(decoder)), outline))
        };
        let (field, decoder) = match payload {
            Payload::Float(number) => {
                let scale = Scale::new(number.scale, number.offset);
                (&number.field, scale.map_or(Self::Scalar(FieldType::Float), Self::Scaled))
            }
            Payload::Integer(scalar) => (&scalar.field, Self::Scalar(FieldType::Integer)),
            Payload::Boolean(scalar) => (&scalar.field, Self::Scalar(FieldType::Boolean)),
            Payload::String(text) => {
                let texts = Texts::new(&text.values, encode::string)?;
                (&text.field, texts.map_or(Self::Scalar(FieldType::String), Self::OneOf))
            }
            Payload::Json(json) => return object(Encoding::Json, json, taken),
            Payload::Cbor(cbor) => return object(Encoding::Cbor, cbor, taken),
            Payload::MessagePack(pack) => return object(Encoding::MessagePack, pack, taken),
            Payload::LineProtocol(lines) => return Ok((Self::Lines(lines.precision), Outline::default())),
            Payload::Sparkplug(sparkplug) => {
                let decoder = SparkplugDecoder::new(sparkplug, taken)?;
                return Ok((Self::Sparkplug(decoder), Outline { time: Some(0), ..Outline::default() }));
            }
        };
        Ok((decoder, Outline { fields: vec![(field.clone(), 0)], ..Outline::default() }))
    }

    /// Decodes one payload into `values`: what the route's encoder needs, or why not.
    ///
    /// # Errors
    /// If the payload is not what the route declares.
    pub(crate) fn decode(&self, payload: &[u8], values: &mut Values) -> Result<(), DecodeError> {
        let scalar = match self {
            Self::Object(decoder) => return decoder.decode(payload, values),
            Self::Lines(precision) => return lines::decode(*precision, payload, values),
            scalar => scalar,
        };
        values.reset(Layout { shared: 0, own: 1 });
        values.begin_point();
        let text = std::str::from_utf8(payload).map_err(|_| DecodeError::NotUtf8)?;
        scalar.scalar(text, &mut values.text)?;
        *values.slot_mut(0) = Slot::Written(0..values.text.len());
        Ok(())
    }

    fn scalar(&self, text: &str, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let bare = text.trim_ascii();
        let refuse = |expected| DecodeError::Payload { found: quoted(text), expected };
        let number = || {
            let number: Option<f64> = bare.parse().ok();
            number.filter(|number| number.is_finite()).ok_or_else(|| refuse(expected(FieldType::Float)))
        };
        let written = match self {
            Self::Scalar(FieldType::Float) => encode::float(out, number()?),
            Self::Scaled(scale) => encode::float(out, scale.apply(number()?)),
            Self::Scalar(FieldType::Integer) => {
                let number = bare.parse().ok().or_else(|| whole(bare.parse().ok()?));
                encode::integer(out, number.ok_or_else(|| refuse(expected(FieldType::Integer)))?);
                Ok(())
            }
            Self::Scalar(FieldType::Boolean) => {
                encode::boolean(out, boolean(bare).ok_or_else(|| refuse(expected(FieldType::Boolean)))?);
                Ok(())
            }
            Self::OneOf(texts) => {
                let text =
                    texts.get(bare).ok_or_else(|| refuse("one of those that the route's values lists"))?;
                out.extend_from_slice(text);
                Ok(())
            }
            _ => encode::string(out, text),
        };
        written.map_err(DecodeError::EncodePayload)
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
        Ok(String::from_utf8(values.get(0, 0).expect("a value").to_vec()).expect("text"))
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
