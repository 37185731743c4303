//! Makes a changed configuration take effect within two seconds, and asks the bridge whether it has.
//!
//! The kubelet takes up to a minute to refresh a mounted file, unless the pod itself changes: an
//! annotation on the pod is enough.

use std::time::Duration;

use api::bridge_status::BridgeStatus;
use futures::future::try_join_all;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use tokio::time::{Instant, sleep};

use super::follow::Heard;
use super::{Context, Error};
use crate::apply::{Applied, Content, Contents, apply_again, touch};
use crate::http;
use crate::observe::Children;
use crate::plan::{Bridges, Plan};
use crate::resources::bridge::{VOLUME, of_size};
use crate::resources::names::{CONFIG_HASH, Component, POD_INDEX};
use crate::resources::{BridgeObjects, Desired};
use crate::status::{Part, of_bridge};
use crate::workload::{self, pods_of};

/// The kubelet learns of the new content by a watch of its own, which may be a moment behind the touch:
/// it is touched again after this.
pub(super) const TOUCH_AGAIN: Duration = Duration::from_millis(300);

/// Content that is older than this has reached the kubelet: one touch is enough.
const KNOWN: Duration = Duration::from_secs(2);

/// How often a pod is touched whose process doesn't say what it has read.
const TOUCHES: u32 = 3;

/// How often a bridge's pod is touched that doesn't read its configuration. The kubelet refreshes files by itself too,
/// within two minutes.
const MOST_TOUCHES: u32 = 24;

/// After this the pass ends, and another comes soon.
const PATIENCE: Duration = Duration::from_millis(2500);

const PERIOD: Duration = Duration::from_millis(50);

/// What came of the refresh.
pub(super) struct Refreshed {
    /// How the bridge is.
    pub(super) bridge: Part,
    /// What each of them has said.
    pub(super) heard: Vec<Heard>,
    /// A pod has to be touched again, soon.
    pub(super) is_pending: bool,
}

/// Touches the pods whose files may be older than what was applied, and returns how the bridge is.
pub(super) async fn refresh(
    context: &Context,
    desired: &Desired,
    plan: &Plan,
    applied: &Applied,
    children: &Children,
) -> Result<Refreshed, Error> {
    let (bridge, heard) = match desired.bridge.wanted() {
        Some(bridge) => refresh_bridges(context, bridge, plan, applied, children).await?,
        None => {
            let message = "the bridge starts when the database has given it a token";
            (Part::not_ready("WaitingForDatabase", message), Vec::new())
        }
    };
    let pods = &children.pods;
    let Contents { broker, dashboard, bridge: _ } = &applied.contents;
    let unasked = [
        (Component::Broker, broker, desired.broker.as_ref().map(|broker| &broker.live_hash)),
        (Component::Dashboard, dashboard, desired.dashboard.wanted().map(|dashboard| &dashboard.live_hash)),
    ];
    let mut is_pending = false;
    for (component, contents, hash) in unasked {
        let Some(hash) = hash else { continue };
        if applied.writes > 0 {
            context.written.note_first(hash);
        }
        let is_new = context.written.is_within(hash, KNOWN);
        for pod in pods_of(component, pods).filter(|pod| is_running(pod) && !began_with(pod, contents)) {
            let count = touches(pod, hash);
            if count >= TOUCHES {
                continue;
            }
            let uid = pod.uid().unwrap_or_default();
            let is_too_soon = count > 0 && context.touched.is_within(&uid, TOUCH_AGAIN);
            if !is_too_soon {
                let count = if is_new { count } else { TOUCHES - 1 };
                touch(&context.client, &context.cache, pod, &touched(hash, count)).await?;
                context.touched.note(uid, ());
                is_pending |= count + 1 < TOUCHES;
            }
            is_pending |= is_too_soon;
        }
    }
    Ok(Refreshed { bridge, heard, is_pending })
}

