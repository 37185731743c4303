//! What can't be stored goes to the dead-letter topic; what can is stored nevertheless.

use anyhow::ensure;
use iotpipeline_e2e::mqtt::Client;
use rumqttc::v5::mqttbytes::v5::{PubAckReason, Publish};

use crate::{SOON, with_chain};

const ROUTES: &str = "
- {name: floats, topic: 'float/{place}', payload: {float: {}}}
- {name: integers, topic: 'integer/{place}', payload: {integer: {}}}
- {name: objects, topic: 'json/{place}', payload: {json: {fields: [{path: v, type: float}]}}}
- {name: strings, topic: 'string/{place}', payload: {string: {}}}
";

#[tokio::test]
async fn what_can_not_be_decoded_goes_to_the_dead_letter_topic_with_its_reason() {
    with_chain(ROUTES, async |chain| {
        let mut letters = Client::connect(chain.broker.port, "letters", None).await?;
        letters.subscribe("iotpipeline/lab/dead-letter/#").await?;
        let mut client = Client::connect(chain.broker.port, "client", None).await?;
        let bad: [(&str, &str, &[u8]); 7] = [
            ("floats", "float/a", b"warm"),
            ("floats", "float/a", b"NaN"),
            ("floats", "float/a", b""),
            ("integers", "integer/a", b"1.5"),
            ("objects", "json/a", b"{\"v\": \"1\"}"),
            ("objects", "json/a", b"{\"v\": 1"),
            ("strings", "string/a", b"\xff\xfe"),
        ];
        for (route, topic, payload) in bad {
            ensure!(client.publish(topic, payload).await? == PubAckReason::Success, "{topic}");
            let letter = letters.message(SOON).await?;
            ensure!(letter.topic == format!("iotpipeline/lab/dead-letter/{route}"), "{letter:?}");
            ensure!(letter.payload == payload, "{letter:?}");
            ensure!(!reason(&letter).is_empty(), "no reason: {letter:?}");
        }
        ensure!(client.publish("float/a", "1").await? == PubAckReason::Success);
        let records = chain.influx.at_least("floats", 1, SOON).await?;
        ensure!(records.len() == 1, "{records:?}");
        ensure!(chain.bridge.status().await?.ready(), "bad messages made the bridge unready");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_type_conflict_dead_letters_only_the_culprits() {
    with_chain(ROUTES, async |chain| {
        // The field holds a string already, so the database refuses integers in it.
        chain.influx.write("integers,place=b value=\"text\"").await?;
        let mut letters = Client::connect(chain.broker.port, "letters", None).await?;
        letters.subscribe("iotpipeline/lab/dead-letter/#").await?;
        let mut client = Client::connect(chain.broker.port, "client", None).await?;
        for number in 0..20 {
            let (float, integer) = (format!("float/{number}"), format!("integer/{number}"));
            ensure!(client.publish(&float, number.to_string()).await? == PubAckReason::Success);
            ensure!(client.publish(&integer, number.to_string()).await? == PubAckReason::Success);
        }
        let records = chain.influx.at_least("floats", 20, SOON).await?;
        ensure!(records.len() == 20, "{records:?}");
        let mut refused = Vec::new();
        for _ in 0..20 {
            let letter = letters.message(SOON).await?;
            ensure!(letter.topic == "iotpipeline/lab/dead-letter/integers", "{letter:?}");
            ensure!(reason(&letter).contains("type conflict"), "{letter:?}");
            refused.push(String::from_utf8(letter.payload.to_vec())?.parse::<u32>()?);
        }
        refused.sort_unstable();
        ensure!(refused == (0..20).collect::<Vec<_>>(), "{refused:?}");
        Ok(())
    })
    .await;
}

/// The user properties of a dead letter in one text.
fn reason(letter: &Publish) -> String {
    let properties = letter.properties.iter().flat_map(|properties| properties.user_properties.iter());
    properties.filter(|(name, _)| name == "reason").map(|(_, value)| value.as_str()).collect()
}
