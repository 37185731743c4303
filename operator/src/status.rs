//! Conditions, computed from what was observed. The clock is an argument.
//!
//! `Ready`, `Reconciling` and `Stalled` are as kstatus reads them: the last two are there only while true.

use api::backup::BackupStatus;
use api::bridge_status::BridgeStatus;
use api::iotpipeline::{Endpoints, IoTPipelineStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The reason of `Ready` while pods go.
pub const HIBERNATING: &str = "Hibernating";

/// How one part is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    /// Whether it does its work.
    pub ready: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence that says what to do, if something is the matter.
    pub message: String,
}

impl Part {
    /// It works.
    pub fn ready(message: impl Into<String>) -> Self {
        Self { ready: true, reason: "Ready".into(), message: message.into() }
    }

    /// It doesn't.
    pub fn not_ready(reason: &str, message: impl Into<String>) -> Self {
        Self { ready: false, reason: reason.into(), message: message.into() }
    }

    /// This part if it isn't ready, or else the other.
    pub fn and(self, other: impl FnOnce() -> Self) -> Self {
        if self.ready { other() } else { self }
    }

    /// This part, unless it is ready and the other isn't.
    pub fn unless(self, other: Self) -> Self {
        if self.ready && !other.ready { other } else { self }
    }
}

/// What was observed of a pipeline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Facts {
    /// The spec can't be carried out; what exists goes on as it was.
    Refused {
        /// One word in CamelCase.
        reason: String,
        /// What to do.
        message: String,
    },
    /// An attempt failed, and will be repeated.
    Failed {
        /// One word in CamelCase.
        reason: String,
        /// What failed.
        message: String,
    },
    /// Everything was applied.
    Applied(Box<Parts>),
    /// Nothing was carried out, since the spec says so.
    Suspended {
        /// Why not even what `deletionPolicy` says.
        failure: Option<String>,
    },
    /// Everything was applied, and nothing is to run.
    Asleep {
        /// Whether all pods have gone.
        settled: bool,
        /// How the parts are.
        parts: Box<Parts>,
    },
}

/// How the parts are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parts {
    /// The broker.
    pub broker: Part,
    /// The database.
    pub database: Part,
    /// The bridge, with both of its sides.
    pub bridge: Part,
    /// The dashboard, if there is one.
    pub dashboard: Option<Part>,
    /// How backups went, if there are to be some.
    pub backup: Option<Backup>,
    /// Where the parts are reached.
    pub endpoints: Endpoints,
}

/// How backups went.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Backup {
    /// How the last one ended, or why it doesn't begin.
    pub last: Option<Part>,
    /// The last one that is complete.
    pub made: Option<BackupStatus>,
}

/// How the bridge is, from what it says of itself.
pub fn of_bridge(status: &BridgeStatus, applied_hash: &str, login_revision: &str) -> Part {
    if let Some(error) = &status.config_error {
        return Part::not_ready(
            "ConfigurationRefused",
            format!("the bridge refuses its configuration: {error}"),
        );
    }
    // One of a version before this tells no revision: it is being replaced.
    let login_is_old = status.login_revision.as_ref().is_some_and(|known| known != login_revision);
    if status.config_hash != applied_hash || login_is_old {
        // `refresh` waits for as long as it is this.
        return Part::not_ready(
            "ConfigurationPending",
            "the bridge has not read its newest configuration and credentials yet",
        );
    }
    for (side, name) in [(&status.broker, "Broker"), (&status.database, "Database")] {
        if !side.ready {
            let reason = format!("{name}{}", side.reason);
            return Part::not_ready(
                &reason,
                format!("the bridge and the {}: {}", name.to_lowercase(), side.message),
            );
        }
    }
    match &status.crossing {
        None => Part::ready("connected to the broker and to the database"),
        Some(side) if side.ready && side.reason == "Crossed" => Part::ready(&side.message),
        // It works, and yet somebody should look.
        Some(side) => Part { ready: side.ready, reason: side.reason.clone(), message: side.message.clone() },
    }
}

