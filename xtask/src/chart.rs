//! Installs the operator by its chart, with the images that were built here.

use crate::Result;
use crate::context::Context;
use crate::paths::write_whole;
use crate::process::Log;
use crate::progress::{Outcome, Step};

/// Installs or upgrades.
pub(crate) const INSTALL: Step =
    Step { name: "operator", about: "installs the operator by its chart", alone: true, work: install };

const RELEASE: &str = "iotpipeline-operator";
const NAMESPACE: &str = "iotpipeline-system";

fn install(context: &mut Context, log: &Log) -> Result<Outcome> {
    let chart = context.paths.root.join("charts").join(RELEASE);
    if !chart.join("Chart.yaml").exists() {
        return Err(format!("there is no chart in {}", chart.display()).into());
    }
    let values = context.paths.cluster().join("values.yaml");
    write_whole(&values, values_yaml(context)?.as_bytes())?;
    // The operator must live under the strictest standard, so it is tested there.
    log.feed(context.tool("kubectl").args(["apply", "--filename", "-"]), &namespace_yaml())?;
    let mut helm = context.tool("helm");
    helm.args(["upgrade", "--install", RELEASE]).arg(&chart).args(["--namespace", NAMESPACE, "--values"]);
    helm.arg(&values).args(["--wait", "--timeout", "2m"]);
    if let Err(failure) = log.run(&mut helm) {
        let pods = ["--namespace", NAMESPACE, "describe", "pods"];
        log.succeeds(context.tool("kubectl").args(pods))?;
        return Err(failure);
    }
    Ok(Outcome::Done(format!("release {RELEASE} in namespace {NAMESPACE}")))
}

fn namespace_yaml() -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"
    )
}

fn values_yaml(context: &Context) -> Result<String> {
    let own = context.own()?;
    let parts = context.images()?;
    let grafana = parts.grafana.as_deref().or(own.stand_in.as_deref()).ok_or("no image for the dashboard")?;
    let mut yaml = format!("image:\n{}", image_yaml("  ", &own.operator));
    yaml.push_str("  pullPolicy: IfNotPresent\nimages:\n");
    let images = [
        ("mosquitto", &*parts.mosquitto),
        ("influxdb", &*parts.influxdb),
        ("grafana", grafana),
        ("bridge", &own.bridge),
    ];
    for (part, reference) in images {
        yaml.push_str(&format!("  {part}:\n{}", image_yaml("    ", reference)));
    }
    Ok(yaml)
}

fn image_yaml(indent: &str, reference: &str) -> String {
    let (registry, repository, tag) = split(reference);
    format!(
        "{indent}registry: \"{registry}\"\n{indent}repository: \"{repository}\"\n{indent}tag: \"{tag}\"\n"
    )
}

/// `registry/repository:tag`. All of ours have all three.
fn split(reference: &str) -> (&str, &str, &str) {
    let (registry, rest) = reference.split_once('/').unwrap_or(("", reference));
    let (repository, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
    (registry, repository, tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_three_parts() {
        assert_eq!(split("docker.io/library/influxdb:2.7"), ("docker.io", "library/influxdb", "2.7"));
        assert_eq!(split("iotpipeline.local/bridge:abc"), ("iotpipeline.local", "bridge", "abc"));
    }
}
