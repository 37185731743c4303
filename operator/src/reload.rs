//! The broker's sidecar: tells a process to reread its files when they change.
//!
//! The kubelet replaces the symbolic link `..data` of a mounted Secret in one step. The process and the
//! sidecar run as one user in one process namespace, so a signal needs no privilege.

mod listening;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// One look costs two system calls; the kubelet's own delay is longer than this.
const PERIOD: Duration = Duration::from_millis(100);

/// What was last signalled: which process, and about which content.
#[derive(Debug, Eq, PartialEq)]
struct Signalled {
    pid: i32,
    content: OsString,
}

/// Watches for ever. Answers meanwhile whether the process listens on the port.
///
/// # Errors
/// If it can't answer.
pub fn run(watched: &Path, process: &str, port: u16) -> anyhow::Result<()> {
    listening::answer(port).context("listen for probes")?;
    let mut last: Option<Signalled> = None;
    loop {
        step(watched, process, Path::new("/proc"), &mut last);
        sleep(PERIOD);
    }
}

fn step(watched: &Path, process: &str, proc: &Path, last: &mut Option<Signalled>) {
    let Ok(content) = fs::read_link(watched.join("..data")).map(PathBuf::into_os_string) else { return };
    if let Some(last) = last
        && last.content == content
        && is_named(&proc.join(last.pid.to_string()), process)
    {
        return;
    }
    // A process that has just started has read the files as they are, but perhaps a moment before
    // they changed: it is told once, which does no harm.
    let Some(pid) = find(proc, process) else { return };
    if !catches_hangup(&proc.join(pid.to_string())) {
        return;
    }
    if let Some(target) = Pid::from_raw(pid)
        && kill_process(target, Signal::HUP).is_ok()
    {
        println!("told {process} (process {pid}) to reread its files");
        *last = Some(Signalled { pid, content });
    }
}

fn find(proc: &Path, process: &str) -> Option<i32> {
    let entries = fs::read_dir(proc).ok()?;
    entries
        .filter_map(Result::ok)
        .find(|entry| is_named(&entry.path(), process))
        .and_then(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_named(directory: &Path, process: &str) -> bool {
    fs::read_to_string(directory.join("comm")).is_ok_and(|name| name.trim_end() == process)
}

/// Whether the process handles the signal: before it does, the signal would end it.
fn catches_hangup(directory: &Path) -> bool {
    let Ok(status) = fs::read_to_string(directory.join("status")) else { return false };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
