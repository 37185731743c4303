//! Every payload format, as it is stored.

use anyhow::{Context, Result, ensure};
use influxdb2::api::query::FluxRecord;
use iotpipeline_e2e::influx::{Value, text};
use iotpipeline_e2e::mqtt::Client;
use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::{Chain, SOON, with_chain};

const ROUTES: &str = "
- {name: floats, topic: 'float/{place}', measurement: numbers, payload: {float: {}}}
- {name: integers, topic: 'integer/{place}', payload: {integer: {field: count}}}
- {name: booleans, topic: 'boolean/{place}', payload: {boolean: {}}}
- {name: strings, topic: 'string/{place...}', payload: {string: {field: text}}}
- name: objects
  topic: json/{place}
  payload:
    json:
      timestamp: {path: at, unit: rfc3339}
      fields:
      - {path: temperature, type: float}
      - {path: battery.percent, name: battery, type: integer}
      - {path: open, type: boolean, optional: true}
      - {path: note, type: string, optional: true}
      tags:
      - {path: unit}
- name: lists
  topic: list/{place}
  payload: {json: {each: '*', fields: [{path: v, type: float, scale: 0.1}]}}
- name: maps
  topic: map/{place}
  payload: {cbor: {each: 'rooms.{room}', fields: [{path: '@', name: celsius, type: float}]}}
- {name: plant, topic: 'spBv1.0/{place}/+/{node}/{device...}', payload: {sparkplug: {}}}
- {name: lines, topic: 'lines/{place}', tags: [{name: site, value: lab}], payload: {lineProtocol: {precision: s}}}
";

/// A topic, a payload, and what is stored of it: measurement, tag `place`, field and value.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str, Value);

fn cases() -> Vec<Case> {
    let float = |number: f64| Value::Double(number.into());
    let string = |text: &str| Value::String(text.into());
    vec![
        ("float/a", "341.7", "numbers", "a", "value", float(341.7)),
        ("float/b", "360", "numbers", "b", "value", float(360.0)),
        ("float/c", "-1.5e-3", "numbers", "c", "value", float(-0.0015)),
        ("integer/a", "-42", "integers", "a", "count", Value::Long(-42)),
        ("integer/b", "9223372036854775807", "integers", "b", "count", Value::Long(i64::MAX)),
        ("boolean/a", "ON", "booleans", "a", "value", Value::Bool(true)),
        ("boolean/b", "0", "booleans", "b", "value", Value::Bool(false)),
        ("string/a/b", "say \"hi\", \\o/", "strings", "a/b", "text", string("say \"hi\", \\o/")),
        ("string/ü", "zwölf", "strings", "ü", "text", string("zwölf")),
    ]
}

#[tokio::test]
async fn every_format_is_stored_with_the_type_it_declares() {
    with_chain(ROUTES, async |chain| {
        let mut client = Client::connect(chain.broker.port, "formats", None).await?;
        for (topic, payload, ..) in cases() {
            ensure!(client.publish(topic, payload).await? == PubAckReason::Success, "{topic}");
        }
        for (topic, _, measurement, place, field, value) in cases() {
            let count = cases().iter().filter(|case| case.2 == measurement).count();
            let records = chain.influx.at_least(measurement, count, SOON).await?;
            ensure!(records.len() == count, "{measurement}: {records:?}");
            let record = records.iter().find(|record| text(record, "place") == place).context(topic)?;
            ensure!(text(record, "_field") == field, "{topic}: {record:?}");
            ensure!(record.values.get("_value") == Some(&value), "{topic}: {record:?}");
        }
        json_is_stored_field_by_field(chain, &mut client).await?;
        the_points_of_one_message_stay_apart(chain, &mut client).await?;
        keys_of_cbor_become_tags(chain, &mut client).await?;
        lines_are_passed_with_the_route_s_tags(chain, &mut client).await?;
        a_sparkplug_node_is_asked_for_its_birth_and_then_understood(chain, &mut client).await
    })
    .await;
}

/// They have one series and no time of their own.
async fn the_points_of_one_message_stay_apart(chain: &Chain, client: &mut Client) -> Result<()> {
    let payload = r#"[{"v": 1}, {"v": 2}, {"v": 3}]"#;
    ensure!(client.publish("list/attic", payload).await? == PubAckReason::Success);
    let records = chain.influx.at_least("lists", 3, SOON).await?;
    for (record, value) in records.iter().zip([0.1_f64, 0.2, 0.3]) {
        ensure!(record.values.get("_value") == Some(&Value::Double(value.into())), "{records:?}");
    }
    ensure!(records.len() == 3, "{records:?}");
    Ok(())
}

