//! Backups and restores against fakes. The real ones are in the end-to-end tests.

mod fakes;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::StatusCode;
use fakes::{Database, Shared, TOKEN, database, s3};
use iotpipeline_operator::backup::{Arguments, Place, RESTORING, Report, S3, backup, restore};

/// A folder of its own for each test. Removed when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("iotpipeline-backup-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("copies")).expect("a folder can be made");
        fs::write(path.join("token"), format!("{TOKEN}\n")).expect("a file can be written");
        fs::write(path.join("accessKeyId"), "id\n").expect("a file can be written");
        fs::write(path.join("secretAccessKey"), "secret").expect("a file can be written");
        Self(path)
    }

    fn copies(&self) -> PathBuf {
        self.0.join("copies")
    }

    fn in_folder(&self, url: &str) -> Arguments {
        self.arguments(url, Place { folder: Some(self.copies()), s3: None })
    }

    fn in_s3(&self, url: &str, s3_url: &str) -> Arguments {
        let s3 = S3 {
            s3_url: format!("{s3_url}/copies/lab"),
            s3_region: "us-east-1".into(),
            s3_credentials: self.0.clone(),
        };
        self.arguments(url, Place { folder: None, s3: Some(s3) })
    }

    fn arguments(&self, url: &str, place: Place) -> Arguments {
        Arguments {
            url: url.into(),
            ca: None,
            token_file: self.0.join("token"),
            organization: "lab".into(),
            bucket: "mesure".into(),
            place,
            report: self.0.join("report"),
        }
    }

    fn report(&self) -> String {
        fs::read_to_string(self.0.join("report")).expect("there is a report")
    }
}

/// A manifest of a backup of the bucket `b1`.
const MANIFEST: &str = r#"{"version":1,"bucket":{"bucketID":"b1"},"shards":[]}"#;

/// A shard as InfluxDB sends it, so far as it is looked at.
fn tar(size: usize, seed: u8) -> Vec<u8> {
    let mut content: Vec<u8> = (0..size).map(|index| (index % 251) as u8 ^ seed).collect();
    content.resize(size + 1024, 0);
    content
}

/// One shard needs two pieces, one has nothing, one has gone.
fn full() -> Database {
    Database {
        buckets: [("mesure".into(), "b1".into())].into(),
        shards: [(3, tar(9 << 20, 1)), (4, tar(0, 0)), (5, tar(100, 7))].into(),
        gone: vec![6],
        ..Database::default()
    }
}

async fn empty() -> (Shared<Database>, String) {
    let onboarded = Database { buckets: [(RESTORING.into(), "b0".into())].into(), ..Database::default() };
    database(onboarded).await
}

fn check(restored: &Shared<Database>) {
    let restored = restored.lock().expect("nobody panicked");
    let shards = full().shards.into_iter().map(|(id, content)| (id + 100, content)).collect();
    assert!(restored.shards == shards, "{:?}", restored.shards.keys());
    assert_eq!(restored.buckets, [("mesure".to_owned(), "b2".to_owned())].into());
    assert_eq!(restored.described["organizationID"], "o1");
    assert_eq!(restored.described["retentionPolicies"][0]["duration"], 0);
}

#[tokio::test]
async fn what_was_copied_is_restored_from_a_folder_and_from_s3() {
    let ((_, from), (objects, s3_url)) = (database(full()).await, s3().await);
    let folder = Folder::new();
    for of in [&(|url: &str| folder.in_folder(url)) as &dyn Fn(&str) -> Arguments, &|url: &str| {
        folder.in_s3(url, &s3_url)
    }] {
        let made = backup(&of(&from), 2).await.expect("a backup is made");
        assert_eq!(made.bytes, (9 << 20) + 100 + 3 * 1024);
        assert_eq!(serde_json::from_str::<Report>(&folder.report()).expect("a report"), made);
        let (to, url) = empty().await;
        assert_eq!(restore(&of(&url), None).await.expect("it is restored"), made);
        check(&to);
        let (to, url) = empty().await;
        assert_eq!(restore(&of(&url), Some(&made.name)).await.expect("it is restored"), made);
        check(&to);
    }
    let objects = &objects.lock().expect("nobody panicked").stored;
    assert!(objects.keys().all(|key| key.starts_with("/copies/lab/20")), "{:?}", objects.keys());
    assert!(!objects.values().any(|content| content.starts_with(b"tokens")), "tokens were copied");
}

#[tokio::test]
async fn a_bucket_that_exists_is_left_as_it_is_and_the_restore_says_so() {
    let (_, from) = database(full()).await;
    let folder = Folder::new();
    backup(&folder.in_folder(&from), 1).await.expect("a backup is made");
    let (to, url) =
        database(Database { buckets: [("mesure".into(), "b9".into())].into(), ..Database::default() }).await;
    restore(&folder.in_folder(&url), None).await.expect_err("there is a bucket");
    assert_eq!(folder.report(), "the bucket mesure exists already, and a restore overwrites nothing");
    let to = to.lock().expect("nobody panicked");
    assert_eq!((to.shards.len(), to.buckets["mesure"].as_str()), (0, "b9"));
}

