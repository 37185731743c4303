//! Writes line protocol into a buffer, without allocating.
//!
//! <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>. InfluxDB knows no
//! escape for a line break in a name or a tag, nor for a backslash at the end of one: those are refused. So is
//! what InfluxDB's own functions read in two ways (`models/points.go`): where it looks for the end of a line or
//! of a field's name, a backslash escapes the backslash after it; where it takes tags apart, it doesn't. With a
//! backslash before an equals sign and a quote, a name of one message could swallow the lines of others. And it
//! unescapes a measurement and a field's key once more where it stores them (`pkg/escape/bytes.go`), quotes
//! included: a point of a measurement with a backslash before a quote is taken and never found again.

/// The longest series key (measurement and tags) that InfluxDB takes, with room for its own use.
pub const MAX_SERIES_BYTES: usize = 65_000;

/// The longest text that InfluxDB takes for a field, in bytes.
pub const MAX_STRING_BYTES: usize = 65_536;

/// Why a value can't be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// Line protocol ends a point there.
    #[error("holds a line break, which InfluxDB cannot store in a tag or a name")]
    LineBreak,
    /// Line protocol would take what follows for a part of the text.
    #[error("ends with a backslash, which InfluxDB cannot store in a tag or a name")]
    TrailingBackslash,
    /// InfluxDB reads the escapes that follow in two ways.
    #[error(
        "has a backslash before a comma, a space, an equals sign or a quote, which InfluxDB cannot store in a tag or a \
         name"
    )]
    Backslash,
    /// InfluxDB leaves it out, so that it would be another name.
    #[error("starts with a tab or NUL, which InfluxDB would leave out")]
    Blank,
    /// Line protocol has no NaN and no infinity.
    #[error("is not a finite number")]
    NotFinite,
    /// InfluxDB's limit for a text.
    #[error("has {0} bytes, and InfluxDB stores at most {MAX_STRING_BYTES}")]
    StringTooLong(usize),
}

/// Writes a measurement's name.
///
/// # Errors
/// If line protocol can't express it.
#[inline]
pub fn measurement(out: &mut Vec<u8>, name: &str) -> Result<(), EncodeError> {
    no_blank(name)?;
    escaped(out, name, |byte| matches!(byte, b',' | b' '), is_unescaped_again)
}

/// Writes a field's key.
///
/// # Errors
/// If line protocol can't express it.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &str) -> Result<(), EncodeError> {
    no_blank(name)?;
    escaped(out, name, |byte| matches!(byte, b',' | b'=' | b' '), is_unescaped_again)
}

/// What InfluxDB takes a backslash away from where it stores a name.
fn is_unescaped_again(byte: u8) -> bool {
    matches!(byte, b',' | b'"' | b' ' | b'=')
}

/// What a line or its fields begin with is skipped by InfluxDB if it is one of these; and what was behind the
/// tab may then be the sign of a comment.
fn no_blank(name: &str) -> Result<(), EncodeError> {
    if name.starts_with(['\t', '\0']) { Err(EncodeError::Blank) } else { Ok(()) }
}

/// Writes a tag's key or value.
///
/// # Errors
/// If line protocol can't express it.
#[inline]
pub fn tag(out: &mut Vec<u8>, text: &str) -> Result<(), EncodeError> {
    let special = |byte| matches!(byte, b',' | b'=' | b' ');
    escaped(out, text, special, special)
}

/// Writes a text with a backslash before what is special; before what is ambiguous it can't have one of its own.
#[inline]
fn escaped(
    out: &mut Vec<u8>,
    text: &str,
    special: impl Fn(u8) -> bool,
    ambiguous: impl Fn(u8) -> bool,
) -> Result<(), EncodeError> {
    let bytes = text.as_bytes();
    if bytes.ends_with(b"\\") {
        return Err(EncodeError::TrailingBackslash);
    }
    // The common text has nothing to escape and is copied whole.
    if !bytes.iter().any(|&byte| ambiguous(byte) || byte == b'\n' || byte == b'\r') {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    let mut before = 0;
    for &byte in bytes {
        match byte {
            b'\n' | b'\r' => return Err(EncodeError::LineBreak),
            _ if ambiguous(byte) && before == b'\\' => return Err(EncodeError::Backslash),
            _ if special(byte) => out.extend_from_slice(&[b'\\', byte]),
            _ => out.push(byte),
        }
        before = byte;
    }
    Ok(())
}

/// Writes a float's value.
///
/// # Errors
/// If it is NaN or infinite.
#[inline]
pub fn float(out: &mut Vec<u8>, value: f64) -> Result<(), EncodeError> {
    if !value.is_finite() {
        return Err(EncodeError::NotFinite);
    }
    let mut text = zmij::Buffer::new();
    let text = text.format_finite(value);
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    Ok(())
}

/// Writes an integer's value.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    out.push(b'i');
}

/// Writes an unsigned integer's value.
pub fn unsigned(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    out.push(b'u');
}

/// Writes a boolean's value.
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Writes a text's value, in quotes.
///
/// # Errors
/// If InfluxDB can't store it.
pub fn string(out: &mut Vec<u8>, value: &str) -> Result<(), EncodeError> {
    if value.len() > MAX_STRING_BYTES {
        return Err(EncodeError::StringTooLong(value.len()));
    }
    out.push(b'"');
    for &byte in value.as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
    Ok(())
}

