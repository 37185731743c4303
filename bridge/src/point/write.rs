//! Writes the points of one message, a line each.

use std::ops::Range;

use api::route::Overflow;

use super::{CompiledRoute, MeasurementSource, Message, Tag, TagSource, Written};
use crate::decode::{DecodeError, Decoder};
use crate::encode::{self, EncodeError, MAX_SERIES_BYTES};
use crate::lines::{Line, LineError};
use crate::series::Series;
use crate::values::{MAX_LINE_BYTES, Slot, Values};

/// What a tag has above the route's bound.
const OTHER: &[u8] = b"__other__";

/// Writes the points of one message.
pub(super) struct Writer<'w> {
    pub route: &'w CompiledRoute,
    pub message: Message<'w>,
    pub values: &'w Values,
    /// The next point that has no time of its own gets this one.
    pub stamp: i64,
    pub series: Option<&'w mut Series>,
    pub overflowed: bool,
}

impl Writer<'_> {
    pub(super) fn write(&mut self, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<Written, DecodeError> {
        let first = out.len();
        let Self { route, message, values, .. } = *self;
        for place in 0..values.points() {
            let mut point =
                Point { route, message, values, place, line: values.lines.get(place), is_other: false };
            let start = out.len();
            point.write_series(out)?;
            if out.len() - start > MAX_SERIES_BYTES {
                return Err(DecodeError::SeriesTooLong(out.len() - start));
            }
            match self.overflow(&out[start..]) {
                None => {}
                Some((limit, Overflow::DeadLetter)) => return Err(DecodeError::TooManySeries(limit)),
                Some((_, Overflow::Drop)) => return Ok(Written::Dropped),
                Some((_, Overflow::Other)) => {
                    out.truncate(start);
                    point.is_other = true;
                    point.write_other_series(out)?;
                    self.overflowed = true;
                }
            }
            point.write_fields(out)?;
            let time = point.time();
            encode::timestamp(out, time.unwrap_or(self.stamp));
            self.stamp += i64::from(time.is_none());
            if out.len() - first > MAX_LINE_BYTES {
                return Err(DecodeError::TooManyBytes);
            }
            ends.push(out.len());
        }
        Ok(Written::Points { overflowed: self.overflowed })
    }

    /// What to do with a series that is one too many.
    fn overflow(&mut self, series: &[u8]) -> Option<(usize, Overflow)> {
        let bound = self.route.kind.bound?;
        (!self.series.as_mut()?.admits(series, bound.0)).then_some(bound)
    }

    /// Lets the message's series count, if it has become points.
    pub(super) fn end(self, written: &Result<Written, DecodeError>) {
        if let Some(series) = self.series {
            series.end(matches!(written, Ok(Written::Points { .. })));
        }
    }
}

/// One point.
#[derive(Clone, Copy)]
struct Point<'w> {
    route: &'w CompiledRoute,
    message: Message<'w>,
    values: &'w Values,
    /// Which of the values' points it is.
    place: usize,
    /// Its line, where the payload is line protocol.
    line: Option<&'w Line>,
    /// Whether it is above the route's bound.
    is_other: bool,
}

impl<'w> Point<'w> {
    fn time(&self) -> Option<i64> {
        if let Some(line) = self.line {
            return line.timestamp;
        }
        match self.values.slot(self.place, self.route.kind.time_slot?) {
            Slot::Time(time) => Some(*time),
            _ => None,
        }
    }

    /// Seldom, so not inlined a second time.
    #[cold]
    fn write_other_series(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.write_series(out)
    }

    /// Writes measurement and tags, those of the line among those of the route.
    #[inline]
    fn write_series(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.write_measurement(out)?;
        let mut own = self.line.map_or(&[][..], |line| &self.values.line_tags[line.tags.clone()]);
        for tag in &self.route.kind.tags {
            while let Some(((name, value), rest)) = own.split_first()
                && self.text(name) <= tag.name.as_bytes()
            {
                if self.text(name) == tag.name.as_bytes() {
                    return Err(self.bad_line(LineError::Clash(tag.name.clone())));
                }
                self.write_line_tag(name, value, out)?;
                own = rest;
            }
            self.write_tag(tag, out)?;
        }
        own.iter().try_for_each(|(name, value)| self.write_line_tag(name, value, out))
    }

    #[inline]
    fn write_measurement(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let route = self.route;
        if self.is_other {
            out.extend_from_slice(&route.own_measurement);
            return Ok(());
        }
        if let Some(line) = self.line {
            return self.write_line_text(&line.measurement, encode::measurement, out);
        }
        if let Some(written) = route.kind.measurement_slot.and_then(|slot| self.values.get(self.place, slot))
        {
            out.extend_from_slice(written);
            return Ok(());
        }
        if route.measurement.is_empty() {
            out.extend_from_slice(&route.own_measurement);
            return Ok(());
        }
        self.write_measurement_of_topic(out)
    }

