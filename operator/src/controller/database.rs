//! The step between the plan and the objects: what the database lets the other parts do.

use std::time::Duration;

use api::iotpipeline::IoTPipeline;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use super::{Context, events};
use crate::http::{self, ApiError};
use crate::influxdb::{InfluxDb, Wanted};
use crate::observe::{Children, Observed};
use crate::plan::{DatabasePlace, ExternalDatabase, ManagedDatabase, Plan, Restore};
use crate::resources::Tokens;
use crate::resources::backup::restore_name;
use crate::resources::names::{COMPONENT, Component};
use crate::status::Part;
use crate::workload;

/// What the database lets the other parts do, and how it is.
pub(super) struct Access {
    pub(super) tokens: Tokens,
    pub(super) part: Part,
    /// Whether it waits for a backup to be restored, as far as that is known.
    waits_for_restore: Option<bool>,
    /// How long a token that was replaced still holds, if there is one.
    pub(super) revokes_in: Option<Duration>,
}

impl Access {
    fn new(tokens: Tokens, part: Part) -> Self {
        Self { tokens, part, waits_for_restore: None, revokes_in: None }
    }

    /// Whether a backup is to be restored. While the database doesn't say, what has begun goes on.
    pub(super) fn is_restored(&self, children: &Children) -> bool {
        let is_restore =
            |job: &Job| job.labels().get(COMPONENT).is_some_and(|label| label == Component::Restore.as_str());
        self.waits_for_restore.unwrap_or_else(|| children.jobs.iter().any(is_restore))
    }
}

pub(super) async fn access(
    context: &Context,
    pipeline: &IoTPipeline,
    plan: &Plan,
    observed: &Observed,
) -> Access {
    if plan.sleep.database {
        let part = Part::not_ready("Hibernated", "not asked while the pipeline hibernates");
        return Access::new(known(observed), part);
    }
    match &plan.database.place {
        DatabasePlace::Managed(database) => managed(context, pipeline, plan, database, observed).await,
        DatabasePlace::External(database) => {
            let tokens =
                Tokens { bridge: Some(database.token.clone()), dashboard: Some(database.read_token.clone()) };
            Access::new(tokens, external(context, plan, database).await)
        }
    }
}

/// The tokens that were made before, if any.
fn known(observed: &Observed) -> Tokens {
    Tokens {
        bridge: observed.credentials.bridge_token.clone(),
        dashboard: observed.credentials.dashboard_token.clone(),
    }
}

/// Sets the database up as soon as it runs. Until then the tokens are those that were made before, if
/// any: an outage of the database must not take the bridge away.
async fn managed(
    context: &Context,
    pipeline: &IoTPipeline,
    plan: &Plan,
    database: &ManagedDatabase,
    observed: &Observed,
) -> Access {
    let known = known(observed);
    let name = plan.pipeline.names.of_part(Component::Database);
    let set = observed.children.set(&name);
    let part = workload::of_stateful_set(Component::Database, set, &observed.children);
    if !part.ready {
        return Access::new(known, part);
    }
    if !observed.credentials.database.kept {
        let part = Part::not_ready("Creating", "storing the administrator's credentials");
        return Access::new(known, part);
    }
    let http = match client(context, plan) {
        Ok(http) => http,
        Err(part) => return Access::new(known, part),
    };
    let influxdb = InfluxDb::new(http, &plan.database.url(&plan.pipeline.names), &database.admin_token);
    let wanted = Wanted::of(plan, database, known.clone(), observed.now);
    match influxdb.set_up(&wanted).await {
        Ok(set_up) => {
            if !set_up.changes.is_empty() {
                events::database_changed(context, pipeline, &set_up.changes).await;
            }
            if let (true, Some(restore)) = (set_up.waits_for_restore, &plan.restore) {
                let part = match &restore.refused {
                    Some(refusal) => Part::not_ready(refusal.reason(), refusal.to_string()),
                    None => workload::of_restore(&restore_name(plan, restore), &observed.children),
                };
                return Access { waits_for_restore: Some(true), ..Access::new(Tokens::default(), part) };
            }
            let part = Part::ready(set_up_as(plan.restore.as_ref(), set_up.restored.as_deref()));
            let revokes_in = set_up.revokes_in;
            Access { waits_for_restore: Some(false), revokes_in, ..Access::new(set_up.tokens, part) }
        }
        Err(error) => {
            let mut message = error.to_string();
            if matches!(error, ApiError::Unauthorized { .. }) {
                message.push_str(&format!(
                    "; the volume was set up with another token than the Secret {name} has: restore that Secret, or delete the volume data-{name}-0 to start anew"
                ));
            }
            Access::new(known, Part::not_ready(error.reason(), message))
        }
    }
}

/// A client that trusts whom the database's clients are to trust.
fn client(context: &Context, plan: &Plan) -> Result<reqwest::Client, Part> {
    match plan.database.ca() {
        None => Ok(context.http.clone()),
        Some(ca) => http::client(Some(ca), &context.fence)
            .map_err(|error| Part::not_ready("InvalidAuthority", error.to_string())),
    }
}

async fn external(context: &Context, plan: &Plan, database: &ExternalDatabase) -> Part {
    let http = match client(context, plan) {
        Ok(http) => http,
        Err(part) => return part,
    };
    let influxdb = InfluxDb::new(http, &database.url, &database.token);
    match influxdb.check_write(&plan.database.organization, &plan.database.bucket).await {
        Ok(()) => Part::ready(format!("{} takes points", database.url)),
        Err(error @ ApiError::NotFound { .. }) => Part::not_ready(
            error.reason(),
            format!("{error}: create it there, or correct database.organization and database.bucket"),
        ),
        Err(error) => Part::not_ready(error.reason(), error.to_string()),
    }
}

/// Says so where what was asked for is not what the bucket began with: nothing that is stored is overwritten.
fn set_up_as(wanted: Option<&Restore>, restored: Option<&str>) -> &'static str {
    match wanted {
        Some(wanted) if !is_of(restored, wanted.backup.as_deref()) => {
            "running and set up; database.restoreFrom was not carried out, since the bucket exists already: remove \
             the field, or restore into a new pipeline"
        }
        _ => "running and set up",
    }
}

/// Whether a bucket that was restored from this backup, if from any, has what is wanted: this one, or whichever was
/// the latest.
fn is_of(restored: Option<&str>, wanted: Option<&str>) -> bool {
    restored.is_some_and(|restored| wanted.is_none_or(|wanted| wanted == restored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_was_there_before_is_not_of_the_backup_that_is_wanted() {
        assert!(is_of(Some("a"), Some("a")));
        assert!(is_of(Some("a"), None));
        assert!(!is_of(Some("a"), Some("b")));
        assert!(!is_of(None, Some("a")));
        assert!(!is_of(None, None));
    }
}
