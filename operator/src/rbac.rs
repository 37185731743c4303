//! What the operator may do in the cluster.

/// API group, resource, verbs: the chart's ClusterRole equals this.
///
/// `create` is there because an apply of an object that doesn't exist needs it beside `patch`.
pub const RIGHTS: &[(&str, &str, &[&str])] = &[
    ("iotpipeline.io", "iotpipelines", &["list", "watch"]),
    ("iotpipeline.io", "iotpipelines/status", &["patch"]),
    ("apps", "deployments", &["list", "watch", "create", "patch", "delete"]),
    ("apps", "statefulsets", &["list", "watch", "create", "patch", "delete"]),
    ("batch", "cronjobs", &["list", "watch", "create", "patch", "delete"]),
    ("batch", "jobs", &["list", "watch", "create", "patch", "delete"]),
    ("", "configmaps", &["list", "watch", "create", "patch", "delete"]),
    ("", "secrets", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "services", &["list", "watch", "create", "patch", "delete"]),
    ("", "pods", &["list", "watch", "patch"]),
    ("", "persistentvolumeclaims", &["list", "watch", "create", "patch"]),
    ("networking.k8s.io", "networkpolicies", &["list", "watch", "create", "patch", "delete"]),
    ("networking.k8s.io", "ingresses", &["list", "watch", "create", "patch", "delete"]),
    ("policy", "poddisruptionbudgets", &["list", "watch", "create", "patch", "delete"]),
    ("gateway.networking.k8s.io", "httproutes", &["list", "create", "patch", "delete"]),
    // For pipelines that name an issuer of cert-manager.
    ("cert-manager.io", "certificates", &["list", "create", "patch", "delete"]),
    ("", "events", &["list"]),
    ("events.k8s.io", "events", &["get", "create", "patch"]),
];

/// The same, in the operator's own namespace: the Lease by which one of several is elected. `create` is for
/// any name, since the API server knows none yet; the others are for the one Lease.
pub const LEASE_RIGHTS: &[(&str, &str, &[&str])] =
    &[("coordination.k8s.io", "leases", &["create"]), ("coordination.k8s.io", "leases", &["get", "update"])];