/// How the bridges are: the first that is not ready speaks for all. Ends those that have left.
async fn refresh_bridges(
    context: &Context,
    objects: &BridgeObjects,
    plan: &Plan,
    applied: &Applied,
    children: &Children,
) -> Result<(Part, Vec<Heard>), Error> {
    let pods = &children.pods;
    let workload = workload::of_stateful_set(Component::Bridge, applied.bridge.as_ref(), children);
    let alive: Vec<_> = pods_of(Component::Bridge, pods).filter(|pod| is_running(pod)).collect();
    if alive.is_empty() {
        return Ok((workload, Vec::new()));
    }
    let contents = &applied.contents.bridge;
    let asked = alive.iter().map(|pod| refresh_bridge(context, pod, contents, objects, workload.clone()));
    let mut answers = try_join_all(asked).await?;
    answers.sort_by_key(|answer| answer.member);
    let Bridges { members, running, .. } = plan.bridges;
    let leaving = members..running;
    let set = objects.stateful_set.name_any();
    let left = |member: &u32| {
        let says_so = answers.iter().any(|answer| answer.member == Some(*member) && answer.left);
        says_so || never_started(children, &set, *member)
    };
    // A set shrinks from its end.
    let kept = leaving.clone().rev().find(|member| !left(member)).map_or(members, |member| member + 1);
    if kept < running {
        tracing::info!(set = objects.stateful_set.name_any(), bridges = kept, "scaling down");
        let smaller = of_size(kept, objects.stateful_set.clone());
        apply_again(&context.client, &context.cache, plan, applied.bridge.as_slice(), &smaller).await?;
    }
    let heard = answers.iter_mut().filter_map(|answer| answer.heard.take()).collect();
    let mut parts: Vec<Part> = answers.into_iter().map(|answer| answer.part).collect();
    // One that isn't ready speaks for all, or else one that works and has something to say.
    parts.sort_by_key(|part| (part.ready, part.reason == "Ready"));
    let part = parts.into_iter().next().unwrap_or_else(|| workload.clone()).unless(workload);
    Ok((draining(part, leaving.len()), heard))
}

/// The same with what is to be known of so many that are to leave.
fn draining(part: Part, leaving: usize) -> Part {
    if leaving == 0 {
        return part;
    }
    let told = format!(
        "bridges that are to leave: {leaving}; they take what the broker still holds for them (of one that can't be \
         placed, delete volume claim and pod, if what waits for it may go)"
    );
    match part.ready {
        true => Part::not_ready("Draining", told),
        // Why they don't is told first.
        false => Part { message: format!("{}; {told}", part.message), ..part },
    }
}

/// What one bridge says.
struct Answer {
    member: Option<u32>,
    part: Part,
    heard: Option<Heard>,
    /// It has left, by the configuration that was applied.
    left: bool,
}

async fn refresh_bridge(
    context: &Context,
    pod: &Pod,
    contents: &[Content],
    bridge: &BridgeObjects,
    workload: Part,
) -> Result<Answer, Error> {
    let mut count = touches(pod, &bridge.mounted_hash);
    if count == 0 && !began_with(pod, contents) {
        touch(&context.client, &context.cache, pod, &touched(&bridge.mounted_hash, 0)).await?;
        count = 1;
    }
    ask(context, pod, bridge, workload, count).await
}

/// Whether the kubelet can't have given this pod files that are older than these: when it was made, they had long been
/// what they are, or had already been made and have not changed since. Times are in whole seconds. Of what was made in
/// the pod's own second there is nothing older, but for an object of the name that went in it, or a change in it.
fn began_with(pod: &Pod, contents: &[Content]) -> bool {
    let Some(began) = pod.metadata.creation_timestamp.as_ref().map(|time| time.0) else { return false };
    let is_known = |content: &Content| match (content.made, content.changed) {
        (Some(made), Some(changed)) if made == changed => began >= made,
        (Some(made), Some(changed)) => {
            let age = began.duration_since(changed.max(made));
            Duration::try_from(age).is_ok_and(|age| age >= KNOWN)
        }
        _ => false,
    };
    !contents.is_empty() && contents.iter().all(is_known)
}

