//! How backups and restores went: in the words of their pods, which outlive their end.

use api::backup::BackupStatus;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;

use super::{pod_refused, pods_of, trouble, warning};
use crate::backup::Report;
use crate::observe::Children;
use crate::resources::backup::CONTAINER;
use crate::resources::names::{COMPONENT, Component};
use crate::status::{Backup, Part};

/// The pods of a Job that are done, and how. A mesh's sidecar may be among their containers.
fn ended(component: Component, pods: &[Pod]) -> impl Iterator<Item = &ContainerStateTerminated> {
    pods_of(component, pods).filter(|pod| has_ended(pod)).filter_map(|pod| {
        let mut containers = pod.status.as_ref()?.container_statuses.iter().flatten();
        let container = containers.find(|container| container.name == CONTAINER)?;
        container.state.as_ref()?.terminated.as_ref()
    })
}

/// Whether a pod has done what it was for, or never will.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a backup or a restore is under way.
pub fn is_copying(pods: &[Pod]) -> bool {
    [Component::Backup, Component::Restore]
        .into_iter()
        .any(|part| pods_of(part, pods).any(|pod| !has_ended(pod)))
}

/// The last backup that ended, and the last that was complete, as far as their pods are still there.
pub fn of_backups(children: &Children) -> Backup {
    let (component, pods) = (Component::Backup, &children.pods);
    let last = ended(component, pods).max_by_key(|end| when(end));
    let made = ended(component, pods).filter(|end| end.exit_code == 0).max_by_key(|end| when(end));
    let made = made.and_then(|end| {
        let Report { name, warning, .. } = serde_json::from_str(end.message.as_deref()?).ok()?;
        Some((BackupStatus { name, time: format!("{:.0}", when(end)?) }, warning))
    });
    let is_explained = |failure: &&JobCondition| {
        failure.reason.as_deref() == Some("BackoffLimitExceeded")
            && last.is_some_and(|end| end.exit_code != 0)
    };
    let gave_up = failures(component, children)
        .filter(|failure| failed_at(failure) > last.and_then(when) && !is_explained(failure))
        .max_by_key(|failure| failed_at(failure));
    let last = match (gave_up, last) {
        (Some(failure), _) => {
            Some(Part::not_ready("BackupFailed", failure.message.clone().unwrap_or_default()))
        }
        (None, Some(end)) if end.exit_code == 0 => Some(match &made {
            Some((made, None)) => Part::ready(format!("{} is complete", made.name)),
            Some((made, Some(warning))) => Part::ready(format!("{} is complete; {warning}", made.name)),
            None => Part::ready("the last backup is complete"),
        }),
        (None, Some(end)) => Some(Part::not_ready("BackupFailed", words(end))),
        (None, None) => None,
    };
    Backup { last: stuck(component, children).or(last), made: made.map(|(made, _)| made) }
}

/// How the restore of this name goes.
pub fn of_restore(job: &str, children: &Children) -> Part {
    let (component, pods) = (Component::Restore, &children.pods);
    let its = |found: &&Job| found.name_any() == job;
    let failure = jobs_of(component, children).filter(its).find_map(|job| condition(job, "Failed"));
    let last = ended(component, pods).filter(|end| end.exit_code != 0).max_by_key(|end| when(end)).map(words);
    if let Some(failure) = failure {
        let why = last.or_else(|| failure.message.clone()).unwrap_or_default();
        return Part::not_ready(
            "RestoreFailed",
            format!(
                "{why}: correct database.restoreFrom, or delete the Job {job} to try again, or remove \
                 database.restoreFrom to begin with an empty bucket"
            ),
        );
    }
    // Who asks has looked for the bucket after this was seen.
    if jobs_of(component, children).filter(its).any(|job| condition(job, "Complete").is_some()) {
        return Part::not_ready(
            "RestoreFailed",
            format!(
                "the Job {job} has restored the bucket, and it has gone since: delete the Job to restore it again, or \
                 remove database.restoreFrom to begin with an empty bucket"
            ),
        );
    }
    let message = match (stuck(component, children), last) {
        (Some(stuck), _) => stuck.message,
        (None, Some(why)) => format!("the Job {job} tries again, after: {why}"),
        (None, None) => format!("the Job {job} restores the bucket; nothing is stored before it has"),
    };
    Part::not_ready("Restoring", message)
}

/// What keeps a pod from its work, or from being there.
fn stuck(component: Component, children: &Children) -> Option<Part> {
    let mut running = pods_of(component, &children.pods).filter(|pod| !has_ended(pod));
    running.find_map(|pod| trouble(component, pod, children)).or_else(|| {
        let refused = jobs_of(component, children).filter(|job| lacks_pods(job));
        let mut events = refused.filter_map(|job| warning(job, children)?.message.as_deref());
        events.next().map(|message| pod_refused(component, message))
    })
}

