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

use super::{MANAGED, Seen};

/// By pods' addresses and by sets, the configurations.
#[derive(Default)]
pub(super) struct Bridges {
    sets: Mutex<HashMap<String, Set>>,
    hashes: Mutex<HashMap<Set, String>>,
}

/// Namespace and name.
type Set = (String, String);

impl Bridges {
    /// A pod of this set has got this address.
    pub(super) fn add_pod(&self, address: String, set: Set) {
        lock(&self.sets).insert(address, set);
    }

    /// What the bridge at this address says of itself.
    pub(super) fn status(&self, address: &str) -> Option<BridgeStatus> {
        let set = lock(&self.sets).get(address)?.clone();
        let config_hash = lock(&self.hashes).get(&set)?.clone();
        let side = |message: &str| Side { ready: true, reason: "Connected".into(), message: message.into() };
        let (broker, database) = (side("a fake of the broker"), side("a fake of the database"));
        Some(BridgeStatus { config_hash, config_error: None, left: false, broker, database, crossing: None })
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
        }
        ready(())
    });
    each.await;
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
