//! The demonstration: after the cluster and the operator, a program of `e2e` does and shows the rest.

use std::process::Command;

use crate::Result;
use crate::cargo::cargo;
use crate::context::Context;
use crate::process::Log;
use crate::progress::{Outcome, Step};

/// Compiles the program, so that nothing stands between the steps and its output.
pub(crate) const COMPILE: Step = Step {
    name: "demo",
    about: "compiles the demonstration (3 min the first time)",
    alone: false,
    work: compile,
};

const PROGRAM: [&str; 4] = ["--package", "iotpipeline-e2e", "--bin", "demo"];

fn compile(context: &mut Context, log: &Log) -> Result<Outcome> {
    log.run(cargo(&context.paths).arg("build").args(PROGRAM))?;
    Ok(Outcome::Done(String::new()))
}

/// Runs it, on the terminal itself.
pub(crate) fn run(context: &Context) -> Result<()> {
    let mut command = cargo(&context.paths);
    command.args(["run", "--quiet"]).args(PROGRAM);
    environment(context, &mut command)?;
    match command.status()?.success() {
        true => Ok(()),
        false => Err("the demonstration failed: its output above says where".into()),
    }
}

/// What programs and tests of `e2e` get to know:
///
/// | variable | content |
/// |---|---|
/// | `KUBECONFIG` | the cluster's credentials |
/// | `PATH` | kubectl, helm and kind first |
/// | `IOTPIPELINE_PARTS` | `pull` or `build`: where the images below come from |
/// | `IOTPIPELINE_IMAGE_MOSQUITTO`, `..._INFLUXDB`, `..._GRAFANA` | references of the parts' images |
/// | `IOTPIPELINE_GRAFANA_IS_STAND_IN` | `1` if Grafana's image is our stand-in, otherwise `0` |
/// | `IOTPIPELINE_IMAGE_OPERATOR`, `..._BRIDGE` | references of our images |
/// | `IOTPIPELINE_OPERATOR_BIN`, `IOTPIPELINE_BRIDGE_BIN` | the programs in them, as files |
pub(crate) fn environment(context: &Context, command: &mut Command) -> Result<()> {
    let parts = context.images()?;
    let own = context.own()?;
    let grafana = parts.grafana.as_deref().or(own.stand_in.as_deref()).ok_or("no image for the dashboard")?;
    command
        .env("KUBECONFIG", context.paths.kubeconfig())
        .env("PATH", context.search_path())
        .env("IOTPIPELINE_PARTS", context.origin()?.name())
        .env("IOTPIPELINE_IMAGE_MOSQUITTO", &parts.mosquitto)
        .env("IOTPIPELINE_IMAGE_INFLUXDB", &parts.influxdb)
        .env("IOTPIPELINE_IMAGE_GRAFANA", grafana)
        .env("IOTPIPELINE_GRAFANA_IS_STAND_IN", if parts.grafana.is_none() { "1" } else { "0" })
        .env("IOTPIPELINE_IMAGE_OPERATOR", &own.operator)
        .env("IOTPIPELINE_IMAGE_BRIDGE", &own.bridge)
        .env("IOTPIPELINE_OPERATOR_BIN", &own.operator_program)
        .env("IOTPIPELINE_BRIDGE_BIN", &own.bridge_program);
    Ok(())
}