/// The status to write. It is equal to the one before if nothing changed.
pub fn status(
    facts: &Facts,
    generation: Option<i64>,
    before: Option<&IoTPipelineStatus>,
    now: &Time,
) -> IoTPipelineStatus {
    let none = IoTPipelineStatus::default();
    let before = before.unwrap_or(&none);
    // Of a suspended pipeline, what is told is of the spec that was carried out last.
    let suspended = matches!(facts, Facts::Suspended { .. });
    let known = if suspended { before.observed_generation } else { generation };
    let conditions = conditions(facts, before)
        .into_iter()
        .map(|(type_, state, reason, message)| {
            let same = before.conditions.iter().find(|old| old.type_ == type_ && old.status == state);
            // What nobody has seen yet has the generation -1, which no condition may have.
            let generation = if type_ == SUSPENDED { generation } else { known.filter(|seen| *seen >= 0) };
            Condition {
                type_: type_.into(),
                status: state.into(),
                reason: word(&reason),
                message: clip(message),
                observed_generation: generation,
                last_transition_time: same
                    .map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
            }
        })
        .collect();
    IoTPipelineStatus {
        observed_generation: known,
        conditions,
        endpoints: match facts {
            Facts::Applied(parts) | Facts::Asleep { parts, .. } => Some(parts.endpoints.clone()),
            Facts::Refused { .. } | Facts::Failed { .. } | Facts::Suspended { .. } => {
                before.endpoints.clone()
            }
        },
        backup: match facts {
            Facts::Applied(parts) | Facts::Asleep { parts, .. } => {
                let backup = parts.backup.as_ref();
                backup.and_then(|backup| backup.made.clone().or_else(|| before.backup.clone()))
            }
            Facts::Refused { .. } | Facts::Failed { .. } | Facts::Suspended { .. } => before.backup.clone(),
        },
    }
}

type Row = (&'static str, &'static str, String, String);

const SUSPENDED: &str = "Suspended";

const PARTS: [&str; 4] = ["BrokerReady", "DatabaseReady", "BridgeReady", "DashboardReady"];

/// It is no part of the chain: messages cross whether or not there are copies of them.
const BACKUP: &str = "BackupReady";

fn conditions(facts: &Facts, before: &IoTPipelineStatus) -> Vec<Row> {
    match facts {
        Facts::Refused { reason, message } => {
            let mut rows = vec![row("Ready", false, reason, message), row("Stalled", true, reason, message)];
            rows.extend(as_before(before, &PARTS));
            rows.extend(as_before(before, &[BACKUP]));
            rows
        }
        Facts::Failed { reason, message } => {
            let mut rows =
                vec![row("Ready", false, reason, message), row("Reconciling", true, reason, message)];
            rows.extend(as_before(before, &PARTS));
            rows.extend(as_before(before, &[BACKUP]));
            rows
        }
        Facts::Applied(parts) => {
            let mut rows = of_parts(parts);
            rows.extend(backup_row(parts, before));
            rows
        }
        Facts::Suspended { failure } => {
            let mut rows = as_before(before, &["Ready"]);
            if rows.is_empty() {
                let message = "nothing was done yet: the pipeline is suspended";
                rows.push(("Ready", "Unknown", SUSPENDED.into(), message.into()));
            }
            let message = match failure {
                None => {
                    "the operator changes nothing, but for what deletionPolicy says, until suspend is false"
                        .into()
                }
                Some(failure) => format!("what deletionPolicy says could not be carried out: {failure}"),
            };
            rows.push(row(SUSPENDED, true, SUSPENDED, &message));
            rows.extend(as_before(before, &PARTS));
            rows.extend(as_before(before, &[BACKUP]));
            rows
        }
        Facts::Asleep { settled: true, parts } => {
            let message = "nothing runs, volumes and Secrets are kept: set hibernate to false to go on";
            let mut rows = vec![row("Ready", false, "Hibernated", message)];
            rows.extend(part_rows(parts));
            rows.extend(backup_row(parts, before));
            rows
        }
        Facts::Asleep { settled: false, parts } => {
            let message = "the pods go: first the broker's, then the bridges', then the others";
            let ready = row("Ready", false, HIBERNATING, message);
            let mut rows = vec![ready, row("Reconciling", true, HIBERNATING, message)];
            rows.extend(part_rows(parts));
            rows.extend(backup_row(parts, before));
            rows
        }
    }
}

/// What was known, where the pods that knew have gone. What kept backups from being made is over if it isn't told again.
fn backup_row(parts: &Parts, before: &IoTPipelineStatus) -> Option<Row> {
    let backup = parts.backup.as_ref()?;
    if let Some(last) = &backup.last {
        return Some(row(BACKUP, last.ready, &last.reason, &last.message));
    }
    let is_of_a_pod = |row: &Row| matches!(row.2.as_str(), "Ready" | "BackupFailed" | "NoBackup");
    let known = as_before(before, &[BACKUP]).pop().filter(is_of_a_pod);
    known.or_else(|| {
        Some(match &before.backup {
            Some(made) => row(BACKUP, true, "Ready", &format!("{} is complete", made.name)),
            None => (BACKUP, "Unknown", "NoBackup".into(), "no backup was made yet".into()),
        })
    })
}

