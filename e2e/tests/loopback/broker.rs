//! What the bridge builds upon, without the bridge: a broker killed by SIGKILL still has what it
//! acknowledged to the publisher, but for its last pass (see `publisher`). With the persistence
//! plugin's own flush period of 5 s it would lose seconds.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::bridge_process::Bridge;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::containers::{Container, admits_clients, broker, broker_that_queues, database};
use iotpipeline_e2e::mqtt::{Client, options};
use iotpipeline_e2e::publisher::{Load, acknowledged};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::sync::watch;

use crate::{NUMBERS, SOON};

const MESSAGES: u64 = 8_000;
const LAST: &str = "last";

#[tokio::test]
async fn a_killed_broker_keeps_for_an_absent_client_what_it_acknowledged_before_its_last_moment() -> Result<()>
{
    let broker = broker().await?;
    let (progress, mut seen) = watch::channel(0);
    let load = Load {
        port: broker.port,
        login: None,
        topic: "load/numbers",
        numbers: 0..MESSAGES,
        payload: |number| number.to_string(),
        rate: 2_000,
        deadline: SOON,
    };
    begin_session(broker.port).await?;
    let kills = async {
        for count in [1_500, 3_000, 4_500, 6_000] {
            acknowledged(&mut seen, count).await?;
            kill_and_start(&broker).await?;
        }
        Ok(())
    };
    let (account, ()) = tokio::try_join!(load.publish(&progress), kills)?;
    Client::connect(broker.port, "last", None).await?.publish("load/numbers", LAST).await?;
    let received = receive_until_last(broker.port).await?;
    let lost: Vec<u64> = (0..MESSAGES).filter(|number| !received.contains(number)).collect();
    println!("{} lost of {} that were acknowledged as the broker died", lost.len(), account.unsettled.len());
    let settled: Vec<&u64> = lost.iter().filter(|number| !account.unsettled.contains(number)).collect();
    ensure!(settled.is_empty(), "lost: {settled:?}; {account:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_broker_drops_above_its_bound_is_counted_and_told_of_by_the_bridge() -> Result<()> {
    const QUEUE: u64 = 20_000;
    let (broker, (database, _influx)) = tokio::try_join!(broker_that_queues(QUEUE), database())?;
    let mut bridge = Bridge::start(&broker, &database, NUMBERS).await?;
    bridge.hear_of_drops()?;
    bridge.restart().await?;
    let status = bridge.status().await?;
    ensure!(status.crossing.is_none(), "{status:?}");
    // Waits, and is not the bridge: also such a one loses what is acknowledged to who published it.
    begin_session(broker.port).await?;
    let mut client = Client::connect(broker.port, "load", None).await?;
    for number in 0..200 {
        client.publish("load/numbers", format!("{number:1000}")).await?;
    }
    let told = eventually("the drops are told of", SOON, async || {
        let status = bridge.status().await?;
        Ok(match status.crossing {
            Some(side) if side.reason == "BrokerDropped" => Probe::Found(side),
            other => Probe::NotYet(format!("{other:?}")),
        })
    })
    .await?;
    ensure!(told.ready && told.message.contains("broker.queue"), "{told:?}");
    // The broker tells of them every 3 s, and may first have done so in the middle of it.
    eventually("all are counted that don't fit: of 200, some 20 do", SOON, async || {
        let metrics = bridge.metrics().await?;
        let name = "iotpipeline_bridge_broker_messages_dropped ";
        let dropped: u64 = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.parse().ok())
            .context("the metric is there")?;
        let is_all = (150..=190).contains(&dropped);
        Ok(if is_all { Probe::Found(()) } else { Probe::NotYet(format!("{dropped} dropped")) })
    })
    .await
}

async fn kill_and_start(broker: &Container) -> Result<()> {
    broker.kill().await?;
    broker.start().await?;
    admits_clients(broker).await
}

/// A client whose session the broker keeps.
fn client(port: u16) -> (AsyncClient, EventLoop) {
    let mut options = options(port, "e2e-session", None);
    options.set_clean_start(false).set_session_expiry_interval(Some(3_600)).set_receive_maximum(Some(1_000));
    AsyncClient::new(options, 16)
}

async fn begin_session(port: u16) -> Result<()> {
    let (requests, mut events) = client(port);
    requests.subscribe("load/numbers", QoS::AtLeastOnce).await?;
    loop {
        if let Event::Incoming(Packet::SubAck(_)) = tokio::time::timeout(SOON, events.poll()).await?? {
            return Ok(());
        }
    }
}

/// Receives in the session until the last message comes.
async fn receive_until_last(port: u16) -> Result<BTreeSet<u64>> {
    let mut received = BTreeSet::new();
    let (_requests, mut events) = client(port);
    loop {
        let event =
            tokio::time::timeout(SOON, events.poll()).await.context("the last message never came")??;
        let Event::Incoming(Packet::Publish(message)) = event else { continue };
        if message.payload == LAST {
            return Ok(received);
        }
        received.insert(std::str::from_utf8(&message.payload)?.parse()?);
    }
}
