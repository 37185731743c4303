//! What is told of a pipeline, from what was observed.

use api::backup::BackupStatus;
use api::bridge_status::{BridgeStatus, Side};
use api::iotpipeline::{Endpoints, IoTPipelineStatus};
use iotpipeline_operator::observe::Children;
use iotpipeline_operator::resources::names::Component;
use iotpipeline_operator::status::{Backup, Facts, Part, Parts, of_bridge, status};
use iotpipeline_operator::workload;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

fn at(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).expect("it is a time"))
}

fn parts() -> Parts {
    let ready = Part::ready("running");
    Parts {
        broker: ready.clone(),
        database: ready.clone(),
        bridge: ready.clone(),
        dashboard: Some(ready),
        backup: None,
        endpoints: Endpoints::default(),
    }
}

fn applied(parts: Parts) -> Facts {
    Facts::Applied(Box::new(parts))
}

/// Each condition as `type=status/reason`.
fn rows(status: &IoTPipelineStatus) -> String {
    let rows = status.conditions.iter().map(|row| format!("{}={}/{}", row.type_, row.status, row.reason));
    rows.collect::<Vec<_>>().join(" ")
}

#[test]
fn ready_is_the_whole_chain_and_names_the_first_part_that_is_not() {
    let broken = |reason: &str| Part::not_ready(reason, "because");
    let cases = [
        (
            parts(),
            "Ready=True/Ready BrokerReady=True/Ready DatabaseReady=True/Ready BridgeReady=True/Ready DashboardReady=True/Ready",
        ),
        (
            Parts { dashboard: None, ..parts() },
            "Ready=True/Ready BrokerReady=True/Ready DatabaseReady=True/Ready BridgeReady=True/Ready",
        ),
        (
            Parts { broker: broken("ImagePullBackOff"), bridge: broken("BrokerUnreachable"), ..parts() },
            "Ready=False/BrokerImagePullBackOff Reconciling=True/BrokerImagePullBackOff BrokerReady=False/ImagePullBackOff DatabaseReady=True/Ready BridgeReady=False/BrokerUnreachable DashboardReady=True/Ready",
        ),
        (
            Parts { bridge: broken("DatabaseNotAuthorized"), ..parts() },
            "Ready=False/DatabaseNotAuthorized Reconciling=True/DatabaseNotAuthorized BrokerReady=True/Ready DatabaseReady=True/Ready BridgeReady=False/DatabaseNotAuthorized DashboardReady=True/Ready",
        ),
        (
            Parts { bridge: Part { reason: "Behind".into(), ..parts().bridge }, dashboard: None, ..parts() },
            "Ready=True/BridgeBehind BrokerReady=True/Ready DatabaseReady=True/Ready BridgeReady=True/Behind",
        ),
        (
            Parts { dashboard: Some(broken("Starting")), ..parts() },
            "Ready=False/DashboardStarting Reconciling=True/DashboardStarting BrokerReady=True/Ready DatabaseReady=True/Ready BridgeReady=True/Ready DashboardReady=False/Starting",
        ),
    ];
    for (parts, expected) in cases {
        assert_eq!(rows(&status(&applied(parts), Some(3), None, &at(0))), expected);
    }
}

#[test]
fn a_refusal_stalls_and_keeps_what_is_known_of_the_parts() {
    let before = status(&applied(parts()), Some(1), None, &at(0));
    let facts =
        Facts::Refused { reason: "SecretNotFound".into(), message: "the Secret s does not exist".into() };
    let after = status(&facts, Some(2), Some(&before), &at(9));
    assert_eq!(
        rows(&after),
        "Ready=False/SecretNotFound Stalled=True/SecretNotFound BrokerReady=True/Ready DatabaseReady=True/Ready BridgeReady=True/Ready DashboardReady=True/Ready"
    );
    assert_eq!(after.conditions[0].message, "the Secret s does not exist");
    assert!(after.conditions.iter().all(|condition| condition.observed_generation == Some(2)));
    assert_eq!(after.endpoints, before.endpoints);
}

#[test]
fn a_transition_has_the_time_of_the_change_of_status_alone() {
    let first = status(&applied(parts()), Some(1), None, &at(10));
    let same = status(&applied(parts()), Some(1), Some(&first), &at(20));
    assert_eq!(first, same);
    let broken = Parts { broker: Part::not_ready("Starting", "one"), ..parts() };
    let second = status(&applied(broken), Some(1), Some(&same), &at(30));
    assert_eq!(second.conditions[0].last_transition_time, at(30));
    let other = Parts { broker: Part::not_ready("Unschedulable", "two"), ..parts() };
    let third = status(&applied(other), Some(1), Some(&second), &at(40));
    assert_eq!(third.conditions[0].last_transition_time, at(30));
    assert_eq!(third.conditions[0].reason, "BrokerUnschedulable");
}