/// Ends a line with its timestamp in nanoseconds.
#[inline]
pub fn timestamp(out: &mut Vec<u8>, nanoseconds: i64) {
    out.push(b' ');
    out.extend_from_slice(itoa::Buffer::new().format(nanoseconds).as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use influxdb_line_protocol::{FieldValue, parse_lines};
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> Result<String, EncodeError> {
        let mut out = Vec::new();
        write(&mut out).map(|()| String::from_utf8(out).expect("line protocol is text"))
    }

    #[test]
    fn each_place_escapes_what_would_end_it() {
        assert_eq!(text(|out| measurement(out, "a b,c=d")), Ok(r"a\ b\,c=d".into()));
        assert_eq!(text(|out| tag(out, "a b,c=d\"e")), Ok(r#"a\ b\,c\=d"e"#.into()));
        assert_eq!(text(|out| string(out, "a\"b\\c\nd")), Ok("\"a\\\"b\\\\c\nd\"".into()));
    }

    /// InfluxDB 2 stores a tab in a tag as it is (tried with 2.9), and has no escape for it.
    #[test]
    fn a_tab_is_written_as_it_is() {
        assert_eq!(text(|out| tag(out, "a\tb")), Ok("a\tb".into()));
    }

    #[test]
    fn what_line_protocol_cannot_express_is_refused() {
        assert_eq!(text(|out| tag(out, "a\nb")), Err(EncodeError::LineBreak));
        assert_eq!(text(|out| tag(out, "a\\")), Err(EncodeError::TrailingBackslash));
        for name in [r"a\=b", r"a\ b", r"a\,b", r"a\\ b"] {
            assert_eq!(text(|out| tag(out, name)), Err(EncodeError::Backslash), "{name}");
        }
        for name in [r"a\ b", r"a\=b", r#"a\"b"#] {
            assert_eq!(text(|out| measurement(out, name)), Err(EncodeError::Backslash), "{name}");
            assert_eq!(text(|out| field(out, name)), Err(EncodeError::Backslash), "{name}");
        }
        assert_eq!(text(|out| tag(out, r#"a\"b"#)), Ok(r#"a\"b"#.into()));
        assert_eq!(text(|out| float(out, f64::NAN)), Err(EncodeError::NotFinite));
        assert_eq!(text(|out| string(out, &"x".repeat(65_537))), Err(EncodeError::StringTooLong(65_537)));
    }

    /// InfluxDB would store the field `b`, and take the measurement for a comment.
    #[test]
    fn what_influxdb_leaves_out_at_the_start_is_refused_there() {
        for name in ["\tb", "\0b", "\t#"] {
            assert_eq!(text(|out| field(out, name)), Err(EncodeError::Blank));
            assert_eq!(text(|out| measurement(out, name)), Err(EncodeError::Blank));
        }
        assert_eq!(text(|out| field(out, "a\tb")), Ok("a\tb".into()));
    }

    #[test]
    fn numbers_are_written_shortest() {
        for (value, expected) in [(360.0, "360"), (341.7, "341.7"), (-0.5, "-0.5"), (1e21, "1e+21")] {
            let written = text(|out| float(out, value)).expect("finite");
            assert_eq!(written.parse::<f64>(), Ok(value));
            assert!(written.len() <= expected.len(), "{written}");
        }
    }

    /// Text that line protocol can express, with much that needs escaping.
    fn name() -> impl Strategy<Value = String> {
        r#"[ab ,="'é#\\]{0,5}[ab ,="é]"#.prop_filter(
            "refused, or two backslashes, which influxdb-line-protocol reads as one; InfluxDB does not",
            |name| field(&mut Vec::new(), name).is_ok() && !name.contains(r"\\"),
        )
    }

    proptest! {
        #[test]
        fn a_parser_reads_back_what_was_written(
            measured in name().prop_filter("# starts a comment", |name| !name.starts_with('#')),
            key in name(), value in name(), field in name(),
            number in any::<f64>().prop_filter("finite", |number| number.is_finite()),
            whole in any::<i64>(), words in "[ab\"\\\\ =,\n\ré]{0,8}", stamp in any::<i64>(),
        ) {
            let mut out = Vec::new();
            measurement(&mut out, &measured).expect("expressible");
            out.push(b',');
            tag(&mut out, &key).expect("expressible");
            out.push(b'=');
            tag(&mut out, &value).expect("expressible");
            for (suffix, write) in [
                ("f", &(|out: &mut Vec<u8>| float(out, number)) as &dyn Fn(&mut Vec<u8>) -> Result<(), EncodeError>),
                ("i", &|out: &mut Vec<u8>| { integer(out, whole); Ok(()) }),
                ("s", &|out: &mut Vec<u8>| string(out, &words)),
            ] {
                out.push(if suffix == "f" { b' ' } else { b',' });
                super::field(&mut out, &format!("{field}{suffix}")).expect("expressible");
                out.push(b'=');
                write(&mut out).expect("expressible");
            }
            timestamp(&mut out, stamp);
            let text = String::from_utf8(out).expect("text");
            let lines: Vec<_> = parse_lines(&text).collect();
            prop_assert_eq!(lines.len(), 1);
            let line = lines[0].as_ref().expect("the parser takes the line");
            prop_assert_eq!(line.series.measurement.as_str(), &measured);
            prop_assert_eq!(line.tag_value(&key).map(|read| read.as_str()), Some(value.as_str()));
            prop_assert_eq!(line.field_value(&format!("{field}f")), Some(&FieldValue::F64(number)));
            prop_assert_eq!(line.field_value(&format!("{field}i")), Some(&FieldValue::I64(whole)));
            let Some(FieldValue::String(read)) = line.field_value(&format!("{field}s")) else { panic!("no text") };
            prop_assert_eq!(read.as_str(), &words);
            prop_assert_eq!(line.timestamp, Some(stamp));
        }
    }
}
