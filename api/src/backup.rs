//! Backups of a managed database's bucket, and what a new one begins with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::iotpipeline::{SecretName, Storage};
use crate::schema::{as_for_backup, rules};

mod schedule;

pub use schedule::is_schedule;

/// What a bucket is called while it is restored, so that no pipeline's may be.
pub const RESTORING: &str = "iotpipeline_restoring";

/// Copies of the bucket: on a schedule, and when the annotation iotpipeline.io/backup gets another value.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("has(self.volume) != has(self.s3)", "backups go to a volume or to S3: give one of volume and s3"),
])))]
pub struct Backup {
    /// When, in UTC, as cron has it. Absent: on demand only. Example: 0 3 * * *
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-validations" = rules(&[
        ("self.matches('^@[a-z]+$|^[^ =]+( [^ =]+){4}$')",
         "not a schedule: write minute, hour, day, month and day of the week, such as 0 3 * * *"),
    ])))]
    pub schedule: Option<String>,

    /// How many complete backups are kept.
    #[serde(default = "seven")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: u16,

    /// A volume of their own: the claim <pipeline>-backup, under deletionPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Storage>,

    /// A bucket of S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

/// A bucket of S3, or of what speaks like it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// https://host:port/bucket, or a prefix in it. Backups go to <namespace>/<pipeline> below.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules(&[
        ("self.matches('^https?://[^@/ ]+(/[a-zA-Z0-9._-]+)+/?$')",
         "not a bucket's address: write https://host:port/bucket or https://host:port/bucket/prefix; keys go into the Secret"),
    ])))]
    pub url: String,

    /// The region.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 64))]
    pub region: String,

    /// A Secret with accessKeyId, secretAccessKey, and ca.crt unless a public authority signed for the address.
    pub credentials_secret_ref: SecretName,
}

/// What a new database begins with. One that has the bucket already is left as it is.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = as_for_backup, extend("x-kubernetes-validations" = rules(&[
    ("has(self.volume) != has(self.s3)", "a backup is on a volume or in S3: give one of volume and s3"),
])))]
pub struct RestoreFrom {
    /// Its name, such as 20260131T030000Z. Absent: the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 16, max = 16))]
    pub backup: Option<String>,

    /// A volume with backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<ClaimName>,

    /// Its url ends with <namespace>/<pipeline>.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

/// A claim in the pipeline's namespace.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimName {
    /// The claim's name, such as <pipeline>-backup.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// The last complete backup.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Its name.
    pub name: String,
    /// When it was complete.
    pub time: String,
}

fn seven() -> u16 {
    7
}

fn region() -> String {
    "us-east-1".into()
}
