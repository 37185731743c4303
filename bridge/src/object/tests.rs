use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A decoder of one optional float, beside one that is always there.
fn decoder(path: &str) -> ObjectDecoder {
    let object = json!({"fields": [
        {"path": path, "type": "float", "optional": true},
        {"path": "always", "type": "boolean"},
    ]});
    compiled(Encoding::Json, object)
}

fn compiled(encoding: Encoding, object: Value) -> ObjectDecoder {
    let object = serde_json::from_value(object).expect("a format");
    ObjectDecoder::new(encoding, &object, Vec::new()).expect("it compiles").0
}

/// The plain way: through a tree.
fn naive(value: &Value, path: &str) -> Option<Value> {
    path.split('.')
        .try_fold(value, |value, key| match value {
            Value::Array(list) => list.get(key.parse::<usize>().ok()?),
            Value::Object(map) => map.get(key),
            _ => None,
        })
        .filter(|found| !found.is_null())
        .cloned()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1_000_000..1_000_000_i32).prop_map(|number| Value::from(f64::from(number) / 100.0)),
        "[a-c\"\\\\é]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab012]", inner, 0..4).prop_map(Value::from_iter),
        ]
    })
}

/// All that was decoded, in a form that can be compared.
fn decoded(decoder: &ObjectDecoder, payload: &[u8]) -> Result<Vec<Vec<String>>, String> {
    let mut values = Values::default();
    decoder.decode(payload, &mut values).map_err(|error| error.to_string())?;
    let text = |range: &[u8]| String::from_utf8_lossy(range).into_owned();
    let point = |point| {
        let slots = (0..decoder.targets.len()).map(|slot| match values.slot(point, slot) {
            Slot::Written(range) => text(&values.text[range.clone()]),
            other => format!("{other:?}"),
        });
        let found = values.found(point).iter();
        let found = found
            .map(|found| decoder.found_name(found, &values) + "=" + &text(&values.text[found.value.clone()]));
        slots.chain(found).collect()
    };
    Ok((0..values.points()).map(point).collect())
}

fn cbor(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("it can be written");
    bytes
}

fn message_pack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("it can be written")
}

/// Formats that use every kind of path.
fn formats() -> Vec<Value> {
    vec![
        json!({"fields": [
            {"path": "a.0", "type": "float", "optional": true},
            {"path": "b", "type": "integer", "optional": true},
            {"path": "*", "type": "string", "optional": true},
        ], "tags": [{"path": "a.b"}]}),
        json!({"each": "*.{key}", "fields": [
            {"path": "@", "type": "float", "optional": true},
            {"path": "*", "name": "n_*", "type": "float", "optional": true},
            {"path": "$.a", "name": "shared", "type": "string", "optional": true},
        ]}),
        json!({"each": "*", "fields": [{"path": "a.*.b", "type": "boolean"}], "timestamp": {"path": "$.0", "unit": "ms"}}),
    ]
}

#[test]
fn of_a_key_that_comes_twice_the_last_counts_for_wildcards_too() {
    let decoder = compiled(Encoding::Json, json!({"fields": [{"path": "s.*", "type": "float"}]}));
    assert_eq!(
        decoded(&decoder, br#"{"s":{"x":1,"y":2,"x":3}}"#),
        Ok(vec![vec!["y=2".into(), "x=3".into()]])
    );
    assert_eq!(decoded(&decoder, br#"{"s":{"x":1},"s":{"y":2}}"#), Ok(vec![vec!["y=2".into()]]));
    let decoder =
        compiled(Encoding::Json, json!({"each": "l.*", "fields": [{"path": "@", "type": "float"}]}));
    assert_eq!(decoded(&decoder, br#"{"l":[1,2,3],"l":[4]}"#), Ok(vec![vec!["4".into()]]));
}

#[test]
fn a_float_of_32_bits_is_the_decimal_number_that_was_meant() {
    for encoding in [Encoding::Cbor, Encoding::MessagePack] {
        let decoder = compiled(encoding, json!({"fields": [{"path": "v", "type": "float"}]}));
        for (value, expected) in [(21.7_f32, "21.7"), (134_217_728.0, "134217728"), (-0.5, "-0.5")] {
            let head: &[u8] = if encoding == Encoding::Cbor { b"\xa1\x61v\xfa" } else { b"\x81\xa1v\xca" };
            let payload = [head, &value.to_be_bytes()].concat();
            assert_eq!(decoded(&decoder, &payload), Ok(vec![vec![expected.into()]]));
        }
    }
}

#[test]
fn what_is_nested_too_deeply_is_refused_before_the_stack_ends() {
    for (encoding, byte) in [(Encoding::Cbor, 0x81), (Encoding::Cbor, 0xc1), (Encoding::MessagePack, 0x91)] {
        let decoder = compiled(encoding, json!({"fields": [{"path": "v", "type": "float"}]}));
        let head: &[u8] = if encoding == Encoding::Cbor { b"\xa1\x61w" } else { b"\x81\xa1w" };
        let payload = [head, &vec![byte; 1_000_000]].concat();
        assert!(decoded(&decoder, &payload).expect_err("refused").contains("deep"), "{encoding:?}");
    }
}

proptest! {
    #[test]
    fn the_visitor_finds_what_a_tree_holds(inner in any_json(), path in "[ab012](\\.[ab012]){0,3}") {
        let message = json!({"a": inner, "always": true});
        let mut values = Values::default();
        let decoded = decoder(&path).decode(message.to_string().as_bytes(), &mut values);
        match naive(&message, &path) {
            None => {
                prop_assert_eq!(decoded, Ok(()));
                prop_assert!(values.get(0, 0).is_none());
            }
            Some(Value::Number(number)) => {
                prop_assert_eq!(decoded, Ok(()));
                let written = std::str::from_utf8(values.get(0, 0).expect("a value")).expect("text");
                prop_assert_eq!(written.parse().ok(), number.as_f64());
            }
            Some(_) => prop_assert!(matches!(decoded, Err(DecodeError::Value { .. })), "{:?}", decoded),
        }
    }

    #[test]
    fn cbor_and_message_pack_give_what_the_same_json_gives(value in any_json()) {
        for format in formats() {
            let json = decoded(&compiled(Encoding::Json, format.clone()), value.to_string().as_bytes());
            for (encoding, payload) in [(Encoding::Cbor, cbor(&value)), (Encoding::MessagePack, message_pack(&value))] {
                let other = decoded(&compiled(encoding, format.clone()), &payload);
                match (&json, other) {
                    (Ok(json), Ok(other)) => prop_assert_eq!(json, &other),
                    // What is no object at all is told in each reader's own words.
                    (Err(json), Err(_)) if json.contains("is not") => {}
                    (Err(json), Err(other)) => prop_assert_eq!(json, &other),
                    (json, other) => prop_assert!(false, "{:?} and {:?}", json, other),
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[{}\\[\\]\",:a0e. -]{0,40}") {
        for payload in [bytes.as_slice(), text.as_bytes()] {
            for format in formats() {
                for encoding in [Encoding::Json, Encoding::Cbor, Encoding::MessagePack] {
                    drop(decoded(&compiled(encoding, format.clone()), payload));
                }
            }
        }
    }
}
