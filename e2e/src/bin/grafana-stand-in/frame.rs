//! Grafana's data frames: one per series, the tags as labels of the value.

use serde_json::{Map, Value, json};

use crate::table::{Column, Table};

/// The frames of an answer. There is always one, which says what query ran.
pub(crate) fn frames(ref_id: &str, executed: &str, tables: &[Table]) -> Vec<Value> {
    let mut frames: Vec<Value> = tables.iter().map(|table| frame(ref_id, table)).collect();
    if frames.is_empty() {
        frames.push(json!({"schema": {"refId": ref_id, "fields": []}, "data": {"values": []}}));
    }
    frames[0]["schema"]["meta"] = json!({"executedQueryString": executed});
    frames
}

fn frame(ref_id: &str, table: &Table) -> Value {
    match (table.place("_time"), table.place("_value")) {
        (Some(time), Some(value)) => series(ref_id, table, time, value),
        _ => rows(ref_id, table),
    }
}

/// A series: its times, and its values with the tags as labels.
fn series(ref_id: &str, table: &Table, time: usize, value: usize) -> Value {
    let mut number = field(table.first("_field").unwrap_or("_value"), &table.columns[value]);
    let labels = labels(table);
    if !labels.is_empty() {
        number["labels"] = labels.into();
    }
    json!({
        "schema": {
            "name": table.first("_measurement").unwrap_or_default(),
            "refId": ref_id,
            "fields": [field("Time", &table.columns[time]), number],
        },
        "data": {"values": [column(table, time), column(table, value)]},
    })
}

/// A table that is no series, such as a list of buckets: its columns as they are.
fn rows(ref_id: &str, table: &Table) -> Value {
    let shown: Vec<usize> = (0..table.columns.len())
        .filter(|place| !matches!(table.columns[*place].name.as_str(), "result" | "table"))
        .collect();
    let fields: Vec<Value> =
        shown.iter().map(|place| field(&table.columns[*place].name, &table.columns[*place])).collect();
    let values: Vec<Value> = shown.iter().map(|place| column(table, *place)).collect();
    json!({"schema": {"refId": ref_id, "fields": fields}, "data": {"values": values}})
}

fn labels(table: &Table) -> Map<String, Value> {
    let is_tag = |column: &&Column| {
        column.group && !column.name.starts_with('_') && column.name != "result" && column.name != "table"
    };
    let label =
        |column: &Column| Some((column.name.clone(), Value::String(table.first(&column.name)?.to_owned())));
    table.columns.iter().filter(is_tag).filter_map(label).collect()
}

fn field(name: &str, column: &Column) -> Value {
    let (kind, frame) = match column.data_type.as_str() {
        time if time.starts_with("dateTime") => ("time", "time.Time"),
        "double" => ("number", "float64"),
        "long" => ("number", "int64"),
        "unsignedLong" => ("number", "uint64"),
        "boolean" => ("boolean", "bool"),
        _ => ("string", "string"),
    };
    json!({"name": name, "type": kind, "typeInfo": {"frame": frame, "nullable": true}})
}

fn column(table: &Table, place: usize) -> Value {
    let data_type = table.columns[place].data_type.as_str();
    table.rows.iter().map(|row| cell(data_type, &row[place])).collect()
}

/// A value as JSON; null where there is none, or none that JSON has.
fn cell(data_type: &str, text: &str) -> Value {
    if text.is_empty() && data_type != "string" {
        return Value::Null;
    }
    match data_type {
        time if time.starts_with("dateTime") => {
            text.parse::<jiff::Timestamp>().map_or(Value::Null, |time| time.as_millisecond().into())
        }
        "double" => text.parse::<f64>().map_or(Value::Null, |number| json!(number)),
        "long" => text.parse::<i64>().map_or(Value::Null, Value::from),
        "unsignedLong" => text.parse::<u64>().map_or(Value::Null, Value::from),
        "boolean" => (text == "true").into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_rows_there_is_one_empty_frame_that_says_what_ran() {
        let frames = frames("A", "from(…)", &[]);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0]["schema"]["meta"]["executedQueryString"], "from(…)");
        assert_eq!(frames[0]["schema"]["fields"], json!([]));
    }

    #[test]
    fn numbers_that_json_lacks_become_null() {
        assert_eq!(cell("double", "NaN"), Value::Null);
        assert_eq!(cell("double", ""), Value::Null);
        assert_eq!(cell("double", "360"), json!(360.0));
    }
}