/// How often a pod was touched for this content.
fn touches(pod: &Pod, hash: &str) -> u32 {
    let Some(value) = pod.annotations().get(CONFIG_HASH) else { return 0 };
    match value.strip_prefix(hash) {
        Some("") => 1,
        Some(count) => {
            count.trim_start_matches('-').parse::<u32>().map_or(0, |count| count.saturating_add(1))
        }
        None => 0,
    }
}

/// Whether a bridge's pod that was touched so often is to be touched again. The count is in the pod, and so outlives
/// passes and the operator.
fn may_touch(count: u32, since: Duration) -> bool {
    count < MOST_TOUCHES && since > TOUCH_AGAIN
}

/// The value of the touch after so many.
fn touched(hash: &str, count: u32) -> String {
    if count == 0 { hash.to_owned() } else { format!("{hash}-{count}") }
}

/// Whether this bridge has never run, and so has had no session: its pod waits for a node, and is the first that its
/// claim has seen. A pod that was made anew waits for a node too, and its session goes on at the broker.
fn never_started(children: &Children, set: &str, member: u32) -> bool {
    let is_it = |pod: &&Pod| pod.labels().get(POD_INDEX).is_some_and(|index| *index == member.to_string());
    let Some(pod) = pods_of(Component::Bridge, &children.pods).find(is_it) else { return false };
    let name = format!("{VOLUME}-{set}-{member}");
    let Some(claim) = children.claims.iter().find(|claim| claim.name_any() == name) else { return false };
    let waits = pod.status.as_ref().is_none_or(|status| status.start_time.is_none());
    let has_volume = claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_some());
    waits && (!has_volume || made_together(claim.meta(), pod.meta()))
}

