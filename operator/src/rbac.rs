//! What the operator may do in the cluster.

/// API group, resource, verbs: the chart's ClusterRole equals this.
///
/// `create` is there because an apply of an object that doesn't exist needs it beside `patch`.
pub const RIGHTS: &[(&str, &str, &[&str])] = &[
    ("iotpipeline.io", "iotpipelines", &["list", "watch"]),
    ("iotpipeline.io", "iotpipelines/status", &["patch"]),
    ("apps", "deployments", &["get", "list", "watch", "create", "patch", "delete"]),
    ("apps", "statefulsets", &["get", "list", "watch", "create", "patch", "delete"]),
    ("batch", "cronjobs", &["get", "list", "watch", "create", "patch", "delete"]),
    ("batch", "jobs", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "configmaps", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "secrets", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "services", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "pods", &["list", "watch", "patch"]),
    ("", "persistentvolumeclaims", &["get", "list", "watch", "create", "patch"]),
    ("networking.k8s.io", "networkpolicies", &["get", "list", "watch", "create", "patch", "delete"]),
    ("networking.k8s.io", "ingresses", &["get", "list", "watch", "create", "patch", "delete"]),
    ("policy", "poddisruptionbudgets", &["get", "list", "watch", "create", "patch", "delete"]),
    ("gateway.networking.k8s.io", "httproutes", &["get", "list", "create", "patch", "delete"]),
    // For pipelines that name an issuer of cert-manager.
    ("cert-manager.io", "certificates", &["get", "list", "create", "patch", "delete"]),
    ("", "events", &["list"]),
    ("events.k8s.io", "events", &["get", "create", "patch"]),
];

/// The same, in the operator's own namespace: the Lease by which one of several is elected. `create` is for
/// any name, since the API server knows none yet; the others are for the one Lease.
pub const LEASE_RIGHTS: &[(&str, &str, &[&str])] =
    &[("coordination.k8s.io", "leases", &["create"]), ("coordination.k8s.io", "leases", &["get", "update"])];
