//! Where backups are: a folder, or a bucket of S3.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;

use super::manifest::is_name;
use super::s3::{Bucket, S3};

/// Where backups are.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// A folder.
    #[arg(long, value_name = "DIRECTORY", required_unless_present = "s3_url")]
    pub folder: Option<PathBuf>,
    /// A bucket instead.
    #[command(flatten)]
    pub s3: Option<S3>,
}

/// Files by their names, `<backup>/<file>`. Each is there as a whole or not at all.
pub(super) enum Store {
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

impl Store {
    pub(super) fn open(place: &Place) -> anyhow::Result<Self> {
        match (&place.folder, &place.s3) {
            (_, Some(s3)) => Ok(Self::Bucket(Box::new(Bucket::open(s3)?))),
            (Some(folder), None) => Ok(Self::Folder(folder.clone())),
            (None, None) => anyhow::bail!("neither --folder nor --s3-url is given"),
        }
    }

    /// The files whose names begin so.
    pub(super) async fn list(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Folder(folder) => list(folder, prefix).context("list the backups"),
            Self::Bucket(bucket) => bucket.list(prefix).await.context("list the backups"),
        }
    }

    pub(super) async fn put(&self, name: &str, content: Bytes) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => write(&folder.join(name), &content),
            Self::Bucket(bucket) => bucket.put(name, content).await,
        }
        .with_context(|| format!("write the file {name}"))
    }

    pub(super) async fn get(&self, name: &str) -> anyhow::Result<Bytes> {
        match self {
            Self::Folder(folder) => fs::read(folder.join(name)).map(Bytes::from).map_err(Into::into),
            Self::Bucket(bucket) => bucket.get(name).await,
        }
        .with_context(|| format!("read the file {name}"))
    }

    pub(super) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => remove(&folder.join(name)),
            Self::Bucket(bucket) => bucket.delete(name).await,
        }
        .with_context(|| format!("delete the file {name}"))
    }
}

/// Only folders that are backups are looked into: a volume may have others, which are not ours to read.
fn list(folder: &Path, prefix: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let backup = entry.file_name().to_string_lossy().into_owned();
        if !is_name(&backup) || !entry.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(entry.path())? {
            found.push(format!("{backup}/{}", file?.file_name().to_string_lossy()));
        }
    }
    found.retain(|name| name.starts_with(prefix));
    Ok(found)
}

/// What has the file's name is on the disk as a whole, also when the machine stops in the middle.
fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = file.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)?;
    let unfinished = file.with_added_extension("unfinished");
    let mut written = File::create(&unfinished)?;
    written.write_all(content)?;
    written.sync_all()?;
    fs::rename(&unfinished, file)?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

fn remove(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // The last one takes the folder along.
    if let Some(folder) = file.parent() {
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        place: Place,
    }

    fn parsed(line: &str) -> Result<Place, String> {
        let line = Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace()));
        line.map(|line| line.place).map_err(|error| error.to_string())
    }

    #[test]
    fn backups_are_in_a_folder_or_in_s3() {
        let place = parsed("--folder=/backups").expect("a folder");
        assert!(place.folder.is_some() && place.s3.is_none());
        let place = parsed("--s3-url=http://a/b --s3-credentials=/c").expect("a bucket");
        let s3 = place.s3.expect("it is given");
        assert_eq!((s3.s3_url.as_str(), s3.s3_region.as_str()), ("http://a/b", "us-east-1"));
        assert!(parsed("").is_err_and(|error| error.contains("--folder")));
        assert!(parsed("--s3-url=http://a").is_err_and(|error| error.contains("--s3-credentials")));
    }

    #[tokio::test]
    async fn a_folder_has_what_was_put_there_until_it_is_deleted() {
        let folder = std::env::temp_dir().join(format!("iotpipeline-store-{}", std::process::id()));
        fs::create_dir_all(folder.join("lost+found")).expect("a folder");
        let store = Store::Folder(folder.clone());
        let name = "20260101T000000Z/shard-1.000000";
        store.put(name, Bytes::from_static(b"abc")).await.expect("it can be written");
        assert_eq!(store.list("").await.expect("a list"), [name]);
        assert_eq!(store.list("20260102").await.expect("a list"), [] as [&str; 0]);
        assert_eq!(store.get(name).await.expect("it is there"), "abc");
        store.delete(name).await.expect("it can be deleted");
        store.delete(name).await.expect("it has gone already");
        assert!(!folder.join("20260101T000000Z").exists());
        let error = format!("{:#}", store.get(name).await.expect_err("it has gone"));
        assert!(error.contains(name), "{error}");
        fs::remove_dir_all(folder).expect("a clean end");
    }
}
