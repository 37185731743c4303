//! Decodes Sparkplug B (version 3.0 of its specification): `wire` reads the payload, `births` remembers what
//! nodes and devices have told, in a `table` for each `life`, `metric` makes a field of a value, and `reading`
//! a message's points of its fields.
//!
//! A message becomes a point for each time that its metrics have, tagged by the route's topic as any other. A
//! metric that can't be a field is left out and counted, and the others are stored. A metric that can't be
//! understood, since its alias or its type was never told, refuses the message: no value gets under a name that
//! may be another's.

mod births;
mod life;
mod metric;
mod reading;
mod table;
mod topic;
mod wire;

use api::route::{BadQuality, SparkplugPayload};

pub use self::births::{Births, MAX_ENTRIES, MAX_METRICS};
pub use self::metric::{LeftOut, LeftOutCounts};
pub(crate) use self::reading::Field;
use self::reading::Reading;
use self::topic::Kind;
pub(crate) use self::topic::Topic;
pub use self::wire::Fault;
use self::wire::Payload;
use crate::decode::{BadText, DecodeError};
use crate::encode;
use crate::values::{Layout, Values};

/// Why a Sparkplug message is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum SparkplugError {
    /// Not protobuf, or not this one.
    #[error("the payload is not Sparkplug B: {0}")]
    Payload(#[from] Fault),
    /// Not a topic of the specification.
    #[error(
        "the topic is none of Sparkplug's: spBv1.0/group/type/node with NBIRTH, NDATA or NDEATH, or spBv1.0/group/type/node/device with DBIRTH, DDATA or DDEATH"
    )]
    Topic,
    /// Nothing to know the metric by.
    #[error("a metric has no name{0}")]
    NoName(&'static str),
    /// No birth has told it.
    #[error("no birth has told what the alias {0} stands for, so the node is asked for its birth")]
    Alias(u64),
    /// No birth has told it, and the value can be read in two ways.
    #[error("no birth has told the type of {0:?}, so the node is asked for its birth")]
    Type(String),
    /// The birth is not remembered.
    #[error(
        "what the alias {0} stands for is not remembered: a route knows at most {MAX_METRICS} metrics: take several routes"
    )]
    TooMany(u64),
}

/// Why a Sparkplug message is stored nowhere, and refused by nobody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ignored {
    /// It is for a node, a device or a host.
    Command,
    /// It is the will of a session before the current one.
    StaleDeath,
    /// None of its metrics can be a field.
    NoMetric,
}

impl Ignored {
    /// One word for the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Command => "SparkplugCommand",
            Self::StaleDeath => "SparkplugStaleDeath",
            Self::NoMetric => "SparkplugNoMetric",
        }
    }

    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Command => "it is a command or a host's state, which say nothing of a device",
            Self::StaleDeath => "it is the death of a session before the one that was born last",
            Self::NoMetric => "none of its metrics can be a field",
        }
    }
}

/// The format, compiled.
#[derive(Debug)]
pub struct SparkplugDecoder {
    /// `online=`, escaped.
    online: Vec<u8>,
    stores_bad_quality: bool,
    /// Names that no metric may have: the point's tags and other fields.
    taken: Vec<String>,
}

impl SparkplugDecoder {
    /// Compiles the format; `taken` are the names of the point's tags and fields.
    ///
    /// # Errors
    /// If the name of its field can't be written.
    pub(crate) fn new(sparkplug: &SparkplugPayload, taken: Vec<String>) -> Result<Self, BadText> {
        let mut online = Vec::new();
        encode::field(&mut online, &sparkplug.online).map_err(|error| (sparkplug.online.clone(), error))?;
        online.push(b'=');
        let stores_bad_quality = sparkplug.bad_quality == BadQuality::Store;
        Ok(Self { online, stores_bad_quality, taken })
    }

    /// Decodes one message that was received at `stamp` into `values`, and takes note of what it tells; or says
    /// why it makes no point.
    pub(crate) fn decode(
        &self,
        topic: &str,
        payload: &[u8],
        stamp: i64,
        births: &mut Births,
        values: &mut Values,
    ) -> Result<Option<Ignored>, DecodeError> {
        values.reset(Layout { shared: 0, own: 1 });
        values.reset_metrics();
        let topic = Topic::parse(topic)?;
        if topic.kind == Kind::Command {
            return Ok(Some(Ignored::Command));
        }
        births.meet(&topic, stamp);
        let payload = match Payload::read(payload) {
            Ok(payload) => payload,
            Err(fault) => {
                if topic.kind == Kind::Birth {
                    births.unborn(&topic, stamp);
                }
                return Err(SparkplugError::from(fault).into());
            }
        };
        let mut reading = Reading { decoder: self, topic, payload, stamp, values };
        match topic.kind {
            Kind::Birth => reading.birth(births)?,
            Kind::Data => reading.data(&births.follow(&topic, payload.seq, stamp), births)?,
            Kind::Death if topic.is_of_device() => {
                births.follow(&topic, payload.seq, stamp);
                births.device_died(&topic, stamp);
                reading.online(false, reading.sent());
            }
            Kind::Death => return reading.node_death(births),
            Kind::Command => {}
        }
        reading.make_points()?;
        Ok((values.points() == 0).then_some(Ignored::NoMetric))
    }
}

#[cfg(test)]
mod tests;
