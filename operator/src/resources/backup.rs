//! Backups: a CronJob, a Job for each request, and one that restores. They run the operator's own image.
//!
//! InfluxDB wants the operator token for a backup, and knows no smaller right; so the pods mount that key of the
//! database's Secret, and no other of its keys but the authority.

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, PodTemplateSpec,
    ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names::Component;
use super::pod::{self, Pod};
use super::{hash, metadata, part_metadata};
use crate::plan::{BackupPlace, BackupPod, Backups, Identity, Plan, Restore};

/// What does the work in these pods.
pub const CONTAINER: &str = "backup";

/// The user of the operator's image.
const USER: i64 = 65532;

const DATABASE: &str = "/etc/iotpipeline/database";
const S3: &str = "/etc/iotpipeline/s3";
const FOLDER: &str = "/backups";

/// An interrupted backup is removed when it is an hour older, so none may take so long.
const LONGEST: i64 = 12 * 60 * 60;

/// A failed pod is kept for what it said, and another one follows.
const RETRIES: i32 = 2;

/// What makes backups.
pub struct BackupObjects {
    /// The volume that they go to, unless that is S3.
    pub claim: Option<PersistentVolumeClaim>,
    /// Makes them on schedule.
    pub cron_job: Option<CronJob>,
    /// Makes the one that was asked for. Once there, it remembers that it was.
    pub job: Option<Job>,
}

/// What makes the backups of a managed database.
pub(super) fn desired(plan: &Plan, backups: &Backups) -> BackupObjects {
    let identity = &plan.pipeline;
    let mut arguments = vec!["backup".to_owned(), format!("--keep={}", backups.keep)];
    arguments.extend(of_database(plan));
    let template = template(plan, Component::Backup, &backups.pod, &backups.place, arguments);
    let cron_job = backups.schedule.as_ref().map(|schedule| CronJob {
        metadata: part_metadata(identity, Component::Backup),
        spec: CronJobSpec {
            schedule: schedule.clone(),
            time_zone: Some("Etc/UTC".into()),
            concurrency_policy: Some("Forbid".into()),
            // Without it, a controller that was away for a hundred turns gives up for good.
            starting_deadline_seconds: Some(3600),
            successful_jobs_history_limit: Some(1),
            failed_jobs_history_limit: Some(1),
            suspend: Some(plan.sleep.broker),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(identity.names.labels(Component::Backup)),
                    ..ObjectMeta::default()
                }),
                spec: Some(job_spec(template.clone())),
            },
        },
        status: None,
    });
    let job = backups.request.as_ref().map(|request| {
        let name = name(identity, Component::Backup, request);
        job(identity, Component::Backup, name, template)
    });
    let claim = backups.volume.as_ref().map(|volume| claim(identity, volume));
    BackupObjects { claim, cron_job, job }
}

/// What restores a backup. Whatever else it is to do makes it another Job, since a Job can't be changed.
pub(super) fn restore(plan: &Plan, restore: &Restore) -> Job {
    let arguments = restore_arguments(plan, restore);
    let template = template(plan, Component::Restore, &restore.pod, &restore.place, arguments);
    job(&plan.pipeline, Component::Restore, restore_name(plan, restore), template)
}

fn restore_arguments(plan: &Plan, restore: &Restore) -> Vec<String> {
    let mut arguments = vec!["restore".to_owned()];
    arguments.extend(of_database(plan));
    if let Some(backup) = &restore.backup {
        arguments.extend(pairs(&[("--backup", backup)]));
    }
    arguments
}

/// What the Job is called that does this.
pub fn restore_name(plan: &Plan, restore: &Restore) -> String {
    let mut what = restore_arguments(plan, restore);
    what.extend(place_arguments(&restore.place));
    what.push(match &restore.place {
        BackupPlace::Claim(claim) => claim.clone(),
        BackupPlace::S3(s3) => s3.credentials_secret_ref.name.clone(),
    });
    name(&plan.pipeline, Component::Restore, &what.join("\n"))
}

fn name(identity: &Identity, component: Component, what: &str) -> String {
    format!("{}-{}", identity.names.of_part(component), &hash(&[what.as_bytes()])[..8])
}

