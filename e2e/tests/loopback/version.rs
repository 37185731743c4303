//! A mosquitto that admits the bridge in MQTT 3.1.1 only: what its version has no words for.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::bridge_process::{Bridge, CLIENT_ID};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::containers::{Container, Speaks, broker, database};
use iotpipeline_e2e::influx::Influx;
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::publisher::{Load, acknowledged};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet};
use tokio::sync::watch;

use crate::SOON;

/// The filters of the first three include each other, and everything comes to the last as well.
const ROUTES: &str = "
- {name: one, topic: 'n/{x}', measurement: one, payload: {integer: {}}}
- {name: all, topic: 'n/{rest...}', measurement: all, payload: {integer: {}}}
- {name: exact, topic: n/a, qos: 2, measurement: exact, payload: {integer: {}}}
- {name: every, topic: '{rest...}', measurement: every, payload: {integer: {}}}
";

struct Chain {
    broker: Container,
    /// It runs while this is here.
    database: Container,
    influx: Influx,
}

impl Chain {
    async fn start() -> Result<Self> {
        let (broker, (database, influx)) = tokio::try_join!(broker(), database())?;
        Ok(Self { broker, database, influx })
    }

    fn bridge(&self, client_id: &str) -> Result<Bridge> {
        let port = self.broker.port_for(Speaks::Mqtt311);
        Bridge::between(port, self.database.port, client_id, ROUTES)
    }

    /// Publishes a number and waits for it: then what came before is stored too.
    async fn last(&self, client: &mut Client, number: i64) -> Result<()> {
        client.publish("n/a", number.to_string()).await?;
        eventually("the last number is stored", SOON, async || {
            let stored = self.influx.integers("every", "value").await?;
            Ok(if stored.contains(&number) { Probe::Found(()) } else { Probe::NotYet(format!("{stored:?}")) })
        })
        .await
    }

    async fn stored(&self, measurement: &str) -> Result<Vec<i64>> {
        let mut stored = self.influx.integers(measurement, "value").await?;
        stored.sort_unstable();
        Ok(stored)
    }
}

