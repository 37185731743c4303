//! InfluxDB 2's API: sets a managed database up, and asks an external one whether it would take points.

mod wire;

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::backup::{RESTORED, RESTORING};
use crate::http::{self, ApiError, absent};
use crate::plan::{ManagedDatabase, Plan};
use crate::resources::Tokens;
use crate::resources::influxdb::ADMIN;
use crate::resources::names::Component;
use wire::{Authorization, Authorizations, Bucket, Buckets, Organization, Organizations, Right};

/// The descriptions by which the operator finds its tokens again.
const BRIDGE_TOKEN: &str = "iotpipeline: the bridge writes";
const DASHBOARD_TOKEN: &str = "iotpipeline: the dashboard reads";

/// What a token is for, by InfluxDB's own ids.
#[derive(Clone, Copy)]
struct Place<'a> {
    organization: &'a str,
    bucket: &'a str,
    now: Timestamp,
}

/// For so many seconds a token that was replaced still holds, so that the part that has it can get the other.
const GRACE: u64 = 600;

/// So many tokens that were replaced may hold at once. There are more only if the Secrets that are to have the new
/// ones can't be written.
const REPLACED: usize = 8;

/// A database, and who asks.
#[derive(Clone)]
pub struct InfluxDb {
    http: Client,
    url: String,
    token: String,
}

/// What a managed database is to be.
#[derive(Clone)]
pub struct Wanted<'a> {
    /// The administrator's password.
    pub admin_password: &'a str,
    /// The organization's name.
    pub organization: &'a str,
    /// The bucket's name.
    pub bucket: &'a str,
    /// For how many seconds points are kept; 0 is for ever.
    pub retention_seconds: i64,
    /// Whether the bucket is to be restored, where it doesn't exist.
    pub is_restored: bool,
    /// Whether a dashboard is to read it.
    pub has_dashboard: bool,
    /// The tokens that the operator knows, without those that are to be replaced.
    pub known: Tokens,
    /// When they were made anew, if they were: those that were made before are replaced.
    pub rotated: Tokens,
    /// When that is asked.
    pub now: Timestamp,
}

impl<'a> Wanted<'a> {
    /// What the plan asks of its database, of which the operator knows these tokens.
    pub fn of(plan: &'a Plan, database: &'a ManagedDatabase, known: Tokens, now: Timestamp) -> Self {
        let rotated = |part| plan.rotated.get(&plan.pipeline.names.of_part(part)).cloned();
        Self {
            admin_password: &database.admin_password,
            organization: &plan.database.organization,
            bucket: &plan.database.bucket,
            retention_seconds: database.retention_seconds,
            is_restored: plan.restore.is_some(),
            has_dashboard: plan.dashboard.is_some(),
            known: known.current(plan),
            rotated: Tokens { bridge: rotated(Component::Bridge), dashboard: rotated(Component::Dashboard) },
            now,
        }
    }
}

/// What was done to a managed database.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct SetUp {
    /// The tokens of the other parts.
    pub tokens: Tokens,
    /// There is no bucket, and no token, before one has been restored.
    pub waits_for_restore: bool,
    /// The backup that the bucket began with, if it was restored.
    pub restored: Option<String>,
    /// What had to be changed, for an event.
    pub changes: Vec<&'static str>,
    /// How long a token that was replaced still holds, if there is one.
    pub revokes_in: Option<Duration>,
}

impl InfluxDb {
    /// The database at this address, asked with this token.
    pub fn new(http: Client, url: &str, token: &str) -> Self {
        Self { http, url: url.trim_end_matches('/').into(), token: token.into() }
    }

