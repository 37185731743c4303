//! The demonstration: after the cluster and the operator, a program of `e2e` does and shows the rest.

use std::path::PathBuf;
use std::process::Command;

use crate::Result;
use crate::context::Context;
use crate::images;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};

/// Compiles the program beforehand, so that nothing stands between the steps and its output.
pub(crate) const COMPILE: Step =
    Step { name: "demo", about: "compiles the demonstration", lock: Some(Lock::Images), work: compile };

fn compile(context: &mut Context, log: &Log) -> Result<Outcome> {
    let compiled = images::compile(&context.paths, log)?.join("demo");
    let program = program(context);
    std::fs::create_dir_all(program.parent().ok_or("a program without a folder")?)?;
    // A copy: the next one to compile may be another checkout.
    std::fs::copy(compiled, program)?;
    Ok(Outcome::Done(String::new()))
}

fn program(context: &Context) -> PathBuf {
    context.paths.cluster().join("programs/demo")
}

/// Runs it, on the terminal itself.
pub(crate) fn run(context: &Context) -> Result<()> {
    let mut command = Command::new(program(context));
    command.current_dir(&context.paths.root);
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
        .env("KUBECONFIG", context.kubeconfig())
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
