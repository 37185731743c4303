//! A schedule for new credentials, pass by pass: what one pass keeps in Secrets the next one finds.

mod support;

use std::path::Path;

use iotpipeline_operator::credentials;
use iotpipeline_operator::plan::Plan;
use iotpipeline_operator::resources::desired;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use support::{Case, config, tokens};

/// What a schedule turns, and what it leaves alone.
#[derive(Debug, Eq, PartialEq)]
struct Kept {
    user: String,
    bridge: String,
    administrator: String,
}

/// One pass at this time; the Secrets are then as it left them.
fn pass(case: &mut Case, secrets: &mut Vec<Secret>, now: Timestamp) -> Kept {
    case.observed.now = now;
    case.observed.credentials =
        credentials::complete(&case.pipeline, secrets, now).expect("there is randomness");
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
    let desired = desired(&plan, &tokens());
    let broker = desired.broker.expect("it is managed");
    let mut next = broker.user_secrets;
    next.push(broker.secret);
    next.extend(desired.authority);
    next.extend(desired.database.map(|objects| objects.secret));
    next.extend(desired.bridge.wanted().map(|objects| objects.secret.clone()));
    next.extend(desired.dashboard.wanted().map(|objects| objects.secret.clone()));
    for secret in &mut next {
        let is_same = |old: &&Secret| old.metadata.name == secret.metadata.name;
        let created = secrets.iter().find(is_same).and_then(|old| old.metadata.creation_timestamp.clone());
        secret.metadata.creation_timestamp = created.or(Some(Time(now)));
    }
    *secrets = next;
    let made = &case.observed.credentials;
    Kept {
        user: made.users["raspberry"].clone(),
        bridge: made.bridge.clone(),
        administrator: made.database.password.clone(),
    }
}

#[test]
fn a_schedule_makes_passwords_anew_when_its_time_has_come_and_once() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples/lab.yaml");
    let mut case = Case::read(&file);
    let schedule = serde_saphyr::from_str("{rotateEvery: 30d}").expect("a schedule");
    case.pipeline.spec.credentials = Some(schedule);
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let after = |hours: i64| start.checked_add(hours.hours()).expect("a time");
    let mut secrets = Vec::new();
    let mut pass = |hours| pass(&mut case, &mut secrets, after(hours));

    let first = pass(0);
    assert_eq!(pass(30 * 24 - 1), first, "too early");
    let second = pass(30 * 24);
    assert!(second.user != first.user && second.bridge != first.bridge, "its time has come");
    assert_eq!(second.administrator, first.administrator);
    for hours in [30 * 24 + 1, 60 * 24 - 1] {
        assert_eq!(pass(hours), second, "a second time for the same");
    }
    assert_ne!(pass(60 * 24).user, second.user, "the next time");
}
