//! One value of a payload, written as what the route declares.

use std::collections::BTreeMap;

use api::route::{FieldType, TimestampUnit};
use serde::de::Unexpected;

use crate::decode::{expected, expected_time, quoted, whole};
use crate::encode::{self, EncodeError};
use crate::values::Refused;

/// What a value is wanted for.
#[derive(Debug)]
pub(crate) enum Want {
    /// A field of this type.
    Field(FieldType),
    /// A float that is changed.
    Scaled(Scale),
    /// One of several texts: a field's or a tag's.
    OneOf(Texts),
    /// A tag.
    Tag,
    /// The measurement.
    Measurement,
    /// The point's time.
    Time(TimestampUnit),
}

/// What was made of a value.
pub(crate) enum Made {
    /// It is at the end of the text.
    Written,
    /// It counts as absent.
    Nothing,
    /// A time in nanoseconds.
    Time(i64),
}

/// One value.
#[derive(Clone, Copy)]
pub(crate) enum Scalar<'v> {
    Bool(bool),
    Integer(i64),
    Big(u64),
    Float(f64),
    Text(&'v str),
}

/// A change of a float.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    factor: f64,
    /// Whether to divide by the factor: 3 / 10 is 0.3, and 3 * 0.1 is not.
    divide: bool,
    offset: f64,
}

impl Scale {
    /// Nothing, if nothing changes.
    pub(crate) fn new(scale: Option<f64>, offset: Option<f64>) -> Option<Self> {
        if scale.is_none() && offset.is_none() {
            return None;
        }
        let (scale, offset) = (scale.unwrap_or(1.0), offset.unwrap_or(0.0));
        let inverse = (1.0 / scale).round();
        let divide = scale.abs() < 1.0 && 1.0 / inverse == scale;
        Some(Self { factor: if divide { inverse } else { scale }, divide, offset })
    }

    pub(crate) fn apply(self, value: f64) -> f64 {
        (if self.divide { value / self.factor } else { value * self.factor }) + self.offset
    }
}

/// Texts for values.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Sorted by what is found; each already written.
    texts: Vec<(Box<str>, Box<[u8]>)>,
    other: Option<Box<[u8]>>,
}

impl Texts {
    /// Nothing, if there are none.
    ///
    /// # Errors
    /// The text that can't be written, and why not.
    pub(crate) fn new(
        values: &BTreeMap<String, String>,
        write: impl Fn(&mut Vec<u8>, &str) -> Result<(), EncodeError>,
    ) -> Result<Option<Self>, (String, EncodeError)> {
        let mut texts = Vec::new();
        let mut other = None;
        for (value, text) in values {
            let mut written = Vec::new();
            write(&mut written, text).map_err(|error| (text.clone(), error))?;
            match value.as_str() {
                "*" => other = Some(written.into()),
                value => texts.push((value.into(), written.into())),
            }
        }
        Ok((!values.is_empty()).then_some(Self { texts, other }))
    }

    pub(crate) fn get(&self, value: &str) -> Option<&[u8]> {
        let place = self.texts.binary_search_by(|(found, _)| (**found).cmp(value));
        place.ok().map(|place| &*self.texts[place].1).or(self.other.as_deref())
    }
}

impl Want {
    /// In words, for the one who sent another value.
    pub(crate) fn expected(&self) -> &'static str {
        match self {
            Self::Field(field_type) => expected(*field_type),
            Self::Scaled(_) => expected(FieldType::Float),
            Self::OneOf(_) => "one of those that the route's values lists",
            Self::Tag => "a text, a number, true or false",
            Self::Measurement => "a measurement's name, which starts neither with _ nor with #",
            Self::Time(unit) => expected_time(*unit),
        }
    }
}

