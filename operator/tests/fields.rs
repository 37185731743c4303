//! No field without effect: every field of the definition is changed, one by one, in a pipeline that has it. What
//! the operator makes of the pipeline must change with it, or the change be refused; and changed back, everything
//! is as it was. That the bridge heeds what its configuration says is for the tests of the bridge.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use api::definition::definition;
use api::iotpipeline::IoTPipeline;
use iotpipeline_operator::plan::{Broker, Dashboard, DatabasePlace, GrafanaAccess, Plan};
use iotpipeline_operator::resources::{Desired, desired, issued};
use serde_json::{Value, json};
use support::render::render;
use support::{Case, config, templates, tokens};

/// What decides whether there is a plan at all, and when credentials are made anew: tests of their own have these.
const BEFORE_THE_PLAN: [&str; 2] = ["credentials.rotateEvery", "suspend"];

/// The schema's leaves, as paths: `broker.users[].name`, `broker.pod.labels{}`.
fn leaves(path: &str, schema: &Value, found: &mut Vec<(String, Value)>) {
    let dot = if path.is_empty() { "" } else { "." };
    if let Some(properties) = schema["properties"].as_object() {
        for (name, inner) in properties {
            leaves(&format!("{path}{dot}{name}"), inner, found);
        }
    } else if schema["items"].is_object() {
        leaves(&format!("{path}[]"), &schema["items"], found);
    } else if schema["additionalProperties"].is_object() {
        leaves(&format!("{path}{{}}"), &schema["additionalProperties"], found);
    } else {
        found.push((path.into(), schema.clone()));
    }
}

/// Of Kubernetes' own types, which our schema leaves open: another that is valid, by the field's last name.
const OPEN: [(&str, &str); 3] = [
    ("tolerations[]", "{key: another, operator: Exists}"),
    (
        "affinity",
        "{nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 7, preference: \
         {matchExpressions: [{key: another, operator: Exists}]}}]}}",
    ),
    ("overrides", "{spec: {terminationGracePeriodSeconds: 77}}"),
];

fn is_open(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

/// Changes the first value at the path; false, if there is none.
fn change(value: &mut Value, path: &str, schema: &Value) -> bool {
    if path.is_empty() {
        *value = changed(value, schema);
        return true;
    }
    if let Some(rest) = path.strip_prefix("[]") {
        return value
            .as_array_mut()
            .is_some_and(|items| items.iter_mut().any(|item| change(item, rest, schema)));
    }
    if let Some(rest) = path.strip_prefix("{}") {
        return value
            .as_object_mut()
            .is_some_and(|map| map.values_mut().any(|item| change(item, rest, schema)));
    }
    let path = path.trim_start_matches('.');
    let end = path.find(['.', '[', '{']).unwrap_or(path.len());
    value.get_mut(&path[..end]).is_some_and(|inner| change(inner, &path[end..], schema))
}

/// Another value of the same kind.
fn changed(value: &Value, schema: &Value) -> Value {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().find(|other| *other != value).cloned().unwrap_or_default();
    }
    match value {
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) if schema["maximum"].as_i64() == Some(number) => json!(number - 1),
            Some(number) => json!(number + 1),
            None => json!(number.as_f64().expect("a number") + 1.0),
        },
        Value::String(text) if text.contains("://") => json!(format!("{text}x")),
        Value::String(text) if text.starts_with("sha256:") => {
            json!(text.replace('1', "3").replace('2', "1"))
        }
        // A quantity, a duration or a number stays one.
        Value::String(text) if text.starts_with(|c: char| c.is_ascii_digit()) => json!(format!("1{text}")),
        Value::String(text) => json!(format!("x{text}")),
        // What says something by being there.
        Value::Object(_) => Value::Null,
        other => panic!("no other value is known for {other}"),
    }
}

