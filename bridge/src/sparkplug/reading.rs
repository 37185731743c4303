//! One message: from its metrics to fields, and from fields to points.

use std::ops::Range;

use super::births::{Births, Death};
use super::life::Known;
use super::metric::{self, LeftOut, LeftOutCounts, known};
use super::table::{Announced, MetricTable};
use super::topic::Topic;
use super::wire::{Metric, Payload, Value};
use super::{Ignored, SparkplugDecoder, SparkplugError};
use crate::decode::DecodeError;
use crate::encode;
use crate::value::in_range;
use crate::values::{MAX_LINE_BYTES, Slot, Values};

/// The property of a metric that is good (section 6.4.9.1).
const GOOD: u64 = 192;

/// A metric that has become a field, before its point is known.
#[derive(Debug)]
pub(crate) struct Field {
    time: Option<i64>,
    /// Where its name is in the text, escaped, with an equals sign.
    name: Range<usize>,
    /// Where its value ends, which begins after the name.
    end: usize,
}

/// One message on its way.
pub(super) struct Reading<'r> {
    pub decoder: &'r SparkplugDecoder,
    pub topic: Topic<'r>,
    pub payload: Payload<'r>,
    pub stamp: i64,
    pub values: &'r mut Values,
}

impl<'r> Reading<'r> {
    /// When the message was sent, if it says so.
    pub(super) fn sent(&self) -> Option<i64> {
        self.payload.timestamp.and_then(nanoseconds)
    }

    pub(super) fn birth(&mut self, births: &mut Births) -> Result<(), SparkplugError> {
        let (topic, stamp) = (self.topic, self.stamp);
        if topic.is_of_device() {
            births.follow(&topic, self.payload.seq, stamp);
        }
        let (metrics, bd_seq) =
            self.announced(&mut births.left_out).inspect_err(|_| births.unborn(&topic, stamp))?;
        births.born(&topic, self.payload.seq, bd_seq, MetricTable::new(metrics), stamp);
        self.online(true, self.sent());
        Ok(())
    }

    /// Reads a birth's metrics: what it tells of them, and their values.
    fn announced(
        &mut self,
        left_out: &mut LeftOutCounts,
    ) -> Result<(Vec<Announced>, Option<u64>), SparkplugError> {
        let (mut metrics, mut bd_seq) = (Vec::new(), None);
        for metric in self.payload.metrics() {
            let metric = metric?;
            let name = metric.name.ok_or(SparkplugError::NoName(", which a birth must give"))?;
            if name == BD_SEQ {
                bd_seq = session(&metric);
            }
            metrics.push(Announced { name: name.into(), datatype: metric.datatype, alias: metric.alias });
            self.field(&metric, name, known(metric.datatype), left_out)?;
        }
        Ok((metrics, bd_seq))
    }

    pub(super) fn data(&mut self, known_metrics: &Known, births: &mut Births) -> Result<(), DecodeError> {
        let table = known_metrics.table.as_deref();
        for metric in self.payload.metrics() {
            let metric = metric.map_err(SparkplugError::from)?;
            let own_type = known(metric.datatype);
            let (name, datatype) = match (metric.name, metric.alias) {
                (Some(name), _) => (name, own_type.or_else(|| table?.datatype(name))),
                (None, Some(alias)) => match table.and_then(|table| table.by_alias(alias)) {
                    Some(announced) => (&*announced.name, own_type.or(known(announced.datatype))),
                    None if known_metrics.is_too_many => return Err(SparkplugError::TooMany(alias).into()),
                    None => {
                        births.wants_birth = true;
                        return Err(SparkplugError::Alias(alias).into());
                    }
                },
                (None, None) => return Err(SparkplugError::NoName(" and no alias").into()),
            };
            if datatype.is_none() && metric.value.is_some_and(|value| !metric::is_clear(value)) {
                births.wants_birth = true;
                return Err(SparkplugError::Type(name.into()).into());
            }
            self.field(&metric, name, datatype, &mut births.left_out)?;
            // Short aliases can stand for long names.
            if self.values.text.len() > MAX_LINE_BYTES {
                return Err(DecodeError::TooManyBytes);
            }
        }
        Ok(())
    }

    /// Its time is the bridge's own: a will is written when the node connects (section 6.4.23). With it, all
    /// devices of the node are gone.
    pub(super) fn node_death(mut self, births: &mut Births) -> Result<Option<Ignored>, DecodeError> {
        let mut bd_seq = None;
        for metric in self.payload.metrics() {
            let metric = metric.map_err(SparkplugError::from)?;
            if metric.name == Some(BD_SEQ) {
                bd_seq = session(&metric);
            }
        }
        let Death::Now(devices) = births.node_died(&self.topic, bd_seq, self.stamp) else {
            return Ok(Some(Ignored::StaleDeath));
        };
        self.online(false, Some(self.stamp));
        self.make_points()?;
        let fields = self.values.written.first().cloned().unwrap_or_default();
        self.values.rests.push(0..0);
        for device in devices {
            let start = self.values.text.len();
            self.values.text.extend_from_slice(device.as_bytes());
            self.values.rests.push(start..self.values.text.len());
            self.point(Some(self.stamp), fields.clone());
        }
        Ok(None)
    }