async fn keys_of_cbor_become_tags(chain: &Chain, client: &mut Client) -> Result<()> {
    // {"rooms": {"hall": 18.5, "attic": 21}}
    let payload = b"\xa1\x65rooms\xa2\x64hall\xf9\x4c\xa0\x65attic\x15";
    ensure!(client.publish("map/home", payload.to_vec()).await? == PubAckReason::Success);
    let records = chain.influx.at_least("maps", 2, SOON).await?;
    for (room, value) in [("hall", 18.5_f64), ("attic", 21.0)] {
        let record = records.iter().find(|record| text(record, "room") == room).context(room)?;
        ensure!(record.values.get("_value") == Some(&Value::Double(value.into())), "{record:?}");
    }
    Ok(())
}

async fn a_sparkplug_node_is_asked_for_its_birth_and_then_understood(
    chain: &Chain,
    client: &mut Client,
) -> Result<()> {
    client.subscribe("spBv1.0/hall/NCMD/edge").await?;
    // The alias 1 is 1.5; nobody has told yet what it stands for.
    let data = b"\x12\x0b\x10\x01i\x00\x00\x00\x00\x00\x00\xf8?\x18\x01";
    ensure!(client.publish("spBv1.0/hall/NDATA/edge", data.to_vec()).await? == PubAckReason::Success);
    let asked = client.message(SOON).await?;
    let is_rebirth = asked.payload.windows(20).any(|text| text == b"Node Control/Rebirth");
    ensure!(&asked.topic[..] == b"spBv1.0/hall/NCMD/edge" && is_rebirth, "{asked:?}");
    // At 2026-11-22T20:00:00Z: load, of type Double and with the alias 1, is 1. A second later the alias is 2.5.
    let birth =
        b"\x08\x80\xac\xe0\xa6\xa04\x12\x13\n\x04load\x10\x01 \ni\x00\x00\x00\x00\x00\x00\xf0?\x18\x00";
    let data = b"\x08\xe8\xb3\xe0\xa6\xa04\x12\x0b\x10\x01i\x00\x00\x00\x00\x00\x00\x04@\x18\x01";
    ensure!(client.publish("spBv1.0/hall/NBIRTH/edge", birth.to_vec()).await? == PubAckReason::Success);
    ensure!(client.publish("spBv1.0/hall/NDATA/edge", data.to_vec()).await? == PubAckReason::Success);
    let records = chain.influx.at_least("plant", 3, SOON).await?;
    let mut values: Vec<_> = records.iter().map(|record| (text(record, "_field"), &record.values)).collect();
    values.sort_by_key(|(field, _)| *field);
    ensure!(values.len() == 3, "{records:?}");
    let expected = [
        ("load", Value::Double(1.0.into())),
        ("load", Value::Double(2.5.into())),
        ("online", Value::Bool(true)),
    ];
    for ((field, values), (name, value)) in values.into_iter().zip(&expected) {
        ensure!(field == *name && values.get("_value") == Some(value), "{records:?}");
    }
    ensure!(records.iter().all(|record| text(record, "node") == "edge"), "{records:?}");
    Ok(())
}

async fn lines_are_passed_with_the_route_s_tags(chain: &Chain, client: &mut Client) -> Result<()> {
    let payload = "cpu,core=1 usage=12.5 1795377600\ncpu,core=2 note=\"a, \\\"b\\\"\"";
    ensure!(client.publish("lines/rack", payload).await? == PubAckReason::Success);
    let records = chain.influx.at_least("cpu", 2, SOON).await?;
    for (core, value) in [("1", Value::Double(12.5.into())), ("2", Value::String("a, \"b\"".into()))] {
        let record = records.iter().find(|record| text(record, "core") == core).context(core)?;
        ensure!(text(record, "place") == "rack" && text(record, "site") == "lab", "{record:?}");
        ensure!(record.values.get("_value") == Some(&value), "{record:?}");
    }
    Ok(())
}

async fn json_is_stored_field_by_field(chain: &Chain, client: &mut Client) -> Result<()> {
    let payload = r#"{"at": "2026-11-22T20:00:00.123456789Z", "temperature": 21, "unit": "C",
        "battery": {"percent": 80}, "open": true, "note": null, "extra": [1, 2]}"#;
    ensure!(client.publish("json/attic", payload).await? == PubAckReason::Success);
    let records = chain.influx.at_least("objects", 3, SOON).await?;
    let expected = [
        ("battery", Value::Long(80)),
        ("open", Value::Bool(true)),
        ("temperature", Value::Double(21.0.into())),
    ];
    ensure!(records.len() == expected.len(), "{records:?}");
    for (field, value) in expected {
        let is_field = |record: &&FluxRecord| text(record, "_field") == field;
        let record = records.iter().find(is_field).context(field)?;
        ensure!(record.values.get("_value") == Some(&value), "{field}: {record:?}");
        ensure!(text(record, "unit") == "C" && text(record, "place") == "attic", "{record:?}");
        let Some(Value::TimeRFC(time)) = record.values.get("_time") else { anyhow::bail!("{record:?}") };
        ensure!(time.timestamp_nanos_opt() == Some(1_795_377_600_123_456_789), "{time:?}");
    }
    Ok(())
}
