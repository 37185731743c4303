//! Docker: found, or installed and started.
//!
//! On a throw-away machine nobody starts the daemon, and it is killed rather than stopped when work
//! ends. Its data stays: so do its pid files and its containers, which it restarts.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::debian;
use crate::Result;
use crate::cluster;
use crate::context::{Context, wait_for};
use crate::paths::Paths;
use crate::process::{Log, answer, quietly, which};
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "docker",
    about: "finds or starts the Docker daemon",
    lock: Some(Lock::Docker),
    work: ensure,
};

fn ensure(context: &mut Context, log: &Log) -> Result<Outcome> {
    if let Some(version) = daemon() {
        cluster::remove_strays(log, |checkout| !Path::new(checkout).exists())?;
        return Ok(Outcome::Unchanged(format!("{version} runs")));
    }
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        return Err(format!("DOCKER_HOST is {host}, but no Docker answers there").into());
    }
    if !debian::can_install() {
        return Err("Docker doesn't answer: install and start it, then run this again".into());
    }
    debian::install(&["docker.io", "iptables"], &["dockerd", "docker", "iptables"], log)?;
    start(&context.paths, log)?;
    // Nobody was using what a dead daemon had running.
    cluster::remove_strays(log, |_| true)?;
    Ok(Outcome::Done(format!("{} started", daemon().unwrap_or_default())))
}

fn daemon() -> Option<String> {
    answer(Command::new("docker").args(["info", "--format", "{{.ServerVersion}}"]))
        .filter(|version| !version.is_empty())
        .map(|version| format!("Docker {version}"))
}

fn start(paths: &Paths, log: &Log) -> Result<()> {
    let output = paths.cache.join("dockerd.log");
    let mut child = None;
    // One that is still stopping, or just starting, is left to it.
    let started = wait_for("the Docker daemon", Duration::from_secs(90), || {
        let alive = matches!(child.as_mut().map(Child::try_wait), Some(Ok(None)));
        if !alive && !still_there(DAEMON_PID, "dockerd") {
            child = spawn(paths, &output).inspect_err(|problem| log.note(&problem.to_string())).ok();
        }
        daemon().is_some()
    });
    started.inspect_err(|_| log.note(&log_end(&output)))
}

const DAEMON_PID: &str = "/run/docker.pid";
const CONTAINERD_PID: &str = "/run/docker/containerd/containerd.pid";

fn spawn(paths: &Paths, output: &Path) -> Result<Child> {
    for (file, program) in [(DAEMON_PID, "dockerd"), (CONTAINERD_PID, "containerd")] {
        if !still_there(file, program) && Path::new(file).exists() {
            std::fs::remove_file(file)?;
        }
    }
    let output = std::fs::File::create(output)?;
    // A session of its own, so that neither Ctrl-C nor our end reaches it.
    let mut command = Command::new("setsid");
    command.arg("--wait").arg("dockerd").args(runtime(paths)?);
    Ok(command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?)
}

/// Whether a pid file names a running process of this program. A daemon refuses to start when its
/// pid file names a living process, be it quite another one.
fn still_there(file: &str, program: &str) -> bool {
    let pid = std::fs::read_to_string(file).unwrap_or_default();
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.trim()));
    name.is_ok_and(|name| name.trim() == program)
}

/// The options for a runtime that can start privileged containers on this machine.
fn runtime(paths: &Paths) -> Result<Vec<String>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    if has_capability(&status, CAP_SYS_RESOURCE) {
        return Ok(Vec::new());
    }
    let wrapper = paths.cache.join("runc-bounded");
    let content = std::fs::read(paths.recipes().join("docker/runc-bounded"))?;
    crate::paths::write_whole(&wrapper, &content)?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    let named = format!("bounded={}", wrapper.display());
    Ok(vec!["--add-runtime".into(), named, "--default-runtime".into(), "bounded".into()])
}

const CAP_SYS_RESOURCE: u32 = 24;

/// Reads the capability bounding set in `/proc/<pid>/status`.
fn has_capability(status: &str, capability: u32) -> bool {
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    bounding.is_none_or(|set| set & (1 << capability) != 0)
}

fn log_end(file: &Path) -> String {
    let content = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = content.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Whether `cluster status` and the like can ask Docker at all.
pub(crate) fn answers() -> bool {
    which("docker").is_some() && quietly(Command::new("docker").arg("info")) && daemon().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_read_from_the_bounding_set() {
        let without = "CapEff:\t000001ffffffffff\nCapBnd:\t000001fffeffffff\n";
        assert!(!has_capability(without, CAP_SYS_RESOURCE));
        assert!(has_capability(without, 21));
        assert!(has_capability("CapBnd:\t000001ffffffffff\n", CAP_SYS_RESOURCE));
        assert!(has_capability("", CAP_SYS_RESOURCE), "where there is no /proc, nothing is bounded");
    }
}
