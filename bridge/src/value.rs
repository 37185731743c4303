//! One value of a JSON payload, stored as what the route declares.

use api::route::{FieldType, TimestampUnit};

use crate::decode::{Refused, Slot, Values, quoted, whole};
use crate::encode;

/// What a value is wanted for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A field of this type.
    Field(FieldType),
    /// A tag.
    Tag,
    /// The point's time.
    Time(TimestampUnit),
}

/// One JSON value.
#[derive(Clone, Copy)]
pub(crate) enum Scalar<'v> {
    Bool(bool),
    Integer(i64),
    Big(u64),
    Float(f64),
    Text(&'v str),
}

impl Scalar<'_> {
    fn found(self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Big(value) => value.to_string(),
            Self::Float(value) => format!("{value:?}"),
            Self::Text(value) => quoted(value),
        }
    }

    /// Writes the value, or why it is refused, into its slot.
    pub(crate) fn store(self, kind: Kind, slot: usize, values: &mut Values) {
        let written = match kind {
            Kind::Field(field_type) => self.store_field(field_type, slot, values),
            Kind::Tag => self.store_tag(slot, values),
            Kind::Time(unit) => self.nanoseconds(unit).map(|nanoseconds| {
                values.timestamp = Some(nanoseconds);
                values.slots[slot] = Slot::Written(0..0);
            }),
        };
        if written.is_none() {
            values.slots[slot] = Slot::Refused(Refused::Type(self.found()));
        }
    }

    fn store_field(self, field_type: FieldType, slot: usize, values: &mut Values) -> Option<()> {
        match (field_type, self) {
            (FieldType::Float, Self::Float(value)) => values.put(slot, |out| encode::float(out, value)),
            (FieldType::Float, Self::Integer(value)) => {
                values.put(slot, |out| encode::float(out, value as f64));
            }
            (FieldType::Float, Self::Big(value)) => values.put(slot, |out| encode::float(out, value as f64)),
            (FieldType::Integer, Self::Integer(value)) => put_integer(value, slot, values),
            (FieldType::Integer, Self::Float(value)) => put_integer(whole(value)?, slot, values),
            (FieldType::Boolean, Self::Bool(value)) => values.put(slot, |out| {
                encode::boolean(out, value);
                Ok(())
            }),
            (FieldType::String, Self::Text(value)) => values.put(slot, |out| encode::string(out, value)),
            _ => return None,
        }
        Some(())
    }

    fn store_tag(self, slot: usize, values: &mut Values) -> Option<()> {
        match self {
            Self::Text("") => values.slots[slot] = Slot::Absent,
            Self::Text(value) => values.put(slot, |out| encode::tag(out, value)),
            Self::Float(value) => values.put(slot, |out| encode::float(out, value)),
            Self::Bool(value) => {
                values.put(slot, |out| encode::tag(out, if value { "true" } else { "false" }))
            }
            Self::Integer(value) => {
                values.put(slot, |out| encode::tag(out, itoa::Buffer::new().format(value)))
            }
            Self::Big(value) => values.put(slot, |out| encode::tag(out, itoa::Buffer::new().format(value))),
        }
        Some(())
    }

    fn nanoseconds(self, unit: TimestampUnit) -> Option<i64> {
        /// What InfluxDB can store.
        const RANGE: std::ops::RangeInclusive<i128> = -9_223_372_036_854_775_806..=9_223_372_036_854_775_806;
        let scale: i32 = match unit {
            TimestampUnit::S => 1_000_000_000,
            TimestampUnit::Ms => 1_000_000,
            TimestampUnit::Us => 1_000,
            TimestampUnit::Ns => 1,
            TimestampUnit::Rfc3339 => {
                let Self::Text(text) = self else { return None };
                let nanoseconds = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
                return RANGE.contains(&nanoseconds).then_some(nanoseconds as i64);
            }
        };
        let nanoseconds = match self {
            Self::Integer(value) => i128::from(value) * i128::from(scale),
            Self::Big(value) => i128::from(value) * i128::from(scale),
            // A float of today's seconds is good to about 0.2 µs, so microseconds are kept.
            Self::Float(value) if scale > 1 => {
                let microseconds = (value * f64::from(scale / 1_000)).round();
                (microseconds.abs() < 1e16).then(|| microseconds as i128 * 1_000)?
            }
            Self::Float(value) => i128::from(whole(value)?),
            _ => return None,
        };
        RANGE.contains(&nanoseconds).then_some(nanoseconds as i64)
    }
}

fn put_integer(value: i64, slot: usize, values: &mut Values) {
    values.put(slot, |out| {
        encode::integer(out, value);
        Ok(())
    });
}
