//! What the bridge remembers across restarts: the topic filters that the broker's session may hold.
//! A route that was removed while the bridge was down would stay subscribed for ever otherwise, since
//! MQTT has no way to ask for a session's subscriptions.

use std::path::{Path, PathBuf};

use api::bridge_config::MqttConfig;
use serde::{Deserialize, Serialize};

use crate::subscribe::Held;

/// A small file on the bridge's volume. The bridge runs without, and says so.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    saved: Option<Remembered>,
    failed: bool,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Remembered {
    broker: String,
    client_id: String,
    filters: Held,
}

impl State {
    /// Opens the directory's file, which may not exist yet.
    pub fn open(directory: &Path) -> Self {
        let path = directory.join("subscriptions.json");
        let saved = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path, saved, failed: false }
    }

    /// The filters that this session may hold.
    pub fn filters(&self, mqtt: &MqttConfig) -> Held {
        let is_same = |saved: &&Remembered| saved.broker == mqtt.url && saved.client_id == mqtt.client_id;
        self.saved.as_ref().filter(is_same).map(|saved| saved.filters.clone()).unwrap_or_default()
    }

    /// Remembers the filters, if they changed. To be called before the broker can see the change.
    pub fn save(&mut self, mqtt: &MqttConfig, filters: &Held) {
        let is_same = |saved: &Remembered| {
            saved.filters == *filters && saved.broker == mqtt.url && saved.client_id == mqtt.client_id
        };
        if self.failed || self.saved.as_ref().is_some_and(is_same) {
            return;
        }
        let remembered = Remembered {
            broker: mqtt.url.clone(),
            client_id: mqtt.client_id.clone(),
            filters: filters.clone(),
        };
        if let Err(error) = self.write(&remembered) {
            self.failed = true;
            tracing::warn!(
                path = %self.path.display(),
                "cannot remember subscriptions, so a route that is removed while the bridge is down \
                 stays subscribed: {error}"
            );
            // What is in the file is no longer so.
            drop(std::fs::remove_file(&self.path));
        }
        self.saved = Some(remembered);
    }

    /// By another file that takes its place, so that a crash leaves one of both whole.
    fn write(&self, remembered: &Remembered) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(remembered)?)?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mqtt(url: &str) -> MqttConfig {
        serde_json::from_value(serde_json::json!({"url": url, "clientId": "b"})).expect("a configuration")
    }

    #[test]
    fn filters_are_remembered_for_the_same_session_only() {
        let directory = std::env::temp_dir().join(format!("bridge-state-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let filters = Held::from([("a/+".to_owned(), None), ("b".to_owned(), Some(1))]);
        State::open(&directory).save(&mqtt("mqtt://one"), &filters);
        let state = State::open(&directory);
        assert_eq!(state.filters(&mqtt("mqtt://one")), filters);
        assert_eq!(state.filters(&mqtt("mqtt://two")), Held::new());
        std::fs::remove_dir_all(&directory).expect("it is there");
    }

    #[test]
    fn without_a_directory_nothing_is_remembered_and_nothing_fails() {
        let mut state = State::open(Path::new("/nowhere"));
        state.save(&mqtt("mqtt://one"), &Held::from([("a".to_owned(), None)]));
        assert!(state.failed);
    }
}
