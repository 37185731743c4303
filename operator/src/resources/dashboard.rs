//! The dashboard: for each route and field a panel, with one curve for each set of tags. Fields that
//! only messages name, as in line protocol, have none: what is not known can't be drawn.

use api::route::{FieldType, Route};
use serde_json::{Value, json};

use crate::plan::Plan;

/// More would make neither a readable dashboard nor a ConfigMap that Kubernetes accepts.
const MOST_PANELS: usize = 300;

/// The dashboard as Grafana's JSON.
pub fn render(plan: &Plan, uid: &str, title: &str, data_source: &str) -> Value {
    let mut fields = plan.routes.iter().flat_map(|route| {
        route.payload.fields().into_iter().map(move |(name, type_)| Field { route, name, type_ })
    });
    let mut panels: Vec<Value> = fields
        .by_ref()
        .take(MOST_PANELS)
        .enumerate()
        .map(|(place, field)| panel(plan, &field, place, data_source))
        .collect();
    let left_out = fields.count();
    if left_out > 0 {
        panels.push(note(left_out));
    }
    json!({
        "uid": uid,
        "title": title,
        "tags": ["iotpipeline"],
        "schemaVersion": 37,
        "editable": true,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "panels": panels,
    })
}

struct Field<'a> {
    route: &'a Route,
    name: &'a str,
    type_: FieldType,
}

fn panel(plan: &Plan, field: &Field<'_>, place: usize, data_source: &str) -> Value {
    let source = json!({"type": "influxdb", "uid": data_source});
    let title = match field.route.payload.fields().len() {
        1 => field.route.name.clone(),
        _ => format!("{}: {}", field.route.name, field.name),
    };
    let mut defaults = json!({});
    if let Some(name) = display_name(field.route) {
        defaults["displayName"] = name.into();
    }
    let mut target = json!({
        "refId": "A",
        "datasource": source,
        "query": query(plan, field),
    });
    let kind = match field.type_ {
        FieldType::Float | FieldType::Integer => "timeseries",
        FieldType::Boolean | FieldType::String => "state-timeline",
    };
    target["hide"] = false.into();
    json!({
        "id": place + 1,
        "type": kind,
        "title": title,
        "gridPos": {"h": 9, "w": 12, "x": 12 * (place % 2), "y": 9 * (place / 2)},
        "datasource": source,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [target],
    })
}

fn note(left_out: usize) -> Value {
    json!({
        "id": MOST_PANELS + 1,
        "type": "text",
        "title": "More fields",
        "gridPos": {"h": 3, "w": 24, "x": 0, "y": 9 * MOST_PANELS.div_ceil(2)},
        "options": {
            "mode": "markdown",
            "content": format!(
                "{left_out} more fields are stored and not drawn here: a dashboard has at most {MOST_PANELS} panels."
            ),
        },
    })
}

/// The mean of numbers by interval; of states, which have no mean, the last.
fn query(plan: &Plan, field: &Field<'_>) -> String {
    let aggregate = match field.type_ {
        FieldType::Float | FieldType::Integer => "mean",
        FieldType::Boolean | FieldType::String => "last",
    };
    format!(
        "from(bucket: {bucket}) |> range(start: v.timeRangeStart, stop: v.timeRangeStop) \
         |> filter(fn: (r) => {measurement}r._field == {field}{tags}) \
         |> aggregateWindow(every: v.windowPeriod, fn: {aggregate}, createEmpty: false)",
        bucket = flux_string(&plan.database.bucket),
        measurement = measurement(plan, field),
        field = flux_string(field.name),
        tags = told_apart(plan, field),
    )
}

/// Routes that store the same field of the same measurement are told apart by the tags that only one of
/// them has. Routes with the same tags can't be: their panels show the same curves.
fn told_apart(plan: &Plan, field: &Field<'_>) -> String {
    let others: Vec<&Route> = plan
        .routes
        .iter()
        .filter(|other| other.name != field.route.name && may_share_measurement(other, field.route))
        .filter(|other| other.payload.fields().iter().any(|(name, _)| *name == field.name))
        .collect();
    let own = field.route.certain_tags();
    let every = field.route.all_tags();
    let mut conditions: Vec<String> = Vec::new();
    for tag in &own {
        if others.iter().any(|other| !other.certain_tags().contains(tag)) {
            conditions.push(format!(" and exists r[{}]", flux_string(tag)));
        }
    }
    for other in others {
        for tag in other.certain_tags().into_iter().filter(|tag| !every.contains(tag)) {
            conditions.push(format!(" and not exists r[{}]", flux_string(&tag)));
        }
    }
    conditions.sort_unstable();
    conditions.dedup();
    conditions.concat()
}

/// Whether two routes can store points of one measurement.
fn may_share_measurement(one: &Route, other: &Route) -> bool {
    match (one.fixed_measurement(), other.fixed_measurement()) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

/// The measurements of a route: one, or all but those that other routes with this field have to themselves.
fn measurement(plan: &Plan, field: &Field<'_>) -> String {
    if let Some(measurement) = field.route.fixed_measurement() {
        return format!("r._measurement == {} and ", flux_string(measurement));
    }
    let others = plan.routes.iter().filter(|other| other.name != field.route.name);
    let others = others.filter(|other| other.payload.fields().iter().any(|(name, _)| *name == field.name));
    let mut others: Vec<&str> = others.filter_map(Route::fixed_measurement).collect();
    others.sort_unstable();
    others.dedup();
    others.into_iter().map(|other| format!("r._measurement != {} and ", flux_string(other))).collect()
}

/// A curve's name is what its tags hold. Without tags there is one curve, and its name is the field's.
fn display_name(route: &Route) -> Option<String> {
    let tags = route.all_tags();
    if tags.is_empty() && route.fixed_measurement().is_some() {
        return None;
    }
    let plain = |tag: &String| tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if tags.is_empty() || route.fixed_measurement().is_none() || !tags.iter().all(plain) {
        return Some("${__field.labels}".into());
    }
    Some(tags.iter().map(|tag| format!("${{__field.labels.{tag}}}")).collect::<Vec<_>>().join(" "))
}

/// A string literal of Flux.
/// <https://docs.influxdata.com/flux/v0/spec/lexical-elements/#string-literals>
pub(crate) fn flux_string(text: &str) -> String {
    let mut literal = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            // `${` would begin an expression.
            '$' => literal.push_str("\\x24"),
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_can_t_leave_its_flux_literal() {
        assert_eq!(flux_string("mesure"), "\"mesure\"");
        assert_eq!(flux_string(r#"a" or true //\"#), r#""a\" or true //\\""#);
        assert_eq!(flux_string("${secrets}"), r#""\x24{secrets}""#);
    }

    #[test]
    fn a_curve_is_named_after_its_tags() {
        let route = |topic: &str| -> Route {
            serde_saphyr::from_str(&format!("{{name: r, topic: '{topic}', payload: {{float: {{}}}}}}"))
                .expect("a route")
        };
        assert_eq!(display_name(&route("a/b")), None);
        assert_eq!(display_name(&route("a/{axis}")).as_deref(), Some("${__field.labels.axis}"));
        assert_eq!(
            display_name(&route("{host}/{metric}")).as_deref(),
            Some("${__field.labels.host} ${__field.labels.metric}")
        );
    }
}
