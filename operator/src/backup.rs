//! `iotpipeline-operator backup` and `restore`: what the Jobs run, from the operator's own image.
//!
//! A backup is a folder of files, `<when>/...`, on a volume or in a bucket of S3: InfluxDB's own copy of each shard
//! ([`source`]), cut into pieces that fit into memory, and a manifest ([`manifest`]), which is written last and
//! makes it one. The pipeline's bucket alone is in it, without the database's users and tokens.

mod manifest;
mod multipart;
mod s3;
mod source;
mod store;
mod upload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::http;
use manifest::{Described, Manifest, Shard};
pub use s3::S3;
use source::{Access, Source};
pub use store::Place;
use store::Store;

pub use api::backup::RESTORING;

/// What a restored bucket's description begins with; the backup's name follows.
pub const RESTORED: &str = "restored from the backup ";

/// An incomplete backup that is older is nobody's any more: a Job may take an hour less.
const ABANDONED: Duration = Duration::from_secs(13 * 60 * 60);

/// So much of a warning is told, in characters: the kubelet cuts off what is longer than 4 KiB, and half a report is
/// none.
const WARNED: usize = 500;

/// The database, and where backups are.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The database's address.
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// A file with the certificate authority of the database.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A file with the operator token, which InfluxDB wants for this.
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// The organization's name.
    #[arg(long, value_name = "NAME")]
    pub organization: String,
    /// The bucket's name.
    #[arg(long, value_name = "NAME")]
    pub bucket: String,
    /// Where backups are.
    #[command(flatten)]
    pub place: Place,
    /// Where to write what came of it.
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    pub report: PathBuf,
}

/// What came of a backup or a restore.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// The backup's name.
    pub name: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// What failed that it doesn't need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Makes a backup, and removes what is too old.
///
/// # Errors
/// If it is not complete. What there is of it is removed by one of the next.
pub async fn backup(arguments: &Arguments, keep: usize) -> anyhow::Result<Report> {
    tell(arguments, async {
        let (source, store) = open(arguments)?;
        let (now, name) = new_name(&store).await?;
        // Before, since it may have the room that this one needs. Where it can't be removed, there may be room anyway.
        if let Err(error) = remove_abandoned(&store, now).await {
            tracing::warn!(error = format!("{error:#}"), "what was interrupted can't be removed");
        }
        let bucket = source.describe(&arguments.organization, &arguments.bucket).await?;
        let described = Described::parse(&bucket)?;
        let (mut shards, mut gone) = (Vec::new(), Vec::new());
        for id in described.shards() {
            match save(&source, &store, &name, id).await.with_context(|| format!("save shard {id}"))? {
                Some(shard) => shards.push(shard),
                None => gone.push(id),
            }
        }
        if !gone.is_empty() {
            let after = source.describe(&arguments.organization, &arguments.bucket).await?;
            Described::parse(&after)?.check_gone(&described, &gone)?;
        }
        let manifest = Manifest { version: manifest::VERSION, bucket, shards };
        let file = format!("{name}/{}", manifest::FILE);
        store.put(&file, serde_json::to_vec(&manifest)?.into()).await?;
        let mut report = Report { name, bytes: manifest.bytes(), warning: None };
        tracing::info!(backup = report.name, bytes = report.bytes, "complete");
        // From here on there is a backup, whatever else fails.
        if let Err(error) = remove_old(&store, keep, &report.name, &described.id).await {
            let warning = format!("old ones can't be removed: {error:#}");
            tracing::warn!(warning, "the backup is complete");
            report.warning = Some(warning.chars().take(WARNED).collect());
        }
        Ok(report)
    })
    .await
}

/// Makes the bucket what it was in a backup.
///
/// # Errors
/// If there is no such backup, or it is damaged, or the database refuses: the bucket doesn't exist then. If it existed
/// before: it is left as it is.
pub async fn restore(arguments: &Arguments, backup: Option<&str>) -> anyhow::Result<Report> {
    tell(arguments, async {
        let (source, store) = open(arguments)?;
        let (name, manifest) = find(&store, backup).await?;
        let report = Report { name, bytes: manifest.bytes(), warning: None };
        let organization = source.organization(&arguments.organization).await?;
        let description = format!("{RESTORED}{}", report.name);
        if let Some(there) = source.bucket(&organization, &arguments.bucket).await? {
            // One that died after its last step comes again.
            ensure!(
                there.description == description,
                "the bucket {} exists already, and a restore overwrites nothing",
                arguments.bucket
            );
            return Ok(report);
        }
        if let Some(unfinished) = source.bucket(&organization, RESTORING).await? {
            source.delete_bucket(&unfinished.id).await?;
        }
        let place = (organization.as_str(), arguments.organization.as_str(), RESTORING);
        let restored = source.create(&manifest.bucket, place).await?;
        for shard in &manifest.shards {
            let to = restored.shard(shard.id)?;
            source
                .fill(to, shard, &store, &report.name)
                .await
                .with_context(|| format!("restore shard {}", shard.id))?;
        }
        source.name_bucket(&restored.id, &arguments.bucket, &description).await?;
        tracing::info!(backup = report.name, bytes = report.bytes, "restored");
        Ok(report)
    })
    .await
}

