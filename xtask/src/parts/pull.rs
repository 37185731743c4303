//! The public images. Untested where this was written: no image registry is in reach there.

use std::process::Command;

use super::{Origin, has_image};
use crate::Result;
use crate::context::Context;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "pull",
    about: "public images of mosquitto, InfluxDB and Grafana",
    lock: Some(Lock::Parts),
    work: pull,
};

pub(crate) const MOSQUITTO: &str = "docker.io/library/eclipse-mosquitto:2.1-alpine";
pub(crate) const INFLUXDB: &str = "docker.io/library/influxdb:2.9.1";
pub(crate) const GRAFANA: &str = "docker.io/grafana/grafana:12.4.10";

/// Base of our own images: a C library newer than that of most machines, and certificates.
pub(crate) const BASE: &str = "gcr.io/distroless/cc-debian13:nonroot";

/// The smallest image there is, and one that a cluster needs anyway.
const PROBE: &str = "registry.k8s.io/pause:3.10";
const PATIENCE_SECONDS: &str = "10";

/// Whether a public image can be had, within ten seconds.
pub(crate) fn registry_answers(log: &Log) -> bool {
    log.succeeds(Command::new("timeout").args([PATIENCE_SECONDS, "docker", "pull", PROBE])).unwrap_or(false)
}

fn pull(context: &mut Context, log: &Log) -> Result<Outcome> {
    if context.origin()? == Origin::Build {
        return Ok(Outcome::Skipped("built instead".into()));
    }
    let wanted = [MOSQUITTO, INFLUXDB, GRAFANA];
    let missing: Vec<_> = wanted.iter().filter(|image| !has_image(image)).collect();
    for image in &missing {
        log.run(Command::new("docker").args(["pull", image]))?;
    }
    Ok(match missing.len() {
        0 => Outcome::Unchanged(String::new()),
        count => Outcome::Done(format!("{count} images")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pulled_is_what_the_chart_deploys_by_default() {
        let values = include_str!("../../../charts/iotpipeline-operator/values.yaml");
        for image in [MOSQUITTO, INFLUXDB, GRAFANA] {
            let (repository, tag) = image.trim_start_matches("docker.io/").rsplit_once(':').unwrap();
            let lines = format!("repository: {repository}\n    tag: {tag}\n");
            assert!(values.contains(&lines), "not the chart's: {image}");
        }
    }
}
