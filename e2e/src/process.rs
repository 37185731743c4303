//! Other programs, run to their end.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// Runs a program and returns what it wrote to its standard output.
///
/// # Errors
/// If it can't be started, or fails: with what it wrote to its standard error.
pub async fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("can't start {program}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}: {}", arguments.join(" "), output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