#[test]
fn the_bridge_is_ready_with_both_sides_and_the_newest_configuration() {
    let side = |ready: bool| Side { ready, reason: "NotAuthorized".into(), message: "why".into() };
    let said = |hash: &str, broker: bool, database: bool| BridgeStatus {
        config_hash: hash.into(),
        config_error: None,
        login_revision: Some("word".into()),
        left: false,
        broker: side(broker),
        database: side(database),
        crossing: None,
    };
    assert!(of_bridge(&said("new", true, true), "new", "word").ready);
    assert_eq!(of_bridge(&said("old", true, true), "new", "word").reason, "ConfigurationPending");
    assert_eq!(of_bridge(&said("new", false, true), "new", "word").reason, "BrokerNotAuthorized");
    assert_eq!(of_bridge(&said("new", true, false), "new", "word").reason, "DatabaseNotAuthorized");
    let login = |revision: Option<&str>| {
        let login_revision = revision.map(Into::into);
        of_bridge(&BridgeStatus { login_revision, ..said("new", true, true) }, "new", "word")
    };
    assert_eq!(login(Some("")).reason, "ConfigurationPending");
    assert!(login(None).ready, "it is of a version that doesn't tell, and is being replaced");
    let crossing = |ready: bool, reason: &str| {
        let crossing = Side { ready, reason: reason.into(), message: "how".into() };
        of_bridge(&BridgeStatus { crossing: Some(crossing), ..said("new", true, true) }, "new", "word")
    };
    assert_eq!(crossing(true, "Crossed"), Part::ready("how"));
    assert_eq!(crossing(true, "Behind"), Part { reason: "Behind".into(), ..Part::ready("how") });
    assert_eq!(crossing(false, "NotCrossing"), Part::not_ready("NotCrossing", "how"));
    let refused = BridgeStatus { config_error: Some("no".into()), ..said("old", true, true) };
    assert_eq!(of_bridge(&refused, "new", "word").reason, "ConfigurationRefused");
}

const SET: &str = "{metadata: {name: lab-broker, generation: 2}, spec: {replicas: 1, selector: {}, template: {}}, \
    status: {replicas: 1, observedGeneration: 2, readyReplicas: READY, updatedReplicas: 1, currentRevision: a, updateRevision: a}}";

fn of_pod(status: &str) -> Part {
    let set: StatefulSet = serde_saphyr::from_str(&SET.replace("READY", "0")).expect("a set");
    let pod: Pod = serde_saphyr::from_str(&format!(
        "{{metadata: {{name: lab-broker-0, labels: {{app.kubernetes.io/component: broker}}}}, status: {status}}}"
    ))
    .expect("a pod");
    workload::of_stateful_set(
        Component::Broker,
        Some(&set),
        &Children { pods: vec![pod], ..Children::default() },
    )
}

#[test]
fn a_dashboard_whose_new_pod_can_not_start_is_not_ready_though_the_old_one_is() {
    let dashboard = |counts: &str, image: &str| {
        let deployment: Deployment = serde_saphyr::from_str(&format!(
            "{{metadata: {{generation: 2}}, spec: {{replicas: 1, selector: {{}}, template: {{}}}}, \
             status: {{observedGeneration: 2, {counts}}}}}"
        ))
        .expect("a deployment");
        let pod: Pod = serde_saphyr::from_str(&format!(
            "{{metadata: {{name: lab-dashboard-0, labels: {{app.kubernetes.io/component: dashboard}}}}, status: \
             {{containerStatuses: [{{image: '{image}', imageID: '', name: grafana, ready: false, restartCount: 0, \
             state: {{waiting: {{reason: ImagePullBackOff, message: not found}}}}}}]}}}}"
        ))
        .expect("a pod");
        let children = Children { pods: vec![pod], ..Children::default() };
        workload::of_deployment(Component::Dashboard, Some(&deployment), &children)
    };
    let part = dashboard("replicas: 2, updatedReplicas: 1, readyReplicas: 1", "g:nope");
    assert_eq!((part.ready, part.reason.as_str()), (false, "ImagePullBackOff"));
    assert!(dashboard("replicas: 1, updatedReplicas: 1, readyReplicas: 1", "g:1").ready);
}

