//! Waiting for what is to come: a probe, repeated until it finds something or the deadline passes.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a probe runs.
const PERIOD: Duration = Duration::from_millis(100);

/// What a probe found.
pub enum Probe<T> {
    /// What was awaited.
    Found(T),
    /// Not yet; the text says what there is instead, for the failure's message.
    NotYet(String),
}

/// Runs a probe until it finds what is awaited. A probe's error counts as "not yet", since what is
/// restarted on purpose doesn't answer; the last one is in the failure's message.
///
/// # Errors
/// If the deadline passes.
pub async fn eventually<T>(
    what: impl Display,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<Probe<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut last = "no answer yet".to_owned();
    while let Some(left) = deadline.checked_sub(start.elapsed()) {
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(Probe::Found(found))) => return Ok(found),
            Ok(Ok(Probe::NotYet(instead))) => last = instead,
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => break,
        }
        tokio::time::sleep(PERIOD.min(left)).await;
    }
    bail!("not within {deadline:?}: {what}; last seen: {last}")
}

/// Runs a probe until it is true.
///
/// # Errors
/// If the deadline passes.
pub async fn eventually_true(
    what: impl Display,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    eventually(what, deadline, async || {
        Ok(if probe().await? { Probe::Found(()) } else { Probe::NotYet("it is not so".into()) })
    })
    .await
}

/// Runs a probe for the whole span: what must not happen must not happen at any of its times.
///
/// # Errors
/// The probe's first.
pub async fn throughout(span: Duration, mut probe: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        probe().await?;
        tokio::time::sleep(PERIOD).await;
    }
    probe().await
}
