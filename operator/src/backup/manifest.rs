//! What a backup consists of, which backups there are, and which of them are to go.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::resources::hash;

/// What a backup is called: when it was begun. In the order of the alphabet, the latest is the last.
pub(super) const NAME: &str = "%Y%m%dT%H%M%SZ";

/// The manifest's file.
pub(super) const FILE: &str = "manifest.json";

/// Of the manifest's form.
pub(super) const VERSION: u32 = 1;

/// The most that is in memory at once of a shard.
pub(super) const PIECE: usize = 8 * 1024 * 1024;

/// What a backup consists of. It is written last, so where it is, all that it names is there.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Manifest {
    pub(super) version: u32,
    /// InfluxDB's own description of the bucket.
    pub(super) bucket: Value,
    pub(super) shards: Vec<Shard>,
}

/// A copy of a shard.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Shard {
    pub(super) id: u64,
    pub(super) pieces: Vec<Piece>,
}

/// A file.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Piece {
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// The files under a backup's name.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) files: Vec<String>,
}

impl Manifest {
    pub(super) fn parse(content: &[u8]) -> anyhow::Result<Self> {
        let manifest: Self = serde_json::from_slice(content).context("it is damaged")?;
        ensure!(
            manifest.version == VERSION,
            "it has version {}, and this program reads {VERSION}: restore with the operator that made it",
            manifest.version
        );
        Ok(manifest)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().flat_map(|shard| &shard.pieces).map(|piece| piece.size).sum()
    }
}

impl Piece {
    pub(super) fn of(content: &[u8]) -> Self {
        Self { size: content.len() as u64, sha256: hash(&[content]) }
    }

    /// Its file, by the number of the piece in its shard. What two backups of one second write is not mixed up, since
    /// the content is in the name too.
    pub(super) fn file(&self, shard: u64, number: usize) -> String {
        let hash = self.sha256.get(..16).unwrap_or(&self.sha256);
        format!("shard-{shard}.{number:06}.{hash}")
    }

    /// The content, if it is what was saved.
    pub(super) fn checked(&self, file: &str, content: Bytes) -> anyhow::Result<Bytes> {
        ensure!(*self == Self::of(&content), "the file {file} is damaged: restore another backup");
        Ok(content)
    }
}

impl Found {
    pub(super) fn is_complete(&self) -> bool {
        self.files.iter().any(|file| file == FILE)
    }
}

/// The ids of all shards in InfluxDB's description of a bucket.
pub(super) fn shards_of(bucket: &Value) -> Vec<u64> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let policies = list(bucket, "retentionPolicies");
    let groups = policies.iter().flat_map(|policy| list(policy, "shardGroups"));
    let shards = groups.flat_map(|group| list(&group, "shards"));
    shards.filter_map(|shard| shard["id"].as_u64()).collect()
}

/// Whether a backup can be called so.
pub(super) fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let is_digit = |index: usize| bytes[index].is_ascii_digit();
    bytes.len() == 16 && bytes[8] == b'T' && bytes[15] == b'Z' && (0..8).chain(9..15).all(is_digit)
}

/// Backups, by their names, of files `<name>/<file>`. What else is there is not ours.
pub(super) fn group(files: Vec<String>) -> Vec<Found> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files {
        if let Some((name, file)) = path.split_once('/')
            && is_name(name)
        {
            found.entry(name.to_owned()).or_default().push(file.to_owned());
        }
    }
    found.into_iter().map(|(name, files)| Found { name, files }).collect()
}

/// All complete ones but the newest, and the incomplete ones from before `abandoned`: another may be in the making.
pub(super) fn expired<'f>(found: &'f [Found], keep: usize, abandoned: &str) -> Vec<&'f Found> {
    let complete = found.iter().rev().filter(|backup| backup.is_complete()).skip(keep);
    let incomplete = found.iter().filter(|backup| !backup.is_complete() && backup.name.as_str() < abandoned);
    complete.chain(incomplete).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NAMES: [&str; 4] = ["20260101T000000Z", "20260102T000000Z", "20260103T000000Z", "20260104T000000Z"];

    fn names(found: Vec<&Found>) -> Vec<&str> {
        found.into_iter().map(|found| found.name.as_str()).collect()
    }

    #[test]
    fn the_newest_complete_backups_are_kept_and_what_was_abandoned_goes() {
        let files = |complete: &[&str]| {
            let pieces = NAMES.iter().map(|name| format!("{name}/{}", Piece::of(b"x").file(1, 0)));
            let others = ["lost+found/x".to_owned(), "readme".to_owned()];
            pieces.chain(complete.iter().map(|name| format!("{name}/{FILE}"))).chain(others).collect()
        };
        let all = group(files(&NAMES));
        assert_eq!(names(expired(&all, 3, "20260104T000000Z")), [NAMES[0]]);
        assert!(expired(&all, 9, "20260104T000000Z").is_empty());
        // The second was interrupted; so was the fourth, unless it is still being made.
        let some = group(files(&[NAMES[0], NAMES[2]]));
        assert_eq!(names(expired(&some, 1, "20260103T120000Z")), [NAMES[0], NAMES[1]]);
        assert_eq!(names(expired(&some, 2, "20260105T000000Z")), [NAMES[1], NAMES[3]]);
    }

    #[test]
    fn a_file_that_is_not_what_was_saved_is_refused() {
        let piece = Piece::of(b"content");
        assert!(piece.checked("f", Bytes::from_static(b"content")).is_ok());
        for other in [&b"contenu"[..], b"conten", b""] {
            let error = piece.checked("f", Bytes::from_static(other)).expect_err("it is damaged").to_string();
            assert!(error.contains("the file f is damaged"), "{error}");
        }
    }

    #[test]
    fn only_a_time_is_a_backup_s_name() {
        assert!(is_name("20260104T000000Z"));
        for other in ["", "lost+found", "20260104T00000Z", "2026010xT000000Z", "20260104 000000Z"] {
            assert!(!is_name(other), "{other}");
        }
    }

    #[test]
    fn every_shard_of_a_bucket_is_found() {
        let groups = json!([{"shards": [{"id": 1}, {"id": 2}]}, {"shards": []}, {"shards": [{"id": 7}]}]);
        assert_eq!(shards_of(&json!({"retentionPolicies": [{"shardGroups": groups}]})), [1, 2, 7]);
        assert_eq!(shards_of(&json!({"retentionPolicies": [{"shardGroups": null}]})), [] as [u64; 0]);
    }
}