impl<'v> Scalar<'v> {
    /// For a reader's own error.
    pub(crate) fn unexpected(self) -> Unexpected<'v> {
        match self {
            Self::Bool(value) => Unexpected::Bool(value),
            Self::Integer(value) => Unexpected::Signed(value),
            Self::Big(value) => Unexpected::Unsigned(value),
            Self::Float(value) => Unexpected::Float(value),
            Self::Text(value) => Unexpected::Str(value),
        }
    }

    fn found(self) -> String {
        match self {
            Self::Float(value) => format!("{value:?}"),
            Self::Text(value) => quoted(value),
            other => other.with_text(str::to_owned),
        }
    }

    /// The value as the text of a tag.
    fn with_text<T>(self, take: impl FnOnce(&str) -> T) -> T {
        match self {
            Self::Bool(value) => take(if value { "true" } else { "false" }),
            Self::Integer(value) => take(itoa::Buffer::new().format(value)),
            Self::Big(value) => take(itoa::Buffer::new().format(value)),
            Self::Float(value) => {
                let mut buffer = zmij::Buffer::new();
                let text = buffer.format(value);
                take(text.strip_suffix(".0").unwrap_or(text))
            }
            Self::Text(value) => take(value),
        }
    }

    /// Writes the value at the end of `out`.
    ///
    /// # Errors
    /// If it is not what is wanted, or can't be written. `out` may then have a part of it.
    #[inline]
    pub(crate) fn write(self, want: &Want, out: &mut Vec<u8>) -> Result<Made, Refused> {
        let written = match want {
            Want::Field(field_type) => self.write_field(*field_type, out),
            Want::Scaled(scale) => self.float().map(|value| encode::float(out, scale.apply(value))),
            Want::OneOf(texts) => self.with_text(|text| texts.get(text)).map(|text| {
                out.extend_from_slice(text);
                Ok(())
            }),
            Want::Tag | Want::Measurement if matches!(self, Self::Text("")) => return Ok(Made::Nothing),
            Want::Tag => Some(match self {
                Self::Float(value) => encode::float(out, value),
                other => other.with_text(|text| encode::tag(out, text)),
            }),
            Want::Measurement => match self {
                Self::Text(text) if !text.starts_with(['_', '#']) => Some(encode::measurement(out, text)),
                _ => None,
            },
            Want::Time(unit) => {
                let time = self.nanoseconds(*unit).ok_or_else(|| Refused::Type(self.found()))?;
                return Ok(Made::Time(time));
            }
        };
        match written {
            Some(Ok(())) => Ok(Made::Written),
            Some(Err(error)) => Err(Refused::Encode(error)),
            None => Err(Refused::Type(self.found())),
        }
    }

    fn float(self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(value),
            Self::Integer(value) => Some(value as f64),
            Self::Big(value) => Some(value as f64),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }

    fn write_field(self, field_type: FieldType, out: &mut Vec<u8>) -> Option<Result<(), EncodeError>> {
        match (field_type, self) {
            (FieldType::Float, value) => return Some(encode::float(out, value.float()?)),
            (FieldType::Integer, Self::Integer(value)) => encode::integer(out, value),
            (FieldType::Integer, Self::Float(value)) => encode::integer(out, whole(value)?),
            (FieldType::Boolean, Self::Bool(value)) => encode::boolean(out, value),
            (FieldType::String, Self::Text(value)) => return Some(encode::string(out, value)),
            _ => return None,
        }
        Some(Ok(()))
    }

    fn nanoseconds(self, unit: TimestampUnit) -> Option<i64> {
        let scale: i32 = match unit {
            TimestampUnit::S => 1_000_000_000,
            TimestampUnit::Ms => 1_000_000,
            TimestampUnit::Us => 1_000,
            TimestampUnit::Ns => 1,
            TimestampUnit::Rfc3339 => {
                let Self::Text(text) = self else { return None };
                return in_range(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond());
            }
        };
        in_range(match self {
            Self::Integer(value) => i128::from(value) * i128::from(scale),
            Self::Big(value) => i128::from(value) * i128::from(scale),
            // A float of today's seconds is good to about 0.2 µs, so microseconds are kept.
            Self::Float(value) if scale > 1 => {
                let microseconds = (value * f64::from(scale / 1_000)).round();
                (microseconds.abs() < 1e16).then(|| microseconds as i128 * 1_000)?
            }
            Self::Float(value) => i128::from(whole(value)?),
            _ => return None,
        })
    }
}

/// Nanoseconds that InfluxDB can store.
pub(crate) fn in_range(nanoseconds: i128) -> Option<i64> {
    const RANGE: std::ops::RangeInclusive<i128> = -9_223_372_036_854_775_806..=9_223_372_036_854_775_806;
    RANGE.contains(&nanoseconds).then_some(nanoseconds as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_makes_the_numbers_that_people_expect() {
        let scaled = |scale, offset, value| Scale::new(scale, offset).expect("a change").apply(value);
        assert_eq!(scaled(Some(0.1), None, 3.0), 0.3);
        assert_eq!(scaled(Some(0.01), Some(-40.0), 6_150.0), 21.5);
        assert_eq!(scaled(Some(2.5), None, 2.0), 5.0);
        assert_eq!(scaled(None, Some(273.15), 0.0), 273.15);
        assert_eq!(scaled(Some(-0.5), None, 3.0), -1.5);
        assert!(Scale::new(None, None).is_none());
    }
}