#[test]
fn what_keeps_a_pod_from_being_ready_is_told() {
    let container = "image: 'r/m:1', imageID: '', name: mosquitto, ready: false, restartCount: 0";
    let cases = [
        (
            format!("{{containerStatuses: [{{{container}, state: {{waiting: {{reason: ImagePullBackOff, message: not found}}}}}}]}}"),
            "ImagePullBackOff",
            "container mosquitto of pod lab-broker-0, image r/m:1: ImagePullBackOff: not found",
        ),
        (
            format!(
                "{{containerStatuses: [{{{container}, state: {{waiting: {{reason: CrashLoopBackOff, message: back-off}}}}, \
                 lastState: {{terminated: {{exitCode: 3, reason: Error}}}}}}]}}"
            ),
            "CrashLoopBackOff",
            "container mosquitto of pod lab-broker-0, image r/m:1: CrashLoopBackOff: back-off (last: Error, exit code 3)",
        ),
        (
            "{conditions: [{type: PodScheduled, status: 'False', message: 'pod has unbound immediate PersistentVolumeClaims'}]}".into(),
            "Unschedulable",
            "the pod lab-broker-0 can't be placed: pod has unbound immediate PersistentVolumeClaims",
        ),
        (
            format!("{{containerStatuses: [{{{container}, state: {{waiting: {{reason: ContainerCreating}}}}}}]}}"),
            "Starting",
            "waiting for the broker to start",
        ),
    ];
    for (pod, reason, message) in cases {
        assert_eq!(of_pod(&pod), Part::not_ready(reason, message));
    }
}

/// What the node controller does to the pods of a node of which it has not heard for long.
#[test]
fn a_pod_that_is_not_ready_though_its_containers_are_has_lost_its_node() {
    let conditions = |ready: &str| {
        format!(
            "{{conditions: [{{type: Ready, status: 'False'{ready}}}, {{type: ContainersReady, status: 'True'}}]}}"
        )
    };
    let lost = of_pod(&conditions(""));
    assert_eq!(lost.reason, "NodeNotReady");
    assert!(lost.message.contains("kubectl delete node"), "{}", lost.message);
    assert_eq!(of_pod(&conditions(", reason: ReadinessGatesNotReady")).reason, "Starting");
    let unready = "{conditions: [{type: Ready, status: 'False'}, {type: ContainersReady, status: 'False'}]}";
    assert_eq!(of_pod(unready).reason, "Starting");
}

#[test]
fn a_set_whose_newest_template_is_not_seen_yet_is_not_ready() {
    let ready: StatefulSet = serde_saphyr::from_str(&SET.replace("READY", "1")).expect("a set");
    assert!(workload::of_stateful_set(Component::Broker, Some(&ready), &Children::default()).ready);
    let mut stale = ready;
    stale.metadata.generation = Some(3);
    assert!(!workload::of_stateful_set(Component::Broker, Some(&stale), &Children::default()).ready);
}

#[test]
fn a_suspended_pipeline_keeps_what_was_seen_last() {
    let before = status(&applied(parts()), Some(1), None, &at(0));
    let after = status(&Facts::Suspended { failure: None }, Some(2), Some(&before), &at(9));
    assert_eq!(
        rows(&after),
        "Ready=True/Ready Suspended=True/Suspended BrokerReady=True/Ready DatabaseReady=True/Ready BridgeReady=True/Ready DashboardReady=True/Ready"
    );
    assert_eq!(after.observed_generation, Some(1), "the new spec was not looked at");
    assert_eq!(
        (after.conditions[0].clone(), after.endpoints.clone()),
        (before.conditions[0].clone(), before.endpoints)
    );
    assert_eq!(after.conditions[1].observed_generation, Some(2));
    assert_eq!(status(&Facts::Suspended { failure: None }, Some(2), Some(&after), &at(10)), after);
    let failed = Facts::Suspended { failure: Some("list Secret: too many requests".into()) };
    let failed = status(&failed, Some(2), Some(&after), &at(10));
    assert_eq!(rows(&failed), rows(&after));
    assert!(failed.conditions[1].message.ends_with("list Secret: too many requests"));
    assert_eq!(status(&Facts::Suspended { failure: None }, Some(2), Some(&failed), &at(11)), after);
    let resumed = status(&applied(parts()), Some(3), Some(&after), &at(11));
    assert!(!rows(&resumed).contains("Suspended"));

    let new = status(&Facts::Suspended { failure: None }, Some(1), None, &at(0));
    assert_eq!(rows(&new), "Ready=Unknown/Suspended Suspended=True/Suspended");
    assert_eq!(status(&Facts::Suspended { failure: None }, Some(1), Some(&new), &at(1)), new);
}

