//! InfluxDB's answers, as far as they matter.

use jiff::Timestamp;
use serde::Deserialize;

/// What a token is for.
pub(super) struct Right {
    purpose: &'static str,
    /// The purpose, and when the token was made anew, if it was.
    pub(super) description: String,
    pub(super) action: &'static str,
}

impl Right {
    pub(super) fn new(purpose: &'static str, action: &'static str, rotated: Option<&str>) -> Self {
        let description = rotated.map_or_else(|| purpose.into(), |when| format!("{purpose}, since {when}"));
        Self { purpose, description, action }
    }

    pub(super) fn is_purpose_of(&self, authorization: &Authorization) -> bool {
        let rest = authorization.description.strip_prefix(self.purpose);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(", since "))
    }

    pub(super) fn replaces(&self, authorization: &Authorization) -> bool {
        self.is_purpose_of(authorization) && authorization.description != self.description
    }
}

#[derive(Deserialize)]
pub(super) struct Organizations {
    #[serde(default)]
    pub(super) orgs: Vec<Organization>,
}

#[derive(Deserialize)]
pub(super) struct Organization {
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(super) struct Buckets {
    #[serde(default)]
    pub(super) buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bucket {
    pub(super) id: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) retention_rules: Vec<RetentionRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RetentionRule {
    pub(super) every_seconds: i64,
}

#[derive(Deserialize)]
pub(super) struct Authorizations {
    #[serde(default)]
    pub(super) authorizations: Vec<Authorization>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Authorization {
    pub(super) id: String,
    #[serde(default)]
    pub(super) token: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    pub(super) permissions: Vec<Permission>,
}

#[derive(Deserialize)]
pub(super) struct Permission {
    pub(super) action: String,
    pub(super) resource: Resource,
}

#[derive(Deserialize)]
pub(super) struct Resource {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default, rename = "type")]
    pub(super) type_: String,
}

impl Authorization {
    /// The one bucket that it is for.
    pub(super) fn bucket(&self) -> Option<&str> {
        let [permission] = self.permissions.as_slice() else { return None };
        permission.resource.id.as_deref().filter(|_| permission.resource.type_ == "buckets")
    }

    /// When it was made; long ago, if the database doesn't tell.
    pub(super) fn made(&self) -> Timestamp {
        self.created_at.parse().unwrap_or(Timestamp::UNIX_EPOCH)
    }

    pub(super) fn is_active(&self) -> bool {
        self.status == "active"
    }

    pub(super) fn is_for(&self, right: &Right, bucket: &str) -> bool {
        let [permission] = self.permissions.as_slice() else { return false };
        self.description == right.description
            && self.is_active()
            && permission.action == right.action
            && self.bucket() == Some(bucket)
    }
}
