//! What is written, before an API server that takes everything but what a case has it refuse.

mod support;

use std::sync::{Arc, Mutex};

use axum::http::{Request, Response};
use iotpipeline_operator::apply::{Applied, ApplyError, apply, keep_or_collect};
use iotpipeline_operator::cache::Cache;
use iotpipeline_operator::observe::Children;
use iotpipeline_operator::plan::{BACKUP, Identity, Plan};
use iotpipeline_operator::resources::desired;
use iotpipeline_operator::resources::names::Component;
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::{Case, config, tokens};
use tower::{BoxError, service_fn};

/// Method and path of each request, and what was sent.
type Seen = Arc<Mutex<Vec<(String, Value)>>>;

/// What is refused, by a part of the path, and how.
type Refusal = Option<(&'static str, Value)>;

/// It answers with what it is given, under the name that was asked for.
fn server(refusal: Refusal) -> (Client, Seen) {
    let seen = Seen::default();
    let log = seen.clone();
    let service = service_fn(move |request: Request<Body>| {
        let (log, refusal) = (log.clone(), refusal.clone());
        async move {
            let path = request.uri().path().to_owned();
            let line = format!("{} {path}", request.method());
            let bytes = request.into_body().collect_bytes().await?;
            let sent: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let (code, answer) = match refusal {
                Some((part, status)) if path.contains(part) => (422_u16, status),
                _ => {
                    let mut answer = sent.clone();
                    answer["metadata"]["name"] = path.rsplit('/').next().into();
                    (200, answer)
                }
            };
            log.lock().expect("nobody panics").push((line, sent));
            let body = Body::from(serde_json::to_vec(&answer)?);
            Ok::<_, BoxError>(Response::builder().status(code).body(body)?)
        }
    });
    (Client::new(service, "test"), seen)
}

/// The requests since the last time.
fn requests(seen: &Seen) -> Vec<(String, Value)> {
    std::mem::take(&mut *seen.lock().expect("nobody panics"))
}

fn case(policy: &str) -> Case {
    Case::parse(&format!(
        "apiVersion: iotpipeline.io/v1alpha1\nkind: IoTPipeline\nmetadata: {{name: lab}}\n\
         spec: {{deletionPolicy: {policy}, database: {{backup: {{schedule: '0 3 * * *', volume: {{size: 1Gi}}}}}}, \
         routes: [{{name: r, topic: a, payload: {{float: {{}}}}}}]}}"
    ))
}

fn owner(uid: &str, is_controller: bool) -> Value {
    json!({
        "apiVersion": "iotpipeline.io/v1alpha1", "kind": "IoTPipeline", "name": "lab", "uid": uid,
        "controller": is_controller,
    })
}

/// A volume and two Secrets, with these owners.
fn children(identity: &Identity, owners: &Value) -> Children {
    let object = |name: &str, component: Component| {
        let labels = identity.names.labels(component);
        let metadata =
            json!({"name": name, "labels": labels, "resourceVersion": "7", "ownerReferences": owners});
        json!({"metadata": metadata})
    };
    let (broker, database) = (Component::Broker, Component::Database);
    Children {
        claims: vec![read(object("data-lab-database-0", database))],
        secrets: vec![read(object("lab-broker", broker)), read(object("lab-database", database))],
        ..Children::default()
    }
}

fn read<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("an object of this kind")
}

const CLAIM: &str = "PATCH /api/v1/namespaces/test/persistentvolumeclaims/data-lab-database-0";

const SECRET: &str = "PATCH /api/v1/namespaces/test/secrets/lab-database";

