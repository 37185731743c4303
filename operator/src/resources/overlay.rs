//! One piece of an object merged into another: maps by key, lists of named things by name, mounts appended, and of
//! everything else the piece's.

use serde_json::Value;

/// Merges `piece` into `base`. Null says nothing.
pub fn merge(base: &mut Value, piece: &Value) {
    match (base, piece) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(piece)) => {
            for (key, value) in piece {
                match (base.get_mut(key), key.as_str()) {
                    // Two of one name are two mounts of one volume.
                    (Some(Value::Array(mounts)), "volumeMounts") => {
                        mounts.extend(value.as_array().into_iter().flatten().cloned());
                    }
                    (Some(present), _) => merge(present, value),
                    (None, _) => {
                        base.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(piece)) if base.iter().chain(piece).all(is_named) => {
            for item in piece {
                match base.iter_mut().find(|present| present["name"] == item["name"]) {
                    Some(present) => merge(present, item),
                    None => base.push(item.clone()),
                }
            }
        }
        (base, piece) => *base = piece.clone(),
    }
}

fn is_named(item: &Value) -> bool {
    item["name"].is_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_are_merged_by_key_and_lists_by_name() {
        let mut base = json!({"containers": [{"name": "a", "args": ["x"], "env": [{"name": "E", "value": "1"}]}], "kept": 1});
        let piece = json!({
            "containers": [{"name": "a", "env": [{"name": "E", "value": "2"}, {"name": "F", "value": "3"}]}, {"name": "b"}],
            "added": {"x": 1},
            "nothing": null,
        });
        merge(&mut base, &piece);
        let merged = json!({
            "containers": [
                {"name": "a", "args": ["x"], "env": [{"name": "E", "value": "2"}, {"name": "F", "value": "3"}]},
                {"name": "b"},
            ],
            "kept": 1,
            "added": {"x": 1},
            "nothing": null,
        });
        assert_eq!(base, merged);
    }

    #[test]
    fn a_volume_can_be_mounted_beside_those_that_are() {
        let mut base = json!({"volumeMounts": [{"name": "data", "mountPath": "/a"}]});
        merge(&mut base, &json!({"volumeMounts": [{"name": "data", "mountPath": "/b"}]}));
        assert_eq!(base["volumeMounts"].as_array().map(Vec::len), Some(2));
    }
}
