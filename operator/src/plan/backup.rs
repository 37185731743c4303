//! Backups of the database, as the spec has them.

use api::backup::{self, RestoreFrom};
use api::iotpipeline::{IoTPipeline, SecretKey};
use api::placement::PodSettings;
use kube::ResourceExt;

use super::given::Given;
use super::{PodOverlay, Refusal, Volume, requirements};
use crate::config::{Config, ImageReference};
use crate::observe::Observed;
use crate::resources::names::{Component, Names};

/// On a pipeline: any new value asks for a backup.
pub const BACKUP: &str = "iotpipeline.io/backup";

/// Copies of the database's bucket.
pub struct Backups {
    /// When, as cron has it, in UTC; on demand only, if never.
    pub schedule: Option<String>,
    /// What the pipeline's annotation asks for.
    pub request: Option<String>,
    /// How many are kept.
    pub keep: u16,
    /// Where they are.
    pub place: BackupPlace,
    /// Why none can be made; the pipeline does without.
    pub refused: Option<Refusal>,
    /// The claim that is made for them, if they go to one.
    pub volume: Option<Volume>,
    /// What runs.
    pub pod: BackupPod,
}

/// The backup that a new database begins with.
pub struct Restore {
    /// Its name; the latest, if none.
    pub backup: Option<String>,
    /// Where it is.
    pub place: BackupPlace,
    /// Why it can't be restored, which matters as long as it is to be.
    pub refused: Option<Refusal>,
    /// What runs.
    pub pod: BackupPod,
}

/// Where backups are.
pub enum BackupPlace {
    /// A volume, by its claim.
    Claim(String),
    /// A bucket of S3.
    S3(backup::S3),
}

/// What the pods of backups are like.
#[derive(Clone)]
pub struct BackupPod {
    /// The operator's own image.
    pub image: ImageReference,
    /// They run where the database does.
    pub overlay: PodOverlay,
}

impl Backups {
    pub(super) fn new(
        pipeline: &IoTPipeline,
        observed: &Observed,
        config: &Config,
    ) -> Result<Option<Self>, Refusal> {
        let database = &pipeline.spec.database;
        let Some(wanted) = &database.backup else { return Ok(None) };
        let names = Names::of(pipeline);
        let claim = names.of_part(Component::Backup);
        let volume = wanted.volume.as_ref().map(|storage| Volume {
            size: storage.size.clone(),
            class: storage.storage_class_name.clone(),
            existing: None,
        });
        if let Some(volume) = &volume {
            requirements::bytes(Some(&volume.size), "database.backup.volume.size")?;
        }
        let (mut place, refused) =
            place("database.backup", volume.as_ref().map(|_| claim), wanted.s3.as_ref(), observed)?;
        let refused = refused.or_else(|| schedule_refused(wanted.schedule.as_deref()?));
        if let BackupPlace::S3(s3) = &mut place {
            // Pipelines that share a bucket would remove each other's backups.
            s3.url = format!("{}/{}/{}", s3.url.trim_end_matches('/'), names.namespace, names.pipeline);
        }
        Ok(Some(Self {
            schedule: wanted.schedule.clone(),
            request: pipeline.annotations().get(BACKUP).filter(|request| !request.is_empty()).cloned(),
            keep: wanted.keep,
            place,
            refused,
            volume,
            pod: BackupPod::new(database.pod.as_deref(), Component::Backup, config)?,
        }))
    }
}

impl Restore {
    pub(super) fn new(
        pipeline: &IoTPipeline,
        observed: &Observed,
        config: &Config,
    ) -> Result<Option<Self>, Refusal> {
        let database = &pipeline.spec.database;
        let Some(RestoreFrom { backup, volume, s3 }) = database.restore_from.as_deref() else {
            return Ok(None);
        };
        let claim = volume.as_ref().map(|volume| volume.claim_name.clone());
        let (place, refused) = place("database.restoreFrom", claim, s3.as_ref(), observed)?;
        Ok(Some(Self {
            backup: backup.clone(),
            place,
            refused,
            pod: BackupPod::new(database.pod.as_deref(), Component::Restore, config)?,
        }))
    }
}

impl BackupPod {
    fn new(pod: Option<&PodSettings>, component: Component, config: &Config) -> Result<Self, Refusal> {
        // What overrides say is of the database's own containers.
        let pod = pod.map(|pod| PodSettings { overrides: None, ..pod.clone() });
        let overlay = PodOverlay::new(pod.as_ref(), component)?;
        Ok(Self { image: config.image_of(&config.image, None), overlay })
    }
}

/// The schema has one of the two. What a pod mounts must be there, or it would wait without a word; but a backup's
/// credentials are no reason to leave the pipeline as it is.
fn place(
    field: &str,
    claim: Option<String>,
    s3: Option<&backup::S3>,
    observed: &Observed,
) -> Result<(BackupPlace, Option<Refusal>), Refusal> {
    match (claim, s3) {
        (Some(claim), None) => Ok((BackupPlace::Claim(claim), None)),
        (None, Some(s3)) => {
            if !is_bucket(&s3.url) {
                return Err(Refusal::BackupPlace { field: format!("{field}.s3.url"), message: ADDRESS });
            }
            let secret = &s3.credentials_secret_ref.name;
            let refused = ["accessKeyId", "secretAccessKey"].into_iter().find_map(|key| {
                let key = SecretKey { name: secret.clone(), key: key.into() };
                Given(&observed.given).value(&key, &format!("{field}.s3.credentialsSecretRef")).err()
            });
            Ok((BackupPlace::S3(s3.clone()), refused))
        }
        _ => Err(Refusal::BackupPlace { field: field.into(), message: "give one of volume and s3" }),
    }
}

/// The schema knows the form, and no ranges. The API server would refuse the CronJob, and all that is applied after it
/// would wait.
fn schedule_refused(schedule: &str) -> Option<Refusal> {
    let refused = || Refusal::BackupPlace { field: "database.backup.schedule".into(), message: SCHEDULE };
    (!backup::is_schedule(schedule)).then(refused)
}

/// As the schema has it.
fn is_bucket(url: &str) -> bool {
    let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let Some((host, path)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut names = path.trim_end_matches('/').split('/');
    !host.is_empty()
        && !host.contains(['@', ' '])
        && names.all(|name| !name.is_empty() && name.chars().all(is_plain))
}

const ADDRESS: &str =
    "write https://host:port/bucket or https://host:port/bucket/prefix; keys go into the Secret";

const SCHEDULE: &str = "write minute, hour, day, month and day of the week (0 is Sunday), such as 0 3 * * *";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_s_address_has_a_host_and_a_path() {
        for good in ["https://s3.example.com/copies", "http://10.0.0.1:9000/copies/a.b/c_d-e/"] {
            assert!(is_bucket(good), "{good}");
        }
        for bad in [
            "",
            "s3://copies",
            "https://h",
            "https://h/",
            "https:///copies",
            "https://u:p@h/b",
            "http://h/a b",
            "http://h/a//b",
        ] {
            assert!(!is_bucket(bad), "{bad}");
        }
    }
}
