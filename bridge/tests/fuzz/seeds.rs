//! What mutations start from: the messages and configurations of `tests/cases`, and what they lack.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use serde_json::Value;

use crate::targets::sparkplug_message;

/// The seeds of a target.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    let payloads = |format: &str| -> Vec<Vec<u8>> {
        cases(format).iter().flat_map(|case| messages(case)).map(|message| message.payload).collect()
    };
    let mut seeds = match target {
        "topic" => texts(&TOPICS),
        "packets" => packets(),
        "json" => payloads("json: {").into_iter().chain(payloads("json:\n")).collect(),
        "cbor" => payloads("cbor:\n"),
        "message_pack" => payloads("messagePack:\n"),
        "line_protocol" => payloads("lineProtocol:"),
        "sparkplug" => cases("sparkplug:").iter().map(|case| sparkplug(case)).collect(),
        "configuration" => {
            cases("").iter().map(|case| read(&case.join("config.yaml")).into_bytes()).collect()
        }
        other => panic!("no seeds for {other}"),
    };
    seeds.extend(texts(match target {
        "json" => &OBJECTS,
        "line_protocol" => &LINES,
        "configuration" => &CONFIGURATIONS,
        _ => &[],
    }));
    seeds.sort_unstable();
    seeds.dedup();
    // A case of a bound has a message as long as it may be, which would be in most of the mutations.
    seeds.retain(|seed| seed.len() <= 2_048);
    seeds
}

const TOPICS: [&str; 6] = [
    "sensor/{axis}/+/{rest...}\nsensor/#\n+/a\nsensor/x/y/z",
    "#\n+/broker\n$SYS/#\n$SYS/broker",
    "{a}/{b}\n/+\n+/+\n//#\n/x",
    "a/{r...}\na/#\na\na/\na",
    "é/+\né/x\n+/x\né/x",
    "$share/g/a\na+\na/#/b\n{a}/{a}\n{1}\na",
];

const OBJECTS: [&str; 5] = [
    r#"{"at":1500,"kind":"k","v":21.5,"i":-7,"on":true,"s":"a\"b\\","1":5,"in":{"id":"x","y":{"t":3}}}"#,
    r#"[{"v":1,"id":"a"},{"v":2.5,"id":"b","s":"c d"}]"#,
    r#"{"floors":{"0":{"hall":18.5,"a, b":21},"1":{"hall":19}},"house":"h1"}"#,
    r#"{"time":"2026-11-22T20:00:00.123456789+01:00","state":1.0,"side":"l"}"#,
    r#"{"v":1e308,"at":-9223372036854775808,"kind":"_\u00e9","i":9223372036854775807}"#,
];

const LINES: [&str; 3] = [
    "cp\\ u,co\\,re=a\\=b us\\ age=1,n=-1i,u=7u,ok=t,s=\"a \\\"b\\\\ , =\" 9\n# a comment\n\nm v=1e-7",
    "m,a=1,b=2 v=F 9223372036854775806\r\nm v=1.",
    "m,host=x v=1\nm,sit=x,zone=\\\\z v=0",
];

const CONFIGURATIONS: [&str; 2] = [
    "pipeline: &p lab\nmqtt: {url: 'mqtts://[::1]:1884/', clientId: *p, receiveMaximum: 20}\n\
     database: {url: 'http://i:8086', organization: o, bucket: b, tokenFile: /t}\n\
     sharing: {group: lab, members: 2}\nroutes: []\n",
    "pipeline: lab\nmqtt: {url: mqtt://b, clientId: c, maxPacketSize: 1024}\n\
     database: {url: https://i, organization: o, bucket: b, tokenFile: t}\n\
     routes:\n- {name: r, topic: '{a}/{b...}', measurement: 'm_{a}', payload: {json: {each: 'x.{y}', fields: [{path: '@', name: v, type: float}]}}}\n",
];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

struct Message {
    topic: String,
    payload: Vec<u8>,
    user_properties: Vec<(String, String)>,
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cases whose configurations hold a text, in the order of their names.
fn cases(text: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let entries = std::fs::read_dir(folder).expect("the cases");
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    cases.retain(|case| read(&case.join("config.yaml")).contains(text));
    cases.sort();
    cases
}

fn messages(case: &Path) -> Vec<Message> {
    let text = read(&case.join("messages.jsonl"));
    let message = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a message is JSON");
        let payload = match (&line["payload"], &line["payload_base64"]) {
            (Value::String(text), _) => text.clone().into_bytes(),
            (_, Value::String(text)) => BASE64_STANDARD.decode(text).expect("base64"),
            _ => panic!("a message without a payload: {line}"),
        };
        let properties = serde_json::from_value(line["user_properties"].clone()).unwrap_or_default();
        Message { topic: line["topic"].as_str().unwrap_or("t").into(), payload, user_properties: properties }
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(message).collect()
}

/// A case's messages, one after the other.
fn sparkplug(case: &Path) -> Vec<u8> {
    messages(case)
        .iter()
        .filter_map(|message| sparkplug_message(&message.topic, &message.payload))
        .flatten()
        .collect()
}

/// Packets as a broker sends them: messages of each quality of service, and what else there is.
fn packets() -> Vec<Vec<u8>> {
    let cases = ["captures", "message_tags", "several_routes", "escapes", "retained"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut seeds: Vec<Vec<u8>> = CONTROL.iter().map(|packet| packet.to_vec()).collect();
    for (place, message) in cases.iter().flat_map(|case| messages(&folder.join(case))).enumerate() {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][place % 3];
        let properties = PublishProperties {
            payload_format_indicator: Some(1),
            content_type: Some("text/plain".into()),
            message_expiry_interval: (place % 4 == 0).then_some(60),
            user_properties: [("sender".into(), "s 1".into())]
                .into_iter()
                .chain(message.user_properties)
                .collect(),
            subscription_identifiers: vec![place * 100],
            ..PublishProperties::default()
        };
        let mut publish = Publish::new(message.topic, qos, message.payload, Some(properties));
        publish.pkid = place as u16 + 1;
        publish.retain = place % 5 == 0;
        let mut frame = BytesMut::new();
        publish.write(&mut frame).expect("a message can be written");
        // Behind another packet now and then.
        let before = if place % 2 == 0 { &[][..] } else { CONTROL[place % CONTROL.len()] };
        seeds.push([before, &frame[..]].concat());
    }
    seeds
}

/// CONNACK with properties, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP, DISCONNECT, AUTH; and
/// the short forms.
const CONTROL: [&[u8]; 13] = [
    b"\x20\x15\x01\x00\x12\x21\x00\x14\x22\x00\x00\x27\x00\x10\x00\x00\x29\x01\x1f\x00\x02ok",
    b"\x20\x03\x00\x87\x00",
    b"\x40\x02\x00\x01",
    b"\x40\x09\x00\x01\x10\x05\x1f\x00\x02no",
    b"\x50\x04\x00\x02\x00\x00",
    b"\x62\x02\x00\x03",
    b"\x70\x03\x00\x03\x92",
    b"\x90\x05\x00\x04\x00\x01\x87",
    b"\xb0\x05\x00\x05\x00\x00\x11",
    b"\xd0\x00",
    b"\xe0\x07\x8e\x05\x1f\x00\x02by",
    b"\xe0\x00",
    b"\xf0\x06\x18\x04\x15\x00\x01x",
];
