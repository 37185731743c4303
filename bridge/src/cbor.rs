//! CBOR (RFC 8949) for the visitor of [`object`](crate::object): tags are passed over, texts in pieces
//! are joined. The bytes are read by cbor4ii; its own serde adapter, like others, refuses tags.

use std::borrow::Cow;
use std::fmt;

use cbor4ii::core::dec::{self, Decode, IgnoredAny, Read, is_break};
use cbor4ii::core::types::{Array, Bytes, F16, Map, Tag};
use cbor4ii::core::utils::SliceReader;
use cbor4ii::core::{error::Never, major, marker};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Reads one value from bytes. What it does not look into is read to a depth of 256.
pub(crate) struct Deserializer<'de> {
    reader: SliceReader<'de>,
}

/// Bytes that are no CBOR, or hold what is not expected, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CborError(String);

impl de::Error for CborError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl From<dec::Error<Never>> for CborError {
    fn from(error: dec::Error<Never>) -> Self {
        Self(match error {
            dec::Error::Eof { .. } => "it ends too early".into(),
            dec::Error::DepthOverflow { .. } => "it is nested too deeply".into(),
            dec::Error::RequireUtf8 { .. } => "a text in it is not UTF-8".into(),
            dec::Error::Mismatch { found, .. } | dec::Error::Unsupported { found, .. } => {
                format!("the byte {found:#04x} has no meaning where it is")
            }
            error => format!("it is malformed: {error}"),
        })
    }
}

impl<'de> Deserializer<'de> {
    pub(crate) fn new(bytes: &'de [u8]) -> Self {
        Self { reader: SliceReader::new(bytes) }
    }

    /// Makes sure that nothing follows.
    pub(crate) fn end(mut self) -> Result<(), CborError> {
        match self.peek() {
            Err(_) => Ok(()),
            Ok(_) => Err(CborError("something follows it".into())),
        }
    }

    fn peek(&mut self) -> Result<u8, CborError> {
        let Ok(bytes) = self.reader.fill(1);
        bytes.as_ref().first().copied().ok_or_else(|| CborError("it ends too early".into()))
    }

    fn simple<V: Visitor<'de>>(&mut self, byte: u8, visitor: V) -> Result<V::Value, CborError> {
        match byte {
            marker::F16 => visitor.visit_f32(half(F16::decode(&mut self.reader)?.0)),
            marker::F32 => visitor.visit_f32(f32::decode(&mut self.reader)?),
            marker::F64 => visitor.visit_f64(f64::decode(&mut self.reader)?),
            marker::NULL | marker::UNDEFINED => {
                self.reader.advance(1);
                visitor.visit_unit()
            }
            _ => visitor.visit_bool(bool::decode(&mut self.reader)?),
        }
    }
}

/// A float of 16 bits (RFC 8949, appendix D).
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let value = match exponent {
        0 => fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (fraction + 1_024.0) * 2_f32.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = CborError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        let mut byte = self.peek()?;
        while byte >> 5 == major::TAG {
            Tag::tag(&mut self.reader)?;
            byte = self.peek()?;
        }
        match byte >> 5 {
            major::UNSIGNED => visitor.visit_u64(u64::decode(&mut self.reader)?),
            major::NEGATIVE => {
                let number = i128::decode(&mut self.reader)?;
                match i64::try_from(number) {
                    Ok(number) => visitor.visit_i64(number),
                    Err(_) => visitor.visit_i128(number),
                }
            }
            major::BYTES => visitor.visit_bytes(&Bytes::<Cow<'_, [u8]>>::decode(&mut self.reader)?.0),
            major::STRING => visitor.visit_str(&Cow::<str>::decode(&mut self.reader)?),
            major::ARRAY => {
                let left = Array::len(&mut self.reader)?;
                visitor.visit_seq(Items { deserializer: self, left })
            }
            major::MAP => {
                let left = Map::len(&mut self.reader)?;
                visitor.visit_map(Items { deserializer: self, left })
            }
            _ => self.simple(byte, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        IgnoredAny::decode(&mut self.reader)?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
    }
}

/// What an array or a map holds.
struct Items<'d, 'de> {
    deserializer: &'d mut Deserializer<'de>,
    /// Nothing where the end is marked instead.
    left: Option<usize>,
}

impl Items<'_, '_> {
    fn has_more(&mut self) -> Result<bool, CborError> {
        match &mut self.left {
            None => Ok(!is_break(&mut self.deserializer.reader)?),
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = CborError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CborError> {
        if self.has_more()? { seed.deserialize(&mut *self.deserializer).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = CborError;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CborError> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CborError> {
        seed.deserialize(&mut *self.deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_16_bits_are_those_of_the_specification() {
        for (bits, expected) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc400, -4.0),
            (0x7bff, 65_504.0),
            (0x0001, 5.960_464_5e-8),
            (0x3e00, 1.5),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(half(bits), expected, "{bits:#06x}");
        }
        assert!(half(0x7e00).is_nan());
    }
}
