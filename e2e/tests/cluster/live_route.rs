//! A route added to a live pipeline.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use iotpipeline_e2e::influx::Influx;
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::namespaces::with_namespace_alone;
use iotpipeline_e2e::pipeline::Pipeline;
use iotpipeline_e2e::publisher::{Load, acknowledged};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::sync::watch;

use crate::{NUMBERS, SOON, numbered};

const LATE: &str = "  - {name: late, topic: 'late/{room}', payload: {integer: {}}}\n";
const MESSAGES: u64 = 6_000;
/// How often something is published, and looked for.
const LOOKS: Duration = Duration::from_millis(20);
/// From `kubectl apply` to the first stored point.
const BAR: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_route_added_to_a_live_pipeline_has_its_first_point_stored_within_2_s_and_loses_nothing() {
    with_namespace_alone("route", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        let broker = pipeline.broker().await?;
        let password = pipeline.password("sensor").await?;
        let login = Some(("sensor", password.as_str()));
        let before = pipeline.incarnations().await?;

        let (progress, mut seen) = watch::channel(0);
        let load = Load {
            port: broker.port,
            login,
            topic: "load/numbers",
            numbers: 0..MESSAGES,
            payload: numbered,
            rate: 800,
            deadline: SOON,
        };
        let change = async {
            acknowledged(&mut seen, 1_000).await?;
            let mut client = Client::connect(broker.port, "late", login).await?;
            let took = take_effect(&pipeline, &mut client).await?;
            println!("the new route's first point was stored {took:?} after the change was sent");
            ensure!(took <= BAR, "the new route's first point was stored after {took:?} only");
            Ok(())
        };
        let (account, ()) = tokio::try_join!(load.publish(&progress), change)?;
        ensure!(account.connections == 1, "the publisher was disconnected: {account:?}");
        ensure!(account.without_subscriber == 0, "the bridge had unsubscribed: {account:?}");

        let (_forward, influx) = pipeline.database().await?;
        influx.all_stored("numbers", "n", 0..MESSAGES, SOON).await?;
        ensure!(pipeline.incarnations().await? == before, "a pod was restarted");
        pipeline.becomes_ready().await
    })
    .await;
}

/// Adds the route while its topic is published to: from the first message on that the broker has a
/// subscriber for, all must be stored. Returns how long after the change was sent the first point was there.
async fn take_effect(pipeline: &Pipeline, client: &mut Client) -> Result<Duration> {
    ensure!(client.publish("late/x", "-1").await? == PubAckReason::NoMatchingSubscribers);
    let (_forward, influx) = pipeline.database().await?;
    let yaml = format!("{}{LATE}", NUMBERS.trim_start());
    let begun = Instant::now();
    let (_, (first, sent), took) = tokio::try_join!(
        Pipeline::apply(&pipeline.namespace, &yaml),
        publish(client, begun),
        first_stored(&influx, begun),
    )?;
    influx.all_stored("late", "value", first..sent, SOON).await?;
    Ok(took)
}

/// Publishes numbers until a hundred had a subscriber; the first of those, and how many there are in all.
async fn publish(client: &mut Client, begun: Instant) -> Result<(u64, u64)> {
    let mut pace = tokio::time::interval(LOOKS);
    let (mut sent, mut first) = (0_u64, None);
    let mut rest = 100;
    while rest > 0 && begun.elapsed() < SOON {
        pace.tick().await;
        if client.publish("late/x", sent.to_string()).await? != PubAckReason::NoMatchingSubscribers {
            if first.is_none() {
                println!("the first message with a subscriber was acknowledged after {:?}", begun.elapsed());
            }
            first.get_or_insert(sent);
            rest -= 1;
        }
        sent += 1;
    }
    Ok((first.context("the bridge has not subscribed to the new route's filter")?, sent))
}

/// When a point of the new route is seen first.
async fn first_stored(influx: &Influx, begun: Instant) -> Result<Duration> {
    let mut pace = tokio::time::interval(LOOKS);
    while begun.elapsed() < SOON {
        pace.tick().await;
        if !influx.points("late").await?.is_empty() {
            return Ok(begun.elapsed());
        }
    }
    bail!("no point of the new route is stored within {SOON:?}")
}
