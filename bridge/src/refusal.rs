//! What InfluxDB says when it refuses a write, and which points it can mean. Its words only make suspects, unless they
//! quote a line: they name the first conflict, and count one shard's points.

use jiff::Timestamp;

use crate::batch::Batch;
use crate::encode;

/// Before a line that can't be parsed.
const NAMES: &str = "unable to parse '";

/// A refusal, as far as its words are understood.
#[derive(Debug)]
pub struct Refusal {
    /// The words.
    pub reason: String,
    /// How many points were not stored, at least.
    pub dropped: Option<usize>,
    about: About,
}

#[derive(Debug)]
enum About {
    Field(Conflict),
    Times { from: i64, to: i64 },
    Unknown,
}

/// A field that comes in another type than it has. Names are kept as they are in a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conflict {
    measurement: Vec<u8>,
    field: Vec<u8>,
    kind: String,
}

/// Whether a refusal is one of points; others may be about the request.
pub fn is_about_points(reason: &str) -> bool {
    reason.contains("partial write") || reason.contains(NAMES)
}

impl Refusal {
    /// Reads the words.
    pub fn read(reason: String) -> Self {
        let about = match (Conflict::read(&reason), times(&reason)) {
            (Some(conflict), _) => About::Field(conflict),
            (None, Some((from, to))) => About::Times { from, to },
            (None, None) => About::Unknown,
        };
        Self { dropped: dropped(&reason), reason, about }
    }

    /// The conflict that it names.
    pub fn conflict(&self) -> Option<&Conflict> {
        match &self.about {
            About::Field(conflict) => Some(conflict),
            _ => None,
        }
    }

    /// Those of some points that it can mean.
    pub fn suspects(&self, batch: &Batch, places: &[usize]) -> Vec<usize> {
        let is_meant = |place: &usize| {
            let line = batch.lines(*place..place + 1);
            match &self.about {
                About::Field(conflict) => conflict.is_in(line),
                About::Times { from, to } => time(line).is_some_and(|time| time < *from || time > *to),
                About::Unknown => false,
            }
        };
        places.iter().copied().filter(is_meant).collect()
    }

    /// Those of some points whose lines it quotes, each with what it says of them.
    pub fn named(&self, batch: &Batch, places: &[usize]) -> Vec<(Vec<usize>, String)> {
        let mut named = Vec::new();
        let mut rest = self.reason.as_str();
        while let Some(start) = rest.find(NAMES) {
            let quoted = &rest.as_bytes()[start + NAMES.len()..];
            let is_quoted =
                |line: &&[u8]| quoted.strip_prefix(*line).is_some_and(|end| end.starts_with(b"': "));
            let lines = places.iter().map(|place| line(batch, *place));
            // What a device has written into its own line must not convict another.
            let Some(longest) = lines.filter(is_quoted).max_by_key(|line| line.len()) else { break };
            let after = start + NAMES.len() + longest.len();
            let end = rest[after..].find("\nunable to parse '").map_or(rest.len(), |end| after + end);
            let are = places.iter().copied().filter(|place| line(batch, *place) == longest).collect();
            named.push((are, rest[start..end].to_owned()));
            rest = &rest[end..];
        }
        named
    }
}

/// A point's line, without its end.
fn line(batch: &Batch, place: usize) -> &[u8] {
    let line = batch.lines(place..place + 1);
    line.strip_suffix(b"\n").unwrap_or(line)
}

impl Conflict {
    /// `input field "v" on measurement "m" is type integer, already exists as type float`
    fn read(reason: &str) -> Option<Self> {
        let (_, rest) = reason.split_once("field type conflict: input field \"")?;
        let (rest, _) = rest.rsplit_once(", already exists as type ")?;
        let (rest, kind) = rest.rsplit_once("\" is type ")?;
        let (field, measurement) = rest.split_once("\" on measurement \"")?;
        let mut conflict = Self { measurement: Vec::new(), field: Vec::new(), kind: kind.to_owned() };
        encode::measurement(&mut conflict.measurement, measurement).ok()?;
        encode::field(&mut conflict.field, field).ok()?;
        Some(conflict)
    }

    /// Whether a line has this field in this type.
    pub fn is_in(&self, line: &[u8]) -> bool {
        let Some(rest) = line.strip_prefix(&self.measurement[..]) else { return false };
        let Some(series) = matches!(rest.first(), Some(b',' | b' ')).then(|| end(rest, b" ")).flatten()
        else {
            return false;
        };
        let mut rest = &rest[series + 1..];
        while let Some(key) = end(rest, b"=") {
            let (name, value) = (&rest[..key], &rest[key + 1..]);
            let length = match value.strip_prefix(b"\"") {
                Some(text) => end(text, b"\"").map(|quote| quote + 2),
                None => end(value, b", "),
            };
            let Some(length) = length else { return false };
            if name == self.field {
                return kind(&value[..length]) == self.kind;
            }
            match value.get(length) {
                Some(b',') => rest = &value[length + 1..],
                _ => return false,
            }
        }
        false
    }
}

