//! Whether an object is already as it is desired, so that nothing need be written.

use serde_json::Value;

/// Whether every field of the desired object has its value in the live one. The live one may have more:
/// defaults, and what others have set.
///
/// If it says no though nothing differs, an apply is sent that changes nothing: harmless. It never says
/// yes while a desired field differs.
pub fn is_contained(desired: &Value, live: &Value) -> bool {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => {
            desired.iter().all(|(key, desired)| match live.get(key) {
                Some(live) => is_contained(desired, live),
                // The API server drops empty lists and maps.
                None => is_empty(desired),
            })
        }
        (Value::Array(desired), Value::Array(live)) => {
            desired.len() == live.len()
                && desired.iter().zip(live).all(|(desired, live)| is_contained(desired, live))
        }
        (Value::String(desired), Value::String(live)) => {
            desired == live || nanos(desired).is_some_and(|quantity| nanos(live) == Some(quantity))
        }
        _ => desired == live,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        // `emptyDir: {}` says something; within our objects that is the only empty map that stays.
        Value::Object(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A Kubernetes quantity in units of 10⁻⁹, so that `0.5` and `500m` are equal.
/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
pub fn nanos(quantity: &str) -> Option<i128> {
    let split = quantity
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(split);
    let (multiplier, divisor): (i128, i128) = match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "" => (1, 1),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => (10_i128.checked_pow(exponent.strip_prefix(['e', 'E'])?.parse().ok()?)?, 1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty()
        || fraction.len() > 9
        || !fraction.chars().all(|c| c.is_ascii_digit())
    {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction:0<9}").parse().ok()?;
    digits.checked_mul(multiplier).map(|nanos| nanos / divisor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let desired = json!({"spec": {"replicas": 1, "list": [{"name": "a"}], "none": []}});
        let live = json!({"spec": {"replicas": 1, "list": [{"name": "a", "protocol": "TCP"}], "more": 1}, "status": {}});
        assert!(is_contained(&desired, &live));
    }

    #[test]
    fn what_was_edited_added_to_a_list_or_removed_is_a_difference() {
        let desired = json!({"a": {"b": "1"}, "list": [1]});
        assert!(!is_contained(&desired, &json!({"a": {"b": "2"}, "list": [1]})));
        assert!(!is_contained(&desired, &json!({"a": {"b": "1"}, "list": [1, 2]})));
        assert!(!is_contained(&desired, &json!({"a": {}, "list": [1]})));
        assert!(!is_contained(&json!({"emptyDir": {}}), &json!({})));
    }

    #[test]
    fn quantities_are_compared_by_their_value() {
        assert!(is_contained(&json!("0.5"), &json!("500m")));
        assert!(is_contained(&json!("1024Mi"), &json!("1Gi")));
        assert!(!is_contained(&json!("1G"), &json!("1Gi")));
        for (quantity, nanos_) in
            [("1", 1_000_000_000), ("1e3", 1_000_000_000_000), ("1n", 1), (".5", 500_000_000)]
        {
            assert_eq!(nanos(quantity), Some(nanos_), "{quantity}");
        }
        for none in ["", ".", "Mi", "1x", "a", "1.0000000001", "--1"] {
            assert_eq!(nanos(none), None, "{none}");
        }
    }
}