#[tokio::test]
async fn a_restore_that_is_repeated_after_its_end_finds_its_own_bucket() {
    let (_, from) = database(full()).await;
    let folder = Folder::new();
    let made = backup(&folder.in_folder(&from), 1).await.expect("a backup is made");
    let (to, url) = empty().await;
    for _ in 0..2 {
        assert_eq!(restore(&folder.in_folder(&url), None).await.expect("it is restored"), made);
        check(&to);
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_and_leave_nothing() {
    let ((_, from), (objects, s3_url)) = (database(full()).await, s3().await);
    let folder = Folder::new();
    fs::write(folder.0.join("accessKeyId"), "another").expect("a file can be written");
    backup(&folder.in_s3(&from, &s3_url), 1).await.expect_err("the key is wrong");
    assert!(
        folder.report().contains("InvalidAccessKeyId: unknown key: see to the Secret"),
        "{}",
        folder.report()
    );
    assert!(objects.lock().expect("nobody panicked").stored.is_empty());

    fs::write(folder.0.join("token"), "another").expect("a file can be written");
    backup(&folder.in_folder(&from), 1).await.expect_err("the token is wrong");
    assert!(
        folder.report().contains("401") && folder.report().contains("unauthorized"),
        "{}",
        folder.report()
    );
    assert_eq!(fs::read_dir(folder.copies()).expect("a folder").count(), 0);
}

#[tokio::test]
async fn an_s3_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let ((_, from), (objects, s3_url)) = (database(full()).await, s3().await);
    let folder = Folder::new();
    objects.lock().expect("nobody panicked").refused =
        vec![StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    let made = backup(&folder.in_s3(&from, &s3_url), 1).await.expect("a backup is made");
    let (to, url) = empty().await;
    assert_eq!(restore(&folder.in_s3(&url, &s3_url), None).await.expect("it is restored"), made);
    check(&to);
    let before = {
        let mut objects = objects.lock().expect("nobody panicked");
        objects.refused = vec![StatusCode::FORBIDDEN];
        objects.asked
    };
    backup(&folder.in_s3(&from, &s3_url), 1).await.expect_err("it is refused");
    assert_eq!(objects.lock().expect("nobody panicked").asked, before + 1);
}

#[tokio::test]
async fn of_a_damaged_backup_nothing_takes_effect_and_another_restore_begins_anew() {
    let (_, from) = database(full()).await;
    let folder = Folder::new();
    let made = backup(&folder.in_folder(&from), 1).await.expect("a backup is made");
    let files = names(&folder.copies().join(&made.name));
    let piece = files.iter().find(|file| file.starts_with("shard-3.000001.")).expect("the second piece");
    let file = folder.copies().join(&made.name).join(piece);
    let good = fs::read(&file).expect("the second piece is there");
    let mut bad = good.clone();
    bad[1000] ^= 1;
    let (to, url) = empty().await;
    for damage in [Some(&bad[..]), Some(&good[..good.len() - 1]), None] {
        match damage {
            Some(content) => fs::write(&file, content).expect("a file can be written"),
            None => fs::remove_file(&file).expect("a file can be removed"),
        }
        restore(&folder.in_folder(&url), None).await.expect_err("it is damaged");
        assert!(folder.report().contains("shard-3.000001"), "{}", folder.report());
        let to = to.lock().expect("nobody panicked");
        assert!(!to.buckets.contains_key("mesure"), "half of it would be used");
    }
    fs::write(&file, &good).expect("a file can be written");
    restore(&folder.in_folder(&url), None).await.expect("it is restored");
    check(&to);
}

#[tokio::test]
async fn what_the_database_breaks_off_is_no_backup() {
    let mut broken = full();
    let mut content = tar(100, 7);
    content.extend(br#"{"code":"internal error","message":"disk"}"#);
    broken.shards.insert(5, content);
    let (_, from) = database(broken).await;
    let folder = Folder::new();
    backup(&folder.in_folder(&from), 1).await.expect_err("a shard is not whole");
    assert!(folder.report().contains("save shard 5: the database broke off: "), "{}", folder.report());
    assert!(folder.report().ends_with("broke off: disk"), "{}", folder.report());
    let (_, url) = empty().await;
    restore(&folder.in_folder(&url), None).await.expect_err("there is none");
    assert_eq!(folder.report(), "there is no complete backup");
}

#[tokio::test]
async fn a_shard_that_is_listed_and_not_there_is_no_reason_to_leave_it_out() {
    let (_, from) = database(Database { insists: true, ..full() }).await;
    let folder = Folder::new();
    backup(&folder.in_folder(&from), 1).await.expect_err("a shard is missing");
    assert!(folder.report().starts_with("save shard 6: the database lists it"), "{}", folder.report());
    restore(&folder.in_folder(&from), None).await.expect_err("it is no backup");
    assert_eq!(folder.report(), "there is no complete backup");
}

#[tokio::test]
async fn backups_of_another_bucket_of_the_same_name_are_not_rotated_out() {
    let folder = Folder::new();
    let (_, before) = database(full()).await;
    let good = backup(&folder.in_folder(&before), 1).await.expect("a backup is made");
    let (_, anew) = database(Database { id: Some("b7".into()), ..Database::default() }).await;
    let empty = backup(&folder.in_folder(&anew), 1).await.expect("a backup is made");
    let newer = backup(&folder.in_folder(&anew), 1).await.expect("a backup is made");
    assert_eq!(names(&folder.copies()), [good.name, newer.name], "{} is too old", empty.name);
}

#[tokio::test]
async fn a_backup_is_complete_also_where_old_ones_can_t_be_removed() {
    let (_, from) = database(full()).await;
    let folder = Folder::new();
    // No file can be removed that is a folder.
    for (name, file) in [("20260101T000000Z", "manifest.json"), ("20260102T000000Z", "shard-1.000000")] {
        fs::create_dir_all(folder.copies().join(name).join("stuck")).expect("a folder can be made");
        fs::write(folder.copies().join(name).join(file), MANIFEST).expect("a file can be written");
    }
    let made = backup(&folder.in_folder(&from), 1).await.expect("there is a backup");
    let warning = made.warning.clone().expect("it is told");
    assert!(warning.starts_with("old ones can't be removed: delete the file 20260101T000000Z"), "{warning}");
    assert_eq!(serde_json::from_str::<Report>(&folder.report()).expect("a report"), made);
    let (to, url) = empty().await;
    restore(&folder.in_folder(&url), Some(&made.name)).await.expect("it is restored");
    check(&to);
}

#[tokio::test]
async fn the_newest_are_kept_and_what_was_interrupted_long_ago_is_removed() {
    let (_, from) = database(full()).await;
    let folder = Folder::new();
    let make = |name: &str, files: &[&str]| {
        fs::create_dir_all(folder.copies().join(name)).expect("a folder can be made");
        for file in files {
            fs::write(folder.copies().join(name).join(file), MANIFEST).expect("a file can be written");
        }
    };
    make("20260101T000000Z", &["shard-1.000000", "manifest.json"]);
    make("20260102T000000Z", &["shard-1.000000", "manifest.json.unfinished"]);
    make("20260103T000000Z", &["shard-1.000000", "manifest.json"]);
    make("others", &["shard-1.000000"]);
    let made = backup(&folder.in_folder(&from), 2).await.expect("a backup is made");
    assert_eq!(names(&folder.copies()), ["20260103T000000Z", &made.name, "others"]);
    let error = restore(&folder.in_folder(&from), Some("20260102T000000Z")).await.expect_err("it has gone");
    let told = error.to_string();
    assert!(told.contains("there are") && told.contains(&made.name), "{told}");
}

#[tokio::test]
async fn backups_that_follow_each_other_at_once_have_names_of_their_own() {
    let (_, from) = database(full()).await;
    let folder = Folder::new();
    for _ in 0..3 {
        backup(&folder.in_folder(&from), 3).await.expect("a backup is made");
    }
    assert_eq!(names(&folder.copies()).len(), 3);
}

#[tokio::test]
async fn what_was_interrupted_long_ago_takes_no_room_from_the_next_also_if_that_fails() {
    let (_, from) = database(Database { shards: [(1, b"half".to_vec())].into(), ..full() }).await;
    let folder = Folder::new();
    for (name, file) in [("20260101T000000Z", "manifest.json"), ("20260102T000000Z", "shard-1.000000")] {
        fs::create_dir_all(folder.copies().join(name)).expect("a folder can be made");
        fs::write(folder.copies().join(name).join(file), "").expect("a file can be written");
    }
    backup(&folder.in_folder(&from), 1).await.expect_err("the shard is not whole");
    assert_eq!(names(&folder.copies()), ["20260101T000000Z"], "the complete one stays");
}

#[tokio::test]
async fn what_was_just_made_is_kept_also_where_another_backup_is_from_the_future() {
    let (_, from) = database(full()).await;
    let folder = Folder::new();
    let future = folder.copies().join("29990101T000000Z");
    fs::create_dir_all(&future).expect("a folder can be made");
    fs::write(future.join("manifest.json"), MANIFEST).expect("a file can be written");
    let made = backup(&folder.in_folder(&from), 1).await.expect("a backup is made");
    assert_eq!(names(&folder.copies()), [made.name.as_str(), "29990101T000000Z"]);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
