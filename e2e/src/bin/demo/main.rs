//! The lab's whole chain, shown in a terminal: run by `cargo xtask demo`, which brings up the cluster
//! and installs the operator before.
//!
//! Reading guide: `series` (what the accelerometer measures), `publish` (mosquitto_pub in the
//! cluster), `steps` (what is shown while one waits), `farewell` (where to look further).

mod farewell;
mod publish;
mod series;
mod steps;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::environment::{self, example};
use iotpipeline_e2e::grafana::{Drawn, Grafana, panels};
use iotpipeline_e2e::influx::{Influx, Value, text};
use iotpipeline_e2e::namespaces::Namespace;
use iotpipeline_e2e::pipeline::Pipeline;
use iotpipeline_e2e::plot;
use iotpipeline_e2e::{diagnostics, influx};

use crate::steps::Steps;

/// The mean is drawn for intervals of so many milliseconds.
const INTERVAL_MS: u64 = 500;
const SOON: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let steps = Steps::begin();
    let outcome = tokio::select! {
        outcome = run(&steps) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; run it again whenever you like")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(steps: &Steps) -> Result<()> {
    println!("\nThe lab: from an accelerometer's messages to its curves, all of it in the cluster.\n");
    let client = environment::client().await?;
    let namespace = Namespace::ensure(client, "lab").await?;
    steps.done("namespace lab, which enforces the Pod Security Standard restricted");
    let outcome = show(steps, &namespace).await;
    if outcome.is_err() {
        diagnostics::print(&namespace).await;
    }
    outcome
}

async fn show(steps: &Steps, namespace: &Namespace) -> Result<()> {
    let lab = Pipeline::apply(namespace, &example("lab.yaml")?).await?;
    steps.done("applied manifests/examples/lab.yaml: one IoTPipeline");
    steps.conditions_until_ready(&lab).await?;
    steps.done("ready: a message can cross the whole chain");

    let began = jiff::Timestamp::now().as_millisecond().to_string();
    let (database_port, influx) = lab.database().await?;
    let stored_before = influx.points("mqtt_consumer").await?.len();
    let publishing = publish::start(&lab).await?;
    steps.done(&publishing.description());
    publishing.finishes(steps, &influx, stored_before).await?;
    steps.done(&format!("{} points are stored, 360 among them, all as floats", series::TOTAL));
    check_types(&influx).await?;

    let (drawn, who) = dashboard_s_query(&lab, &began).await?;
    steps.done(&format!("{who} ran the dashboard's own query"));
    read_back_directly(&influx, &drawn).await?;
    steps.done("the same query, straight to InfluxDB, returned the same points");
    drop(database_port);
    println!("\n  {}\n", drawn.executed.join("\n  ").replace(" |> ", "\n    |> "));
    println!("{}", plot::draw(&curves(&drawn), "degrees"));
    farewell::print();
    Ok(())
}

/// Every value of the measurement must be a float, exactly 360 too.
async fn check_types(influx: &Influx) -> Result<()> {
    let mut full_circles = 0;
    for record in influx.points("mqtt_consumer").await? {
        match record.values.get("_value") {
            Some(Value::Double(number)) => full_circles += usize::from(number.0 == 360.0),
            other => anyhow::bail!("{} holds {other:?}, which is no float", text(&record, "axis")),
        }
    }
    ensure!(full_circles > 0, "no 360 among the values");
    Ok(())
}

/// Takes the accelerometer's panel out of the dashboard that is served, and runs its query there.
async fn dashboard_s_query(lab: &Pipeline, began: &str) -> Result<(Drawn, &'static str)> {
    let forward = lab.dashboard().await?;
    let password = lab.secret(&lab.part("dashboard"), "password").await?;
    let grafana = Grafana::new(forward.port, "admin", &password);
    let drawn = eventually("the dashboard draws three curves", SOON, async || {
        let dashboard = grafana.only_dashboard().await?;
        let panel = panels(&dashboard).into_iter().find(|panel| panel["title"] == "accelerometer");
        let panel = panel.context("the dashboard has no panel for the accelerometer")?;
        let drawn = grafana.run_panel(panel, began, INTERVAL_MS).await?;
        let count = drawn.curves.len();
        Ok(if count == 3 { Probe::Found(drawn) } else { Probe::NotYet(format!("{count} curves")) })
    })
    .await?;
    let who = if environment::grafana_is_stand_in() {
        "a stand-in for Grafana (its image can't be pulled here)"
    } else {
        "Grafana"
    };
    Ok((drawn, who))
}

/// Asks InfluxDB itself what Grafana had asked it, and compares.
async fn read_back_directly(influx: &Influx, drawn: &Drawn) -> Result<()> {
    let mut direct = Vec::new();
    for query in &drawn.executed {
        for record in influx.query(query).await? {
            let (Some(Value::TimeRFC(time)), Some(Value::Double(mean))) =
                (record.values.get("_time"), record.values.get("_value"))
            else {
                anyhow::bail!("not a point: {record:?}");
            };
            direct.push((influx::text(&record, "axis").to_owned(), time.timestamp_millis(), mean.0));
        }
    }
    let shown = drawn.curves.iter().flat_map(|curve| {
        let axis = curve.labels["axis"].as_str().unwrap_or_default();
        curve.points.iter().map(move |(time, mean)| (axis.to_owned(), *time, *mean))
    });
    let shown: Vec<_> = shown.collect();
    ensure!(direct == shown, "{} points directly, {} in the dashboard", direct.len(), shown.len());
    Ok(())
}

fn curves(drawn: &Drawn) -> Vec<plot::Curve> {
    let first = drawn.curves.iter().filter_map(|curve| curve.points.first()).map(|point| point.0).min();
    let seconds = |time: i64| (time - first.unwrap_or_default()) as f64 / 1_000.0;
    let mut curves: Vec<plot::Curve> = drawn
        .curves
        .iter()
        .map(|curve| plot::Curve {
            name: curve.labels["axis"].as_str().unwrap_or_default().to_owned(),
            points: curve.points.iter().map(|(time, mean)| (seconds(*time), *mean)).collect(),
        })
        .collect();
    curves.sort_by_key(|curve| series::AXES.iter().position(|axis| *axis == curve.name));
    curves
}
