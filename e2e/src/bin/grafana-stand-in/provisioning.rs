//! Reads the provisioning directories as Grafana does: bad YAML, an unreadable secret or two default
//! data sources prevent the start; a bad dashboard is reported and left as it was.
//! <https://grafana.com/docs/grafana/latest/administration/provisioning/>

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::interpolate;
use crate::store::{DataSource, Store};

#[derive(Deserialize)]
struct DataSourceFile {
    #[serde(default)]
    datasources: Vec<DataSourceEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataSourceEntry {
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    is_default: bool,
    #[serde(default)]
    json_data: Map<String, Value>,
    #[serde(default)]
    secure_json_data: Map<String, Value>,
}

#[derive(Deserialize)]
struct ProviderFile {
    #[serde(default)]
    providers: Vec<ProviderEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProviderEntry {
    name: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    update_interval_seconds: u64,
    #[serde(default)]
    options: ProviderOptions,
}

#[derive(Default, Deserialize)]
struct ProviderOptions {
    #[serde(default)]
    path: String,
}

/// A directory whose JSON files are dashboards.
pub(crate) struct Provider {
    directory: PathBuf,
    interval: Duration,
}

/// The data sources of `datasources/*.yaml`.
pub(crate) fn data_sources(provisioning: &Path) -> Result<Vec<DataSource>> {
    let mut sources = Vec::new();
    for file in documents::<DataSourceFile>(&provisioning.join("datasources"))? {
        sources.extend(file.datasources.into_iter().map(|entry| DataSource {
            uid: if entry.uid.is_empty() { entry.name.clone() } else { entry.uid },
            name: entry.name,
            kind: entry.kind,
            url: entry.url,
            settings: entry.json_data,
            secrets: entry.secure_json_data,
            is_default: entry.is_default,
            provisioned: true,
        }));
    }
    let defaults = sources.iter().filter(|source| source.is_default).count();
    ensure!(defaults <= 1, "only one data source can be the default, {defaults} are");
    for source in &sources {
        eprintln!("stand-in: data source {:?} at {}", source.uid, source.url);
    }
    Ok(sources)
}

/// The dashboard providers of `dashboards/*.yaml`.
pub(crate) fn providers(provisioning: &Path) -> Result<Vec<Provider>> {
    let mut providers = Vec::new();
    for entry in documents::<ProviderFile>(&provisioning.join("dashboards"))?
        .into_iter()
        .flat_map(|file| file.providers)
    {
        ensure!(entry.kind == "file" || entry.kind.is_empty(), "type {} is not supported", entry.kind);
        ensure!(!entry.options.path.is_empty(), "dashboard provider {} has no path", entry.name);
        let seconds = if entry.update_interval_seconds == 0 { 10 } else { entry.update_interval_seconds };
        providers
            .push(Provider { directory: entry.options.path.into(), interval: Duration::from_secs(seconds) });
    }
    Ok(providers)
}

/// Every YAML file of a directory. A directory that isn't there holds none.
fn documents<T: DeserializeOwned>(directory: &Path) -> Result<Vec<T>> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        eprintln!("stand-in: nothing to provision from in {}", directory.display());
        return Ok(Vec::new());
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    paths.sort();
    paths.iter().map(|path| document(path).with_context(|| path.display().to_string())).collect()
}

fn document<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path)?;
    let value: Value = serde_saphyr::from_str(&text)?;
    Ok(serde_json::from_value(interpolate::document(value)?)?)
}

/// Reads a provider's directory again and again, for as long as the process lives.
pub(crate) async fn watch(provider: Provider, store: Arc<Store>) {
    let mut ticks = tokio::time::interval(provider.interval);
    loop {
        ticks.tick().await;
        let mut files = Vec::new();
        find_dashboards(&provider.directory, &mut files);
        files.sort();
        let found = files.iter().filter_map(|file| match read_dashboard(file) {
            Ok(model) => Some((file.clone(), model)),
            Err(error) => {
                eprintln!("stand-in: failed to load dashboard from {}: {error:#}", file.display());
                None
            }
        });
        store.replace_provided(&provider.directory, &files, found.collect());
    }
}

/// JSON files in the directory and below. Directories that start with a dot are left out: mounted
/// ConfigMaps have such, beside links to the files in them.
fn find_dashboards(directory: &Path, files: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() {
            if !hidden && !path.is_symlink() {
                find_dashboards(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
}

fn read_dashboard(path: &Path) -> Result<Value> {
    let mut model: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let title = model["title"].as_str().unwrap_or_default().to_owned();
    ensure!(!title.is_empty(), "dashboard title cannot be empty");
    if model["uid"].as_str().unwrap_or_default().is_empty() {
        model["uid"] = title.into();
    }
    Ok(model)
}
