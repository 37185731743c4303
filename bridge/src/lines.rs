//! Reads line protocol that a message brings, strictly: what passes here is written anew by
//! [`encode`](crate::encode), so nothing else can get into a batch.
//!
//! <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>. Where programs that read
//! line protocol disagree, on several backslashes before a sign that has a meaning, a line is refused.

use std::ops::Range;

use api::route::Precision;

use crate::decode::{DecodeError, quoted};
use crate::encode::{self, EncodeError};
use crate::value::in_range;
use crate::values::{Layout, MAX_POINTS, Values};

/// What is wrong with a line.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum LineError {
    /// The line ends where more is needed, or goes on where it must end.
    #[error("{0}")]
    Syntax(&'static str),
    /// Programs disagree on what it means.
    #[error(
        "several backslashes before a comma, a space or an equals sign are read differently by different programs: use one"
    )]
    Backslashes,
    /// InfluxDB reserves the name.
    #[error("{0:?} is a name that InfluxDB reserves")]
    Reserved(String),
    /// Two tags, or two fields, have one name.
    #[error("{0:?} names two of its tags, or two of its fields")]
    Twice(String),
    /// A tag has the name of one that the route adds.
    #[error("the tag {0:?} is also one that the route adds: rename the topic's capture or the route's tag")]
    Clash(String),
    /// A value of no type.
    #[error("the field {name:?} is {found}, which is no number, text, true or false")]
    Value {
        /// The field.
        name: String,
        /// Its value.
        found: String,
    },
    /// A timestamp that can't be stored.
    #[error("the timestamp {0} is no whole number between 1677 and 2262")]
    Time(String),
    /// A name or a value can't be written.
    #[error("{name:?} {source}")]
    Encode {
        /// The name, or the text.
        name: String,
        /// Why not.
        source: EncodeError,
    },
}

/// One line, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Which line of the payload, from 1.
    pub number: usize,
    /// Where the measurement is in the values' text.
    pub measurement: Range<usize>,
    /// Which of the values' tags are the line's, sorted by name.
    pub tags: Range<usize>,
    /// Where the fields are in the values' text, as they go into the batch.
    pub fields: Range<usize>,
    pub timestamp: Option<i64>,
}

/// Takes a payload of lines apart.
///
/// # Errors
/// If one of them is no good, or there is none.
pub(crate) fn decode(precision: Precision, payload: &[u8], values: &mut Values) -> Result<(), DecodeError> {
    values.reset(Layout::default());
    let text = std::str::from_utf8(payload).map_err(|_| DecodeError::NotUtf8)?;
    let mut reader = Reader { text, at: 0, values };
    let (mut number, mut counted) = (1, 0);
    loop {
        reader.skip(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        match reader.peek() {
            None if reader.values.lines.is_empty() => return Err(DecodeError::NoLine),
            None => return Ok(()),
            Some(b'#') => reader.skip(|byte| byte != b'\n'),
            Some(_) if reader.values.lines.len() == MAX_POINTS => return Err(DecodeError::TooManyPoints),
            Some(_) => {
                number += text[counted..reader.at].matches('\n').count();
                counted = reader.at;
                reader
                    .line(number, precision)
                    .map_err(|source| DecodeError::Line { line: number, source })?;
            }
        }
    }
}

struct Reader<'r> {
    text: &'r str,
    at: usize,
    values: &'r mut Values,
}

