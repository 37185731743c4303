//! Users that come and go while the broker runs.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use iotpipeline_e2e::conditions::eventually_true;
use iotpipeline_e2e::mqtt::{Client, try_connect};
use iotpipeline_e2e::namespaces::{Namespace, with_namespace_alone};
use iotpipeline_e2e::pipeline::Pipeline;
use iotpipeline_e2e::port_forward::Forward;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason};

use crate::{NUMBERS, SOON};

const GUEST: &str = "    - {name: guest, publish: [guest/#]}\n";
const GUEST_WITH_MORE: &str = "    - {name: guest, publish: [guest/#, more/#]}\n";

/// Users who come with a certificate.
const PRESS: &str = "    - {name: press, certificate: {}, publish: [press/#]}\n";
const LATHE: &str = "    - {name: lathe, certificate: {}, publish: [lathe/#]}\n";

/// As for a route, measured alone.
const LIMIT: Duration = Duration::from_secs(2);

fn with(user: &str) -> String {
    NUMBERS.replace("  database:", &format!("{user}  database:"))
}

/// Applies the pipeline, and waits until it has this effect.
async fn takes_effect(
    namespace: &Namespace,
    pipeline: &str,
    effect: &str,
    probe: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    Pipeline::apply(namespace, pipeline).await?;
    let applied = Instant::now();
    eventually_true(effect, SOON, probe).await?;
    println!("{effect} after {:?}", applied.elapsed());
    ensure!(applied.elapsed() <= LIMIT, "{effect} after {:?}", applied.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_user_comes_gets_another_right_and_goes_within_2_s_each_and_no_other_is_disconnected() {
    with_namespace_alone("user", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        let broker = pipeline.broker().await?;
        let before = pipeline.incarnations().await?;
        let password = pipeline.password("sensor").await?;
        let mut sensor = Client::connect(broker.port, "sensor", Some(("sensor", &password))).await?;

        takes_effect(&namespace, &with(GUEST), "the guest is admitted", async || {
            let password = pipeline.password("guest").await?;
            Ok(try_connect(broker.port, Some(("guest", &password))).await? == ConnectReturnCode::Success)
        })
        .await?;
        let password = pipeline.password("guest").await?;
        let guest = Some(("guest", password.as_str()));
        let mut client = Client::connect(broker.port, "guest", guest).await?;
        ensure!(client.publish("guest/a", "1").await? != PubAckReason::NotAuthorized);
        ensure!(client.publish("more/a", "1").await? == PubAckReason::NotAuthorized);

        takes_effect(&namespace, &with(GUEST_WITH_MORE), "the guest may do more", async || {
            Ok(client.publish("more/a", "1").await? != PubAckReason::NotAuthorized)
        })
        .await?;
        takes_effect(&namespace, &with(GUEST), "the guest may do less", async || {
            Ok(client.publish("more/a", "1").await? == PubAckReason::NotAuthorized)
        })
        .await?;
        ensure!(client.is_connected(), "the guest was disconnected by a change of its rights");

        takes_effect(&namespace, NUMBERS, "the guest is refused", async || {
            Ok(try_connect(broker.port, guest).await? != ConnectReturnCode::Success)
        })
        .await?;
        eventually_true("the guest is disconnected", LIMIT, async || Ok(!client.is_connected())).await?;

        let (_door, mut press) = certified_user(&namespace, &pipeline).await?;
        ensure!(sensor.is_connected(), "the sensor was disconnected");
        ensure!(
            sensor.publish("load/a", "{}").await? != PubAckReason::NotAuthorized,
            "the sensor lost its right"
        );
        takes_effect(&namespace, NUMBERS, "the press may do nothing more", async || {
            Ok(press.publish("press/a", "1").await? == PubAckReason::NotAuthorized)
        })
        .await?;
        ensure!(pipeline.incarnations().await? == before, "a pod was restarted");
        Ok(())
    })
    .await;
}

/// The first user with a certificate comes, and another comes and goes beside it.
async fn certified_user(namespace: &Namespace, pipeline: &Pipeline) -> Result<(Forward, Client)> {
    takes_effect(namespace, &with(PRESS), "a user with a certificate may publish", async || {
        may_publish(pipeline, "press").await
    })
    .await?;
    let door = pipeline.broker_as("press").await?;
    let mut press = Client::connect(door.port, "holds", None).await?;
    ensure!(press.publish("press/a", "1").await? != PubAckReason::NotAuthorized);

    takes_effect(namespace, &with(&format!("{PRESS}{LATHE}")), "another one may publish", async || {
        may_publish(pipeline, "lathe").await
    })
    .await?;
    let other_door = pipeline.broker_as("lathe").await?;
    let mut lathe = Client::connect(other_door.port, "goes", None).await?;
    takes_effect(namespace, &with(PRESS), "it may do nothing more", async || {
        Ok(lathe.publish("lathe/a", "1").await? == PubAckReason::NotAuthorized)
    })
    .await?;
    ensure!(press.is_connected(), "the press was disconnected");
    ensure!(press.publish("press/a", "1").await? != PubAckReason::NotAuthorized, "the press lost its right");
    Ok((door, press))
}

async fn may_publish(pipeline: &Pipeline, user: &str) -> Result<bool> {
    let door = pipeline.broker_as(user).await?;
    let mut client = Client::connect(door.port, user, None).await?;
    Ok(client.publish(&format!("{user}/a"), "1").await? != PubAckReason::NotAuthorized)
}