#[tokio::test]
async fn where_filters_include_each_other_each_route_stores_a_message_once() -> Result<()> {
    let chain = Chain::start().await?;
    let mut bridge = chain.bridge(CLIENT_ID)?;
    bridge.restart().await?;
    let message = bridge.status().await?.broker.message;
    ensure!(message == "connected in MQTT 3.1.1 and subscribed to 1 topic filters", "{message}");
    let mut client = Client::connect(chain.broker.port, "client", None).await?;
    for number in 1..=50 {
        client.publish("n/a", number.to_string()).await?;
    }
    chain.last(&mut client, 51).await?;
    for measurement in ["one", "all", "exact", "every"] {
        let stored = chain.stored(measurement).await?;
        ensure!(stored == (1..=51).collect::<Vec<_>>(), "{measurement}: {stored:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_retained_is_stored_once_however_often_the_bridge_comes_back() -> Result<()> {
    let chain = Chain::start().await?;
    let mut client = Client::connect(chain.broker.port, "client", None).await?;
    client.retain("n/retained", "7").await?;
    let mut bridge = chain.bridge(CLIENT_ID)?;
    bridge.restart().await?;
    chain.last(&mut client, 8).await?;
    bridge_is_certain(&bridge).await?;
    for number in 9..12 {
        bridge.kill().await?;
        bridge.restart().await?;
        chain.last(&mut client, number).await?;
    }
    let stored = chain.stored("one").await?;
    ensure!(stored == [7, 8, 9, 10, 11], "{stored:?}");
    Ok(())
}

/// Two pings after the subscription: until then the bridge would subscribe anew.
async fn bridge_is_certain(bridge: &Bridge) -> Result<()> {
    eventually("the subscription is certain", SOON, async || {
        let held = bridge.held_subscriptions()?;
        Ok(if held.contains("\"#\":1") || held.contains("\"#\":2") {
            Probe::Found(())
        } else {
            Probe::NotYet(held)
        })
    })
    .await
}

#[tokio::test]
async fn a_dead_letter_holds_its_reason_and_does_not_come_back() -> Result<()> {
    let chain = Chain::start().await?;
    let mut bridge = chain.bridge(CLIENT_ID)?;
    bridge.restart().await?;
    let mut letters = Client::connect(chain.broker.port, "letters", None).await?;
    letters.subscribe("iotpipeline/lab/dead-letter/#").await?;
    let mut client = Client::connect(chain.broker.port, "client", None).await?;
    client.publish("cold", "no number").await?;
    let letter = letters.message(SOON).await?;
    ensure!(letter.topic == "iotpipeline/lab/dead-letter/every", "{letter:?}");
    let envelope: serde_json::Value = serde_json::from_slice(&letter.payload)?;
    ensure!(envelope["topic"] == "cold" && envelope["payload"] == "no number", "{envelope}");
    let reason = envelope["reason"].as_str().context("no reason")?;
    ensure!(reason.contains("expects a whole number"), "{reason}");
    chain.last(&mut client, 1).await?;
    let metrics = bridge.metrics().await?;
    ensure!(metrics.contains("dead_letters_total{route=\"every\"} 1\n"), "{metrics}");
    ensure!(!metrics.contains("dead_letters_dropped_total{"), "it came back: {metrics}");
    Ok(())
}

/// What waits in one go is more than may be unacknowledged, and the broker has no bound of its own.
#[tokio::test]
async fn what_waited_while_the_database_was_away_is_stored_once() -> Result<()> {
    const MESSAGES: u64 = 30_000;
    let chain = Chain::start().await?;
    let mut bridge = chain.bridge(CLIENT_ID)?;
    bridge.restart().await?;
    let load = Load {
        port: chain.broker.port,
        login: None,
        topic: "n/a",
        numbers: 0..MESSAGES,
        payload: |number| number.to_string(),
        rate: 5_000,
        deadline: SOON * 2,
    };
    let (progress, mut seen) = watch::channel(0);
    let outage = async {
        acknowledged(&mut seen, 1_000).await?;
        chain.database.freeze().await?;
        acknowledged(&mut seen, 20_000).await?;
        bridge.kill().await?;
        bridge.spawn()?;
        acknowledged(&mut seen, 25_000).await?;
        chain.database.thaw().await
    };
    tokio::try_join!(load.publish(&progress), outage)?;
    let stored = chain.influx.all_stored("one", "value", 0..MESSAGES, SOON).await?;
    let distinct: BTreeSet<_> = stored.iter().collect();
    ensure!(stored.len() == distinct.len(), "{} are stored twice", stored.len() - distinct.len());
    Ok(())
}

#[tokio::test]
async fn a_bridge_that_is_told_to_leave_ends_its_session() -> Result<()> {
    let chain = Chain::start().await?;
    let mut bridge = chain.bridge(CLIENT_ID)?;
    bridge.share(1, 1)?;
    bridge.spawn()?;
    eventually("the bridge has left", SOON, async || {
        let status = bridge.status().await?;
        Ok(if status.left { Probe::Found(()) } else { Probe::NotYet(format!("{status:?}")) })
    })
    .await?;
    ensure!(
        !is_session_present(&chain.broker, &format!("{CLIENT_ID}_1")).await?,
        "the session is still there"
    );
    Ok(())
}

async fn is_session_present(broker: &Container, client_id: &str) -> Result<bool> {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", broker.port_for(Speaks::Mqtt311));
    options.set_clean_session(false).set_keep_alive(Duration::from_secs(10));
    let (_requests, mut events) = AsyncClient::new(options, 1);
    loop {
        if let Event::Incoming(Packet::ConnAck(answer)) = tokio::time::timeout(SOON, events.poll()).await?? {
            return Ok(answer.session_present);
        }
    }
}
