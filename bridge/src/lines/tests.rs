use std::fmt::Write;

use api::route::Route;
use influxdb_line_protocol::{FieldValue, ParsedLine, parse_lines};
use proptest::prelude::*;

use crate::properties::Properties;
use crate::route::Levels;
use crate::table::{Message, Table};
use crate::values::Values;

const ROUTE: &str =
    "[{name: r, topic: 'lines/{place}', tags: [{name: site, value: lab}], payload: {lineProtocol: {}}}]";

/// What a route makes of a payload on the topic lines/hall, received at 7 ns.
fn passed(payload: &[u8]) -> Result<String, String> {
    let routes: Vec<Route> = serde_saphyr::from_str(ROUTE).expect("a route");
    let table = Table::new(&routes).expect("it compiles");
    let (topic, mut levels, mut out) = ("lines/hall", Levels::default(), Vec::new());
    assert!(levels.split(topic));
    let message =
        Message { topic, levels: &levels, payload, properties: Properties::default(), retained: false };
    let written = table.routes()[0].write_points(message, 7, &mut Values::default(), None, &mut out);
    written.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).expect("lines are text"))
}

fn refused(payload: &str) -> String {
    passed(payload.as_bytes()).expect_err("refused")
}

#[test]
fn a_line_is_written_anew_with_the_route_s_tags_among_its_own() {
    assert_eq!(
        passed(b"m,zone=z,a=1 v=1.50,n=-3i,u=4u,b=T,s=\"x\\\"y\\\\ \\n\" 12"),
        Ok("m,a=1,place=hall,site=lab,zone=z v=1.5,n=-3i,u=4u,b=true,s=\"x\\\"y\\\\ \\\\n\" 12\n".into())
    );
}

#[test]
fn lines_without_a_timestamp_get_the_time_of_reception_and_those_after_it() {
    assert_eq!(
        passed(b"# a comment\n\nm v=1\r\nm v=2 5\n m v=3 \n"),
        Ok("m,place=hall,site=lab v=1 7\nm,place=hall,site=lab v=2 5\nm,place=hall,site=lab v=3 8\n".into())
    );
}

