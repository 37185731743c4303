//! The stand-in for Grafana as a process beside the tests, with files provisioned as Grafana's are.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

use crate::conditions::eventually_true;
use crate::environment::repository;
use crate::grafana::Grafana;
use crate::http;
use crate::scratch::{Directory, free_port};

/// The administrator's password.
pub const PASSWORD: &str = "for-one-test";

const STARTS: Duration = Duration::from_secs(30);

/// A running stand-in. Ends when dropped.
pub struct StandIn {
    /// Its API, with the administrator's credentials.
    pub grafana: Grafana,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// What is provisioned; the dashboards are in `dashboards`.
    pub directory: Directory,
    _child: Child,
}

/// The files that Grafana was given when its answers were recorded, for this database and token.
///
/// # Errors
/// If they can't be copied.
pub fn recorded_files(database_port: u16, token: &str) -> Result<Directory> {
    let directory = Directory::new("grafana")?;
    let recorded = repository("e2e/tests/contract");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let fill_in = |text: String| {
        text.replace("@URL@", &format!("http://127.0.0.1:{database_port}"))
            .replace("@TOKEN_FILE@", &path("token"))
            .replace("@DASHBOARDS@", &path("dashboards"))
    };
    directory.write("token", token)?;
    for name in [
        "provisioning/datasources/influxdb.yaml",
        "provisioning/dashboards/files.yaml",
        "dashboards/lab.json",
    ] {
        let text = std::fs::read_to_string(recorded.join(name)).with_context(|| name.to_owned())?;
        let target = directory.path().join(name);
        std::fs::create_dir_all(target.parent().context("a file in a directory")?)?;
        std::fs::write(target, fill_in(text))?;
    }
    Ok(directory)
}

impl StandIn {
    /// Starts the stand-in with the files of a directory, and waits until it answers.
    ///
    /// # Errors
    /// If it refuses to start: with what it says.
    pub async fn start(binary: &str, directory: Directory) -> Result<Self> {
        let port = free_port()?;
        let log = directory.path().join("log");
        let mut child = Command::new(binary)
            .env_clear()
            .env("GF_SERVER_HTTP_ADDR", "127.0.0.1")
            .env("GF_SERVER_HTTP_PORT", port.to_string())
            .env("GF_PATHS_PROVISIONING", directory.path().join("provisioning"))
            .env("GF_SECURITY_ADMIN_PASSWORD__FILE", directory.write("password", PASSWORD)?)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can't start {binary}"))?;
        let answers = eventually_true("the stand-in answers", STARTS, async || {
            let answer = http::get(&format!("http://127.0.0.1:{port}/api/health")).await;
            if answer.is_err() && child.try_wait()?.is_some() {
                return Ok(true);
            }
            Ok(answer?.status().is_success())
        });
        answers.await?;
        if child.try_wait()?.is_some() {
            bail!("{}", log_text(&log));
        }
        Ok(Self { grafana: Grafana::new(port, "admin", PASSWORD), port, directory, _child: child })
    }
}

fn log_text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
