//! What a spec may change of the pods, and what it may not.

mod support;

use std::path::Path;

use iotpipeline_operator::plan::Plan;
use iotpipeline_operator::resources::names::Component;
use iotpipeline_operator::resources::{Desired, desired};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use support::{Case, config, tokens};

fn plan(part: &str, pod: &str) -> Result<Plan, String> {
    let case = Case::parse(&format!(
        "apiVersion: iotpipeline.io/v1alpha1\nkind: IoTPipeline\nmetadata: {{name: lab}}\n\
         spec: {{{part}: {{pod: {pod}}}, routes: [{{name: r, topic: a, payload: {{float: {{}}}}}}]}}"
    ));
    Plan::new(&case.pipeline, &case.observed, &config()).map_err(|refusal| {
        assert_eq!(refusal.reason(), "InvalidSpec");
        refusal.to_string()
    })
}

#[test]
fn what_a_pod_template_does_not_have_is_refused_with_its_path() {
    for (pod, path) in [
        ("{overrides: {spec: {nodeSelectr: {a: b}}}}", "spec.nodeSelectr"),
        (
            "{overrides: {spec: {containers: [{name: reload, resources: {limit: {}}}]}}}",
            "spec.containers.0.resources.limit",
        ),
        ("{affinity: {podAffinty: {}}}", "spec.affinity.podAffinty"),
        ("{tolerations: [{key: a}, {kye: a}]}", "spec.tolerations.1.kye"),
        ("{overrides: {kind: Pod}}", "kind"),
    ] {
        let refusal = plan("broker", pod).err().unwrap_or_else(|| panic!("{pod} is taken"));
        assert_eq!(refusal, format!("broker.pod: a pod template has no {path}: correct or remove it"));
    }
    let refusal = plan("broker", "{overrides: {spec: {priority: high}}}").err().expect("it is refused");
    assert!(refusal.starts_with("broker.pod: invalid type: string \"high\", expected i32"), "{refusal}");
}

#[test]
fn what_the_operator_relies_on_can_t_be_overridden() {
    for (part, pod, path) in [
        ("broker", "{labels: {app.kubernetes.io/instance: x}}", "metadata.labels.app.kubernetes.io/instance"),
        (
            "broker",
            "{annotations: {iotpipeline.io/restart-hash: x}}",
            "metadata.annotations.iotpipeline.io/restart-hash",
        ),
        ("broker", "{overrides: {metadata: {name: x}}}", "metadata.name"),
        ("database", "{overrides: {spec: {securityContext: {runAsUser: 0}}}}", "spec.securityContext"),
        ("database", "{overrides: {spec: {hostNetwork: true}}}", "spec.hostNetwork"),
        ("bridge", "{overrides: {spec: {volumes: [{name: state, emptyDir: {}}]}}}", "spec.volumes[state]"),
        (
            "bridge",
            "{overrides: {spec: {containers: [{name: bridge, image: x}]}}}",
            "spec.containers[bridge].image",
        ),
        (
            "bridge",
            "{overrides: {spec: {containers: [{name: bridge, securityContext: {privileged: true}}]}}}",
            "spec.containers[bridge].securityContext",
        ),
        (
            "dashboard",
            "{overrides: {spec: {containers: [{name: grafana, volumeMounts: [{name: data, mountPath: /x}]}]}}}",
            "spec.containers[grafana].volumeMounts",
        ),
    ] {
        let refusal = plan(part, pod).err().unwrap_or_else(|| panic!("{pod} is taken"));
        assert_eq!(refusal, format!("{part}.pod: {path} is the operator's own: remove it"));
    }
}

#[test]
fn a_sidecar_is_the_user_s_own() {
    let sidecar = "{overrides: {spec: {containers: [{name: log, image: i, args: [x], securityContext: {runAsUser: 1}}]}}}";
    let plan = plan("database", sidecar).expect("it is taken");
    let template = desired(&plan, &tokens()).database.expect("a database").stateful_set.spec.template;
    let names: Vec<_> =
        template.spec.iter().flat_map(|spec| &spec.containers).map(|one| one.name.clone()).collect();
    assert_eq!(names, ["influxdb", "log"]);
}

#[test]
fn the_operator_s_own_containers_and_volumes_are_known_by_name() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples/lab.yaml");
    let case = Case::read(&example);
    let plan = Plan::new(&case.pipeline, &case.observed, &config()).expect("it can be planned");
    let Desired { broker, database, bridge, dashboard, .. } = desired(&plan, &tokens());
    let check = |component: Component, template: &PodTemplateSpec, claims: &[&str]| {
        let spec = template.spec.as_ref().expect("a pod has a spec");
        let containers: Vec<_> = spec.containers.iter().map(|container| container.name.as_str()).collect();
        assert_eq!(containers, component.containers());
        let volumes = spec.volumes.iter().flatten().map(|volume| volume.name.as_str());
        for volume in volumes.chain(claims.iter().copied()) {
            assert!(component.volumes().contains(&volume), "{component:?}: {volume}");
        }
    };
    let broker = broker.expect("a broker").stateful_set;
    check(Component::Broker, &broker.spec.template, &["data"]);
    check(Component::Database, &database.expect("a database").stateful_set.spec.template, &["data"]);
    check(Component::Bridge, &bridge.wanted().expect("a bridge").stateful_set.spec.template, &["state"]);
    check(Component::Dashboard, &dashboard.wanted().expect("a dashboard").deployment.spec.template, &[]);
}