/// All that the operator does because of a spec: its objects, and what it tells databases, dashboards and claims.
fn state(case: &Case) -> Result<(String, Desired, Plan), String> {
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).map_err(|refusal| refusal.to_string())?;
    let desired = desired(&plan, &tokens());
    let database = match &plan.database.place {
        DatabasePlace::Managed(database) => {
            format!("{} {}", database.retention_seconds, database.volume.size)
        }
        DatabasePlace::External(_) => String::new(),
    };
    let broker = match &plan.broker {
        Broker::Managed(broker) => broker.volume.size.clone(),
        Broker::External(_) => String::new(),
    };
    let dashboard = match &plan.dashboard {
        Some(Dashboard::External { url, access, ca }) => {
            let access = match access {
                GrafanaAccess::Token(token) => token.clone(),
                GrafanaAccess::Basic(user, password) => format!("{user} {password}"),
            };
            format!("{url} {access} {ca:?}")
        }
        _ => String::new(),
    };
    let keeper = &plan.pipeline.keeper;
    let state = format!("{}\n{database}\n{broker}\n{dashboard}\n{keeper:?}", render(&desired));
    Ok((state, desired, plan))
}

/// What a spec brings about also where there is no plan yet: what is told, and what cert-manager is asked for.
fn told(case: &Case) -> (Option<String>, Value) {
    (state(case).err(), json!(issued::desired(&case.pipeline)))
}

/// The sets as they are after an apply, and after the bridges that are to leave have left.
fn apply(case: &mut Case) {
    let (_, desired, plan) = state(case).expect("it can be planned");
    let mut sets = Vec::new();
    sets.extend(desired.broker.as_ref().map(|objects| objects.stateful_set.clone()));
    sets.extend(desired.database.as_ref().map(|objects| objects.stateful_set.clone()));
    sets.extend(desired.bridge.wanted().map(|objects| {
        let mut set = objects.stateful_set.clone();
        if set.spec.replicas != Some(0) {
            set.spec.replicas = i32::try_from(plan.bridges.members).ok();
        }
        set
    }));
    case.observed.children.stateful_sets = sets;
}

fn with_spec(file: &Path, spec: &Value) -> Case {
    let mut case = Case::read(file);
    let IoTPipeline { spec: typed, .. } = &mut case.pipeline;
    *typed = serde_json::from_value(spec.clone()).unwrap_or_else(|error| panic!("{error}: {spec}"));
    case
}

/// Whether the field has an effect in this pipeline; an effect that stays when it is changed back is an error. That
/// the change is refused is an effect only where `refusal` says so.
fn has_effect(file: &Path, original: &Value, changed: &Value, refusal: bool) -> Result<bool, String> {
    let mut case = with_spec(file, original);
    let other = with_spec(file, changed);
    let Ok((fresh, ..)) = state(&case) else { return Ok(refusal && told(&case) != told(&other)) };
    if let (Err(refused), false) = (state(&other), refusal) {
        return Err(format!("the other value is no valid one: {refused}"));
    }
    let differs_at_first = state(&other).map(|(state, ..)| state) != Ok(fresh);

    apply(&mut case);
    let settled = state(&case)?.0;
    let given = (case.pipeline.spec.clone(), case.observed.credentials.clone());
    (case.pipeline.spec, case.observed.credentials) = (other.pipeline.spec, other.observed.credentials);
    let Ok((later, ..)) = state(&case) else { return Ok(refusal) };
    apply(&mut case);
    (case.pipeline.spec, case.observed.credentials) = given;
    apply(&mut case);
    match state(&case)?.0 == settled {
        true => Ok(differs_at_first || later != settled),
        false => Err("changed back, something is left of it".into()),
    }
}

fn files() -> Vec<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let golden = fs::read_dir(tests.join("golden")).expect("there are cases");
    let golden = golden.map(|entry| entry.expect("it can be read").path().join("pipeline.yaml"));
    let mut files: Vec<PathBuf> = golden.filter(|file| file.exists()).collect();
    files.push(tests.join("../../manifests/examples/lab.yaml"));
    for name in ["backup", "external", "images", "issued", "managed", "routes"] {
        files.push(tests.join(format!("fields/{name}.yaml")));
    }
    // Small ones are computed faster.
    files.sort_by_key(|file| (fs::metadata(file).expect("the case is there").len(), file.clone()));
    files
}

/// The pipelines, and their specs.
fn pipelines() -> Vec<(PathBuf, Value)> {
    let spec_of = |file: PathBuf| {
        let spec = serde_json::to_value(&Case::read(&file).pipeline.spec).expect("a spec is JSON");
        (file, spec)
    };
    files().into_iter().map(spec_of).collect()
}

