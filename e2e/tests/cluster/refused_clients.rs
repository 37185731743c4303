//! Who is not admitted, and what those who are may not do.

use anyhow::{Result, ensure};
use iotpipeline_e2e::mqtt::{Client, Login, try_connect};
use iotpipeline_e2e::namespaces::with_namespace;
use iotpipeline_e2e::pipeline::Pipeline;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason};

use crate::SOON;

const USERS: &str = "
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {name: doors}
spec:
  broker:
    users:
    - {name: sensor, publish: [sensor/#]}
    - {name: writer, publish: [shown/#, hidden/#]}
    - {name: reader, subscribe: [shown/#]}
  routes:
  - {name: sensors, topic: 'sensor/{name}', payload: {float: {}}}
";

#[tokio::test]
async fn strangers_are_refused_and_users_keep_to_their_rights() {
    with_namespace("doors", async |namespace| {
        let doors = Pipeline::ready(&namespace, USERS).await?;
        let broker = doors.broker().await?;
        only_the_right_password_opens(&doors, broker.port).await?;
        publishing_outside_one_s_rights_is_refused(&doors, broker.port).await?;
        reading_outside_one_s_rights_yields_nothing(&doors, broker.port).await
    })
    .await;
}

async fn only_the_right_password_opens(doors: &Pipeline, port: u16) -> Result<()> {
    let password = doors.password("sensor").await?;
    let strangers: [Login<'_>; 4] =
        [None, Some(("sensor", "wrong")), Some(("sensor", "")), Some(("nobody", &password))];
    for stranger in strangers {
        let answer = try_connect(port, stranger).await?;
        let refused =
            matches!(answer, ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword);
        ensure!(refused, "{:?} was answered {answer:?}", stranger.map(|(user, _)| user));
    }
    ensure!(try_connect(port, Some(("sensor", &password))).await? == ConnectReturnCode::Success);
    Ok(())
}

async fn publishing_outside_one_s_rights_is_refused(doors: &Pipeline, port: u16) -> Result<()> {
    let password = doors.password("sensor").await?;
    let mut sensor = Client::connect(port, "sensor", Some(("sensor", &password))).await?;
    ensure!(sensor.publish("sensor/a", "1").await? == PubAckReason::Success);
    for forbidden in ["other/a", "sensors", "iotpipeline/doors/dead-letter/sensors"] {
        let answer = sensor.publish(forbidden, "1").await?;
        ensure!(answer == PubAckReason::NotAuthorized, "{forbidden}: {answer:?}");
    }
    Ok(())
}

async fn reading_outside_one_s_rights_yields_nothing(doors: &Pipeline, port: u16) -> Result<()> {
    let password = doors.password("reader").await?;
    let mut reader = Client::connect(port, "reader", Some(("reader", &password))).await?;
    reader.subscribe("#").await?;
    let password = doors.password("writer").await?;
    let mut writer = Client::connect(port, "writer", Some(("writer", &password))).await?;
    writer.publish("hidden/a", "secret").await?;
    writer.publish("shown/a", "public").await?;
    // The broker delivers in order: had the reader a right to the first, it would come first.
    let message = reader.message(SOON).await?;
    ensure!(message.topic == "shown/a", "{message:?}");
    Ok(())
}
