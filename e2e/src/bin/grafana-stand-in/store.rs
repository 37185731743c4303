//! What is known: data sources and dashboards, provisioned by files or put here through the API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

/// Where queries go.
#[derive(Clone)]
pub(crate) struct DataSource {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) url: String,
    pub(crate) settings: Map<String, Value>,
    pub(crate) secrets: Map<String, Value>,
    pub(crate) is_default: bool,
    pub(crate) provisioned: bool,
}

/// What a user looks at.
#[derive(Clone)]
pub(crate) struct Dashboard {
    pub(crate) model: Value,
    /// The file it was read from; none if it came through the API.
    pub(crate) file: Option<PathBuf>,
    pub(crate) version: i64,
}

/// Everything, by uid.
#[derive(Default)]
pub(crate) struct Store {
    data_sources: Mutex<BTreeMap<String, DataSource>>,
    dashboards: Mutex<BTreeMap<String, Dashboard>>,
}

impl Store {
    /// The data sources, by uid.
    pub(crate) fn data_sources(&self) -> MutexGuard<'_, BTreeMap<String, DataSource>> {
        self.data_sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dashboards, by uid.
    pub(crate) fn dashboards(&self) -> MutexGuard<'_, BTreeMap<String, Dashboard>> {
        self.dashboards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the provisioned data sources.
    pub(crate) fn replace_provisioned_data_sources(&self, found: Vec<DataSource>) {
        let mut sources = self.data_sources();
        sources.retain(|_, source| !source.provisioned);
        sources.extend(found.into_iter().map(|source| (source.uid.clone(), source)));
    }

    /// Takes what a provider's directory holds now: dashboards whose file is gone are forgotten, and
    /// what has not changed keeps its version. A file that can't be read is among `files` only.
    pub(crate) fn replace_provided(&self, directory: &Path, files: &[PathBuf], found: Vec<(PathBuf, Value)>) {
        let mut dashboards = self.dashboards();
        dashboards.retain(|_, dashboard| match &dashboard.file {
            Some(file) => !file.starts_with(directory) || files.contains(file),
            None => true,
        });
        for (file, model) in found {
            let uid = model["uid"].as_str().unwrap_or_default().to_owned();
            let version = match dashboards.get(&uid) {
                Some(before) if before.model == model => continue,
                Some(before) => before.version + 1,
                None => 1,
            };
            eprintln!("stand-in: dashboard {uid:?} from {} (version {version})", file.display());
            dashboards.insert(uid, Dashboard { model, file: Some(file), version });
        }
    }
}
