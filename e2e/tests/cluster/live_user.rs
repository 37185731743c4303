//! Users that come and go while the broker runs.

use std::time::{Duration, Instant};

use anyhow::ensure;
use iotpipeline_e2e::conditions::{Probe, eventually, eventually_true};
use iotpipeline_e2e::mqtt::{Client, try_connect};
use iotpipeline_e2e::namespaces::with_namespace_alone;
use iotpipeline_e2e::pipeline::Pipeline;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason};

use crate::{NUMBERS, SOON};

const GUEST: &str = "    - {name: guest, publish: [guest/#]}\n";

fn with_guest() -> String {
    NUMBERS.replace("  database:", &format!("{GUEST}  database:"))
}

#[tokio::test]
async fn a_user_comes_and_goes_without_a_restart_of_the_broker() {
    with_namespace_alone("user", async |namespace| {
        let pipeline = Pipeline::ready(&namespace, NUMBERS).await?;
        let broker = pipeline.broker().await?;
        let before = pipeline.incarnations().await?;
        let password = pipeline.password("sensor").await?;
        let mut sensor = Client::connect(broker.port, "sensor", Some(("sensor", &password))).await?;

        Pipeline::apply(&namespace, &with_guest()).await?;
        let applied = Instant::now();
        let password = eventually("the guest has a password", SOON, async || {
            Ok(Probe::Found(pipeline.password("guest").await?))
        })
        .await?;
        let guest = Some(("guest", password.as_str()));
        eventually_true("the guest is admitted", SOON, async || {
            Ok(try_connect(broker.port, guest).await? == ConnectReturnCode::Success)
        })
        .await?;
        println!("the guest was admitted after {:?}", applied.elapsed());
        ensure!(applied.elapsed() < Duration::from_secs(10), "it took {:?}", applied.elapsed());
        let mut client = Client::connect(broker.port, "guest", guest).await?;
        ensure!(client.publish("guest/a", "1").await? != PubAckReason::NotAuthorized);
        ensure!(client.publish("load/a", "1").await? == PubAckReason::NotAuthorized);

        Pipeline::apply(&namespace, NUMBERS).await?;
        eventually_true("the guest is refused", SOON, async || {
            Ok(try_connect(broker.port, guest).await? != ConnectReturnCode::Success)
        })
        .await?;
        eventually_true("the guest is disconnected", SOON, async || Ok(!client.is_connected())).await?;

        ensure!(
            sensor.publish("load/a", "{}").await? != PubAckReason::NotAuthorized,
            "the sensor lost its right"
        );
        ensure!(pipeline.incarnations().await? == before, "a pod was restarted");
        Ok(())
    })
    .await;
}
