//! The lab scenario, from `manifests/examples/lab.yaml` as it is.

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::environment::example;
use iotpipeline_e2e::grafana::{Curve, Grafana, panels};
use iotpipeline_e2e::influx::{Value, text};
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::pipeline::Pipeline;
use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::SOON;

const AXES: [(&str, [&str; 4]); 3] = [
    ("roll", ["341.7", "359.2", "360", "340.1"]),
    ("pitch", ["340.9", "360", "341", "340.3"]),
    ("yaw", ["341.2", "339.4", "340.5", "360"]),
];

#[tokio::test]
async fn the_lab_works_from_a_message_check_to_the_curves_of_its_dashboard() {
    with_namespace("lab", async |namespace| {
        let lab = Pipeline::ready(&namespace, &example("lab.yaml")?).await?;
        let broker = lab.broker().await?;
        hello_world_reaches_a_subscriber(&lab, broker.port).await?;
        publish_the_axes(&lab, broker.port).await?;
        every_value_is_stored_as_a_float(&lab).await?;
        the_dashboard_draws_a_curve_for_each_axis(&lab).await
    })
    .await;
}

async fn hello_world_reaches_a_subscriber(lab: &Pipeline, port: u16) -> Result<()> {
    let student = lab.password("student").await?;
    let raspberry = lab.password("raspberry").await?;
    let mut subscriber = Client::connect(port, "student", Some(("student", &student))).await?;
    subscriber.subscribe("un/topic").await?;
    let mut publisher = Client::connect(port, "check", Some(("raspberry", &raspberry))).await?;
    ensure!(publisher.publish("un/topic", "HelloWorld").await? == PubAckReason::Success);
    let message = subscriber.message(SOON).await?;
    ensure!(message.payload == "HelloWorld" && message.topic == "un/topic", "{message:?}");
    Ok(())
}

async fn publish_the_axes(lab: &Pipeline, port: u16) -> Result<()> {
    let password = lab.password("raspberry").await?;
    let mut raspberry = Client::connect(port, "raspberry", Some(("raspberry", &password))).await?;
    for (axis, values) in AXES {
        for value in values {
            let reason = raspberry.publish(&format!("sensor/accelero/{axis}"), value).await?;
            ensure!(reason == PubAckReason::Success, "{axis} {value}: {reason:?}");
        }
    }
    Ok(())
}

async fn every_value_is_stored_as_a_float(lab: &Pipeline) -> Result<()> {
    let (_forward, influx) = lab.database().await?;
    let records = influx.at_least("mqtt_consumer", 12, SOON).await?;
    ensure!(records.len() == 12, "{} records", records.len());
    for (axis, expected) in AXES {
        let of_axis = records.iter().filter(|record| text(record, "axis") == axis);
        let stored: Vec<f64> = of_axis
            .map(|record| match record.values.get("_value") {
                Some(Value::Double(number)) if text(record, "_field") == "value" => Ok(number.0),
                other => anyhow::bail!("{axis} holds {other:?}"),
            })
            .collect::<Result<_>>()?;
        let expected: Vec<f64> = expected.iter().map(|value| value.parse()).collect::<Result<_, _>>()?;
        ensure!(stored == expected, "{axis}: {stored:?} instead of {expected:?}");
    }
    Ok(())
}

async fn the_dashboard_draws_a_curve_for_each_axis(lab: &Pipeline) -> Result<()> {
    let forward = lab.dashboard().await?;
    let password = lab.secret(&lab.part("dashboard"), "password").await?;
    let grafana = Grafana::new(forward.port, "admin", &password);
    let curves = eventually("the accelerometer's panel has three curves", SOON, async || {
        let dashboard = grafana.only_dashboard().await?;
        let panel = panels(&dashboard).into_iter().find(|panel| panel.to_string().contains("accelero"));
        let panel = panel.context("no panel for the accelerometer")?;
        let curves = grafana.run_panel(panel, "now-15m", 1_000).await?.curves;
        Ok(if curves.len() == 3 { Probe::Found(curves) } else { Probe::NotYet(format!("{curves:?}")) })
    })
    .await?;
    for (axis, _) in AXES {
        let of_axis: Vec<&Curve> = curves.iter().filter(|curve| curve.labels["axis"] == axis).collect();
        let [curve] = of_axis.as_slice() else { anyhow::bail!("{axis}: {curves:?}") };
        let in_range = curve.points.iter().all(|(_, value)| (339.0..=360.0).contains(value));
        ensure!(!curve.points.is_empty() && in_range, "{axis}: {curve:?}");
    }
    let health = grafana.get("/health").await?;
    println!("Grafana's part was played by version {}", health["version"]);
    Ok(())
}