/// Whether a Job is at work and has no pod, which it may not be allowed to make.
pub(super) fn lacks_pods(job: &Job) -> bool {
    let Some(status) = &job.status else { return false };
    let is_over = ["Complete", "Failed"].iter().any(|type_| condition(job, type_).is_some());
    status.start_time.is_some() && status.active.unwrap_or(0) == 0 && !is_over
}

fn jobs_of(component: Component, children: &Children) -> impl Iterator<Item = &Job> {
    let is_its = move |job: &&Job| {
        let is_going = job.metadata.deletion_timestamp.is_some();
        !is_going && job.labels().get(COMPONENT).is_some_and(|label| label == component.as_str())
    };
    children.jobs.iter().filter(is_its)
}

fn failures(component: Component, children: &Children) -> impl Iterator<Item = &JobCondition> {
    jobs_of(component, children).filter_map(|job| condition(job, "Failed"))
}

/// This condition of a Job, if it is true.
fn condition<'j>(job: &'j Job, type_: &str) -> Option<&'j JobCondition> {
    let mut conditions = job.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == type_ && condition.status == "True")
}

fn failed_at(failure: &JobCondition) -> Option<Timestamp> {
    failure.last_transition_time.as_ref().map(|time| time.0)
}

fn when(end: &ContainerStateTerminated) -> Option<Timestamp> {
    end.finished_at.as_ref().map(|time| time.0)
}

