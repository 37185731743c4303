//! How the parts are, after the apply.

use api::iotpipeline::Endpoints;
use k8s_openapi::api::core::v1::Pod;

use super::Context;
use super::database::Access;
use crate::apply::Applied;
use crate::grafana::{Grafana, uid};
use crate::http::{self, ApiError, HttpError};
use crate::observe::Children;
use crate::plan::{Broker, Dashboard, DatabasePlace, Plan};
use crate::resources::names::Component;
use crate::status::{Backup, Facts, Part, Parts};
use crate::workload::{self, pods_of};

/// The dashboard, if there is to be one; an external one is written here.
pub(super) async fn dashboard(
    context: &Context,
    plan: &Plan,
    database: &Access,
    applied: &Applied,
    children: &Children,
) -> Option<Part> {
    let waiting = || {
        Part::not_ready("WaitingForDatabase", "the dashboard starts when the database has given it a token")
    };
    match plan.dashboard.as_ref()? {
        Dashboard::Managed { .. } if database.tokens.dashboard.is_none() => Some(waiting()),
        Dashboard::Managed { .. } => {
            Some(workload::of_deployment(Component::Dashboard, applied.dashboard.as_ref(), children))
        }
        Dashboard::External { url, .. } => {
            let Some(token) = &database.tokens.dashboard else { return Some(waiting()) };
            Some(match grafana(context, plan)? {
                Err(error) => Part::not_ready("InvalidAuthority", error.to_string()),
                Ok((grafana, _)) => match grafana.put(plan, token).await {
                    Ok(()) => Part::ready(format!("data source and dashboard are in {url}")),
                    Err(error) => Part::not_ready(error.reason(), told(&error)),
                },
            })
        }
    }
}

/// Somebody else's Grafana, if the dashboard is there, and the dashboard's name.
pub(super) fn grafana(context: &Context, plan: &Plan) -> Option<Result<(Grafana, String), HttpError>> {
    let Some(Dashboard::External { url, access, ca }) = &plan.dashboard else { return None };
    let http = match ca {
        None => Ok(context.http.clone()),
        Some(ca) => http::client(Some(ca), &context.fence),
    };
    Some(http.map(|http| (Grafana::new(http, url, access), uid(plan))))
}

fn told(error: &ApiError) -> String {
    match error {
        ApiError::Unauthorized { .. } => format!(
            "{error}: put a service account's token that may edit data sources and dashboards into the Secret that \
             dashboard.external.credentialsSecretRef names"
        ),
        ApiError::Unreachable { .. } => {
            format!("{error}: correct dashboard.external.url, or see to that Grafana")
        }
        error => error.to_string(),
    }
}

pub(super) fn facts(
    plan: &Plan,
    children: &Children,
    applied: Applied,
    database: Access,
    bridge: Part,
    dashboard: Option<Part>,
    unmade: Option<Part>,
) -> Facts {
    let mut broker = match &plan.broker {
        Broker::Managed(_) => workload::of_stateful_set(Component::Broker, applied.broker.as_ref(), children),
        // Only the bridge knows how it is.
        Broker::External(_) if bridge.reason.starts_with("Broker") => bridge.clone(),
        Broker::External(_) => Part::ready("see BridgeReady"),
    };
    let mut database_part = match &plan.database.place {
        DatabasePlace::Managed(_) => {
            workload::of_stateful_set(Component::Database, applied.database.as_ref(), children)
                .and(|| database.part)
        }
        DatabasePlace::External(_) => database.part,
    };
    let mut backup = backup(plan, children, unmade);
    for (component, why) in applied.not_grown {
        let part = match component {
            Component::Broker => &mut broker,
            Component::Database => &mut database_part,
            Component::Backup => {
                backup = backup
                    .map(|known| Backup { last: Some(Part::not_ready("VolumeNotGrown", why)), ..known });
                continue;
            }
            Component::Bridge | Component::Dashboard | Component::Authority | Component::Restore => continue,
        };
        part.message = format!("{}; {why}", part.message);
        if part.ready {
            part.reason = "VolumeNotGrown".into();
        }
    }
    Facts::Applied(Box::new(Parts {
        broker,
        database: database_part,
        bridge,
        dashboard,
        backup,
        endpoints: endpoints(plan),
    }))
}

/// How backups went, or why none is made.
fn backup(plan: &Plan, children: &Children, unmade: Option<Part>) -> Option<Backup> {
    let backups = plan.backups.as_ref()?;
    let Backup { last, made } = workload::of_backups(children);
    let refusal = backups.refused.as_ref();
    let refused = refusal.map(|refusal| Part::not_ready(refusal.reason(), refusal.to_string()));
    Some(Backup { last: refused.or(unmade).or(last), made })
}

/// How the parts of a hibernating pipeline are: at rest, or on the way there.
pub(super) fn asleep(plan: &Plan, children: &Children, unmade: Option<Part>) -> Facts {
    // What has ended keeps its last words.
    let pods: Vec<Pod> = children.pods.iter().filter(|pod| !workload::has_ended(pod)).cloned().collect();
    let rest = |component| match pods_of(component, &pods).next() {
        None => Part::not_ready("Hibernated", "no pods: the pipeline hibernates"),
        Some(_) => Part::not_ready("Stopping", "its pods go, since the pipeline hibernates"),
    };
    let elsewhere = || Part::not_ready("Hibernated", "not used: the pipeline hibernates");
    let parts = Parts {
        broker: match &plan.broker {
            Broker::Managed(_) => rest(Component::Broker),
            Broker::External(_) => elsewhere(),
        },
        database: match &plan.database.place {
            DatabasePlace::Managed(_) if workload::is_copying(&pods) => {
                Part::not_ready("Stopping", "its pod goes when the backup or the restore has ended")
            }
            DatabasePlace::Managed(_) => rest(Component::Database),
            DatabasePlace::External(_) => elsewhere(),
        },
        bridge: rest(Component::Bridge),
        dashboard: plan.dashboard.as_ref().map(|dashboard| match dashboard {
            Dashboard::Managed { .. } => rest(Component::Dashboard),
            Dashboard::External { .. } => elsewhere(),
        }),
        backup: backup(plan, children, unmade),
        endpoints: endpoints(plan),
    };
    Facts::Asleep { settled: plan.sleep.database && pods.is_empty(), parts: Box::new(parts) }
}

fn endpoints(plan: &Plan) -> Endpoints {
    let names = &plan.pipeline.names;
    Endpoints {
        broker: Some(plan.broker.url(names)),
        database: Some(plan.database.url(names)),
        dashboard: plan.dashboard.as_ref().map(|dashboard| match dashboard {
            Dashboard::Managed { tls, .. } => names.dashboard_url(tls.is_some()),
            Dashboard::External { url, .. } => url.clone(),
        }),
    }
}