/// Writes what came of it where the kubelet looks for it.
async fn tell(
    arguments: &Arguments,
    work: impl Future<Output = anyhow::Result<Report>>,
) -> anyhow::Result<Report> {
    let done = work.await;
    let text = match &done {
        Ok(report) => serde_json::to_string(report)?,
        Err(error) => format!("{error:#}"),
    };
    if let Err(error) = std::fs::write(&arguments.report, text) {
        tracing::warn!(%error, file = %arguments.report.display(), "the report can't be written");
    }
    done
}

fn open(arguments: &Arguments) -> anyhow::Result<(Source, Store)> {
    let read =
        |file: &Path| std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()));
    let ca = arguments.ca.as_deref().map(read).transpose()?;
    let token = read(&arguments.token_file)?.trim().to_owned();
    let access = Access { http: http::transfer(ca.as_deref())?, url: arguments.url.clone(), token };
    Ok((Source::new(access), Store::open(&arguments.place)?))
}

/// What a new backup is called. Another one of this second makes it wait for the next.
async fn new_name(store: &Store) -> anyhow::Result<(Timestamp, String)> {
    loop {
        let now = Timestamp::now();
        let name = now.strftime(manifest::NAME).to_string();
        if store.list(&name).await?.is_empty() {
            return Ok((now, name));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Copies a shard; none, if the database says that it is not there.
async fn save(source: &Source, store: &Store, backup: &str, id: u64) -> anyhow::Result<Option<Shard>> {
    let Some(mut copy) = source.read(id).await? else { return Ok(None) };
    let mut pieces = Vec::new();
    while let Some(content) = copy.piece().await? {
        let piece = manifest::Piece::of(&content);
        store.put(&format!("{backup}/{}", piece.file(id, pieces.len())), content).await?;
        pieces.push(piece);
    }
    Ok(Some(Shard { id, pieces }))
}

/// The named backup, or the latest; of the complete ones.
async fn find(store: &Store, wanted: Option<&str>) -> anyhow::Result<(String, Manifest)> {
    let found = manifest::group(store.list("").await?);
    let mut complete = found.iter().filter(|backup| backup.is_complete()).map(|backup| &backup.name);
    let name = match wanted {
        None => complete.next_back().context("there is no complete backup"),
        Some(wanted) => complete.clone().find(|name| *name == wanted).with_context(|| {
            format!("there is no complete backup {wanted}: there are {:?}", complete.collect::<Vec<_>>())
        }),
    }?;
    Ok((name.clone(), read_manifest(store, name).await?))
}

async fn read_manifest(store: &Store, backup: &str) -> anyhow::Result<Manifest> {
    let content = store.get(&format!("{backup}/{}", manifest::FILE)).await?;
    Manifest::parse(&content).with_context(|| format!("read the manifest of {backup}"))
}

/// Removes what was never finished.
async fn remove_abandoned(store: &Store, now: Timestamp) -> anyhow::Result<()> {
    let before = now.checked_sub(ABANDONED)?.strftime(manifest::NAME).to_string();
    let found = manifest::group(store.list("").await?);
    for backup in manifest::abandoned(&found, &before) {
        remove(store, backup).await?;
    }
    Ok(())
}

/// Removes all but the newest `keep` of this bucket; never what was just made, which is not the newest where clocks
/// differ. Those of another bucket of the same name are not outlived by this one's: it may have been made anew, empty,
/// because somebody wants them. What can't be read may be such.
async fn remove_old(store: &Store, keep: usize, made: &str, bucket: &str) -> anyhow::Result<()> {
    let found = manifest::group(store.list("").await?);
    let (mut ours, mut unread) = (Vec::new(), None);
    for backup in found.iter().filter(|backup| backup.is_complete()) {
        match read_manifest(store, &backup.name).await {
            Ok(manifest) if manifest.is_of(bucket) => ours.push(backup),
            Ok(_) => {}
            Err(error) => unread = Some(error),
        }
    }
    for backup in manifest::expired(&ours, keep).into_iter().filter(|old| old.name != made) {
        remove(store, backup).await?;
    }
    unread.map_or(Ok(()), Err)
}

async fn remove(store: &Store, backup: &manifest::Found) -> anyhow::Result<()> {
    tracing::info!(backup = backup.name, "removing it");
    // The manifest first: what is half removed is no backup.
    let (manifests, pieces): (Vec<_>, Vec<_>) =
        backup.files.iter().partition(|file| **file == manifest::FILE);
    for file in manifests.into_iter().chain(pieces) {
        store.delete(&format!("{}/{file}", backup.name)).await?;
    }
    Ok(())
}