    #[inline(never)]
    fn write_measurement_of_topic(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let start = out.len();
        for source in &self.route.measurement {
            let text = match source {
                MeasurementSource::Text(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                MeasurementSource::Level(level) => self.message.levels.one(self.message.topic, *level),
                MeasurementSource::Rest(level) => self.rest(*level),
            };
            encode::measurement(out, text).map_err(DecodeError::MeasurementText)?;
        }
        let reason = match out.get(start) {
            None => "is empty",
            Some(b'_') => "starts with _, which InfluxDB reserves",
            Some(b'#') => "starts with #, which makes a comment of it",
            Some(_) => return Ok(()),
        };
        let found = format!("{:?}", String::from_utf8_lossy(&out[start..]));
        Err(DecodeError::Measurement { found, reason })
    }

    #[inline]
    fn write_tag(&self, tag: &Tag, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let Message { topic, levels, properties, .. } = self.message;
        let text = match &tag.source {
            TagSource::Constant => {
                out.extend_from_slice(&tag.key);
                return Ok(());
            }
            TagSource::Slot(slot) => {
                if let Some(written) = self.values.get(self.place, *slot) {
                    out.extend_from_slice(&tag.key);
                    out.extend_from_slice(if self.is_other { OTHER } else { written });
                }
                return Ok(());
            }
            TagSource::Level(level) => levels.one(topic, *level),
            TagSource::Rest(level) => self.rest(*level),
            TagSource::User(name) => property(tag, properties.user(name))?,
            TagSource::ContentType => property(tag, properties.content_type())?,
        };
        if text.is_empty() {
            return Ok(());
        }
        out.extend_from_slice(&tag.key);
        if self.is_other {
            out.extend_from_slice(OTHER);
            return Ok(());
        }
        encode::tag(out, text).map_err(|source| DecodeError::Tag { tag: tag.name.clone(), source })
    }

    /// The last levels of the topic that the point is about.
    #[inline]
    fn rest(&self, level: usize) -> &'w str {
        match self.values.rests.get(self.place) {
            Some(rest) if self.route.is_sparkplug() => str::from_utf8(self.text(rest)).unwrap_or_default(),
            _ => self.message.levels.rest(self.message.topic, level),
        }
    }

    fn write_fields(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let mut separator = b' ';
        if let Some(line) = self.line {
            out.push(separator);
            out.extend_from_slice(self.text(&line.fields));
            return Ok(());
        }
        for field in &self.route.kind.fields {
            if let Some(written) = self.values.get(self.place, field.slot) {
                out.push(separator);
                out.extend_from_slice(&field.key);
                out.extend_from_slice(written);
                separator = b',';
            }
        }
        let decoder = match &self.route.kind.decoder {
            Decoder::Object(decoder) => decoder,
            Decoder::Sparkplug(_) => {
                out.push(separator);
                out.extend_from_slice(self.text(&self.values.written[self.place]));
                return Ok(());
            }
            _ => return Ok(()),
        };
        for found in self.values.found(self.place) {
            out.push(separator);
            let name = decoder.found_name(found, self.values);
            encode::field(out, &name).map_err(|source| DecodeError::Encode { path: name.clone(), source })?;
            out.push(b'=');
            out.extend_from_slice(self.text(&found.value));
            separator = b',';
        }
        Ok(())
    }

    #[inline(never)]
    fn write_line_tag(
        &self,
        name: &Range<usize>,
        value: &Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        out.push(b',');
        self.write_line_text(name, encode::tag, out)?;
        out.push(b'=');
        if self.is_other {
            out.extend_from_slice(OTHER);
            return Ok(());
        }
        self.write_line_text(value, encode::tag, out)
    }

    fn write_line_text(
        &self,
        text: &Range<usize>,
        write: fn(&mut Vec<u8>, &str) -> Result<(), EncodeError>,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let text = std::str::from_utf8(self.text(text)).map_err(|_| DecodeError::NotUtf8)?;
        write(out, text).map_err(|source| self.bad_line(LineError::Encode { name: text.into(), source }))
    }

    fn text(&self, range: &Range<usize>) -> &'w [u8] {
        &self.values.text[range.clone()]
    }

    fn bad_line(&self, source: LineError) -> DecodeError {
        DecodeError::Line { line: self.line.map_or(0, |line| line.number), source }
    }
}

/// A property's text; empty without one.
fn property<'m>(tag: &Tag, value: Option<&'m [u8]>) -> Result<&'m str, DecodeError> {
    std::str::from_utf8(value.unwrap_or_default()).map_err(|_| DecodeError::Property(tag.name.clone()))
}
