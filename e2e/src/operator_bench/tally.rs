//! Counts objects for which something holds, as a watch tells.

use std::collections::HashSet;
use std::fmt::Debug;
use std::future::ready;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running count. The watch ends when it is dropped.
pub struct Tally {
    count: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Tally {
    /// Counts the objects that are there and of which this holds.
    pub fn new<K>(api: Api<K>, config: Config, holds: impl Fn(&K) -> bool + Send + Sync + 'static) -> Self
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let (sender, count) = watch::channel(0);
        let mut counted = HashSet::new();
        let watched = watcher(api, config).default_backoff();
        let each = watched.for_each(move |event| {
            let (object, is_there) = match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => (object, true),
                Ok(Event::Delete(object)) => (object, false),
                // Told again by InitApply; what has gone meanwhile is not of interest here.
                Ok(Event::Init | Event::InitDone) | Err(_) => return ready(()),
            };
            let key = (object.namespace(), object.name_any());
            match is_there && holds(&object) {
                true => counted.insert(key),
                false => counted.remove(&key),
            };
            sender.send_replace(counted.len());
            ready(())
        });
        let mut task = JoinSet::new();
        task.spawn(each);
        Self { count, _task: task }
    }

    /// Waits until there are so many, and returns when that was.
    ///
    /// # Errors
    /// If the deadline passes: with how many there were.
    pub async fn reaches(&self, wanted: usize, deadline: Duration) -> Result<Instant> {
        let mut count = self.count.clone();
        match tokio::time::timeout(deadline, count.wait_for(|count| *count >= wanted)).await {
            Ok(reached) => {
                reached?;
                Ok(Instant::now())
            }
            Err(_) => bail!("{} of {wanted} after {} s", *self.count.borrow(), deadline.as_secs()),
        }
    }
}
