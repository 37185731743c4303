//! A pipeline that hibernates: what rests when, and what it wakes up as.

mod support;

use iotpipeline_operator::plan::{Plan, Sleep};
use iotpipeline_operator::resources::names::Component;
use iotpipeline_operator::resources::{Desired, desired};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use support::{Case, config, tokens};

const PIPELINE: &str = "apiVersion: iotpipeline.io/v1alpha1\nkind: IoTPipeline\nmetadata: {name: lab}\n\
    spec: {hibernate: true, dashboard: {}, bridge: {replicas: 3}, routes: [{name: r, topic: a, payload: {float: {}}}]}";

fn plan(case: &Case) -> Plan {
    Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned")
}

fn pod(case: &Case, component: Component) -> Pod {
    let labels = plan(case).pipeline.names.labels(component);
    Pod { metadata: ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }, ..Pod::default() }
}

/// The replicas of broker, bridge, database and dashboard.
fn replicas(case: &Case) -> [Option<i32>; 4] {
    let Desired { broker, database, bridge, dashboard, .. } = desired(&plan(case), &tokens());
    [
        broker.expect("a broker").stateful_set.spec.replicas,
        bridge.wanted().expect("a bridge").stateful_set.spec.replicas,
        database.expect("a database").stateful_set.spec.replicas,
        dashboard.wanted().expect("a dashboard").deployment.spec.replicas,
    ]
}

#[test]
fn parts_go_to_sleep_in_the_way_of_the_data() {
    let mut case = Case::parse(PIPELINE);
    let (broker, bridge) = (pod(&case, Component::Broker), pod(&case, Component::Bridge));
    case.observed.children.pods = vec![broker, bridge.clone()];
    assert_eq!(replicas(&case), [Some(0), Some(3), Some(1), Some(1)]);
    case.observed.children.pods = vec![bridge];
    assert_eq!(replicas(&case), [Some(0), Some(0), Some(1), Some(1)]);
    case.observed.children.pods = Vec::new();
    assert_eq!(replicas(&case), [Some(0); 4]);
    case.pipeline.spec.hibernate = false;
    assert_eq!(plan(&case).sleep, Sleep::default());
    assert_eq!(replicas(&case), [Some(1), Some(3), Some(1), Some(1)]);
}

#[test]
fn the_database_stays_until_what_copies_it_has_ended() {
    let mut case = Case::parse(PIPELINE);
    for component in [Component::Backup, Component::Restore] {
        let mut copying = pod(&case, component);
        case.observed.children.pods = vec![copying.clone()];
        assert_eq!(replicas(&case), [Some(0), Some(0), Some(1), Some(1)], "{component:?}");
        copying.status.get_or_insert_default().phase = Some("Failed".into());
        case.observed.children.pods = vec![copying];
        assert_eq!(replicas(&case), [Some(0); 4], "{component:?}");
    }
}

#[test]
fn a_bridge_that_is_no_longer_wanted_after_hibernation_wakes_up_to_leave() {
    let mut case = Case::parse(PIPELINE);
    let asleep = desired(&plan(&case), &tokens()).bridge.wanted().expect("a bridge").stateful_set.clone();
    case.observed.children.stateful_sets.push(asleep);
    // Its session at the broker may hold messages.
    case.pipeline.spec.bridge.replicas = Some(2);
    for hibernate in [true, false] {
        case.pipeline.spec.hibernate = hibernate;
        let bridges = plan(&case).bridges;
        assert_eq!((bridges.members, bridges.running), (2, 3), "hibernate: {hibernate}");
    }
    let awake = desired(&plan(&case), &tokens()).bridge.wanted().expect("a bridge").stateful_set.clone();
    assert_eq!((awake.spec.replicas, awake.metadata.annotations), (Some(3), None));
}