/// In the order in which one part waits for another.
fn chain(parts: &Parts) -> impl Iterator<Item = (&'static str, &Part)> {
    let Parts { broker, database, bridge, dashboard, backup: _, endpoints: _ } = parts;
    [Some(broker), Some(database), Some(bridge), dashboard.as_ref()]
        .into_iter()
        .zip(PARTS)
        .filter_map(|(part, type_)| Some((type_, part?)))
}

fn part_rows(parts: &Parts) -> impl Iterator<Item = Row> {
    chain(parts).map(|(type_, part)| row(type_, part.ready, &part.reason, &part.message))
}

fn of_parts(parts: &Parts) -> Vec<Row> {
    // The first that isn't ready is the cause.
    let cause = chain(parts).find(|(_, part)| !part.ready);
    let remarkable = || chain(parts).find(|(_, part)| part.reason != "Ready");
    let mut rows = match cause.or_else(remarkable) {
        None => vec![row("Ready", true, "Ready", &parts.bridge.message)],
        Some((type_, part)) if part.ready => {
            vec![row("Ready", true, &with_name(type_, &part.reason), &part.message)]
        }
        Some((type_, part)) => {
            let reason = with_name(type_, &part.reason);
            vec![
                row("Ready", false, &reason, &part.message),
                row("Reconciling", true, &reason, &part.message),
            ]
        }
    };
    rows.extend(part_rows(parts));
    rows
}

/// A part's reason, as one of the whole pipeline.
fn with_name(type_: &str, reason: &str) -> String {
    let name = type_.trim_end_matches("Ready");
    // "Broker" + "BrokerUnreachable" would say it twice.
    let says_it = reason.starts_with("Broker") || reason.starts_with("Database");
    if says_it { reason.to_owned() } else { format!("{name}{reason}") }
}

fn row(type_: &'static str, state: bool, reason: &str, message: &str) -> Row {
    (type_, if state { "True" } else { "False" }, reason.to_owned(), message.to_owned())
}

/// What was last known, since nothing was changed.
fn as_before(before: &IoTPipelineStatus, types: &[&'static str]) -> Vec<Row> {
    let known = types.iter().filter_map(|type_| {
        before.conditions.iter().find(|old| old.type_ == *type_).map(|old| (*type_, old))
    });
    known
        .map(|(type_, old)| {
            let state = match old.status.as_str() {
                "True" => "True",
                "Unknown" => "Unknown",
                _ => "False",
            };
            (type_, state, old.reason.clone(), old.message.clone())
        })
        .collect()
}

/// A reason has letters, digits, `_`, `,` and `:` only, and at most 1024 of them.
fn word(reason: &str) -> String {
    let word: String = reason.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(128).collect();
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) { word } else { "Unknown".into() }
}

/// A condition's message has at most 32768 characters; nobody reads more than a few lines of it.
fn clip(message: String) -> String {
    match message.char_indices().nth(1000) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

impl Parts {
    /// Whether the whole chain works.
    pub fn all_ready(&self) -> bool {
        let Parts { broker, database, bridge, dashboard, backup: _, endpoints: _ } = self;
        broker.ready && database.ready && bridge.ready && dashboard.as_ref().is_none_or(|part| part.ready)
    }

    /// After how many seconds to look again, as long as something isn't ready. It is fresh, if that has not been
    /// so for long.
    pub fn patience(&self, is_fresh: bool) -> u64 {
        let Parts { broker, database, bridge, dashboard, backup: _, endpoints: _ } = self;
        let parts = [Some(broker), Some(database), Some(bridge), dashboard.as_ref()].into_iter().flatten();
        let mut reasons = parts.map(|part| part.reason.as_str());
        let starts = is_fresh && reasons.any(|reason| matches!(reason, "Starting" | "VolumePending"));
        let pending =
            matches!(self.bridge.reason.as_str(), "ConfigurationPending" | "Unreachable" | "Draining");
        // What runs and does not answer yet is about to.
        if pending || starts || matches!(self.database.reason.as_str(), "Unreachable" | "NotFound") {
            2
        } else {
            15
        }
    }
}
