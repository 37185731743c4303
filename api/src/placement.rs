//! Where a part's pods run and how its Service is reached: a few fields by name, and for the rest overrides.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema::{any_object, any_objects, rules};

/// Where and how a part's pods run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// As in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "any_objects")]
    pub tolerations: Vec<Value>,

    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub affinity: Option<Value>,

    /// As in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,

    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// More labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// A part of a pod template (metadata, spec), merged into the operator's: maps by key, lists by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub overrides: Option<Value>,
}

/// How a Service is reached.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.loadBalancerClass) || (has(self.type) && self.type == 'LoadBalancer')", "loadBalancerClass needs type: LoadBalancer"),
    ("!has(self.externalTrafficPolicy) || (has(self.type) && self.type != 'ClusterIP')",
     "externalTrafficPolicy needs type: LoadBalancer or NodePort"),
])))]
pub struct ServiceSettings {
    /// Absent: ClusterIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<ServiceType>,

    /// Annotations, which load balancers read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// As in a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,

    /// As in a Service. Local keeps clients' addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
}

/// From where a Service is reached.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[allow(missing_docs, reason = "they are Kubernetes' own")]
pub enum ServiceType {
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// Which pods take what comes from outside.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[allow(missing_docs, reason = "they are Kubernetes' own")]
pub enum TrafficPolicy {
    Cluster,
    Local,
}

/// An Ingress.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressSettings {
    /// The host name.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,

    /// The Ingress class. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,

    /// Annotations, which the Ingress controller or cert-manager read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// A Secret of type kubernetes.io/tls. Absent: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret_name: Option<String>,
}

/// An HTTPRoute of the Gateway API.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSettings {
    /// The gateways.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<Gateway>,

    /// The host names. Absent: those of the gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub hostnames: Vec<String>,
}

/// A gateway, or one of its listeners.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// The gateway's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its namespace. Absent: the pipeline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,

    /// The listener. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}
