//! One metric's value as a field, or why it is left out.

use super::wire::Value;
use crate::encode;

/// Why a metric is left out, though its message is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LeftOut {
    /// It has no value: `is_null`.
    Null,
    /// Its property `Quality` says so.
    BadQuality,
    /// Its sender wants it kept nowhere: `is_transient`.
    Transient,
    /// InfluxDB has no such type: DataSet, Template, Bytes, File, arrays; or its value is of another type than
    /// was announced.
    Type,
    /// InfluxDB can't store the value: NaN, a whole number beyond 63 bits, a text that is too long.
    Value,
    /// InfluxDB, or the route, has no room for a field of its name.
    Name,
    /// Its time is not between 1677 and 2262.
    Timestamp,
}

/// How many metrics were left out, in the order of [`LeftOut::ALL`].
pub type LeftOutCounts = [u32; LeftOut::ALL.len()];

impl LeftOut {
    /// All reasons, each at its own place.
    pub const ALL: [Self; 7] =
        [Self::Null, Self::BadQuality, Self::Transient, Self::Type, Self::Value, Self::Name, Self::Timestamp];

    /// One word for the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Null => "Null",
            Self::BadQuality => "BadQuality",
            Self::Transient => "Transient",
            Self::Type => "Type",
            Self::Value => "Value",
            Self::Name => "Name",
            Self::Timestamp => "Timestamp",
        }
    }
}

/// Appends a value as line protocol has it. Whole numbers of all types are InfluxDB's integers, times of type
/// DateTime too, in milliseconds: so a field keeps its type whatever the birth says of its width and sign.
///
/// Types: section 6.4.16 of the specification. A type that nobody told is taken from the value.
pub(super) fn write(datatype: Option<u32>, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), LeftOut> {
    match (datatype.unwrap_or(UNKNOWN), value) {
        (INT8, Value::Int(_) | Value::Long(_)) => encode::integer(out, signed(value, 8)),
        (INT16, Value::Int(_) | Value::Long(_)) => encode::integer(out, signed(value, 16)),
        (INT32, Value::Int(_) | Value::Long(_)) => encode::integer(out, signed(value, 32)),
        (INT64, Value::Int(_) | Value::Long(_)) => encode::integer(out, signed(value, 64)),
        (UINT8..=UINT64 | DATE_TIME | UNKNOWN, Value::Int(number)) => encode::integer(out, number.into()),
        (UINT8..=UINT64 | DATE_TIME | UNKNOWN, Value::Long(number)) => {
            encode::integer(out, i64::try_from(number).map_err(|_| LeftOut::Value)?);
        }
        (FLOAT | DOUBLE | UNKNOWN, Value::Float(number)) => float(shortest(number), out)?,
        (FLOAT | DOUBLE | UNKNOWN, Value::Double(number)) => float(number, out)?,
        (BOOLEAN | UNKNOWN, Value::Boolean(value)) => encode::boolean(out, value),
        (STRING | TEXT | UUID | UNKNOWN, Value::String(text)) => {
            encode::string(out, text).map_err(|_| LeftOut::Value)?;
        }
        _ => return Err(LeftOut::Type),
    }
    Ok(())
}

/// Whether a value is read in one way only, without its type: nobody knows of a number with the highest bit of
/// 8, 16, 32 or 64 set whether it is negative.
pub(super) fn is_clear(value: Value<'_>) -> bool {
    match value {
        Value::Int(number) => is_positive_anyhow(number.into()) && number <= i32::MAX as u32,
        Value::Long(number) => is_positive_anyhow(number) && number <= i64::MAX as u64,
        _ => true,
    }
}

/// Not a negative number of 8 or 16 bits either, as some write it.
fn is_positive_anyhow(number: u64) -> bool {
    !(0x80..=0xFF).contains(&number) && !(0x8000..=0xFFFF).contains(&number)
}

/// A type that was announced; 0 is Sparkplug's word for none.
pub(super) fn known(datatype: Option<u32>) -> Option<u32> {
    datatype.filter(|datatype| *datatype != UNKNOWN)
}

