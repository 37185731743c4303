//! The bench: our bridge and Telegraf in turn, behind the same mosquitto and before the same InfluxDB,
//! under the same load.
//!
//! Reading guide: `rows` (what is measured, and under which load), `packets` (the messages, as bytes
//! built beforehand), `generator` (publishes them), `relay` (stands before the database and notes when
//! what was stored), `usage` (what a process has cost), `subjects` (what is measured: the bridge,
//! Telegraf, and `floor`, a reader that stores nothing), `run` (one measurement), `report` with `bars`
//! and `table` (what comes of all of them).

pub mod bars;
pub mod floor;
pub mod generator;
pub mod packets;
pub mod relay;
pub mod report;
pub mod rows;
pub mod run;
pub mod subjects;
pub mod table;
pub mod usage;