fn job(identity: &Identity, component: Component, name: String, template: PodTemplateSpec) -> Job {
    Job { metadata: metadata(identity, component, name), spec: Some(job_spec(template)), status: None }
}

fn job_spec(template: PodTemplateSpec) -> JobSpec {
    JobSpec {
        backoff_limit: Some(RETRIES),
        active_deadline_seconds: Some(LONGEST),
        template,
        ..JobSpec::default()
    }
}

fn claim(identity: &Identity, volume: &crate::plan::Volume) -> PersistentVolumeClaim {
    let mut claim = pod::claim(identity, Component::Backup, volume);
    claim.metadata = ObjectMeta {
        owner_references: identity.keeper.clone().map(|keeper| vec![keeper]),
        ..part_metadata(identity, Component::Backup)
    };
    claim
}

fn template(
    plan: &Plan,
    component: Component,
    backup: &BackupPod,
    place: &BackupPlace,
    mut arguments: Vec<String>,
) -> PodTemplateSpec {
    arguments.extend(place_arguments(place));
    let keys: &[&str] = if plan.database.ca().is_some() { &["token", "ca.crt"] } else { &["token"] };
    let secret = plan.pipeline.names.of_part(Component::Database);
    let mut volumes = vec![pod::secret_volume("database", secret, keys)];
    let mut mounts = vec![pod::read_only("database", DATABASE)];
    match place {
        BackupPlace::Claim(name) => {
            volumes.push(claimed("backups", name));
            let is_read_only = component == Component::Restore;
            mounts.push(if is_read_only {
                pod::read_only("backups", FOLDER)
            } else {
                pod::mount("backups", FOLDER)
            });
        }
        BackupPlace::S3(s3) => {
            let secret = s3.credentials_secret_ref.name.clone();
            // All of its keys, since not each such Secret has the authority.
            volumes.push(pod::secret_volume("s3", secret, &[]));
            mounts.push(pod::read_only("s3", S3));
        }
    }
    let quantities =
        [("cpu".to_owned(), Quantity("10m".into())), ("memory".to_owned(), Quantity("64Mi".into()))];
    let container = Container {
        args: Some(arguments),
        resources: Some(ResourceRequirements {
            requests: Some(quantities.into()),
            ..ResourceRequirements::default()
        }),
        volume_mounts: Some(mounts),
        // Where the program could not say why, its log does.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..pod::container(CONTAINER, &backup.image)
    };
    let mut template = pod::template(
        &plan.pipeline,
        Pod {
            component,
            user: USER,
            images: vec![backup.image.clone()],
            containers: vec![container],
            volumes,
            restart_hash: None,
            shared_processes: false,
            grace_seconds: 30,
        },
    );
    let spec = template.spec.get_or_insert_default();
    spec.restart_policy = Some("Never".into());
    // The Job has it too; but a Job that is deleted without its pods, or that nobody looks after, ends none.
    spec.active_deadline_seconds = Some(LONGEST);
    backup.overlay.over(&template)
}

fn claimed(name: &str, claim: &str) -> Volume {
    let claim = PersistentVolumeClaimVolumeSource { claim_name: claim.into(), read_only: None };
    Volume { name: name.into(), persistent_volume_claim: Some(claim), ..Volume::default() }
}

fn of_database(plan: &Plan) -> Vec<String> {
    let database = &plan.database;
    let mut arguments = pairs(&[
        ("--url", &database.url(&plan.pipeline.names)),
        ("--token-file", &format!("{DATABASE}/token")),
        ("--organization", &database.organization),
        ("--bucket", &database.bucket),
    ]);
    if database.ca().is_some() {
        arguments.extend(pairs(&[("--ca", &format!("{DATABASE}/ca.crt"))]));
    }
    arguments
}

fn place_arguments(place: &BackupPlace) -> Vec<String> {
    match place {
        BackupPlace::Claim(_) => pairs(&[("--folder", FOLDER)]),
        BackupPlace::S3(s3) => {
            pairs(&[("--s3-url", &s3.url), ("--s3-region", &s3.region), ("--s3-credentials", S3)])
        }
    }
}

/// A value that begins with a hyphen is none of the program's own options.
fn pairs(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect()
}
