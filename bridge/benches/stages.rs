//! Each stage that every message goes through, alone: `cargo bench --package iotpipeline-bridge`.
//!
//! `cargo xtask bench` measures the whole bridge. When it got slower, this says where.

use std::hint::black_box;
use std::sync::Arc;

use api::route::Route;
use criterion::{Criterion, Throughput};
use iotpipeline_bridge::compress::Gzip;
use iotpipeline_bridge::encode;
use iotpipeline_bridge::properties::Properties;
use iotpipeline_bridge::route::Levels;
use iotpipeline_bridge::table::{Message, Table};
use iotpipeline_bridge::values::Values;

const STAMP: i64 = 1_795_000_000_123_456_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    route(&mut criterion);
    decode(&mut criterion);
    encode(&mut criterion);
    compress(&mut criterion);
    criterion.final_summary();
}

fn table(yaml: &str) -> Arc<Table> {
    let routes: Vec<Route> = serde_saphyr::from_str(yaml).expect("routes");
    Arc::new(Table::new(&routes).expect("they compile"))
}

/// A topic's route, among few and among many.
fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for routes in [1_u32, 1_000] {
        let route = |place| {
            format!("- {{name: r{place}, topic: 'plant/g{place:03}/{{sensor}}', payload: {{float: {{}}}}}}\n")
        };
        let table = table(&(0..routes).map(route).collect::<String>());
        let topic = format!("plant/g{:03}/s00042", routes / 2);
        let (mut levels, mut found) = (Levels::default(), Vec::new());
        group.bench_function(routes.to_string(), |bencher| {
            bencher.iter(|| {
                assert!(levels.split(black_box(&topic)));
                table.matches(&topic, &levels, &[], &mut found);
                found.len()
            });
        });
    }
    group.finish();
}

/// A message's points, from its payload to their lines.
fn decode(criterion: &mut Criterion) {
    const JSON: &str = "{fields: [{path: temperature, type: float}, {path: humidity, type: float}, \
                        {path: battery, type: integer}, {path: open, type: boolean}]}";
    let object = r#"{"temperature":21.37,"humidity":40.25,"battery":87,"open":true}"#;
    let payloads = [
        ("number", "float: {}".to_owned(), "21.37"),
        ("json4", format!("json: {JSON}"), object),
        ("line", "lineProtocol: {}".to_owned(), "rooms,sensor=s00042 temperature=21.37,battery=87i"),
    ];
    let mut group = criterion.benchmark_group("decode");
    for (name, payload, text) in payloads {
        let capture = if name == "line" { "+" } else { "{sensor}" };
        let table = table(&format!("- {{name: r, topic: 'plant/{capture}', payload: {{{payload}}}}}"));
        let (topic, mut levels) = ("plant/s00042", Levels::default());
        assert!(levels.split(topic));
        let (mut values, mut out) = (Values::default(), Vec::new());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                let message = Message {
                    topic,
                    levels: &levels,
                    payload: black_box(text.as_bytes()),
                    properties: Properties::default(),
                    retained: false,
                };
                let written = table.routes()[0].write_points(message, STAMP, &mut values, None, &mut out);
                assert!(written.is_ok());
                out.len()
            });
        });
    }
    group.finish();
}

/// The parts of a line.
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let mut out = Vec::with_capacity(1_024);
    group.bench_function("tag", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode::tag(&mut out, black_box("s00042")).expect("a tag");
        });
    });
    group.bench_function("float", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode::float(&mut out, black_box(21.37)).expect("a float");
        });
    });
    group.bench_function("timestamp", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode::timestamp(&mut out, black_box(STAMP));
        });
    });
    group.finish();
}

/// A whole batch.
fn compress(criterion: &mut Criterion) {
    let line = |number: i64| {
        let (sensor, value) = (number % 3_000, 2_000 + number * 7_919 % 1_000);
        let time = STAMP + number * 1_000;
        format!("plant,sensor=s{sensor:05} value={}.{:02} {time}\n", value / 100, value % 100)
    };
    let lines: String = (0..5_000).map(line).collect();
    let mut group = criterion.benchmark_group("compress");
    group.throughput(Throughput::Bytes(lines.len() as u64)).sample_size(20);
    let mut gzip = Gzip::default();
    group.bench_function("5000 lines", |bencher| bencher.iter(|| gzip.compress(black_box(lines.as_bytes()))));
    group.finish();
}
