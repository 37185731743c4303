//! Reads Sparkplug B's payload where it lies: the few messages of its protobuf schema that are wanted
//! (chapter 6 of the specification, 6.4 for the fields), without a copy.
//!
//! Encoding: <https://protobuf.dev/programming-guides/encoding/>. Nothing here recurses or allocates: what is
//! nested is a slice of the payload, and what is not wanted is passed over by its length, however deep it is.

/// What is wrong with bytes that are no payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// A length leads beyond the end.
    #[error("it ends too early")]
    End,
    /// A number of more than 64 bits.
    #[error("a number in it has more than 64 bits")]
    Number,
    /// A field 0, or one of a kind that protobuf has given up.
    #[error("a field in it is of no kind that protobuf has")]
    Kind,
    /// A field is encoded as another one would be.
    #[error("a field in it is not encoded as Sparkplug's are")]
    Encoding,
    /// A name or a text is none.
    #[error("a text in it is not UTF-8")]
    Text,
}

/// One field as it is on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'p> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'p [u8]),
    Fixed32(u32),
}

impl<'p> Wire<'p> {
    fn number(self) -> Result<u64, Fault> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(Fault::Encoding),
        }
    }

    /// A number of 32 bits; as for protobuf's own readers, what is above is cut off: some writers extend the
    /// sign to 64 bits.
    fn number_32(self) -> Result<u32, Fault> {
        self.number().map(|number| number as u32)
    }

    fn flag(self) -> Result<bool, Fault> {
        self.number().map(|number| number != 0)
    }

    fn bytes(self) -> Result<&'p [u8], Fault> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Fault::Encoding),
        }
    }

    fn text(self) -> Result<&'p str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::Text)
    }
}

/// The fields of one message, in order. An error is the last item.
struct Fields<'p>(&'p [u8]);

impl<'p> Iterator for Fields<'p> {
    type Item = Result<(u64, Wire<'p>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'p> Fields<'p> {
    fn read(&mut self) -> Result<(u64, Wire<'p>), Fault> {
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Fault::End)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(Fault::End)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.fixed()?)),
            _ => return Err(Fault::Kind),
        };
        if key >> 3 == 0 { Err(Fault::Kind) } else { Ok((key >> 3, wire)) }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Fault> {
        let mut number = 0;
        for (place, &byte) in self.0.iter().take(10).enumerate() {
            if place == 9 && byte > 1 {
                return Err(Fault::Number);
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Ok(number);
            }
        }
        Err(Fault::End)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Fault::End)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

/// A payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload<'p> {
    bytes: &'p [u8],
    /// When it was sent, in milliseconds since 1970.
    pub timestamp: Option<u64>,
    /// Its sequence number.
    pub seq: Option<u64>,
}

impl<'p> Payload<'p> {
    /// Reads all but the metrics.
    pub(super) fn read(bytes: &'p [u8]) -> Result<Self, Fault> {
        let mut payload = Self { bytes, timestamp: None, seq: None };
        for field in Fields(bytes) {
            match field? {
                (1, wire) => payload.timestamp = Some(wire.number()?),
                (3, wire) => payload.seq = Some(wire.number()?),
                _ => {}
            }
        }
        Ok(payload)
    }

    /// The metrics, in order.
    pub(super) fn metrics(&self) -> impl Iterator<Item = Result<Metric<'p>, Fault>> + use<'p> {
        Fields(self.bytes).filter_map(|field| match field {
            Ok((2, wire)) => Some(wire.bytes().and_then(Metric::read)),
            Ok(_) => None,
            Err(fault) => Some(Err(fault)),
        })
    }
}

/// A metric. `is_historical` is not read: what was measured long ago is stored under its own time as any other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Metric<'p> {
    pub name: Option<&'p str>,
    pub alias: Option<u64>,
    pub timestamp: Option<u64>,
    pub datatype: Option<u32>,
    pub is_transient: bool,
    pub is_null: bool,
    properties: Option<&'p [u8]>,
    pub value: Option<Value<'p>>,
}

/// A metric's value as it is on the wire, where a number's sign is not told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'p> {
    Int(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Boolean(bool),
    String(&'p str),
    /// Bytes, a data set, a template or an extension.
    Other,
}

impl<'p> Metric<'p> {
    fn read(bytes: &'p [u8]) -> Result<Self, Fault> {
        let mut metric = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, wire) => metric.name = Some(wire.text()?),
                (2, wire) => metric.alias = Some(wire.number()?),
                (3, wire) => metric.timestamp = Some(wire.number()?),
                (4, wire) => metric.datatype = Some(wire.number_32()?),
                (6, wire) => metric.is_transient = wire.flag()?,
                (7, wire) => metric.is_null = wire.flag()?,
                (9, wire) => metric.properties = Some(wire.bytes()?),
                (number @ 10..=19, wire) => metric.value = Some(Value::read(number, wire)?),
                _ => {}
            }
        }
        metric.name = metric.name.filter(|name| !name.is_empty());
        Ok(metric)
    }

    /// The property `Quality` (section 6.4.9.1).
    pub(super) fn quality(&self) -> Result<Option<u64>, Fault> {
        match self.properties {
            Some(properties) => quality(properties),
            None => Ok(None),
        }
    }
}

impl<'p> Value<'p> {
    fn read(number: u64, wire: Wire<'p>) -> Result<Self, Fault> {
        Ok(match (number, wire) {
            (10, wire) => Self::Int(wire.number_32()?),
            (11, wire) => Self::Long(wire.number()?),
            (12, Wire::Fixed32(bits)) => Self::Float(f32::from_bits(bits)),
            (13, Wire::Fixed64(bits)) => Self::Double(f64::from_bits(bits)),
            (14, wire) => Self::Boolean(wire.flag()?),
            (15, wire) => Self::String(wire.text()?),
            (16..=19, Wire::Bytes(_)) => Self::Other,
            _ => return Err(Fault::Encoding),
        })
    }
}

/// Keys and values of a property set are two lists: the n-th value is the n-th key's.
fn quality(properties: &[u8]) -> Result<Option<u64>, Fault> {
    let (mut keys, mut place) = (0, None);
    for field in Fields(properties) {
        if let (1, wire) = field? {
            if wire.bytes()? == b"Quality" {
                place = Some(keys);
            }
            keys += 1;
        }
    }
    let Some(place) = place else { return Ok(None) };
    let is_value = |field: &Result<(u64, Wire<'_>), Fault>| !matches!(field, Ok((number, _)) if *number != 2);
    let Some(value) = Fields(properties).filter(is_value).nth(place) else { return Ok(None) };
    let mut quality = None;
    for field in Fields(value?.1.bytes()?) {
        match field? {
            (3, wire) => quality = Some(u64::from(wire.number_32()?)),
            (4, wire) => quality = Some(wire.number()?),
            _ => {}
        }
    }
    Ok(quality)
}
