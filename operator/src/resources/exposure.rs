//! How parts are reached from outside the cluster: Services of other types, an Ingress, an HTTPRoute.

use api::placement::{IngressSettings, RouteSettings, ServiceSettings, ServiceType, TrafficPolicy};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::names::Component;
use super::part_metadata;
use crate::plan::Identity;

/// What of an HTTPRoute the operator writes.
/// <https://gateway-api.sigs.k8s.io/reference/spec/#httproutespec>
#[derive(Clone, CustomResource, Debug, Deserialize, Serialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The gateways.
    pub parent_refs: Vec<Value>,
    /// The host names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Where requests go.
    pub rules: Vec<Value>,
}

/// By number, since its name says whether it speaks TLS.
const DASHBOARD_PORT: i32 = 3000;

/// Makes a Service what the spec says of it.
pub(super) fn expose(service: &mut Service, settings: Option<&ServiceSettings>) {
    let Some(ServiceSettings { r#type, annotations, load_balancer_class, external_traffic_policy }) =
        settings
    else {
        return;
    };
    if !annotations.is_empty() {
        service.metadata.annotations.get_or_insert_default().extend(annotations.clone());
    }
    let spec = service.spec.get_or_insert_default();
    spec.type_ = r#type.map(|type_| {
        match type_ {
            ServiceType::ClusterIP => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
        }
        .into()
    });
    spec.load_balancer_class.clone_from(load_balancer_class);
    spec.external_traffic_policy = external_traffic_policy.map(|policy| {
        match policy {
            TrafficPolicy::Cluster => "Cluster",
            TrafficPolicy::Local => "Local",
        }
        .into()
    });
}

/// The dashboard's Ingress.
pub(super) fn ingress(pipeline: &Identity, settings: &IngressSettings) -> Ingress {
    let IngressSettings { host, class_name, annotations, tls_secret_name } = settings;
    let mut metadata = part_metadata(pipeline, Component::Dashboard);
    metadata.annotations = Some(annotations.clone()).filter(|annotations| !annotations.is_empty());
    let service = IngressServiceBackend {
        name: pipeline.names.of_part(Component::Dashboard),
        port: Some(ServiceBackendPort { name: None, number: Some(DASHBOARD_PORT) }),
    };
    let path = HTTPIngressPath {
        path: Some("/".into()),
        path_type: "Prefix".into(),
        backend: IngressBackend { service: Some(service), resource: None },
    };
    let tls = |secret: &String| {
        vec![IngressTLS { hosts: Some(vec![host.clone()]), secret_name: Some(secret.clone()) }]
    };
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: class_name.clone(),
            rules: Some(vec![IngressRule {
                host: Some(host.clone()),
                http: Some(HTTPIngressRuleValue { paths: vec![path] }),
            }]),
            tls: tls_secret_name.as_ref().map(tls),
            default_backend: None,
        }),
        status: None,
    }
}

/// The dashboard's HTTPRoute.
pub(super) fn route(pipeline: &Identity, settings: &RouteSettings) -> HTTPRoute {
    let RouteSettings { parent_refs, hostnames } = settings;
    let service = pipeline.names.of_part(Component::Dashboard);
    let mut route = HTTPRoute::new(
        "",
        HttpRouteSpec {
            parent_refs: parent_refs.iter().map(|gateway| json!(gateway)).collect(),
            hostnames: hostnames.clone(),
            rules: vec![json!({"backendRefs": [{"name": service, "port": DASHBOARD_PORT}]})],
        },
    );
    route.metadata = part_metadata(pipeline, Component::Dashboard);
    route
}
