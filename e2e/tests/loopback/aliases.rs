//! A publisher that names its topics once, and then by numbers.

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::influx::{Value, text};
use iotpipeline_e2e::mqtt::options;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop};

use crate::{SOON, with_chain};

/// Topics, none of them where it was told before, and their numbers; the third takes the number of the first.
const MESSAGES: [(&str, u16, &str); 6] = [
    ("alias/attic", 1, "attic"),
    ("alias/hall", 2, "hall"),
    ("", 1, "attic"),
    ("", 2, "hall"),
    ("alias/cellar", 1, "cellar"),
    ("", 1, "cellar"),
];

#[tokio::test]
async fn messages_by_topic_alias_are_stored_under_the_topics_that_they_stand_for() {
    with_chain("- {name: rooms, topic: 'alias/{room}', payload: {integer: {}}}\n", async |chain| {
        let (requests, mut events) = AsyncClient::new(options(chain.broker.port, "aliases", None), 16);
        for (number, (topic, alias, _)) in (1..).zip(MESSAGES) {
            let properties = PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
            let payload = i64::to_string(&number);
            requests.publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties).await?;
        }
        for _ in MESSAGES {
            acknowledged(&mut events).await?;
        }
        let records = chain.influx.at_least("rooms", MESSAGES.len(), SOON).await?;
        ensure!(records.len() == MESSAGES.len(), "{records:?}");
        for (number, (.., room)) in (1..).zip(MESSAGES) {
            let is_it = |value: Option<&Value>| value == Some(&Value::Long(number));
            let record = records.iter().find(|record| is_it(record.values.get("_value")));
            ensure!(text(record.context(number)?, "room") == room, "{number}: {records:?}");
        }
        Ok(())
    })
    .await;
}

/// Waits until the next message is acknowledged.
async fn acknowledged(events: &mut EventLoop) -> Result<()> {
    loop {
        let event = tokio::time::timeout(SOON, events.poll()).await.context("no answer to PUBLISH")??;
        if let Event::Incoming(Packet::PubAck(answer)) = event {
            ensure!(answer.reason == PubAckReason::Success, "{answer:?}");
            return Ok(());
        }
    }
}
