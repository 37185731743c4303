//! The stand-in for Grafana on a real database.

use anyhow::{Result, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::containers::{TOKEN, database};
use iotpipeline_e2e::grafana::panels;
use iotpipeline_e2e::stand_in::{StandIn, recorded_files};
use serde_json::json;

use crate::SOON;

#[tokio::test]
async fn the_stand_in_draws_from_a_real_database_what_the_recorded_dashboard_asks_for() -> Result<()> {
    let (container, influx) = database().await?;
    let files = recorded_files(container.port, TOKEN)?;
    let stand_in = StandIn::start(env!("CARGO_BIN_EXE_grafana-stand-in"), files).await?;
    let health = stand_in.grafana.get("/datasources/uid/influxdb/health").await?;
    ensure!(health["status"] == "OK", "{health}");

    let lines = ["roll", "pitch", "yaw"].map(|axis| format!("accelero,axis={axis} value=360\n")).concat();
    influx.write(&lines).await?;
    let curves = eventually("the panel has three curves", SOON, async || {
        let dashboard = stand_in.grafana.only_dashboard().await?;
        let curves = stand_in.grafana.run_panel(panels(&dashboard)[0], "now-15m", 300_000).await?.curves;
        Ok(if curves.len() == 3 { Probe::Found(curves) } else { Probe::NotYet(format!("{curves:?}")) })
    })
    .await?;
    let mut axes: Vec<_> = curves.iter().map(|curve| curve.labels["axis"].clone()).collect();
    axes.sort_by_key(ToString::to_string);
    ensure!(axes == [json!("pitch"), json!("roll"), json!("yaw")], "{curves:?}");
    ensure!(curves.iter().all(|curve| curve.points.iter().all(|(_, value)| *value == 360.0)), "{curves:?}");
    Ok(())
}
