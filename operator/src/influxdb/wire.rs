//! InfluxDB's answers, as far as they matter.

use serde::Deserialize;

/// What a token is for.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub(super) description: &'static str,
    pub(super) action: &'static str,
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
pub(super) struct Authorization {
    pub(super) id: String,
    #[serde(default)]
    pub(super) token: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) description: String,
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

    pub(super) fn is_for(&self, right: Right, bucket: &str) -> bool {
        let [permission] = self.permissions.as_slice() else { return false };
        self.description == right.description
            && self.status == "active"
            && permission.action == right.action
            && self.bucket() == Some(bucket)
    }
}