/// Whether a set made the pod with its claim, which takes it a moment.
fn made_together(claim: &ObjectMeta, pod: &ObjectMeta) -> bool {
    let made = |meta: &ObjectMeta| meta.creation_timestamp.as_ref().map(|time| time.0);
    let apart = made(claim).zip(made(pod)).map(|(claim, pod)| pod.duration_since(claim));
    apart.is_some_and(|apart| apart.abs() <= SignedDuration::from_secs(2))
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

/// The bridge says more than its readiness probe: which side fails, and why.
async fn ask(
    context: &Context,
    pod: &Pod,
    bridge: &BridgeObjects,
    workload: Part,
    mut count: u32,
) -> Result<Answer, Error> {
    let member = pod.labels().get(POD_INDEX).and_then(|index| index.parse().ok());
    let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else {
        return Ok(Answer { member, part: workload, heard: None, left: false });
    };
    let host = if address.contains(':') { format!("[{address}]") } else { address };
    let url = format!("http://{host}:9090/status");
    let started = Instant::now();
    let mut last_touch = started;
    loop {
        let Some(status) = status_of(&context.http, &url).await else {
            // It has only just started, or the workload knows what is the matter.
            let unreachable = || Part::not_ready("Unreachable", silent(pod));
            return Ok(Answer { member, part: workload.and(unreachable), heard: None, left: false });
        };
        let part = of_bridge(&status, &bridge.live_hash, &bridge.login_revision);
        let is_pending = part.reason == "ConfigurationPending";
        if !is_pending || started.elapsed() > PATIENCE {
            // Its sides come before its readiness, which follows them a moment later.
            let left = status.left && status.config_hash == bridge.live_hash;
            let heard = Some(Heard { url, status });
            return Ok(Answer { member, part: part.unless(workload), heard, left });
        }
        if may_touch(count, last_touch.elapsed()) {
            touch(&context.client, &context.cache, pod, &touched(&bridge.mounted_hash, count)).await?;
            (count, last_touch) = (count + 1, Instant::now());
        }
        sleep(PERIOD).await;
    }
}

fn silent(pod: &Pod) -> String {
    format!(
        "the bridge does not answer the operator: if that lasts, see to the node {node} of its pod {}, and to the \
         network in between",
        pod.name_any(),
        node = workload::node_of(pod)
    )
}

/// What a bridge says of itself, if it does.
pub(super) async fn status_of(http: &reqwest::Client, url: &str) -> Option<BridgeStatus> {
    let answer = http.get(url).timeout(Duration::from_secs(2)).send().await.ok()?;
    let body = http::body(answer.error_for_status().ok()?).await.ok()??;
    serde_json::from_slice(&body).ok()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bridge_has_never_run_only_if_its_pod_is_the_first_of_its_claim() {
        let is_new = |pod: Option<&str>, started: bool, claim: Option<(&str, bool)>| {
            let labels = json!({"app.kubernetes.io/component": "bridge", POD_INDEX: "1"});
            let pod = pod.map(|made| {
                let start = started.then_some("2026-01-01T00:00:09Z");
                let metadata = json!({"name": "lab-bridge-1", "creationTimestamp": made, "labels": labels});
                serde_json::from_value(json!({"metadata": metadata, "status": {"startTime": start}}))
            });
            let claim = claim.map(|(made, has_volume)| {
                let metadata = json!({"name": "state-lab-bridge-1", "creationTimestamp": made});
                let spec = json!({"volumeName": has_volume.then_some("v")});
                serde_json::from_value(json!({"metadata": metadata, "spec": spec}))
            });
            let children = Children {
                pods: pod.into_iter().collect::<Result<_, _>>().expect("a pod"),
                claims: claim.into_iter().collect::<Result<_, _>>().expect("a claim"),
                ..Children::default()
            };
            never_started(&children, "lab-bridge", 1)
        };
        let (then, later) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        assert!(is_new(Some(then), false, Some((then, false))), "its volume waits for a node too");
        assert!(is_new(Some(then), false, Some((then, true))), "its volume is there, and no node has room");
        assert!(is_new(Some(later), false, Some((then, false))), "made anew, and still without a volume");
        assert!(!is_new(Some(later), false, Some((then, true))), "made anew: its node may have died");
        assert!(!is_new(Some(then), true, Some((then, true))), "it runs");
        assert!(!is_new(Some(then), false, None) && !is_new(None, false, Some((then, true))));
    }

    #[test]
    fn a_pod_whose_files_have_not_changed_since_need_not_be_told_of_them() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:10Z"}}))
                .expect("a pod");
        let at = |second: i64| Some(Timestamp::from_second(1_767_225_600 + second).expect("a time"));
        let content = |made, changed| Content { made, changed };
        let first = [9, 10].map(|second| content(at(second), at(second)));
        for known in [&first[..], &[content(at(1), at(8))], &[content(at(1), at(8)), first[1]]] {
            assert!(began_with(&pod, known), "{known:?}");
        }
        let again = [9, 10, 11].map(|second| content(at(1), at(second)));
        let unsure = [again[0], again[1], again[2], content(at(11), at(11)), content(at(9), at(8))];
        for unsure in unsure {
            assert!(!began_with(&pod, &[unsure, first[0]]), "{unsure:?}");
        }
        assert!(
            !began_with(&pod, &[content(at(1), None)])
                && !began_with(&pod, &[])
                && !began_with(&Pod::default(), &first)
        );
    }

    #[test]
    fn a_bridge_that_never_reads_its_configuration_is_not_touched_for_ever() {
        let mut count = 0;
        for _ in 0..1000 {
            if may_touch(count, Duration::from_secs(1)) {
                let annotations = json!({CONFIG_HASH: touched("a", count)});
                let pod = json!({"metadata": {"annotations": annotations}});
                let pod: Pod = serde_json::from_value(pod).expect("a pod");
                assert_eq!(touches(&pod, "a"), count + 1);
                assert_eq!(touches(&pod, "b"), 0, "another content begins anew");
                count += 1;
            }
        }
        assert_eq!(count, MOST_TOUCHES);
        assert!(!may_touch(1, TOUCH_AGAIN));
    }
}