const UNKNOWN: u32 = 0;
const INT8: u32 = 1;
const INT16: u32 = 2;
const INT32: u32 = 3;
const INT64: u32 = 4;
const UINT8: u32 = 5;
const UINT64: u32 = 8;
const FLOAT: u32 = 9;
const DOUBLE: u32 = 10;
const BOOLEAN: u32 = 11;
const STRING: u32 = 12;
const DATE_TIME: u32 = 13;
const TEXT: u32 = 14;
const UUID: u32 = 15;

/// A signed number of so many bits. On the wire it is unsigned, in two's complement of its own width or of the
/// wire's: writers differ.
fn signed(value: Value<'_>, bits: u32) -> i64 {
    let (raw, extended) = match value {
        Value::Int(raw) => (u64::from(raw), i64::from(raw as i32)),
        Value::Long(raw) => (raw, raw as i64),
        _ => (0, 0),
    };
    let shift = 64 - bits;
    if raw >> (bits - 1) == 1 { (raw << shift) as i64 >> shift } else { extended }
}

fn float(number: f64, out: &mut Vec<u8>) -> Result<(), LeftOut> {
    encode::float(out, number).map_err(|_| LeftOut::Value)
}

/// The shortest decimal number that it is: 21.7 and not 21.700000762939453.
fn shortest(number: f32) -> f64 {
    if number.fract() == 0.0 || !number.is_finite() {
        return number.into();
    }
    zmij::Buffer::new().format(number).parse().unwrap_or(f64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(datatype: u32, value: Value<'_>) -> Result<String, LeftOut> {
        let mut out = Vec::new();
        write(Some(datatype), value, &mut out).map(|()| String::from_utf8(out).expect("text"))
    }

    #[test]
    fn signs_are_read_in_the_width_of_the_type_and_of_the_wire() {
        for (datatype, raw, expected) in [
            (INT8, 0xFF, "-1i"),
            (INT8, 0xFFFF_FFFF, "-1i"),
            (INT8, 127, "127i"),
            (INT16, 0x8000, "-32768i"),
            (INT16, 0xFFFF_8000, "-32768i"),
            (INT32, 0x8000_0000, "-2147483648i"),
            (INT32, 300, "300i"),
            (INT64, 0xFFFF_FFFF, "-1i"),
            (UINT8, 255, "255i"),
            (7, 0xFFFF_FFFF, "4294967295i"),
        ] {
            assert_eq!(written(datatype, Value::Int(raw)), Ok(expected.into()), "{datatype} {raw:#x}");
        }
        assert_eq!(written(INT32, Value::Long(u64::MAX)), Ok("-1i".into()));
        assert_eq!(written(INT64, Value::Long(1 << 63)), Ok("-9223372036854775808i".into()));
        assert_eq!(written(7, Value::Long(4_294_967_295)), Ok("4294967295i".into()));
    }

    #[test]
    fn each_type_has_its_field() {
        assert_eq!(written(DATE_TIME, Value::Long(1_795_377_600_123)), Ok("1795377600123i".into()));
        assert_eq!(written(FLOAT, Value::Float(21.7)), Ok("21.7".into()));
        assert_eq!(written(DOUBLE, Value::Double(-0.5)), Ok("-0.5".into()));
        assert_eq!(written(BOOLEAN, Value::Boolean(true)), Ok("true".into()));
        for datatype in [STRING, TEXT, UUID] {
            assert_eq!(written(datatype, Value::String("a\"")), Ok("\"a\\\"\"".into()));
        }
    }

    #[test]
    fn what_influxdb_cannot_store_is_left_out() {
        assert_eq!(written(UINT64, Value::Long(1 << 63)), Err(LeftOut::Value));
        assert_eq!(written(FLOAT, Value::Float(f32::NAN)), Err(LeftOut::Value));
        assert_eq!(written(DOUBLE, Value::Double(f64::INFINITY)), Err(LeftOut::Value));
        assert_eq!(written(STRING, Value::String(&"x".repeat(65_537))), Err(LeftOut::Value));
        for datatype in 16..=35 {
            assert_eq!(written(datatype, Value::Other), Err(LeftOut::Type));
            assert_eq!(written(datatype, Value::Int(1)), Err(LeftOut::Type));
        }
        assert_eq!(written(BOOLEAN, Value::Int(1)), Err(LeftOut::Type));
        assert_eq!(written(INT32, Value::String("1")), Err(LeftOut::Type));
    }
}
