//! The ways to an external broker, through a real one: WebSocket, TLS with an authority of its own, and a
//! client's certificate.

use std::ops::Range;

use anyhow::{Result, ensure};
use iotpipeline_e2e::bridge_process::{Bridge, CLIENT_ID};
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::containers::{Container, admits_clients, database};
use iotpipeline_e2e::doors::{Authority, Doors, USER};
use iotpipeline_e2e::influx::Influx;
use iotpipeline_e2e::mqtt::Client;
use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::SOON;

/// What anybody may read, and what the user of the certificate may.
const ROUTES: &str = "
- {name: open, topic: open/numbers, payload: {integer: {}}}
- {name: plant, topic: plant/numbers, payload: {integer: {}}}
";

struct Chain {
    doors: Doors,
    /// It runs while this is here.
    database: Container,
    influx: Influx,
}

impl Chain {
    async fn start() -> Result<Self> {
        let (doors, (database, influx)) = tokio::try_join!(Doors::open(), database())?;
        Ok(Self { doors, database, influx })
    }

    fn bridge(
        &self,
        url: String,
        authority: Option<&Authority>,
        own: Option<&(String, String)>,
    ) -> Result<Bridge> {
        let mut bridge = Bridge::between(self.doors.broker.port, self.database.port, CLIENT_ID, ROUTES)?;
        let authority = authority.map(|authority| authority.certificate.as_str());
        bridge.set_door(
            url,
            authority,
            own.map(|(certificate, key)| (certificate.as_str(), key.as_str())),
        )?;
        Ok(bridge)
    }

    /// Numbers, published by a client without a name, by the plainest of the doors.
    async fn publish(&self, topic: &str, numbers: Range<i64>) -> Result<()> {
        let mut client = Client::connect(self.doors.broker.port, "client", None).await?;
        for number in numbers {
            ensure!(client.publish(topic, number.to_string()).await? == PubAckReason::Success);
        }
        Ok(())
    }

    async fn are_stored(&self, measurement: &str, numbers: Range<i64>) -> Result<()> {
        eventually("all numbers are stored once", SOON, async || {
            let mut stored = self.influx.integers(measurement, "value").await?;
            stored.sort_unstable();
            let is_it = stored.iter().copied().eq(numbers.clone());
            Ok(if is_it { Probe::Found(()) } else { Probe::NotYet(format!("{stored:?}")) })
        })
        .await
    }
}

/// Waits until the bridge says that its broker is away, in these words.
async fn refused(bridge: &mut Bridge, words: &str) -> Result<()> {
    bridge.spawn()?;
    eventually(format!("the bridge says {words:?}"), SOON, async || {
        let broker = bridge.status().await?.broker;
        let is_said = !broker.ready && broker.message.contains(words);
        Ok(if is_said { Probe::Found(()) } else { Probe::NotYet(format!("{broker:?}")) })
    })
    .await
}

#[tokio::test]
async fn by_websocket_what_is_published_is_stored_once_also_when_the_bridge_or_the_broker_restarts()
-> Result<()> {
    let chain = Chain::start().await?;
    // mosquitto answers at any path.
    let mut bridge = chain.bridge(format!("ws://127.0.0.1:{}/mqtt", chain.doors.ws), None, None)?;
    bridge.restart().await?;
    chain.publish("open/numbers", 0..200).await?;
    chain.are_stored("open", 0..200).await?;
    bridge.kill().await?;
    chain.publish("open/numbers", 200..300).await?;
    bridge.restart().await?;
    chain.are_stored("open", 0..300).await?;
    chain.doors.broker.kill().await?;
    chain.doors.broker.start().await?;
    admits_clients(&chain.doors.broker).await?;
    chain.publish("open/numbers", 300..400).await?;
    chain.are_stored("open", 0..400).await
}

#[tokio::test]
async fn by_websocket_over_tls_a_broker_is_known_by_the_authority_that_is_given_and_by_no_other() -> Result<()>
{
    let chain = Chain::start().await?;
    let url = format!("wss://127.0.0.1:{}", chain.doors.wss);
    let mut stranger = chain.bridge(url.clone(), Some(&Authority::new()?), None)?;
    refused(&mut stranger, "invalid peer certificate").await?;
    stranger.kill().await?;
    let mut bridge = chain.bridge(url, Some(&chain.doors.authority), None)?;
    bridge.restart().await?;
    chain.publish("open/numbers", 0..300).await?;
    chain.are_stored("open", 0..300).await
}

#[tokio::test]
async fn with_a_client_s_certificate_the_bridge_is_its_user_and_without_one_it_is_told_what_is_missing()
-> Result<()> {
    let chain = Chain::start().await?;
    let url = format!("mqtts://127.0.0.1:{}", chain.doors.mqtts);
    let authority = &chain.doors.authority;
    let mut none = chain.bridge(url.clone(), Some(authority), None)?;
    refused(&mut none, "it wants a client certificate").await?;
    none.kill().await?;
    let mut unknown = chain.bridge(url.clone(), Some(authority), Some(&Authority::new()?.sign(USER)?))?;
    refused(&mut unknown, "client certificate").await?;
    unknown.kill().await?;
    let mut elsewhere = chain.bridge(url.clone(), Some(&Authority::new()?), Some(&authority.sign(USER)?))?;
    refused(&mut elsewhere, "invalid peer certificate").await?;
    elsewhere.kill().await?;

    let mut bridge = chain.bridge(url, Some(authority), Some(&authority.sign(USER)?))?;
    bridge.restart().await?;
    // Only this user may read it: who the bridge is to the broker is what its certificate says.
    chain.publish("plant/numbers", 0..300).await?;
    chain.are_stored("plant", 0..300).await?;
    bridge.kill().await?;
    let mut nobody = chain.bridge(format!("ws://127.0.0.1:{}", chain.doors.ws), None, None)?;
    nobody.restart().await?;
    chain.publish("plant/numbers", 300..310).await?;
    chain.publish("open/numbers", 0..1).await?;
    chain.are_stored("open", 0..1).await?;
    chain.are_stored("plant", 0..300).await
}
