//! Installs the operator by its chart, with the images that were built here.

use crate::Result;
use crate::cluster;
use crate::context::Context;
use crate::hash::Key;
use crate::paths::write_whole;
use crate::process::{Log, answer};
use crate::progress::{Lock, Outcome, Step};

/// Installs or upgrades.
pub(crate) const INSTALL: Step = Step {
    name: "operator",
    about: "installs the operator by its chart",
    lock: Some(Lock::Cluster),
    work: install,
};

const RELEASE: &str = "iotpipeline-operator";
const NAMESPACE: &str = "iotpipeline-system";

pub(crate) fn install(context: &mut Context, log: &Log) -> Result<Outcome> {
    let chart = context.paths.root.join("charts").join(RELEASE);
    if !chart.join("Chart.yaml").exists() {
        return Err(format!("there is no chart in {}", chart.display()).into());
    }
    let content = values_yaml(context)?;
    let key = Key::new("chart", 1).text(&content).tree(&chart, &[])?.finish();
    if installed_key(context).as_deref() == Some(&key) {
        return Ok(Outcome::Unchanged(String::new()));
    }
    let values = context.paths.cluster().join("values.yaml");
    write_whole(&values, content.as_bytes())?;
    log.feed(context.tool("kubectl").args(["apply", "--filename", "-"]), NAMESPACE_YAML)?;
    let mut helm = context.tool("helm");
    helm.args(["upgrade", "--install", RELEASE]).arg(&chart).args(["--namespace", NAMESPACE, "--values"]);
    helm.arg(&values).args(["--wait", "--timeout", "2m"]);
    if let Err(failure) = log.run(&mut helm) {
        let pods = ["--namespace", NAMESPACE, "describe", "pods"];
        log.succeeds(context.tool("kubectl").args(pods))?;
        return Err(failure);
    }
    let mark = format!("{INSTALLED}={key}");
    log.run(context.tool("kubectl").args(["annotate", "--overwrite"]).args(DEPLOYMENT).arg(&mark))?;
    Ok(Outcome::Done(format!("release {RELEASE} in namespace {NAMESPACE}")))
}

/// The operator must live under the strictest standard, so it is tested there.
const NAMESPACE_YAML: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: iotpipeline-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
";

/// An annotation of the deployment says what it was installed from: it goes when the deployment goes.
const INSTALLED: &str = "installed-from";
const DEPLOYMENT: [&str; 4] = ["--namespace", NAMESPACE, "deployment", RELEASE];

fn installed_key(context: &Context) -> Option<String> {
    let path = format!("jsonpath={{.metadata.annotations.{INSTALLED}}}");
    answer(context.tool("kubectl").arg("get").args(DEPLOYMENT).args(["--output", &path]))
}

fn values_yaml(context: &Context) -> Result<String> {
    let own = context.own()?;
    let parts = context.images()?;
    let grafana = parts.grafana.as_deref().or(own.stand_in.as_deref()).ok_or("no image for the dashboard")?;
    // Where a node can die, one stands by on another.
    let replicas = if cluster::nodes(&context.cluster).len() > 1 { 2 } else { 1 };
    let mut yaml = format!("replicas: {replicas}\nimage:\n{}", image_yaml("  ", &own.operator));
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
