//! Backups of a real influxd by the operator's own binary, and what a fresh one has after a restore.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::conditions::{Probe, eventually, eventually_true};
use iotpipeline_e2e::containers::{BUCKET, Container, ORGANIZATION, TOKEN, database};
use iotpipeline_e2e::fault_proxy::{End, FaultProxy, Flow};
use iotpipeline_e2e::influx::Influx;
use iotpipeline_e2e::programs::Program;
use iotpipeline_e2e::scratch::{Directory, free_port};
use iotpipeline_e2e::{environment, http};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::SOON;

const SECRET: &str = "a-secret-for-one-test";

/// What the Jobs are given.
struct Rig {
    directory: Directory,
    /// Where backups are, as arguments.
    place: Vec<String>,
}

impl Rig {
    /// With backups in a folder.
    fn new() -> Result<Self> {
        let directory = Directory::new("backup")?;
        fs::create_dir(directory.path().join("copies"))?;
        directory.write("token", TOKEN)?;
        let place = vec![format!("--folder={}/copies", directory.path().display())];
        Ok(Self { directory, place })
    }

    /// With backups in a bucket, which is the same folder behind a server.
    async fn in_s3() -> Result<(Self, Program)> {
        let mut rig = Self::new()?;
        let path = rig.directory.path().display().to_string();
        fs::create_dir(rig.copies().join("bucket"))?;
        rig.directory.write("accessKeyId", "someone")?;
        rig.directory.write("secretAccessKey", SECRET)?;
        let port = free_port()?;
        let arguments = ["--access=someone", &format!("--secret={SECRET}"), "--region=eu-west-1"];
        let arguments = arguments.map(str::to_owned).into_iter();
        let more = [format!("--port=127.0.0.1:{port}"), "posix".into(), rig.copies().display().to_string()];
        let server = environment::s3_binary()?;
        let server =
            Program::start_new(server, arguments.chain(more).collect(), Directory::new("s3")?).await?;
        let url = format!("http://127.0.0.1:{port}");
        eventually_true("S3 answers", SOON, async || Ok(http::get(&url).await.is_ok())).await?;
        rig.place = vec![
            format!("--s3-url={url}/bucket/lab_1.a"),
            "--s3-region=eu-west-1".into(),
            format!("--s3-credentials={path}"),
        ];
        Ok((rig, server))
    }

    fn copies(&self) -> PathBuf {
        self.directory.path().join("copies")
    }

    fn start(&self, command: &str, port: u16, more: &[&str]) -> Result<Child> {
        let folder = self.directory.path().display();
        let job = Command::new(environment::operator_binary()?)
            .args([command, "--url", &format!("http://127.0.0.1:{port}"), "--organization", ORGANIZATION])
            .args(["--bucket", BUCKET, "--token-file", &format!("{folder}/token")])
            .args(["--report", &format!("{folder}/report")])
            .args(&self.place)
            .args(more)
            .kill_on_drop(true)
            .spawn()?;
        Ok(job)
    }

    /// Whether it succeeded, and what it reported.
    async fn run(&self, command: &str, port: u16, more: &[&str]) -> Result<(bool, String)> {
        let ended = self.start(command, port, more)?.wait().await?;
        Ok((ended.success(), fs::read_to_string(self.directory.path().join("report"))?))
    }

    async fn backup(&self, port: u16) -> Result<String> {
        let (is_done, report) = self.run("backup", port, &["--keep", "2"]).await?;
        ensure!(is_done, "{report}");
        let report: Value = serde_json::from_str(&report)?;
        Ok(report["name"].as_str().context("a report without a name")?.to_owned())
    }
}

/// Points of all types over half a year, in many shards.
fn points(from: u32, count: u32) -> String {
    (from..from + count).fold(String::new(), |mut lines, number| {
        let time = 1_780_000_000 + u64::from(number) * 7_200;
        let room = number % 7;
        let _ = writeln!(
            lines,
            "climate,room=r{room} t={number}.5,n={number}i,ok={},text=\"{number}\" {time}000000000",
            number % 2 == 0
        );
        lines
    })
}

async fn all(influx: &Influx) -> Result<Vec<String>> {
    let records = influx.points("climate").await?;
    let columns = ["_time", "room", "_field", "_value"];
    let line = |values: &std::collections::BTreeMap<_, _>| {
        columns.map(|column: &str| format!("{:?}", values.get(column))).join(" ")
    };
    let mut lines: Vec<String> = records.iter().map(|record| line(&record.values)).collect();
    lines.sort();
    Ok(lines)
}

/// A database without the bucket, as the operator makes it where one is to be restored.
async fn fresh() -> Result<(Container, Influx)> {
    let (container, influx) = database().await?;
    let url = format!("http://127.0.0.1:{}/api/v2/buckets", container.port);
    let asked = http::client().get(&url).query(&[("name", BUCKET)]).bearer_auth(TOKEN).send().await?;
    let found: Value = asked.json().await?;
    let id = found["buckets"][0]["id"].as_str().context("there is no bucket")?;
    let change = json!({"name": "iotpipeline_restoring"});
    let renamed = http::client().patch(format!("{url}/{id}")).bearer_auth(TOKEN).json(&change).send().await?;
    ensure!(renamed.status().is_success(), "{}", renamed.status());
    Ok((container, influx))
}