    pub(super) fn online(&mut self, online: bool, time: Option<i64>) {
        let text = &mut self.values.text;
        let start = text.len();
        text.extend_from_slice(&self.decoder.online);
        let name = start..text.len();
        encode::boolean(text, online);
        let end = text.len();
        self.values.metrics.push(Field { time, name, end });
    }

    /// Makes a field of a metric, or counts it under the reason why not.
    fn field(
        &mut self,
        metric: &Metric<'_>,
        name: &str,
        datatype: Option<u32>,
        left_out: &mut LeftOutCounts,
    ) -> Result<(), SparkplugError> {
        // The protocol's own: sections 6.4.19 and 6.4.21.
        if name == BD_SEQ || name.starts_with("Node Control/") || name.starts_with("Device Control/") {
            return Ok(());
        }
        let is_good = self.decoder.stores_bad_quality || metric.quality()?.is_none_or(|code| code == GOOD);
        let start = self.values.text.len();
        let reason = match metric.value {
            None => LeftOut::Null,
            Some(_) if metric.is_null => LeftOut::Null,
            Some(_) if metric.is_transient => LeftOut::Transient,
            Some(_) if !is_good => LeftOut::BadQuality,
            Some(value) => match self.write(metric, name, datatype, value) {
                Ok(field) => {
                    self.values.metrics.push(field);
                    return Ok(());
                }
                Err(reason) => reason,
            },
        };
        self.values.text.truncate(start);
        left_out[reason as usize] += 1;
        Ok(())
    }

    fn write(
        &mut self,
        metric: &Metric<'_>,
        name: &str,
        datatype: Option<u32>,
        value: Value<'_>,
    ) -> Result<Field, LeftOut> {
        let taken = || self.decoder.taken.iter().any(|taken| taken == name);
        if name.starts_with('_') || name == "time" || taken() {
            return Err(LeftOut::Name);
        }
        let time = match metric.timestamp {
            Some(timestamp) => Some(nanoseconds(timestamp).ok_or(LeftOut::Timestamp)?),
            None => self.sent(),
        };
        let text = &mut self.values.text;
        let start = text.len();
        encode::field(text, name).map_err(|_| LeftOut::Name)?;
        text.push(b'=');
        let name = start..text.len();
        metric::write(datatype, value, text)?;
        Ok(Field { time, name, end: text.len() })
    }

    /// Joins the fields of each time into a point. Of two of one name and time, the last counts.
    pub(super) fn make_points(&mut self) -> Result<(), DecodeError> {
        let mut fields = std::mem::take(&mut self.values.metrics);
        let text = &self.values.text;
        fields.sort_by(|one, other| {
            one.time.cmp(&other.time).then_with(|| text[one.name.clone()].cmp(&text[other.name.clone()]))
        });
        for same_time in fields.chunk_by(|one, other| one.time == other.time) {
            let start = self.values.text.len();
            for (place, field) in same_time.iter().enumerate() {
                let text = &mut self.values.text;
                let next = same_time.get(place + 1);
                if next.is_some_and(|next| text[next.name.clone()] == text[field.name.clone()]) {
                    continue;
                }
                if text.len() > start {
                    text.push(b',');
                }
                text.extend_from_within(field.name.start..field.end);
            }
            self.point(same_time[0].time, start..self.values.text.len());
        }
        fields.clear();
        self.values.metrics = fields;
        Ok(())
    }

    fn point(&mut self, time: Option<i64>, fields: Range<usize>) {
        let slot = self.values.begin_point();
        if let Some(time) = time {
            *self.values.slot_mut(slot) = Slot::Time(time);
        }
        self.values.written.push(fields);
    }
}

/// The metric that numbers a node's sessions (section 6.4.19).
const BD_SEQ: &str = "bdSeq";

fn session(metric: &Metric<'_>) -> Option<u64> {
    match metric.value? {
        Value::Int(number) => Some(number.into()),
        Value::Long(number) => Some(number),
        _ => None,
    }
}

/// Of milliseconds since 1970; nothing, if InfluxDB has no such time.
fn nanoseconds(milliseconds: u64) -> Option<i64> {
    in_range(i128::from(milliseconds) * 1_000_000)
}
