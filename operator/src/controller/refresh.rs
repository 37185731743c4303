//! Makes a changed configuration take effect within two seconds, and asks the bridge whether it has.
//!
//! The kubelet takes up to a minute to refresh a mounted file, unless the pod itself changes: an
//! annotation on the pod is enough.

use std::time::Duration;

use api::bridge_status::BridgeStatus;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::{Instant, sleep};

use super::{Context, Error};
use crate::apply::{Applied, touch};
use crate::resources::names::{CONFIG_HASH, Component};
use crate::resources::{BridgeObjects, Desired};
use crate::status::{Part, of_bridge};
use crate::workload::{self, pods_of};

/// The kubelet may have refreshed the files from a cache that was a moment too old.
const TOUCH_AGAIN: Duration = Duration::from_millis(700);

/// After this the pass ends, and another comes soon.
const PATIENCE: Duration = Duration::from_millis(2500);

const PERIOD: Duration = Duration::from_millis(100);

/// Touches the pods whose files are older than what was applied, and returns how the bridge is.
pub(super) async fn refresh(
    context: &Context,
    desired: &Desired,
    applied: &Applied,
    pods: &[Pod],
) -> Result<Part, Error> {
    let live = [
        (Component::Broker, desired.broker.as_ref().map(|broker| broker.live_hash.as_str())),
        (Component::Bridge, desired.bridge.wanted().map(|bridge| bridge.mounted_hash.as_str())),
        (Component::Dashboard, desired.dashboard.wanted().map(|dashboard| dashboard.live_hash.as_str())),
    ];
    for (component, hash) in live {
        let Some(hash) = hash else { continue };
        for pod in pods_of(component, pods).filter(|pod| is_running(pod) && !is_touched(pod, hash)) {
            touch(&context.client, pod, hash).await?;
        }
    }
    let Some(bridge) = desired.bridge.wanted() else {
        return Ok(Part::not_ready(
            "WaitingForDatabase",
            "the bridge starts when the database has given it a token",
        ));
    };
    let part = workload::of_stateful_set(Component::Bridge, applied.bridge.as_ref(), pods);
    let pod = pods_of(Component::Bridge, pods).find(|pod| is_running(pod));
    match pod {
        Some(pod) => ask(context, pod, bridge, part).await,
        None => Ok(part),
    }
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

fn is_touched(pod: &Pod, hash: &str) -> bool {
    pod.annotations().get(CONFIG_HASH).is_some_and(|touched| touched.starts_with(hash))
}

/// The bridge says more than its readiness probe: which side fails, and why.
async fn ask(context: &Context, pod: &Pod, bridge: &BridgeObjects, workload: Part) -> Result<Part, Error> {
    let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else {
        return Ok(workload);
    };
    let host = if address.contains(':') { format!("[{address}]") } else { address };
    let url = format!("http://{host}:9090/status");
    let (hash, mounted) = (bridge.live_hash.as_str(), bridge.mounted_hash.as_str());
    let started = Instant::now();
    let mut again = false;
    loop {
        let Some(status) = status_of(context, &url).await else {
            // It has only just started, or the workload knows what is the matter.
            return Ok(workload.and(|| Part::not_ready("Unreachable", "the bridge does not answer yet")));
        };
        let part = of_bridge(&status, hash);
        let is_pending = status.config_hash != hash && status.config_error.is_none();
        if !is_pending || started.elapsed() > PATIENCE {
            // Its sides come before its readiness, which follows them a moment later.
            return Ok(part.and(|| workload));
        }
        let touched = pod.annotations().get(CONFIG_HASH).map_or("", String::as_str);
        if !again && started.elapsed() > TOUCH_AGAIN {
            again = true;
            // Not a value that the annotation may have already, or nothing would change.
            let value = if touched == format!("{mounted}-again") { "-once-more" } else { "-again" };
            touch(&context.client, pod, &format!("{mounted}{value}")).await?;
        }
        sleep(PERIOD).await;
    }
}

async fn status_of(context: &Context, url: &str) -> Option<BridgeStatus> {
    let answer = context.http.get(url).timeout(Duration::from_secs(2)).send().await.ok()?;
    answer.error_for_status().ok()?.json().await.ok()
}