#[tokio::test]
async fn every_point_of_a_backup_is_in_a_fresh_database_and_none_that_came_later() -> Result<()> {
    let rig = Rig::new()?;
    let (from, source) = database().await?;
    source.write(&points(0, 2000)).await?;
    let saved = all(&source).await?;
    ensure!(saved.len() == 8000, "{} values", saved.len());
    let first = rig.backup(from.port).await?;
    source.write(&points(2000, 10)).await?;
    let second = rig.backup(from.port).await?;

    let (to, target) = fresh().await?;
    let (is_done, report) = rig.run("restore", to.port, &["--backup", &first]).await?;
    ensure!(is_done, "{report}");
    ensure!(all(&target).await? == saved, "not the points that were saved");
    // It takes new ones, and is not overwritten.
    target.write(&points(5000, 1)).await?;
    let (is_done, report) = rig.run("restore", to.port, &[]).await?;
    ensure!(!is_done && report.contains("exists already, and a restore overwrites nothing"), "{report}");
    ensure!(all(&target).await?.len() == saved.len() + 4, "it was overwritten");
    // The Job that did it may come again.
    let (is_done, report) = rig.run("restore", to.port, &["--backup", &first]).await?;
    ensure!(is_done, "{report}");
    ensure!(all(&target).await?.len() == saved.len() + 4, "it was overwritten");

    let (to, target) = fresh().await?;
    let (is_done, report) = rig.run("restore", to.port, &[]).await?;
    ensure!(is_done && report.contains(&second), "not the latest: {report}");
    ensure!(all(&target).await? == all(&source).await?, "not the points of the latest");

    rig.backup(from.port).await?;
    ensure!(!rig.copies().join(&first).exists(), "three are kept");
    Ok(())
}

#[tokio::test]
async fn of_a_damaged_backup_nothing_is_restored_and_a_wrong_token_makes_none() -> Result<()> {
    let rig = Rig::new()?;
    let (from, source) = database().await?;
    source.write(&points(0, 500)).await?;
    let saved = all(&source).await?;
    let name = rig.backup(from.port).await?;

    let files = fs::read_dir(rig.copies().join(&name))?.collect::<std::io::Result<Vec<_>>>()?;
    let file = files.iter().find(|file| file.file_name().to_string_lossy().starts_with("shard-"));
    let file = file.context("no shard was saved")?.path();
    let good = fs::read(&file)?;
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&file, bad)?;
    let (to, target) = fresh().await?;
    let (is_done, report) = rig.run("restore", to.port, &[]).await?;
    ensure!(!is_done && report.contains("is damaged"), "{report}");
    ensure!(target.write(&points(0, 1)).await.is_err(), "there is a bucket");
    fs::write(&file, good)?;
    let (is_done, report) = rig.run("restore", to.port, &[]).await?;
    ensure!(is_done, "{report}");
    ensure!(all(&target).await? == saved, "not the points that were saved");

    rig.directory.write("token", "another")?;
    let (is_done, report) = rig.run("backup", from.port, &["--keep", "9"]).await?;
    ensure!(!is_done && report.contains("401"), "{report}");
    ensure!(fs::read_dir(rig.copies())?.count() == 1, "something was made");
    Ok(())
}

#[tokio::test]
async fn the_same_through_s3_and_a_wrong_key_is_told() -> Result<()> {
    let (rig, _server) = Rig::in_s3().await?;
    let (from, source) = database().await?;
    source.write(&points(0, 2000)).await?;
    let saved = all(&source).await?;
    let first = rig.backup(from.port).await?;
    source.write(&points(2000, 10)).await?;
    let second = rig.backup(from.port).await?;
    for (backup, expected) in [(&first, &saved), (&second, &all(&source).await?)] {
        let (to, target) = fresh().await?;
        let (is_done, report) = rig.run("restore", to.port, &["--backup", backup]).await?;
        ensure!(is_done, "{report}");
        ensure!(all(&target).await? == *expected, "not the points of {backup}");
    }
    rig.backup(from.port).await?;
    let (to, _target) = fresh().await?;
    let (is_done, report) = rig.run("restore", to.port, &["--backup", &first]).await?;
    ensure!(!is_done && report.contains("there is no complete backup"), "three are kept: {report}");

    for (file, content, code) in [
        ("secretAccessKey", "a-wrong-key", "SignatureDoesNotMatch"),
        ("accessKeyId", "another", "XAdminUserNotFound"),
    ] {
        rig.directory.write(file, content)?;
        let (is_done, report) = rig.run("backup", from.port, &["--keep", "9"]).await?;
        ensure!(!is_done && report.contains(code) && !report.contains("a-wrong-key"), "{report}");
    }
    Ok(())
}

#[tokio::test]
async fn an_interrupted_backup_is_none_and_the_one_before_is_restored() -> Result<()> {
    let rig = Rig::new()?;
    let (from, source) = database().await?;
    source.write(&points(0, 500)).await?;
    let saved = all(&source).await?;
    let whole = rig.backup(from.port).await?;
    source.write(&points(500, 500)).await?;

    let proxy = FaultProxy::start(from.port).await?;
    for is_killed in [true, false] {
        // So slowly that the end does not come before it is interrupted.
        proxy.carry(Flow::Passes, Flow::Trickles(40_000));
        let before = fs::read_dir(rig.copies())?.count();
        let mut job = rig.start("backup", proxy.port(), &["--keep", "9"])?;
        eventually("a first file is there", Duration::from_secs(120), async || {
            let folders = fs::read_dir(rig.copies())?.count();
            Ok(if folders > before { Probe::Found(()) } else { Probe::NotYet("none".into()) })
        })
        .await?;
        match is_killed {
            true => job.start_kill()?,
            false => proxy.cut(End::Reset),
        }
        ensure!(!job.wait().await?.success(), "it was not interrupted");
        proxy.heal();
    }
    let (to, target) = fresh().await?;
    let (is_done, report) = rig.run("restore", to.port, &[]).await?;
    ensure!(is_done && report.contains(&whole), "{report}");
    ensure!(all(&target).await? == saved, "not the points that were saved");
    Ok(())
}