fn words(end: &ContainerStateTerminated) -> String {
    let said = end.message.as_deref().map(str::trim).filter(|said| !said.is_empty());
    said.map_or_else(
        || format!("{}, exit code {}", end.reason.as_deref().unwrap_or("it ended"), end.exit_code),
        str::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(component: &str, phase: &str, state: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {COMPONENT: component}},
            "status": {"phase": phase, "containerStatuses": [
                {"name": "backup", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]},
        }))
        .expect("a pod")
    }

    fn done(component: &str, code: i32, at: &str, message: &str) -> Pod {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let end = json!({"exitCode": code, "finishedAt": format!("2026-01-01T{at}:00Z"), "message": message});
        pod(component, phase, json!({"terminated": end}))
    }

    fn failed(component: &str, at: &str) -> Job {
        ended_job(component, at, "DeadlineExceeded", "it took too long")
    }

    fn ended_job(component: &str, at: &str, reason: &str, message: &str) -> Job {
        serde_json::from_value(json!({
            "metadata": {"name": "j", "labels": {COMPONENT: component}},
            "status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason,
                "message": message, "lastTransitionTime": format!("2026-01-01T{at}:00Z")}]},
        }))
        .expect("a Job")
    }

    const COMPLETE: &str = r#"{"name":"20260101T030000Z","bytes":7}"#;

    #[test]
    fn the_last_backup_counts_and_the_last_complete_one_is_remembered() {
        let mut children = Children::default();
        assert_eq!(of_backups(&children), Backup::default());
        children.pods = vec![done("backup", 1, "02:00", "no room"), done("backup", 0, "03:00", COMPLETE)];
        let good = of_backups(&children);
        let made = BackupStatus { name: "20260101T030000Z".into(), time: "2026-01-01T03:00:00Z".into() };
        assert_eq!(good.made, Some(made.clone()));
        assert_eq!(good.last, Some(Part::ready("20260101T030000Z is complete")));
        let warned = r#"{"name":"20260101T033000Z","bytes":7,"warning":"old ones can't be removed: no"}"#;
        children.pods.push(done("backup", 0, "03:30", warned));
        let told = of_backups(&children).last.expect("it is told");
        assert!(told.ready, "there is a backup");
        assert_eq!(told.message, "20260101T033000Z is complete; old ones can't be removed: no");
        children.pods.pop();
        children.pods.push(done("backup", 1, "04:00", "no room\n"));
        let bad = of_backups(&children);
        assert_eq!(bad.last, Some(Part::not_ready("BackupFailed", "no room")));
        assert_eq!(bad.made, Some(made));
        children.jobs = vec![failed("backup", "05:00"), failed("restore", "06:00")];
        assert_eq!(of_backups(&children).last, Some(Part::not_ready("BackupFailed", "it took too long")));
        children.jobs = vec![failed("backup", "03:30")];
        assert_eq!(of_backups(&children).last, Some(Part::not_ready("BackupFailed", "no room")));
    }

    #[test]
    fn a_job_that_gave_up_is_told_in_the_words_of_its_last_pod() {
        let gave_up = || ended_job("backup", "02:01", "BackoffLimitExceeded", "reached the limit");
        let mut children = Children { jobs: vec![gave_up()], ..Children::default() };
        let told = |children: &Children| of_backups(children).last.map(|part| part.message);
        assert_eq!(told(&children), Some("reached the limit".into()), "its pods have gone");
        children.pods = vec![done("backup", 1, "02:00", "no room")];
        assert_eq!(told(&children), Some("no room".into()));
        children.pods = vec![done("backup", 0, "01:00", COMPLETE)];
        assert_eq!(told(&children), Some("reached the limit".into()), "the pod is another Job's");
    }

    #[test]
    fn what_a_sidecar_of_somebody_else_s_says_is_not_the_backup_s() {
        let mut pod = done("backup", 0, "03:00", COMPLETE);
        let statuses = pod.status.as_mut().and_then(|status| status.container_statuses.as_mut());
        let statuses = statuses.expect("there are some");
        let mut sidecar = statuses[0].clone();
        sidecar.name = "proxy".into();
        let end = sidecar.state.as_mut().and_then(|state| state.terminated.as_mut()).expect("it has ended");
        (end.exit_code, end.message) = (137, Some("killed".into()));
        statuses.insert(0, sidecar);
        let children = Children { pods: vec![pod], ..Children::default() };
        assert!(of_backups(&children).last.is_some_and(|part| part.ready));
    }

    #[test]
    fn a_backup_that_can_t_start_is_told() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let children = Children {
            pods: vec![done("backup", 0, "03:00", COMPLETE), pod("backup", "Pending", waiting)],
            ..Children::default()
        };
        assert_eq!(of_backups(&children).last.map(|part| part.reason), Some("ImagePullBackOff".into()));
    }

    #[test]
    fn a_job_that_may_make_no_pod_is_told_until_it_has_one() {
        let mut job: Job = serde_json::from_value(json!({
            "metadata": {"name": "j", "uid": "u", "labels": {COMPONENT: "backup"}},
            "status": {"startTime": "2026-01-01T03:00:00Z"},
        }))
        .expect("a Job");
        let event = serde_json::from_value(json!({
            "metadata": {"name": "e"}, "involvedObject": {"uid": "u"}, "reason": "FailedCreate",
            "message": "pods \"j-\" is forbidden: exceeded quota: small", "lastTimestamp": "2026-01-01T03:00:01Z",
        }))
        .expect("an event");
        let mut children = Children { jobs: vec![job.clone()], events: vec![event], ..Children::default() };
        assert_eq!(super::super::unexplained(&children), [("Job", "j".to_owned(), "u".to_owned())]);
        let told = of_backups(&children).last.expect("it is told");
        assert_eq!(told.reason, "PodRefused");
        assert!(told.message.ends_with("exceeded quota: small: raise the quota"), "{}", told.message);
        job.status.get_or_insert_default().active = Some(1);
        children.jobs = vec![job];
        assert_eq!(of_backups(&children).last, None);
        assert!(super::super::unexplained(&children).is_empty());
    }

    #[test]
    fn a_restore_goes_on_until_its_job_has_failed() {
        let mut children = Children::default();
        assert_eq!(of_restore("j", &children).reason, "Restoring");
        children.pods = vec![done("restore", 1, "03:00", "the file f is damaged")];
        let again = of_restore("j", &children);
        assert_eq!(again.reason, "Restoring");
        assert!(again.message.contains("tries again, after: the file f is damaged"), "{}", again.message);
        children.jobs = vec![failed("backup", "03:00")];
        assert_eq!(of_restore("j", &children).reason, "Restoring");
        let mut former = failed("restore", "03:00");
        former.metadata.name = Some("former".into());
        children.jobs.push(former);
        assert_eq!(of_restore("j", &children).reason, "Restoring", "what is asked for now has not failed");
        children.jobs.push(failed("restore", "03:00"));
        let over = of_restore("j", &children);
        assert_eq!(over.reason, "RestoreFailed");
        assert!(over.message.starts_with("the file f is damaged: correct"), "{}", over.message);
        assert!(over.message.contains("delete the Job j"), "{}", over.message);
    }

    #[test]
    fn a_restore_whose_bucket_has_gone_after_it_is_not_under_way() {
        let mut job = failed("restore", "03:00");
        let conditions = job.status.as_mut().and_then(|status| status.conditions.as_mut());
        conditions.expect("there are some")[0].type_ = "Complete".into();
        let children = Children { jobs: vec![job], ..Children::default() };
        let over = of_restore("j", &children);
        assert_eq!(over.reason, "RestoreFailed");
        assert!(over.message.contains("delete the Job to restore it again"), "{}", over.message);
    }
}