/// The definition's fields, each with a schema of its other value.
fn fields() -> Vec<(String, Value)> {
    let definition = definition().expect("the definition is JSON");
    let mut fields = Vec::new();
    leaves(
        "",
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
        &mut fields,
    );
    assert!(fields.len() > 150, "only {} fields were found", fields.len());
    for (path, schema) in fields.iter_mut().filter(|(_, schema)| is_open(schema)) {
        let other = OPEN.iter().find(|(name, _)| path.ends_with(&format!(".{name}")));
        let (_, other) = other.unwrap_or_else(|| panic!("no other value is known for {path}"));
        schema["enum"] = json!([serde_saphyr::from_str::<Value>(other).expect("it is YAML")]);
    }
    fields
}

/// What a change of fields that begin so may restart, at most: the first counts.
const RESTARTS: [(&str, &[&str]); 26] = [
    ("broker.users[]", &[]),
    ("routes[]", &[]),
    ("credentials", &[]),
    ("deletionPolicy", &[]),
    ("database.retention", &[]),
    ("database.backup", &[]),
    ("networkPolicy", &[]),
    ("hibernate", &[]),
    ("suspend", &[]),
    ("broker.tls", &[]),
    ("broker.service", &[]),
    ("broker.storage", &[]),
    ("broker.external", &["bridge"]),
    ("broker", &["broker"]),
    ("database.restoreFrom", &[]),
    ("database.service", &[]),
    ("database.storage", &[]),
    ("database.external", &["bridge", "dashboard"]),
    // The dashboard reads its data source at its start.
    ("database.bucket", &["dashboard"]),
    ("database.organization", &["dashboard"]),
    ("database.tls", &["database", "bridge", "dashboard"]),
    ("database", &["database"]),
    ("bridge.replicas", &[]),
    ("bridge", &["bridge"]),
    ("dashboard.service", &[]),
    ("dashboard", &["dashboard"]),
];

/// The parts of which the pods are others.
fn restarted(before: &Case, after: &Case) -> Option<BTreeSet<String>> {
    let (Ok((_, before, _)), Ok((_, after, _))) = (state(before), state(after)) else { return None };
    let (before, after) = (templates(&before), templates(&after));
    let parts = before.as_object().into_iter().flatten();
    Some(
        parts
            .filter(|(part, template)| after[part.as_str()] != **template)
            .map(|(part, _)| part.clone())
            .collect(),
    )
}

#[test]
fn a_change_restarts_no_part_but_its_own() {
    let (pipelines, mut wrong, mut tried) = (pipelines(), BTreeSet::new(), 0);
    for (path, schema) in fields() {
        let may = RESTARTS.iter().find(|(prefix, _)| path.starts_with(prefix));
        let (_, may) = may.unwrap_or_else(|| panic!("what may {path} restart?"));
        for (file, spec) in &pipelines {
            let mut other = spec.clone();
            if !change(&mut other, &path, &schema) {
                continue;
            }
            let Some(restarted) = restarted(&with_spec(file, spec), &with_spec(file, &other)) else {
                continue;
            };
            tried += 1;
            if restarted.iter().any(|part| !may.contains(&part.as_str())) {
                wrong.insert(format!("{path} in {}: {restarted:?}", file.display()));
            }
        }
    }
    assert!(tried > 100, "only {tried} changes");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_field_has_an_effect_and_changed_back_it_has_none() {
    let (pipelines, mut wrong) = (pipelines(), BTreeSet::new());
    for (path, schema) in &fields() {
        if BEFORE_THE_PLAN.contains(&path.as_str()) {
            continue;
        }
        let (mut seen, mut effect) = (false, false);
        for (file, spec) in &pipelines {
            let mut other = spec.clone();
            if effect || !change(&mut other, path, schema) {
                continue;
            }
            seen = true;
            match has_effect(file, spec, &other, !is_open(schema)) {
                Ok(found) => effect |= found,
                Err(error) => {
                    wrong.insert(format!("{path} in {}: {error}", file.display()));
                }
            }
        }
        if !seen {
            wrong.insert(format!("{path}: no case has it, add it to one"));
        } else if !effect {
            wrong.insert(format!("{path}: no effect"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