    /// Makes a managed database what it is to be. Repeating it changes nothing.
    ///
    /// # Errors
    /// If the database doesn't answer, or refuses.
    pub async fn set_up(&self, wanted: &Wanted<'_>) -> Result<SetUp, ApiError> {
        let mut changes = Vec::new();
        if self.onboard(wanted).await? {
            changes.push("onboarded");
        }
        let organization = match self.organization(wanted.organization).await? {
            Some(organization) => organization,
            None => {
                changes.push("created the organization");
                self.create_organization(wanted.organization).await?
            }
        };
        let (known, rotated) = (&wanted.known, &wanted.rotated);
        let bridge = Right::new(BRIDGE_TOKEN, "write", rotated.bridge.as_deref());
        let dashboard = Right::new(DASHBOARD_TOKEN, "read", rotated.dashboard.as_deref());
        let authorizations = self.authorizations(&organization.id).await?;
        let bucket = match self.bucket(&organization.id, wanted.bucket).await? {
            Some(bucket) => bucket,
            None => match self.former_bucket(&authorizations, &bridge).await? {
                Some(bucket) => {
                    changes.push("renamed the bucket");
                    self.change_bucket(&bucket.id, &json!({"name": wanted.bucket})).await?;
                    bucket
                }
                None if wanted.is_restored => {
                    return Ok(SetUp { waits_for_restore: true, changes, ..SetUp::default() });
                }
                None => {
                    changes.push("created the bucket");
                    let bucket = self.create_bucket(&organization.id, wanted).await?;
                    self.remove_unfinished(&organization.id).await?;
                    bucket
                }
            },
        };
        let kept = bucket.retention_rules.first().map_or(0, |rule| rule.every_seconds);
        if kept != wanted.retention_seconds {
            changes.push("changed the retention");
            let rules = json!({"retentionRules": retention_rules(wanted.retention_seconds)});
            self.change_bucket(&bucket.id, &rules).await?;
        }
        let mut tokens = Tokens::default();
        let place = Place { organization: &organization.id, bucket: &bucket.id, now: wanted.now };
        tokens.bridge =
            Some(self.token(&authorizations, known.bridge.as_deref(), &bridge, place, &mut changes).await?);
        if wanted.has_dashboard {
            let token = self
                .token(&authorizations, known.dashboard.as_deref(), &dashboard, place, &mut changes)
                .await?;
            tokens.dashboard = Some(token);
        } else {
            for authorization in authorizations.iter().filter(|found| dashboard.is_purpose_of(found)) {
                changes.push("revoked the dashboard's token");
                self.revoke(authorization).await?;
            }
        }
        let restored = bucket.description.strip_prefix(RESTORED).map(Into::into);
        let grace = [&bridge, &dashboard].map(|right| grace_left(&authorizations, right, place));
        let revokes_in = grace.into_iter().flatten().filter(|left| !left.is_zero()).min();
        Ok(SetUp { tokens, waits_for_restore: false, restored, changes, revokes_in })
    }

    /// Whether an external database takes points with this token: an empty write.
    ///
    /// # Errors
    /// If it would not.
    pub async fn check_write(&self, organization: &str, bucket: &str) -> Result<(), ApiError> {
        let request = self.request(Method::POST, "/api/v2/write").timeout(http::QUESTION).query(&[
            ("org", organization),
            ("bucket", bucket),
            ("precision", "ns"),
        ]);
        self.send("a write", request).await.map(|_| ())
    }

    /// Whether the first set-up was done just now.
    async fn onboard(&self, wanted: &Wanted<'_>) -> Result<bool, ApiError> {
        #[derive(Deserialize)]
        struct Allowed {
            allowed: bool,
        }
        let allowed: Allowed =
            self.json("the set-up's state", self.request(Method::GET, "/api/v2/setup")).await?;
        if !allowed.allowed {
            return Ok(false);
        }
        let body = json!({
            "username": ADMIN,
            "password": wanted.admin_password,
            "org": wanted.organization,
            // It wants one. What is restored takes the place of this.
            "bucket": if wanted.is_restored { RESTORING } else { wanted.bucket },
            "retentionPeriodSeconds": wanted.retention_seconds,
            "token": self.token,
        });
        // The set-up needs no token, and refuses one that it doesn't know yet.
        let request = self.http.post(format!("{}/api/v2/setup", self.url)).json(&body);
        self.send("the set-up", request).await?;
        Ok(true)
    }