impl<'r> Reader<'r> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, is_skipped: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&is_skipped) {
            self.at += 1;
        }
    }

    /// Goes on after this byte, if it is the next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn is_at_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n' | b'\r'))
    }

    fn line(&mut self, number: usize, precision: Precision) -> Result<(), LineError> {
        let measurement = self.name(b", ", false)?;
        if matches!(self.values.text.get(measurement.start), Some(b'_')) {
            return Err(LineError::Reserved(self.name_at(&measurement).into()));
        }
        let first_tag = self.values.line_tags.len();
        while self.take(b',') {
            let name = self.name(b",= ", true)?;
            if !self.take(b'=') {
                return Err(LineError::Syntax("a tag has no value: write name=value"));
            }
            let value = self.name(b",= ", false)?;
            self.values.line_tags.push((name, value));
        }
        self.sort_tags(first_tag)?;
        if !self.take(b' ') {
            return Err(LineError::Syntax("it has no field: write a space and name=value"));
        }
        self.skip(|byte| byte == b' ');
        let fields = self.fields()?;
        self.skip(|byte| byte == b' ');
        let timestamp = if self.is_at_end() { None } else { Some(self.timestamp(precision)?) };
        self.skip(|byte| matches!(byte, b' ' | b'\r'));
        if !matches!(self.peek(), None | Some(b'\n')) {
            return Err(LineError::Syntax("something follows the timestamp"));
        }
        let tags = first_tag..self.values.line_tags.len();
        self.values.lines.push(Line { number, measurement, tags, fields, timestamp });
        Ok(())
    }

    /// Reads a name or a tag's value up to what ends it, and keeps it without its escapes.
    fn name(&mut self, special: &[u8], is_key: bool) -> Result<Range<usize>, LineError> {
        let start = self.values.text.len();
        let mut backslashes = 0;
        while !self.is_at_end()
            && let Some(byte) = self.peek()
        {
            if special.contains(&byte) {
                match backslashes {
                    0 => break,
                    1 => drop(self.values.text.pop()),
                    _ => return Err(LineError::Backslashes),
                }
            }
            backslashes = if byte == b'\\' { backslashes + 1 } else { 0 };
            self.values.text.push(byte);
            self.at += 1;
        }
        let name = start..self.values.text.len();
        if name.is_empty() {
            return Err(LineError::Syntax("a measurement, a tag or a field is empty"));
        }
        if backslashes > 1 {
            return Err(LineError::Backslashes);
        }
        let text = self.name_at(&name);
        if is_key && (text.starts_with('_') || text == "time") {
            return Err(LineError::Reserved(text.into()));
        }
        Ok(name)
    }

    fn name_at(&self, name: &Range<usize>) -> &str {
        str_at(&self.values.text, name)
    }

    fn sort_tags(&mut self, first: usize) -> Result<(), LineError> {
        let text = &self.values.text;
        let tags = &mut self.values.line_tags[first..];
        tags.sort_unstable_by(|one, other| text[one.0.clone()].cmp(&text[other.0.clone()]));
        match tags.windows(2).find(|pair| text[pair[0].0.clone()] == text[pair[1].0.clone()]) {
            Some(pair) => Err(LineError::Twice(str_at(text, &pair[0].0).into())),
            None => Ok(()),
        }
    }

    /// Reads the fields, and writes them one after the other at the end of the text.
    fn fields(&mut self) -> Result<Range<usize>, LineError> {
        let mut names: Vec<String> = Vec::new();
        let mut written = Vec::new();
        loop {
            let start = self.values.text.len();
            let name = self.name(b",= ", true)?;
            // InfluxDB 1 writes a backslash before a quote there, and InfluxDB 2 takes it away.
            let name = self.name_at(&name).replace("\\\"", "\"");
            self.values.text.truncate(start);
            if !self.take(b'=') {
                return Err(LineError::Syntax("a field has no value: write name=value"));
            }
            if !names.is_empty() {
                written.push(b',');
            }
            let encode = |source| LineError::Encode { name: name.clone(), source };
            encode::field(&mut written, &name).map_err(encode)?;
            written.push(b'=');
            if self.take(b'"') {
                let text = self.string()?;
                encode::string(&mut written, &text).map_err(encode)?;
            } else {
                let token = self.token(b", ");
                write_value(token, &mut written)
                    .ok_or_else(|| LineError::Value { name: name.clone(), found: quoted(token) })?;
            }
            if names.contains(&name) {
                return Err(LineError::Twice(name));
            }
            names.push(name);
            if !self.take(b',') {
                break;
            }
        }
        let start = self.values.text.len();
        self.values.text.append(&mut written);
        Ok(start..self.values.text.len())
    }

    /// A text after its first quote.
    fn string(&mut self) -> Result<String, LineError> {
        let mut text = String::new();
        let mut rest = self.text[self.at..].char_indices();
        while let Some((_, character)) = rest.next() {
            match (character, rest.as_str().chars().next()) {
                ('"', _) => {
                    self.at = self.text.len() - rest.as_str().len();
                    return Ok(text);
                }
                ('\\', Some(escaped @ ('"' | '\\'))) => {
                    rest.next();
                    text.push(escaped);
                }
                _ => text.push(character),
            }
        }
        Err(LineError::Syntax("a text has no closing quote"))
    }

    /// What stands before one of these bytes, or before the end of the line.
    fn token(&mut self, ends: &[u8]) -> &'r str {
        let start = self.at;
        while !self.is_at_end() && self.peek().is_some_and(|byte| !ends.contains(&byte)) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn timestamp(&mut self, precision: Precision) -> Result<i64, LineError> {
        let scale = match precision {
            Precision::S => 1_000_000_000,
            Precision::Ms => 1_000_000,
            Precision::Us => 1_000,
            Precision::Ns => 1,
        };
        let token = self.token(b" ");
        let time = token.parse::<i64>().ok().and_then(|count| in_range(i128::from(count) * scale));
        time.ok_or_else(|| LineError::Time(quoted(token)))
    }
}

/// A part of a text, which was cut at ASCII signs only.
fn str_at<'t>(text: &'t [u8], range: &Range<usize>) -> &'t str {
    std::str::from_utf8(&text[range.clone()]).unwrap_or_default()
}

/// Writes a value that is no text.
fn write_value(token: &str, out: &mut Vec<u8>) -> Option<()> {
    match token {
        "t" | "T" | "true" | "True" | "TRUE" => encode::boolean(out, true),
        "f" | "F" | "false" | "False" | "FALSE" => encode::boolean(out, false),
        _ => match token.as_bytes().split_last()? {
            (b'i', _) => encode::integer(out, token[..token.len() - 1].parse().ok()?),
            (b'u', _) => encode::unsigned(out, token[..token.len() - 1].parse().ok()?),
            _ if token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) => {
                encode::float(out, token.parse().ok()?).ok()?;
            }
            _ => return None,
        },
    }
    Some(())
}

#[cfg(test)]
mod tests;
