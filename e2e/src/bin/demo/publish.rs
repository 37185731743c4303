//! The Raspberry Pi: a Job in the cluster that publishes the series with mosquitto_pub, as the
//! pipeline's own user. The password comes from its Secret and is never on a command line: a file
//! of options, where mosquitto_pub looks for one, holds it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::environment::Image;
use iotpipeline_e2e::influx::Influx;
use iotpipeline_e2e::pipeline::Pipeline;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::series;
use crate::steps::Steps;

const USER: &str = "raspberry";
const FINISHES: Duration = Duration::from_secs(180);

/// Each axis by a mosquitto_pub of its own, which publishes a line as it comes.
const SCRIPT: &str = r#"
set -eu
umask 077
mkdir -p "$HOME/.config"
printf -- '-u %s\n-P %s\n--cafile /broker/ca.crt\n-p 8883\n' "$MQTT_USER" "$MQTT_PASSWORD" > "$HOME/.config/mosquitto_pub"
unset MQTT_PASSWORD
publishers=
for axis in $AXES; do
  while read -r angle; do
    echo "$angle"
    sleep "$PAUSE"
  done < "/series/$axis" |
    mosquitto_pub -V 5 -h "$BROKER" -q 1 -i "raspberry-$axis" -t "sensor/accelero/$axis" -l &
  publishers="$publishers $!"
done
for publisher in $publishers; do
  wait "$publisher"
done
"#;

/// A Job that publishes.
pub(crate) struct Publishing {
    lab: Pipeline,
    name: String,
}

/// Starts the Job.
pub(crate) async fn start(lab: &Pipeline) -> Result<Publishing> {
    let name = format!("accelerometer-{}", jiff::Timestamp::now().as_second());
    let parameters = PatchParams::apply("demo").force();
    let config_maps = lab.namespace.api::<ConfigMap>();
    config_maps.patch("accelerometer", &parameters, &Patch::Apply(values())).await?;
    let job = job(lab, &name, &Image::Mosquitto.name()?);
    lab.namespace.api::<Job>().patch(&name, &parameters, &Patch::Apply(job)).await?;
    Ok(Publishing { lab: lab.clone(), name })
}

fn values() -> Value {
    let files =
        series::AXES.iter().enumerate().map(|(place, axis)| ((*axis).into(), series::lines(place).into()));
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "accelerometer"},
        "data": files.collect::<serde_json::Map<String, Value>>(),
    })
}

fn job(lab: &Pipeline, name: &str, image: &str) -> Value {
    let user = lab.part(&format!("broker-{USER}"));
    let password = json!({"name": user, "key": "password"});
    let container = json!({
        "name": "mosquitto-pub",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", SCRIPT],
        "env": [
            {"name": "MQTT_USER", "value": USER},
            {"name": "MQTT_PASSWORD", "valueFrom": {"secretKeyRef": password}},
            {"name": "BROKER", "value": lab.part("broker")},
            {"name": "AXES", "value": series::AXES.join(" ")},
            {"name": "PAUSE", "value": series::PAUSE.to_string()},
            {"name": "HOME", "value": "/home/raspberry"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [
            {"name": "series", "mountPath": "/series", "readOnly": true},
            {"name": "broker", "mountPath": "/broker", "readOnly": true},
            {"name": "home", "mountPath": "/home/raspberry"},
        ],
    });
    let pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 1883,
            "runAsGroup": 1883,
            "fsGroup": 1883,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "series", "configMap": {"name": "accelerometer"}},
            {"name": "broker", "secret": {"secretName": user, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"name": "home", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    });
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 600,
            "template": {"metadata": {"labels": {"app.kubernetes.io/name": "accelerometer"}}, "spec": pod},
        },
    })
}

impl Publishing {
    /// What has been started.
    pub(crate) fn description(&self) -> String {
        let seconds = series::COUNT as f64 * series::PAUSE;
        format!(
            "mosquitto_pub publishes {} values as user {USER} over {seconds:.0} s (job/{})",
            series::TOTAL,
            self.name
        )
    }

    /// Follows until every message is stored, beside what was stored before.
    pub(crate) async fn finishes(&self, steps: &Steps, influx: &Influx, before: usize) -> Result<()> {
        let between = if steps.is_terminal() { Duration::from_millis(500) } else { Duration::from_secs(5) };
        let mut told = Instant::now();
        eventually("every message is stored", FINISHES, async || {
            let stored = influx.points("mqtt_consumer").await?.len().saturating_sub(before);
            if stored >= series::TOTAL {
                steps.progress(stored, series::TOTAL, "points stored");
                return Ok(Probe::Found(Ok(())));
            }
            if told.elapsed() >= between {
                told = Instant::now();
                steps.progress(stored, series::TOTAL, "points stored");
            }
            if self.failed().await? {
                return Ok(Probe::Found(Err(anyhow::anyhow!("job {} failed", self.name))));
            }
            Ok(Probe::NotYet(format!("{stored} points are stored")))
        })
        .await??;
        self.succeeded().await
    }

    async fn failed(&self) -> Result<bool> {
        let job = self.lab.namespace.api::<Job>().get(&self.name).await?;
        Ok(job.status.and_then(|status| status.failed).unwrap_or_default() > 0)
    }

    /// mosquitto_pub itself must be content too.
    async fn succeeded(&self) -> Result<()> {
        eventually("the job completes", FINISHES, async || {
            let job = self.lab.namespace.api::<Job>().get(&self.name).await?;
            let status = job.status.context("no status yet")?;
            if status.failed.unwrap_or_default() > 0 {
                bail!("job {} failed", self.name);
            }
            Ok(if status.succeeded.unwrap_or_default() > 0 {
                Probe::Found(())
            } else {
                Probe::NotYet("it runs".into())
            })
        })
        .await
    }
}
