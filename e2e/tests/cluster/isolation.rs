//! Two pipelines of one name, in two namespaces.

use anyhow::ensure;
use iotpipeline_e2e::mqtt::{Client, try_connect};
use iotpipeline_e2e::namespaces::with_namespaces;
use iotpipeline_e2e::pipeline::Pipeline;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason};

use crate::{NUMBERS, SOON, numbered};

#[tokio::test]
async fn pipelines_in_two_namespaces_do_not_see_each_other_s_data_or_users() {
    with_namespaces(["here", "there"], async |[here, there]| {
        let (here, there) =
            tokio::try_join!(Pipeline::ready(&here, NUMBERS), Pipeline::ready(&there, NUMBERS))?;
        let (here_password, there_password) =
            (here.password("sensor").await?, there.password("sensor").await?);
        ensure!(here_password != there_password, "one password for both");
        for (pipeline, password, wrong, number) in
            [(&here, &here_password, &there_password, 1), (&there, &there_password, &here_password, 2)]
        {
            let broker = pipeline.broker().await?;
            let answer = try_connect(broker.port, Some(("sensor", wrong))).await?;
            ensure!(answer != ConnectReturnCode::Success, "the other's password is admitted");
            let mut client = Client::connect(broker.port, "sensor", Some(("sensor", password))).await?;
            ensure!(client.publish("load/numbers", numbered(number)).await? == PubAckReason::Success);
        }
        for (pipeline, number) in [(&here, 1), (&there, 2)] {
            let (_forward, influx) = pipeline.database().await?;
            influx.at_least("numbers", 1, SOON).await?;
            let stored = influx.integers("numbers", "n").await?;
            ensure!(stored == [number], "{}: {stored:?}", pipeline.namespace.name);
        }
        Ok(())
    })
    .await;
}