/// Where the first of these signs is that no backslash stands before.
fn end(text: &[u8], signs: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let is_it = !escaped && signs.contains(byte);
        escaped = !escaped && *byte == b'\\';
        is_it
    })
}

/// InfluxDB's word for a value's type.
fn kind(value: &[u8]) -> &'static str {
    match (value.first(), value.last()) {
        (Some(b'"'), _) => "string",
        (Some(b't' | b'T' | b'f' | b'F'), _) => "boolean",
        (_, Some(b'i')) => "integer",
        (_, Some(b'u')) => "unsigned",
        _ => "float",
    }
}

/// A line's timestamp.
fn time(line: &[u8]) -> Option<i64> {
    let line = line.trim_ascii_end();
    let start = line.iter().rposition(|byte| *byte == b' ')? + 1;
    str::from_utf8(&line[start..]).ok()?.parse().ok()
}

/// `... points outside retention policy ... violates a Retention Policy Lower Bound at 2026-01-01T00:00:00Z`: the
/// times that the database takes.
fn times(reason: &str) -> Option<(i64, i64)> {
    let (_, rest) = reason.split_once(" points outside retention policy of duration ")?;
    let bounds = |name: &str| {
        let after = rest.split(name).skip(1);
        let words = after.filter_map(|after| after.split([' ', ',']).next()?.parse::<Timestamp>().ok());
        words.filter_map(|time| i64::try_from(time.as_nanosecond()).ok()).collect::<Vec<_>>()
    };
    let from = bounds(" Lower Bound at ").into_iter().max().unwrap_or(i64::MIN);
    let to = bounds(" Upper Bound at ").into_iter().min().unwrap_or(i64::MAX);
    Some((from, to))
}

/// `dropped 3 points outside ...`, or in the end `dropped=3`.
fn dropped(reason: &str) -> Option<usize> {
    let of_retention = reason.split_once("partial write: dropped ");
    let (_, rest) = of_retention.or_else(|| reason.rsplit_once("dropped="))?;
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFLICT: &str = "failure writing points to database: partial write: field type conflict: input field \"v\" on \
        measurement \"a b\" is type integer, already exists as type float dropped=2";
    const RETENTION: &str = "failure writing points to database: partial write: dropped 1 points outside retention policy \
        of duration 1h0m0s - oldest point m,x=a at 1970-01-01T00:00:00.000000001Z dropped because it violates a Retention \
        Policy Lower Bound at 1970-01-01T00:00:01.5Z, newest point m,x=a at 1970-01-01T00:00:00.000000001Z dropped \
        because it violates a Retention Policy Lower Bound at 1970-01-01T00:00:01.5Z dropped=1 for database: 610c for \
        retention policy: autogen";

    fn is_meant(line: &str) -> bool {
        let refusal = Refusal::read(CONFLICT.into());
        refusal.conflict().expect("a conflict").is_in(line.as_bytes())
    }

    #[test]
    fn a_conflict_means_the_field_of_this_measurement_in_this_type() {
        assert!(is_meant("a\\ b v=1i 1\n"));
        assert!(is_meant("a\\ b,t\\ =\\,x w=\"a\\\"b, v=1\",v=1i 1\n"));
        for other in [
            "a\\ b v=1 1\n",
            "a\\ b v=1u 1\n",
            "a\\ b v=true 1\n",
            "a\\ b v=\"1i\" 1\n",
            "a\\ b w=1i 1\n",
            "a\\ b w=\"v=1i\",x=1i 1\n",
            "a\\ bc v=1i 1\n",
            "a v=1i 1\n",
            "",
            "a\\ b",
        ] {
            assert!(!is_meant(other), "{other}");
        }
    }

    #[test]
    fn what_retention_drops_is_older_than_the_bound_that_it_names() {
        let refusal = Refusal::read(RETENTION.into());
        assert_eq!(times(RETENTION), Some((1_500_000_000, i64::MAX)));
        assert_eq!((refusal.dropped, time(b"m v=\"a b\" 17\n")), (Some(1), Some(17)));
    }

    #[test]
    fn how_many_were_dropped_is_read_where_the_database_writes_it() {
        assert_eq!(dropped(CONFLICT), Some(2));
        assert_eq!(
            dropped("partial write: dropped 7 points outside retention policy of x - oldest dropped=1"),
            Some(7)
        );
        assert_eq!(dropped("partial write: field \"dropped=1\" is bad dropped=12"), Some(12));
        assert_eq!(dropped("partial write: field type conflict"), None);
    }

    #[test]
    fn a_refusal_of_the_request_is_none_of_points() {
        assert!(is_about_points(CONFLICT) && is_about_points(RETENTION));
        assert!(is_about_points("unable to parse 'm v=': missing field value"));
        assert!(!is_about_points("org name or id required"));
    }
}
