//! Fake bridges: each says that the configuration which the API server has is in effect.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use api::bridge_status::{BridgeStatus, Side};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::{MANAGED, Seen};

/// By pods' addresses and by sets, the configurations.
#[derive(Default)]
pub(super) struct Bridges {
    sets: Mutex<HashMap<String, Set>>,
    hashes: Mutex<HashMap<Set, String>>,
    words: Mutex<HashMap<Set, Words>>,
    changed: Notify,
}

/// What a bridge says instead of what it says when all is well; nothing, if it is to be silent.
pub type Words = Option<fn(&mut BridgeStatus)>;

/// Namespace and name.
pub(super) type Set = (String, String);

impl Bridges {
    /// A pod of this set has got this address.
    pub(super) fn add_pod(&self, address: String, set: Set) {
        lock(&self.sets).insert(address, set);
    }

    /// From now on the bridges of this set say something else, or what they said first.
    pub(super) fn say(&self, set: Set, words: Option<Words>) {
        match words {
            Some(words) => lock(&self.words).insert(set, words),
            None => lock(&self.words).remove(&set),
        };
        self.changed.notify_waiters();
    }

    /// What the bridge at this address says, as soon as it isn't what is known already.
    pub(super) async fn answer(&self, address: &str, known: Option<&str>) -> Option<BridgeStatus> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let status = self.status(address);
            if status.as_ref().is_none_or(|status| known != Some(&status.word())) {
                return status;
            }
            changed.await;
        }
    }

    fn status(&self, address: &str) -> Option<BridgeStatus> {
        let set = lock(&self.sets).get(address)?.clone();
        let config_hash = lock(&self.hashes).get(&set)?.clone();
        let side = |message: &str| Side { ready: true, reason: "Connected".into(), message: message.into() };
        let (broker, database) = (side("a fake of the broker"), side("a fake of the database"));
        let mut status = BridgeStatus {
            config_hash,
            config_error: None,
            login_revision: None,
            left: false,
            broker,
            database,
            crossing: None,
        };
        if let Some(words) = lock(&self.words).get(&set) {
            (*words)?(&mut status);
        }
        Some(status)
    }
}

/// Reads the configurations as they change.
pub(super) async fn follow(client: Client, seen: Arc<Seen>) {
    let bridges = format!("{MANAGED},app.kubernetes.io/component=bridge");
    let config = watcher::Config::default().labels(&bridges);
    let changes = watcher(Api::<ConfigMap>::all(client), config).default_backoff().applied_objects();
    let each = changes.filter_map(|change| ready(change.ok())).for_each(|map| {
        let file = map.data.as_ref().and_then(|data| data.get("bridge.yaml"));
        if let Some(file) = file {
            let hash = Sha256::digest(file.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            lock(&seen.bridges.hashes).insert((map.namespace().unwrap_or_default(), map.name_any()), hash);
            seen.bridges.changed.notify_waiters();
        }
        ready(())
    });
    each.await;
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