    async fn organization(&self, name: &str) -> Result<Option<Organization>, ApiError> {
        let request = self.request(Method::GET, "/api/v2/orgs").query(&[("org", name)]);
        let found: Result<Organizations, _> = self.json("the organization", request).await;
        Ok(absent(found)?.and_then(|found| found.orgs.into_iter().next()))
    }

    async fn create_organization(&self, name: &str) -> Result<Organization, ApiError> {
        let request = self.request(Method::POST, "/api/v2/orgs").json(&json!({"name": name}));
        self.json("a new organization", request).await
    }

    async fn bucket(&self, organization: &str, name: &str) -> Result<Option<Bucket>, ApiError> {
        let request =
            self.request(Method::GET, "/api/v2/buckets").query(&[("orgID", organization), ("name", name)]);
        let found: Result<Buckets, _> = self.json("the bucket", request).await;
        Ok(absent(found)?.and_then(|found| found.buckets.into_iter().next()))
    }

    async fn create_bucket(&self, organization: &str, wanted: &Wanted<'_>) -> Result<Bucket, ApiError> {
        let body = json!({
            "orgID": organization,
            "name": wanted.bucket,
            "retentionRules": retention_rules(wanted.retention_seconds),
        });
        self.json("a new bucket", self.request(Method::POST, "/api/v2/buckets").json(&body)).await
    }

    /// What a restore has left that is no longer wanted.
    async fn remove_unfinished(&self, organization: &str) -> Result<(), ApiError> {
        let Some(unfinished) = self.bucket(organization, RESTORING).await? else { return Ok(()) };
        let request = self.request(Method::DELETE, &format!("/api/v2/buckets/{}", unfinished.id));
        absent(self.send("the end of an unfinished restore", request).await).map(|_| ())
    }

    /// The bucket that the bridge's newest token is for: under another name, it is the one that has the points.
    async fn former_bucket(
        &self,
        authorizations: &[Authorization],
        bridge: &Right,
    ) -> Result<Option<Bucket>, ApiError> {
        let good = authorizations.iter().filter(|found| found.is_active() && bridge.is_purpose_of(found));
        let own = good.max_by_key(|found| found.made());
        let Some(id) = own.and_then(Authorization::bucket) else { return Ok(None) };
        let request = self.request(Method::GET, &format!("/api/v2/buckets/{id}"));
        absent(self.json("the bucket of the bridge's token", request).await)
    }

    async fn change_bucket(&self, bucket: &str, change: &Value) -> Result<(), ApiError> {
        let request = self.request(Method::PATCH, &format!("/api/v2/buckets/{bucket}")).json(change);
        self.send("a change of the bucket", request).await.map(|_| ())
    }

    async fn authorizations(&self, organization: &str) -> Result<Vec<Authorization>, ApiError> {
        let request = self.request(Method::GET, "/api/v2/authorizations").query(&[("orgID", organization)]);
        let found: Authorizations = self.json("the tokens", request).await?;
        Ok(found.authorizations)
    }

    async fn token(
        &self,
        authorizations: &[Authorization],
        known: Option<&str>,
        right: &Right,
        place: Place<'_>,
        changes: &mut Vec<&'static str>,
    ) -> Result<String, ApiError> {
        if let Some(token) = self.valid_token(authorizations, known, right, place).await? {
            if grace_left(authorizations, right, place).is_some_and(|left| left.is_zero()) {
                for replaced in authorizations.iter().filter(|found| right.replaces(found)) {
                    changes.push("revoked a token that was replaced");
                    self.revoke(replaced).await?;
                }
            }
            return Ok(token);
        }
        self.bound(authorizations, right).await?;
        changes.push("created a token");
        self.create_authorization(right, place).await
    }

