//! What a backup consists of, which backups there are, and which of them are to go.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
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

    /// Whether it is of the bucket with this id. Its name says little: one that was made anew has the same.
    pub(super) fn is_of(&self, bucket: &str) -> bool {
        self.bucket["bucketID"] == bucket
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

/// What is read of InfluxDB's description of a bucket. What is not as InfluxDB 2 writes it is an error: taken for
/// nothing, it would be a backup of nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Described {
    #[serde(rename = "bucketID")]
    pub(super) id: String,
    retention_policies: Vec<Policy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    // Null is Go's empty list. Without this, serde would take a field that is missing for null.
    #[serde(deserialize_with = "Option::deserialize")]
    shard_groups: Option<Vec<Group>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    /// Its points have reached their end; its files go soon, or have gone.
    deleted_at: Option<String>,
    #[serde(deserialize_with = "Option::deserialize")]
    shards: Option<Vec<ShardId>>,
}

#[derive(Deserialize)]
struct ShardId {
    id: u64,
}

impl Described {
    pub(super) fn parse(bucket: &Value) -> anyhow::Result<Self> {
        let described = Self::deserialize(bucket).context("understand the description of the bucket")?;
        ensure!(
            !described.retention_policies.is_empty(),
            "the bucket is described without retentionPolicies"
        );
        Ok(described)
    }

    /// The ids of all shards that are not deleted.
    pub(super) fn shards(&self) -> Vec<u64> {
        let groups = self.retention_policies.iter().flat_map(|policy| policy.shard_groups.iter().flatten());
        let there = groups.filter(|group| group.deleted_at.is_none());
        there.flat_map(|group| group.shards.iter().flatten()).map(|shard| shard.id).collect()
    }

    /// Fails if one of these shards is there after all, although it could not be read.
    pub(super) fn check_gone(&self, before: &Self, gone: &[u64]) -> anyhow::Result<()> {
        ensure!(self.id == before.id, "the bucket was deleted and made again meanwhile");
        match self.shards().iter().find(|id| gone.contains(id)) {
            Some(id) => bail!("save shard {id}: the database lists it, and says that it is not there"),
            None => Ok(()),
        }
    }
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

/// All of these but the newest.
pub(super) fn expired<'f>(complete: &[&'f Found], keep: usize) -> Vec<&'f Found> {
    complete.iter().rev().skip(keep).copied().collect()
}

/// The incomplete ones from before then: another may be in the making.
pub(super) fn abandoned<'f>(found: &'f [Found], before: &str) -> Vec<&'f Found> {
    found.iter().filter(|backup| !backup.is_complete() && backup.name.as_str() < before).collect()
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
        assert_eq!(names(expired(&all.iter().collect::<Vec<_>>(), 3)), [NAMES[0]]);
        assert!(expired(&all.iter().collect::<Vec<_>>(), 9).is_empty());
        assert!(abandoned(&all, "20260105T000000Z").is_empty());
        // The second was interrupted; so was the fourth, unless it is still being made.
        let some = group(files(&[NAMES[0], NAMES[2]]));
        assert_eq!(names(abandoned(&some, "20260103T120000Z")), [NAMES[1]]);
        assert_eq!(names(abandoned(&some, "20260105T000000Z")), [NAMES[1], NAMES[3]]);
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

    fn bucket(groups: &Value) -> Value {
        json!({"bucketID": "b1", "retentionPolicies": [{"shardGroups": groups}]})
    }

    fn described(groups: &Value) -> Described {
        Described::parse(&bucket(groups)).expect("it is as InfluxDB writes it")
    }

    #[test]
    fn every_shard_of_a_bucket_is_found() {
        let groups = json!([
            {"shards": [{"id": 1}, {"id": 2}]}, {"shards": []}, {"shards": [{"id": u64::MAX}]},
            {"shards": [{"id": 9}], "deletedAt": "2026-01-01T00:00:00Z"}, {"shards": null},
        ]);
        assert_eq!(described(&groups).shards(), [1, 2, u64::MAX]);
        assert_eq!(described(&json!(null)).shards(), [] as [u64; 0]);
    }

    #[test]
    fn a_description_that_is_not_understood_is_no_bucket_without_shards() {
        for groups in [json!("x"), json!([{}]), json!([{"shards": [{}]}]), json!([{"shards": [{"id": "1"}]}])]
        {
            assert!(Described::parse(&bucket(&groups)).is_err(), "{groups}");
        }
        for whole in [
            json!({}),
            json!({"bucketID": "b1"}),
            json!({"bucketID": "b1", "retentionPolicies": null}),
            json!({"bucketID": "b1", "retentionPolicies": []}),
            json!({"bucketID": "b1", "retentionPolicies": [{}]}),
            json!({"retentionPolicies": [{"shardGroups": []}]}),
        ] {
            assert!(Described::parse(&whole).is_err(), "{whole}");
        }
    }

    #[test]
    fn a_shard_that_could_not_be_read_has_gone_only_if_the_database_lists_it_no_more() {
        let before = described(&json!([{"shards": [{"id": 1}, {"id": 2}]}]));
        let deleted =
            json!([{"shards": [{"id": 1}]}, {"shards": [{"id": 2}], "deletedAt": "2026-01-01T00:00:00Z"}]);
        for after in [json!([{"shards": [{"id": 1}]}]), deleted] {
            assert!(described(&after).check_gone(&before, &[2]).is_ok(), "{after}");
        }
        assert!(before.check_gone(&before, &[2]).is_err_and(|error| error.to_string().contains("shard 2")));
        let other = Described { id: "b2".into(), ..described(&json!([])) };
        assert!(other.check_gone(&before, &[2]).is_err(), "it is another bucket");
    }
}
