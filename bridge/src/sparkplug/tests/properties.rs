//! What holds for any payload, and for any bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message as _;

use super::Chain;
use super::witness::{TheirMetric, TheirPayload, TheirProperties, TheirProperty, TheirValue};
use crate::sparkplug::wire::{Payload, Value};
use crate::sparkplug::{BadQuality, Births, SparkplugDecoder, SparkplugPayload};
use crate::values::Values;

fn any_value() -> impl Strategy<Value = TheirValue> {
    prop_oneof![
        any::<u32>().prop_map(TheirValue::Int),
        any::<u64>().prop_map(TheirValue::Long),
        any::<f32>().prop_map(TheirValue::Float),
        any::<f64>().prop_map(TheirValue::Double),
        any::<bool>().prop_map(TheirValue::Boolean),
        "[a-zé\"\\\\ \n]{0,6}".prop_map(TheirValue::String),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(TheirValue::Bytes),
    ]
}

fn any_metric() -> impl Strategy<Value = TheirMetric> {
    let flags = (
        any::<Option<bool>>(),
        prop::option::weighted(0.1, any::<bool>()),
        prop::option::weighted(0.1, any::<bool>()),
    );
    let quality = prop::option::of((0..3_usize, prop_oneof![Just(0_u32), Just(192), Just(500)]));
    let named = (prop::option::of("[a-c ,=/é]{0,3}"), prop::option::of(0..4_u64));
    (
        named,
        prop::option::of(any::<u64>()),
        prop::option::of(0..40_u32),
        flags,
        quality,
        prop::option::of(any_value()),
    )
        .prop_map(|((name, alias), timestamp, datatype, flags, quality, value)| {
            let properties = quality.map(|(place, code)| {
                let mut keys = vec!["Unit".to_owned(), "Low".to_owned()];
                keys.insert(place, "Quality".into());
                let value = |key: &String| match key.as_str() {
                    "Quality" => TheirProperty { kind: Some(3), int: Some(code), string: None },
                    _ => TheirProperty { kind: Some(12), int: None, string: Some("x".into()) },
                };
                TheirProperties { values: keys.iter().map(value).collect(), keys }
            });
            let (is_historical, is_transient, is_null) = flags;
            TheirMetric {
                name,
                alias,
                timestamp,
                datatype,
                is_historical,
                is_transient,
                is_null,
                properties,
                value,
            }
        })
}

fn any_payload() -> impl Strategy<Value = TheirPayload> {
    let text = (prop::option::of("[a-z]{0,3}"), prop::option::of(prop::collection::vec(any::<u8>(), 0..4)));
    (
        prop::option::of(any::<u64>()),
        prop::option::of(0..256_u64),
        text,
        prop::collection::vec(any_metric(), 0..6),
    )
        .prop_map(|(timestamp, seq, (uuid, body), metrics)| TheirPayload {
            timestamp,
            metrics,
            seq,
            uuid,
            body,
        })
}

proptest! {
    #[test]
    fn a_payload_reads_as_prost_wrote_it(theirs in any_payload()) {
        let bytes = theirs.encode_to_vec();
        let ours = Payload::read(&bytes).expect("we can read it");
        prop_assert_eq!((ours.timestamp, ours.seq), (theirs.timestamp, theirs.seq));
        let metrics: Vec<_> = ours.metrics().collect::<Result<_, _>>().expect("all of it");
        prop_assert_eq!(metrics.len(), theirs.metrics.len());
        for (ours, theirs) in metrics.iter().zip(&theirs.metrics) {
            prop_assert_eq!(ours.name, theirs.name.as_deref().filter(|name| !name.is_empty()));
            prop_assert_eq!((ours.alias, ours.timestamp, ours.datatype), (theirs.alias, theirs.timestamp, theirs.datatype));
            prop_assert_eq!(ours.is_null, theirs.is_null.unwrap_or_default());
            prop_assert_eq!(ours.is_transient, theirs.is_transient.unwrap_or_default());
            let code = theirs.properties.as_ref().and_then(|all| all.values.iter().find_map(|value| value.int));
            prop_assert_eq!(ours.quality(), Ok(code.map(u64::from)));
            let expected = theirs.value.as_ref().map(|value| match value {
                TheirValue::Int(number) => format!("{:?}", Value::Int(*number)),
                TheirValue::Long(number) => format!("{:?}", Value::Long(*number)),
                TheirValue::Float(number) => format!("{:?}", Value::Float(*number)),
                TheirValue::Double(number) => format!("{:?}", Value::Double(*number)),
                TheirValue::Boolean(value) => format!("{:?}", Value::Boolean(*value)),
                TheirValue::String(text) => format!("{:?}", Value::String(text)),
                TheirValue::Bytes(_) => "Other".into(),
            });
            // As text, since NaN is not equal to itself.
            prop_assert_eq!(ours.value.map(|value| format!("{value:?}")), expected);
        }
    }

    /// Births, data and deaths in any order, well-formed and not: what is stored is line protocol, of one point
    /// for each series and time.
    #[test]
    fn whatever_is_stored_is_line_protocol(
        messages in prop::collection::vec((0..6_usize, any_payload(), any::<bool>()), 1..12),
    ) {
        let kinds = ["NBIRTH/n", "DBIRTH/n/d", "NDATA/n", "DDATA/n/d", "DDEATH/n/d", "NDEATH/n"];
        let mut chain = Chain::new();
        for (kind, payload, reconnects) in messages {
            if reconnects {
                chain.memory.births.disconnected();
            }
            let first = chain.take(kinds[kind], &payload);
            let again = chain.take_at(kinds[kind], &payload, chain.stamp, true);
            if first.starts_with("r,") {
                prop_assert_eq!(&first, &again, "delivered again");
                let mut points = BTreeMap::new();
                for line in influxdb_line_protocol::parse_lines(&first) {
                    let line = line.map_err(|error| TestCaseError::fail(format!("{first}: {error}")))?;
                    let point = (line.series.to_string(), line.timestamp);
                    prop_assert!(points.insert(point, ()).is_none(), "{}", first);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(kind in 0..6_usize, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let topics = ["NBIRTH/n", "DBIRTH/n/d", "NDATA/n", "DDATA/n/d", "DDEATH/n/d", "NDEATH/n"];
        let (mut births, mut values) = (Births::default(), Values::default());
        let sparkplug = SparkplugPayload { online: "online".into(), bad_quality: BadQuality::Skip };
        let decoder = SparkplugDecoder::new(&sparkplug, Vec::new()).expect("it compiles");
        let topic = format!("spBv1.0/g/{}", topics[kind]);
        births.begin(false);
        drop(decoder.decode(&topic, &bytes, 1, &mut births, &mut values));
    }

    /// Bytes that look more like a payload than any.
    #[test]
    fn no_damage_makes_it_panic(payload in any_payload(), cut in any::<prop::sample::Index>(), byte in any::<u8>(), at in any::<prop::sample::Index>()) {
        let mut bytes = payload.encode_to_vec();
        if !bytes.is_empty() {
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let (mut births, mut values) = (Births::default(), Values::default());
        let sparkplug = SparkplugPayload { online: "online".into(), bad_quality: BadQuality::Skip };
        let decoder = SparkplugDecoder::new(&sparkplug, Vec::new()).expect("it compiles");
        births.begin(false);
        drop(decoder.decode("spBv1.0/g/NBIRTH/n", &bytes, 1, &mut births, &mut values));
        drop(decoder.decode("spBv1.0/g/NDATA/n", &bytes, 2, &mut births, &mut values));
    }
}
