//! Rights: what is granted is used, nothing else is asked for, and Secrets are read that are the operator's or
//! that a pipeline names, and no others.

mod life;
mod named;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use iotpipeline_e2e::control_plane::apply;
use iotpipeline_e2e::control_plane::audit::Request;
use iotpipeline_e2e::stage::MANAGED;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// API group, resource, verb.
type Right = (String, String, String);

/// Nothing was refused, and no Secret was read but the operator's own and these. What is not there yet is asked
/// for by the name that it will have.
async fn only_its_own(requests: &[Request], admin: &Client, named: &[&str]) -> Result<()> {
    let refused: Vec<&Request> = requests.iter().filter(|request| request.code() == 403).collect();
    ensure!(refused.is_empty(), "not granted: {refused:?}");
    let mut read = 0;
    for request in requests {
        let object = request.object_ref.clone().unwrap_or_default();
        if object.resource != "secrets" || request.is_write() {
            continue;
        }
        match request.verb.as_str() {
            "get" if named.contains(&object.name.as_str()) => {}
            "get" if request.code() == 404 => {}
            "get" => {
                let secrets: Api<Secret> = Api::namespaced(admin.clone(), &object.namespace);
                let secret = secrets.get_opt(&object.name).await?;
                ensure!(secret.is_none_or(|secret| is_own(secret.labels())), "{object:?} was read");
            }
            "list" => read += content_of_a_list(request)?,
            // What a watch tells is not in the log; but it goes on where a list of the same kind has ended.
            "watch" => ensure!(request.uri.contains("labelSelector="), "{}", request.uri),
            verb => anyhow::bail!("{verb} of {object:?}"),
        }
    }
    ensure!(read > 0, "the log has no list of Secrets");
    Ok(())
}

fn is_own(labels: &BTreeMap<String, String>) -> bool {
    labels.get("app.kubernetes.io/managed-by").is_some_and(|by| by == "iotpipeline-operator")
}

/// Of the operator's own Secrets everything is listed, of others the names only. Returns 1 if that could be seen.
fn content_of_a_list(request: &Request) -> Result<usize> {
    if request.uri.contains("managed-by%3Diotpipeline-operator") {
        return Ok(1);
    }
    let items = request.response["items"].as_array();
    let items = items.with_context(|| format!("the log has no answer to {}", request.uri))?;
    for item in items {
        let has_content = item.get("data").is_some() || item.get("type").is_some();
        ensure!(!has_content, "the content of {} was listed", item["metadata"]["name"]);
    }
    Ok(1)
}

/// What a request needs; an apply of what doesn't exist needs `create` as well.
fn rights_of(request: &Request) -> Vec<Right> {
    let object = request.object_ref.clone().unwrap_or_default();
    let resource = match object.subresource.as_str() {
        "" => object.resource,
        subresource => format!("{}/{subresource}", object.resource),
    };
    let right = |verb: &str| (object.api_group.clone(), resource.clone(), verb.to_owned());
    match (request.verb.as_str(), request.code()) {
        ("patch", 201) => vec![right("patch"), right("create")],
        (verb, _) => vec![right(verb)],
    }
}

/// What a manifest grants the operator, its election included.
fn granted(manifest: &str) -> Result<BTreeSet<Right>> {
    let mut granted = BTreeSet::new();
    for document in serde_saphyr::from_multiple::<Value>(manifest)? {
        let name = document["metadata"]["name"].as_str().unwrap_or_default();
        let is_role = document["kind"] == "ClusterRole" || document["kind"] == "Role";
        if !is_role || !["iotpipeline-operator", "iotpipeline-operator-leader-election"].contains(&name) {
            continue;
        }
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(Into::into)).collect()
        };
        for rule in document["rules"].as_array().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    let right = |verb| (group.clone(), resource.clone(), verb);
                    granted.extend(texts(&rule["verbs"]).into_iter().map(right));
                }
            }
        }
    }
    ensure!(!granted.is_empty(), "the manifest has no role");
    Ok(granted)
}

/// A kind of others', as far as the API server must know it.
pub(crate) fn definition(group: &str, plural: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            // Without it nobody may define what is in Kubernetes' own groups.
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/1538"},
        },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Makes a namespace with a Secret in it that a pipeline will name, and one that is nobody's business.
async fn namespace(admin: &Client, name: &str) -> Result<()> {
    apply(admin, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await?;
    for secret in ["given", "foreign"] {
        let metadata = json!({"name": secret, "namespace": name});
        let data = json!({"password": "good-enough"});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data});
        apply(admin, secret).await?;
    }
    Ok(())
}

/// How many objects of the operator's there are in a namespace.
async fn objects_of_the_operator(admin: &Client, namespace: &str) -> Result<usize> {
    let parameters = ListParams::default().labels(MANAGED);
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), namespace);
    Ok(secrets.list(&parameters).await?.items.len())
}
