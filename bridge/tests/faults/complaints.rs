//! What users of other bridges have complained of. Each complaint has tests here, whose names begin with it.
//! Where a fault of the same kind has a test elsewhere, the one here is about what the complaint adds.
//!
//! | complaint | of | tests begin with | in |
//! |---|---|---|---|
//! | Messages that can't be stored fill the window, and nothing comes any more | Telegraf, Bento, mosquitto | `poison_wedge_` | `refusals.rs` |
//! | What can't be parsed is acknowledged and gone | Telegraf | `silent_drops_` | `refusals.rs` |
//! | A handler that blocks keeps pings from going out | paho, Telegraf, Bento, Connect | `backpressure_kills_keep_alive_` | `connections.rs` |
//! | Connected again, and not subscribed; storms; orphaned queues | Telegraf, Vector | `reconnect_` | `connections.rs` |
//! | Acknowledgements out of order, or of another connection | Vector, rumqtt | `ack_races_` | `connections.rs` |
//! | Acknowledged to the publisher, and lost on the way or expired in a queue | Telegraf, EMQX | `qos_1_loss_` | `outages.rs` |
//! | One bad point fails the whole batch | EMQX, Telegraf | `one_bad_point_` | `refusals.rs` |
//! | A full buffer drops the oldest | Telegraf | `full_buffer_` | `outages.rs` |
//! | A buffer on disk grows for ever, or fails with the disk | Telegraf | `disk_buffer_` | `volume.rs` |
//! | 360 after 341.7 is an integer, and refused | node-red, mqtt2influxdb, n8n | `int_float_conflicts_` | `refusals.rs` |
//! | Changed topics are ignored; what was in memory is lost | Telegraf | `reload_` | `reload.rs` |
//! | Repeated literals, retained replays, user properties | Telegraf | `topic_rules_` | `topics.rs` |
//! | Random tag values fill the database's memory | InfluxDB | `cardinality_` | `topics.rs` |
//! | A message above a limit is redelivered for ever | rumqttc, Vector | `oversize_loop_` | `connections.rs`, `version.rs` |

mod connections;
mod outages;
mod refusals;
mod reload;
mod topics;
mod volume;

pub(crate) use refusals::bury;

/// The files that the table names.
const FILES: [(&str, &str); 7] = [
    ("connections.rs", include_str!("complaints/connections.rs")),
    ("outages.rs", include_str!("complaints/outages.rs")),
    ("refusals.rs", include_str!("complaints/refusals.rs")),
    ("reload.rs", include_str!("complaints/reload.rs")),
    ("topics.rs", include_str!("complaints/topics.rs")),
    ("volume.rs", include_str!("complaints/volume.rs")),
    ("version.rs", include_str!("version.rs")),
];

/// The names of a file's tests.
fn tests(file: &str) -> impl Iterator<Item = &str> {
    let (_, text) = FILES.iter().find(|(name, _)| *name == file).expect("a file of the table");
    text.split("#[tokio::test]\nasync fn ").skip(1).filter_map(|rest| Some(rest.split_once('(')?.0))
}

/// The table's rows: how the tests' names begin, and the files that they are in.
fn rows() -> Vec<(&'static str, Vec<&'static str>)> {
    let rows = include_str!("complaints.rs").lines().filter(|line| line.starts_with("//! |")).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let files = cells[4].trim_end_matches(" |").split(", ").map(|file| file.trim_matches('`'));
        (cells[3].trim_matches('`'), files.collect())
    })
    .collect()
}

#[test]
fn every_complaint_has_a_test_in_each_file_that_the_table_names() {
    let rows = rows();
    assert_eq!(rows.len(), 14);
    for (prefix, files) in &rows {
        for file in files {
            assert!(tests(file).any(|name| name.starts_with(prefix)), "no test {prefix}* in {file}");
        }
    }
    for (file, _) in FILES.iter().filter(|(file, _)| *file != "version.rs") {
        for name in tests(file) {
            assert!(rows.iter().any(|(prefix, _)| name.starts_with(prefix)), "{name} is of no complaint");
        }
    }
}
