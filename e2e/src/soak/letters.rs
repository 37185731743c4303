//! A witness of dead letters. Its session is at the broker, so it misses none while a connection is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bridge_process::PIPELINE;
use crate::mqtt::{Client, options};

/// How long the broker may take to grant the subscription.
const SUBSCRIBED: Duration = Duration::from_secs(10);

/// How often each number was in a dead letter.
#[derive(Clone, Default)]
pub struct Letters {
    counts: Arc<Mutex<BTreeMap<u64, u64>>>,
}

/// The client that fills [`Letters`], until it is dropped.
pub struct Witness {
    task: JoinHandle<()>,
    port: u16,
    client_id: String,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Letters {
    /// The numbers in dead letters so far, and how often each came.
    pub fn counts(&self) -> BTreeMap<u64, u64> {
        self.counts.lock().expect("unpoisoned").clone()
    }

    fn note(&self, payload: &[u8]) {
        if let Some(number) = number(payload) {
            *self.counts.lock().expect("unpoisoned").entry(number).or_default() += 1;
        }
    }

    /// Notes the dead letters of these routes from now on.
    ///
    /// # Errors
    /// If the broker doesn't grant the subscriptions.
    pub async fn follow(&self, port: u16, name: &str, routes: &[String]) -> Result<Witness> {
        let client_id = format!("letters-{name}");
        let mut options = options(port, &client_id, None);
        options.set_clean_start(false).set_session_expiry_interval(Some(3_600));
        let (requests, mut events) = AsyncClient::new(options, 16);
        let filters: Vec<String> =
            routes.iter().map(|route| format!("iotpipeline/{PIPELINE}/dead-letter/{route}")).collect();
        let (granted, mut waits) = watch::channel(0);
        let (letters, wanted) = (self.clone(), filters.len());
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(answer))) if !answer.session_present => {
                        for filter in &filters {
                            requests.subscribe(filter, QoS::AtLeastOnce).await.ok();
                        }
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => granted.send_modify(|count| *count += 1),
                    Ok(Event::Incoming(Packet::Publish(letter))) => letters.note(&letter.payload),
                    Ok(_) => {}
                    // The broker may be starting; polled again, the client connects again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        let witness = Witness { task, port, client_id };
        let all = waits.wait_for(|count| *count >= wanted);
        tokio::time::timeout(SUBSCRIBED, all).await.context("dead letters can't be subscribed to")??;
        Ok(witness)
    }
}

impl Witness {
    /// Ends the session.
    ///
    /// # Errors
    /// If the broker doesn't answer.
    pub async fn end(self) -> Result<()> {
        self.task.abort();
        Client::connect(self.port, &self.client_id, None).await.map(drop)
    }
}

/// The last word of what was published, in a letter of MQTT 5, or in one of 3.1.1, which is an envelope.
fn number(letter: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(letter).ok()?;
    let envelope: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let payload = envelope.as_ref().and_then(|envelope| envelope["payload"].as_str()).unwrap_or(text);
    payload.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_tells_its_number_in_either_version() {
        assert_eq!(number(b"number 12"), Some(12));
        assert_eq!(number(b"12"), Some(12));
        assert_eq!(number(br#"{"reason": "r 1", "topic": "t", "payload": "number 12"}"#), Some(12));
        assert_eq!(number(br#"{"reason": "r 1", "topic": "t", "payload": "12"}"#), Some(12));
        assert_eq!(number(b"\xff"), None);
    }
}