#[test]
fn a_hibernating_pipeline_is_not_ready_and_at_work_only_until_its_pods_have_gone() {
    let rest = Part::not_ready("Hibernated", "no pods");
    let parts =
        Parts { broker: rest.clone(), database: rest.clone(), bridge: rest, dashboard: None, ..parts() };
    let asleep = |settled| Facts::Asleep { settled, parts: Box::new(parts.clone()) };
    let rest = "BrokerReady=False/Hibernated DatabaseReady=False/Hibernated BridgeReady=False/Hibernated";
    assert_eq!(
        rows(&status(&asleep(false), Some(1), None, &at(0))),
        format!("Ready=False/Hibernating Reconciling=True/Hibernating {rest}")
    );
    assert_eq!(rows(&status(&asleep(true), Some(1), None, &at(0))), format!("Ready=False/Hibernated {rest}"));
}

#[test]
fn a_failed_backup_is_told_and_the_pipeline_is_ready_all_the_same() {
    let with = |last: Option<Part>, made: Option<&str>| {
        let made = made.map(|name| BackupStatus { name: name.into(), time: "t".into() });
        applied(Parts { dashboard: None, backup: Some(Backup { last, made }), ..parts() })
    };
    let told = |status: &IoTPipelineStatus| rows(status).rsplit(' ').next().unwrap_or_default().to_owned();
    let none = status(&with(None, None), Some(1), None, &at(0));
    assert_eq!(told(&none), "BackupReady=Unknown/NoBackup");
    let good = status(&with(Some(Part::ready("done")), Some("a")), Some(1), Some(&none), &at(1));
    assert_eq!(told(&good), "BackupReady=True/Ready");
    let failed = Part::not_ready("BackupFailed", "no room");
    let bad = status(&with(Some(failed), None), Some(1), Some(&good), &at(2));
    assert!(rows(&bad).starts_with("Ready=True/Ready"), "{}", rows(&bad));
    assert_eq!(told(&bad), "BackupReady=False/BackupFailed");
    assert_eq!(bad.backup.as_ref().map(|backup| backup.name.as_str()), Some("a"));
    // Their pods have gone, and so has what they said.
    let later = status(&with(None, None), Some(1), Some(&bad), &at(3));
    assert_eq!((told(&later), &later.backup), (told(&bad), &bad.backup));
    // What kept them from being made is told as long as it does.
    let refused = with(Some(Part::not_ready("Forbidden", "exceeded quota")), None);
    let refused = status(&refused, Some(1), Some(&good), &at(3));
    assert_eq!(told(&refused), "BackupReady=False/Forbidden");
    assert!(rows(&refused).starts_with("Ready=True/Ready"), "{}", rows(&refused));
    let mended = status(&with(None, None), Some(1), Some(&refused), &at(4));
    assert_eq!((told(&mended), &mended.backup), (told(&good), &good.backup));
    let never = IoTPipelineStatus { backup: None, ..refused };
    assert_eq!(told(&status(&with(None, None), Some(1), Some(&never), &at(4))), told(&none));
    let suspended = status(&Facts::Suspended { failure: None }, Some(2), Some(&bad), &at(4));
    assert_eq!((told(&suspended), &suspended.backup), (told(&bad), &bad.backup));
    let without = status(&applied(parts()), Some(3), Some(&bad), &at(5));
    assert!(!rows(&without).contains("BackupReady") && without.backup.is_none());
}

#[test]
fn what_nobody_has_seen_yet_has_a_generation_that_no_condition_has() {
    // As the definition's default has it.
    let unseen = IoTPipelineStatus { observed_generation: Some(-1), ..IoTPipelineStatus::default() };
    let suspended = status(&Facts::Suspended { failure: None }, Some(1), Some(&unseen), &at(0));
    assert_eq!(suspended.observed_generation, Some(-1));
    let ready = suspended.conditions.iter().find(|row| row.type_ == "Ready").expect("there is one");
    assert_eq!(ready.observed_generation, None);
    assert_eq!(status(&applied(parts()), Some(1), Some(&unseen), &at(0)).observed_generation, Some(1));
}