#[tokio::test]
async fn the_database_s_secret_is_tied_and_freed_together_with_the_volumes() {
    let (collect, keep) = (Identity::of(&case("Delete").pipeline), Identity::of(&case("Retain").pipeline));
    let (client, seen) = server(None);
    let cache = Cache::default();
    let mut children = children(&keep, &json!([]));
    for (identity, owners) in [(&collect, 1), (&keep, 0)] {
        keep_or_collect(&client, &cache, identity, &mut children).await.expect("both are written");
        let written = requests(&seen);
        let lines: Vec<&str> = written.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(lines, [CLAIM, SECRET]);
        for (line, sent) in &written {
            assert_eq!(sent["metadata"]["resourceVersion"], "7", "{line}");
            assert_eq!(sent["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(owners), "{line}");
        }
        // What was written is known, so that the same pass goes on from there.
        keep_or_collect(&client, &cache, identity, &mut children).await.expect("nothing is to be written");
        assert!(requests(&seen).is_empty());
    }
}

#[tokio::test]
async fn what_cannot_be_freed_keeps_nothing_else_from_it() {
    let keep = Identity::of(&case("Retain").pipeline);
    let mut children = children(&keep, &json!([owner(&keep.owner.uid, false)]));
    let status = json!({"status": "Failure", "code": 422, "reason": "Invalid", "message": "no"});
    let (client, seen) = server(Some(("persistentvolumeclaims", status)));
    let outcome = keep_or_collect(&client, &Cache::default(), &keep, &mut children).await;
    assert!(outcome.is_err());
    let lines: Vec<String> = requests(&seen).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [CLAIM, SECRET]);
}

#[tokio::test]
async fn what_belonged_to_another_pipeline_of_the_name_is_neither_tied_nor_an_error() {
    let collect = Identity::of(&case("Delete").pipeline);
    for owners in [json!([owner("another", false)]), json!([owner("another", true)])] {
        let (client, seen) = server(None);
        let mut children = children(&collect, &owners);
        keep_or_collect(&client, &Cache::default(), &collect, &mut children).await.expect("no error");
        assert!(requests(&seen).is_empty());
    }
    let mut other = owner("another", true);
    other["name"] = "other".into();
    let (client, seen) = server(None);
    let mut theirs = children(&collect, &json!([other]));
    theirs.claims.clear();
    keep_or_collect(&client, &Cache::default(), &collect, &mut theirs).await.expect("no error");
    assert!(requests(&seen).is_empty(), "the Secret is somebody else's");
}

/// With a backup on schedule, and one on request.
fn case_with_backups() -> Case {
    let mut case = case("Retain");
    case.pipeline.annotations_mut().insert(BACKUP.into(), "now".into());
    case
}

/// What comes of a pass, and what it asks for: `METHOD resource/name`.
async fn applied(case: &Case, refusal: Refusal) -> (Result<Applied, ApplyError>, Vec<String>) {
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
    let (client, seen) = server(refusal);
    let desired = desired(&plan, &tokens());
    let applied = apply(&client, &Cache::default(), &plan, &desired, &case.observed.children).await;
    let lines = requests(&seen).into_iter().map(|(line, _)| {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut ends = path.rsplitn(3, '/');
        let (name, resource) = (ends.next().unwrap_or_default(), ends.next().unwrap_or_default());
        format!("{method} {resource}/{name}")
    });
    (applied, lines.collect())
}

fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|line| line.contains(part))
}

fn forbidden() -> Value {
    json!({"status": "Failure", "code": 403, "reason": "Forbidden", "message": "exceeded quota: small"})
}

#[tokio::test]
async fn a_volume_for_backups_that_is_refused_holds_up_backups_alone() {
    let mut case = case_with_backups();
    let (outcome, lines) = applied(&case, None).await;
    assert!(outcome.expect("a pass").refused_backup.is_none());
    assert!(has(&lines, "PATCH cronjobs/lab-backup") && has(&lines, "PATCH jobs/lab-backup-"), "{lines:?}");

    let refused = Some(("persistentvolumeclaims/lab-backup", forbidden()));
    let (outcome, lines) = applied(&case, refused.clone()).await;
    let made = outcome.expect("a pass");
    let error = made.refused_backup.expect("it is told");
    assert_eq!(error.to_string(), "apply PersistentVolumeClaim lab-backup");
    assert!(made.broker.is_some() && made.database.is_some() && made.bridge.is_some());
    assert!(!has(&lines, "jobs/"), "it would wait for the volume: {lines:?}");

    // What was made before stays, and is changed where it can be.
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
    let desired = desired(&plan, &tokens());
    let backups = desired.backups.wanted().expect("backups");
    case.observed.children.cron_jobs = backups.cron_job.clone().into_iter().collect();
    case.observed.children.jobs = backups.job.clone().into_iter().collect();
    let (outcome, lines) = applied(&case, refused).await;
    assert!(outcome.expect("a pass").refused_backup.is_some());
    assert!(has(&lines, "PATCH cronjobs/lab-backup"), "{lines:?}");
    assert!(!has(&lines, "DELETE"), "{lines:?}");
}

#[tokio::test]
async fn a_schedule_that_is_refused_holds_up_no_backup_on_request() {
    let (applied, lines) = applied(&case_with_backups(), Some(("cronjobs", forbidden()))).await;
    assert!(applied.expect("a pass").refused_backup.is_some());
    assert!(has(&lines, "PATCH jobs/lab-backup-"), "{lines:?}");
}

#[tokio::test]
async fn a_namespace_that_is_going_and_a_restore_that_is_refused_end_the_pass() {
    let cause = json!({"reason": "NamespaceTerminating", "message": "namespace test is being terminated"});
    let mut going = forbidden();
    going["details"] = json!({"causes": [cause]});
    let refused = Some(("persistentvolumeclaims/lab-backup", going));
    let (ended, _) = applied(&case_with_backups(), refused).await;
    assert!(ended.expect_err("it ends").namespace_is_going());

    let mut case = case("Retain");
    let from = json!({"volume": {"claimName": "old"}});
    case.pipeline.spec.database.restore_from = serde_json::from_value(from).expect("a restore");
    let (ended, lines) = applied(&case, Some(("jobs/lab-restore", forbidden()))).await;
    assert!(ended.is_err() && has(&lines, "PATCH jobs/lab-restore"), "{lines:?}");
}