    /// Ends tokens that nobody has got. The oldest is the one that is in use if no other could be kept.
    async fn bound(&self, authorizations: &[Authorization], right: &Right) -> Result<(), ApiError> {
        let mut replaced: Vec<_> = authorizations.iter().filter(|found| right.replaces(found)).collect();
        replaced.sort_by_key(|found| found.made());
        for nobodys in replaced.iter().skip(1).take(replaced.len().saturating_sub(REPLACED)) {
            self.revoke(nobodys).await?;
        }
        Ok(())
    }

    /// The token that was made for this purpose, if it is still good for it. InfluxDB 2.9 keeps only
    /// hashes of tokens, so it doesn't tell which it is: then the one that the operator kept is tried.
    async fn valid_token(
        &self,
        authorizations: &[Authorization],
        known: Option<&str>,
        right: &Right,
        place: Place<'_>,
    ) -> Result<Option<String>, ApiError> {
        let own: Vec<&Authorization> =
            authorizations.iter().filter(|found| found.is_for(right, place.bucket)).collect();
        let told = own
            .iter()
            .find(|authorization| known == Some(authorization.token.as_str()))
            .or_else(|| own.iter().find(|authorization| !authorization.token.is_empty()));
        if let Some(authorization) = told {
            return Ok(Some(authorization.token.clone()));
        }
        if let Some(known) = known
            && !own.is_empty()
            && self.knows(known).await?
        {
            return Ok(Some(known.into()));
        }
        // Nobody has their text any more, or they are for a bucket that is gone.
        for unusable in authorizations.iter().filter(|found| found.description == right.description) {
            self.revoke(unusable).await?;
        }
        Ok(None)
    }

    async fn revoke(&self, authorization: &Authorization) -> Result<(), ApiError> {
        let path = format!("/api/v2/authorizations/{}", authorization.id);
        absent(self.send("the end of a token", self.request(Method::DELETE, &path)).await).map(|_| ())
    }

    async fn knows(&self, token: &str) -> Result<bool, ApiError> {
        let asking = Self { token: token.into(), ..self.clone() };
        let request = asking.request(Method::GET, "/api/v2/buckets").query(&[("limit", "1")]);
        match asking.send("the buckets", request).await {
            Ok(_) => Ok(true),
            Err(ApiError::Unauthorized { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create_authorization(&self, right: &Right, place: Place<'_>) -> Result<String, ApiError> {
        let body = json!({
            "orgID": place.organization,
            "description": right.description,
            "permissions": [{
                "action": right.action,
                "resource": {"type": "buckets", "id": place.bucket, "orgID": place.organization},
            }],
        });
        let request = self.request(Method::POST, "/api/v2/authorizations").json(&body);
        let made: Authorization = self.json("a new token", request).await?;
        Ok(made.token)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let authorization = format!("Token {}", self.token);
        http::request(&self.http, method, format!("{}{path}", self.url))
            .header("Authorization", authorization)
    }

    async fn json<T: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ApiError> {
        let text = self.send(what, request).await?;
        serde_json::from_str(&text).map_err(|error| ApiError::Refused {
            url: self.url.clone(),
            what,
            status: 200,
            message: format!("not the expected JSON: {error}"),
        })
    }

    async fn send(&self, what: &'static str, request: reqwest::RequestBuilder) -> Result<String, ApiError> {
        http::send(&self.url, what, request).await
    }
}

/// For how long tokens for this purpose still hold that were replaced, if there are any.
fn grace_left(authorizations: &[Authorization], right: &Right, place: Place<'_>) -> Option<Duration> {
    authorizations.iter().find(|found| right.replaces(found))?;
    let current = authorizations.iter().filter(|found| found.is_for(right, place.bucket));
    let age = current.map(|found| place.now.as_second() - found.made().as_second()).max().unwrap_or_default();
    Some(Duration::from_secs(GRACE.saturating_sub_signed(age)))
}

fn retention_rules(seconds: i64) -> Value {
    json!([{"type": "expire", "everySeconds": seconds}])
}
