//! Which pipelines are refused, and in which words; and what a plan keeps of what exists.

mod support;

use iotpipeline_operator::plan::{Plan, Refusal};
use iotpipeline_operator::resources::{Tokens, desired};
use k8s_openapi::api::apps::v1::StatefulSet;
use support::{Case, config, tokens};

const HEAD: &str = "apiVersion: iotpipeline.io/v1alpha1\nkind: IoTPipeline\nmetadata: {name: lab}\nspec: ";

fn refusal(spec: &str) -> Refusal {
    let case = Case::parse(&format!("{HEAD}{spec}"));
    Plan::new(&case.pipeline, &case.observed, &config()).err().expect("the pipeline is refused")
}

const ROUTES: &str = "routes: [{name: r, topic: a, payload: {float: {}}}]";

#[test]
fn a_secret_that_does_not_exist_is_named() {
    let refusal = refusal(&format!(
        "{{broker: {{users: [{{name: u, passwordSecretRef: {{name: s, key: k}}}}]}}, {ROUTES}}}"
    ));
    assert_eq!(refusal.reason(), "SecretNotFound");
    assert_eq!(
        refusal.to_string(),
        "the Secret s does not exist: create it in the pipeline's namespace (broker.users[u].passwordSecretRef names it)"
    );
}

#[test]
fn a_key_that_is_missing_or_empty_is_named() {
    let spec =
        format!("{{broker: {{users: [{{name: u, passwordSecretRef: {{name: s, key: k}}}}]}}, {ROUTES}}}");
    for data in ["{other: x}", "{k: ''}", "{k: \"\\n\"}"] {
        let refusal = refusal(&format!("{spec}\n---\nmetadata: {{name: s}}\nstringData: {data}"));
        assert_eq!(refusal.reason(), "SecretIncomplete", "{data}");
        assert!(refusal.to_string().starts_with("the Secret s has no key k"), "{refusal}");
    }
}

#[test]
fn a_password_with_a_line_break_is_refused() {
    let spec =
        format!("{{broker: {{users: [{{name: u, passwordSecretRef: {{name: s, key: k}}}}]}}, {ROUTES}}}");
    let refusal = refusal(&format!("{spec}\n---\nmetadata: {{name: s}}\nstringData: {{k: \"a\\nroot:x\"}}"));
    assert_eq!(refusal.reason(), "InvalidSpec");
}

#[test]
fn a_topic_with_a_line_break_can_t_grant_what_it_does_not_say() {
    for spec in [
        format!("{{broker: {{users: [{{name: u, publish: [\"a\\ntopic readwrite #\"]}}]}}, {ROUTES}}}"),
        "{routes: [{name: r, topic: \"a\\ntopic write b\", payload: {float: {}}}]}".to_owned(),
    ] {
        assert!(refusal(&spec).to_string().contains("control character"), "{spec}");
    }
}

#[test]
fn resources_that_are_no_quantity_are_refused() {
    let refusal = refusal(&format!("{{bridge: {{resources: {{requests: {{cpu: lots}}}}}}, {ROUTES}}}"));
    assert_eq!(
        refusal.to_string(),
        "bridge.resources.cpu: \"lots\" is no quantity: write a number with a unit, such as 100m or 128Mi"
    );
}

#[test]
fn routes_that_clash_are_refused() {
    let refusal = refusal("{routes: [{name: r, topic: 'a/{value}', payload: {float: {}}}]}");
    assert_eq!(refusal.reason(), "InvalidSpec");
}

#[test]
fn without_a_token_the_bridge_and_the_dashboard_are_left_as_they_are() {
    let case = Case::parse(&format!("{HEAD}{{dashboard: {{}}, {ROUTES}}}"));
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
    let desired = desired(&plan, &Tokens::default());
    assert!(matches!(desired.bridge, iotpipeline_operator::resources::Part::Withheld));
    assert!(matches!(desired.dashboard, iotpipeline_operator::resources::Part::Withheld));
    assert!(desired.database.is_some() && desired.broker.is_some());
}

#[test]
fn the_claim_templates_of_an_existing_set_stay_as_they_are() {
    let mut case = Case::parse(&format!("{HEAD}{{broker: {{storage: {{size: 9Gi}}}}, {ROUTES}}}"));
    let set = |case: &Case| -> StatefulSet {
        let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
        desired(&plan, &tokens()).broker.expect("there is a broker").stateful_set
    };
    let mut existing = set(&case);
    let claims = existing.spec.volume_claim_templates.as_mut().expect("there are claims");
    claims[0].metadata.labels = None;
    let kept = existing.spec.volume_claim_templates.clone();
    case.observed.children.stateful_sets.push(existing);
    assert_eq!(set(&case).spec.volume_claim_templates, kept);
}
