//! What messages become: each directory of `cases` has a configuration, messages, and the line
//! protocol that is expected of them. `UPDATE=1` rewrites what is expected.

use std::fmt::Write;
use std::path::Path;

use iotpipeline_bridge::config::Loaded;
use iotpipeline_bridge::explain::{Explainer, Part, parse_messages};

/// The n-th message is received n nanoseconds after 1970.
fn rendered(case: &Path) -> String {
    let read = |name: &str| {
        let path = case.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let loaded = Loaded::parse(read("config.yaml").as_bytes(), None)
        .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    let messages =
        parse_messages(&read("messages.jsonl")).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    let mut text = String::new();
    let mut explainer = Explainer::new(&loaded.table);
    for (place, message) in messages.iter().enumerate() {
        let parts = explainer.parts(message, place as i64 + 1);
        if parts.is_empty() {
            writeln!(text, "# no route: {}", message.topic).expect("a String");
        }
        for (route, result) in parts {
            match result {
                Part::Stored(lines) => writeln!(text, "{lines}"),
                Part::Refused(reason) => writeln!(text, "# refused: {route}: {reason}"),
                Part::Dropped(reason) => writeln!(text, "# dropped: {route}: {reason}"),
                Part::Aside(aside) => writeln!(text, "# {route}: {aside}"),
            }
            .expect("a String");
        }
    }
    text
}

#[test]
fn messages_become_the_expected_lines() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut seen = 0;
    for entry in std::fs::read_dir(&cases).expect("the cases") {
        let case = entry.expect("an entry").path();
        let (path, found) = (case.join("expected.lp"), rendered(&case));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &found).expect("to write what is expected");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, expected, "{}: UPDATE=1 rewrites it, if the new one is right", case.display());
        for line in influxdb_line_protocol::parse_lines(&found) {
            line.unwrap_or_else(|error| panic!("{}: not line protocol: {error}", case.display()));
        }
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} cases were found");
}