/// As InfluxDB 1 writes it (`appendField`) and InfluxDB 2 stores it; a measurement would not be found.
#[test]
fn a_field_s_name_may_have_a_backslash_before_a_quote_and_a_measurement_may_not() {
    assert_eq!(passed(br#"m a\"b=1 5"#), Ok("m,place=hall,site=lab a\"b=1 5\n".into()));
    assert!(refused(r#"m a\\"b=1"#).contains("backslash before"));
    assert!(refused(r#"m\"n a=1"#).contains("backslash before"));
}

#[test]
fn one_bad_line_refuses_all_and_is_named() {
    for (payload, reason) in [
        ("m v=1\nm\n", "line 2 of the payload: it has no field: write a space and name=value"),
        (
            "m,place=x v=1",
            "line 1 of the payload: the tag \"place\" is also one that the route adds: rename the topic's capture or the route's tag",
        ),
        ("m,a=1,a=2 v=1", "line 1 of the payload: \"a\" names two of its tags, or two of its fields"),
        ("m v=1,v=2", "line 1 of the payload: \"v\" names two of its tags, or two of its fields"),
        ("m,a= v=1", "line 1 of the payload: a measurement, a tag or a field is empty"),
        (
            "m v=NaN",
            "line 1 of the payload: the field \"v\" is \"NaN\", which is no number, text, true or false",
        ),
        (
            "m v=1e999",
            "line 1 of the payload: the field \"v\" is \"1e999\", which is no number, text, true or false",
        ),
        (
            "m v=9223372036854775808i",
            "line 1 of the payload: the field \"v\" is \"9223372036854775808i\", which is no number, text, true or false",
        ),
        ("m v=\"a\nm v=1", "line 1 of the payload: a text has no closing quote"),
        (
            "m v=\"a\nb\"\nm v=x",
            "line 3 of the payload: the field \"v\" is \"x\", which is no number, text, true or false",
        ),
        (
            "m v=1 1.5",
            "line 1 of the payload: the timestamp \"1.5\" is no whole number between 1677 and 2262",
        ),
        ("m v=1 1 2", "line 1 of the payload: something follows the timestamp"),
        ("_m v=1", "line 1 of the payload: \"_m\" is a name that InfluxDB reserves"),
        ("m time=1", "line 1 of the payload: \"time\" is a name that InfluxDB reserves"),
        (
            r"m,a=b\\,c=d v=1",
            "line 1 of the payload: several backslashes before a comma, a space or an equals sign are read differently by different programs: use one",
        ),
        (" \n# nothing\n", "the payload has no line of line protocol"),
    ] {
        assert_eq!(refused(payload), reason, "{payload}");
    }
    assert_eq!(
        refused(&"m v=1\n".repeat(1_001)),
        "the message has more than 1000 points: send several messages"
    );
    assert!(passed("m v=1\n".repeat(1_000).as_bytes()).is_ok());
    assert_eq!(passed(b"m v=\xff"), Err("the payload is not UTF-8 text".into()));
}

#[test]
fn lines_that_grow_too_large_with_the_route_s_tags_are_refused() {
    let line = format!("m,t={} v=1\n", "x".repeat(5_000));
    assert!(refused(&line.repeat(900)).contains("send several messages"));
    assert!(refused(&format!("m,t={} v=1", "x".repeat(66_000))).contains("InfluxDB takes at most 65000"));
}

/// A name in line protocol; influxdb-line-protocol reads a backslash before an escape in its own way.
fn name() -> impl Strategy<Value = String> {
    "[a-z ,=é\"#]{0,5}[a-zé]".prop_filter("# starts a comment, and time is reserved", |name| {
        !name.starts_with('#') && name != "time"
    })
}

fn escaped(name: &str, special: &[char]) -> String {
    let escape = |character: char| {
        if special.contains(&character) { format!("\\{character}") } else { character.into() }
    };
    name.chars().map(escape).collect()
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|number| format!("{number:?}")),
        any::<i64>().prop_map(|number| format!("{number}i")),
        any::<u64>().prop_map(|number| format!("{number}u")),
        any::<bool>().prop_map(|value| value.to_string()),
        "[a-z ,=\n]{0,8}".prop_map(|text| format!("\"{text}\"")),
    ]
}

/// Measurement, tags, fields and time of a line, to compare.
type Parts = (String, Vec<(String, String)>, Vec<(String, String)>, Option<i64>);

fn parts(line: &ParsedLine<'_>) -> Parts {
    let tags = line.series.tag_set.iter().flatten();
    let mut tags: Vec<_> = tags.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    tags.sort_unstable();
    let value = |value: &FieldValue<'_>| match value {
        FieldValue::F64(number) => format!("{number:?}"),
        other => format!("{other:?}"),
    };
    let fields = line.field_set.iter().map(|(name, field)| (name.to_string(), value(field))).collect();
    (line.series.measurement.to_string(), tags, fields, line.timestamp)
}

proptest! {
    #[test]
    fn a_parser_reads_of_what_is_passed_what_it_reads_of_what_came(
        measurement in name(), tags in prop::collection::btree_map(name(), name(), 0..4),
        fields in prop::collection::btree_map(name(), field(), 1..4), time in prop::option::of(any::<i32>()),
    ) {
        prop_assume!(!tags.contains_key("place") && !tags.contains_key("site"));
        let special = [',', '=', ' '];
        let mut line = escaped(&measurement, &[',', ' ']);
        for (name, value) in &tags {
            write!(line, ",{}={}", escaped(name, &special), escaped(value, &special)).expect("a String");
        }
        for (place, (name, value)) in fields.iter().enumerate() {
            write!(line, "{}{}={value}", if place == 0 { ' ' } else { ',' }, escaped(name, &special)).expect("a String");
        }
        if let Some(time) = time {
            write!(line, " {time}").expect("a String");
        }
        let passed = passed(line.as_bytes()).expect("a good line");
        let read = |text: &str| parse_lines(text).map(|line| parts(&line.expect("the parser takes it"))).collect::<Vec<_>>();
        let mut expected = read(&line);
        for (_, tags, _, time) in &mut expected {
            tags.extend([("place".into(), "hall".into()), ("site".into(), "lab".into())]);
            tags.sort_unstable();
            time.get_or_insert(7);
        }
        prop_assert_eq!(read(&passed), expected);
    }

    #[test]
    fn whatever_is_passed_is_line_protocol(text in "[mvt01,= \\\\\"\n\ri.#é-]{0,30}") {
        if let Ok(lines) = passed(text.as_bytes()) {
            for line in parse_lines(&lines) {
                prop_assert!(line.is_ok(), "{:?} became {:?}", text, lines);
            }
        }
    }
}
