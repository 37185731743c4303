//! What the code may reach, and what the chart may grant.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use iotpipeline_operator::rbac::{LEASE_RIGHTS, RIGHTS};

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("the sources are there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("it is text");
            found.push((path.display().to_string().replace(env!("CARGO_MANIFEST_DIR"), ""), text));
        }
    }
}

fn all() -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

fn without_tests<'a>(file: &str, text: &'a str) -> &'a str {
    if file.ends_with("/tests.rs") { "" } else { text.split("#[cfg(test)]").next().unwrap_or_default() }
}

#[test]
fn only_named_modules_reach_into_the_network() {
    // health.rs and reload/listening.rs listen; cluster.rs, http.rs and main.rs make the clients that the others are
    // given.
    let may = [
        "apply",
        "backup",
        "cluster",
        "controller",
        "grafana",
        "health",
        "http",
        "influxdb",
        "leader",
        "main",
        "observe",
        "reload",
    ];
    for (file, text) in all() {
        let module = file.trim_start_matches("/src/").split(['/', '.']).next().unwrap_or_default();
        let code = without_tests(&file, &text);
        let words: BTreeSet<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let reaches = ["Client", "Api", "reqwest", "TcpListener", "TcpStream"]
            .into_iter()
            .find(|word| words.contains(word));
        if let Some(word) = reaches {
            assert!(may.contains(&module), "{file} has {word}: only {may:?} may reach into the network");
        }
    }
}

#[test]
fn only_credentials_are_random() {
    for (file, text) in all() {
        let code = without_tests(&file, &text);
        let is_random =
            ["SystemRandom", "rand::", "KeyPair::generate"].iter().any(|word| code.contains(word));
        assert!(!is_random || file.starts_with("/src/credentials"), "{file} makes something random");
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for (file, text) in all() {
        assert!(text.lines().count() <= 400, "{file} has {} lines: split it", text.lines().count());
    }
}

#[test]
fn what_the_code_uses_is_in_the_table_of_rights() {
    let code: String = all().into_iter().map(|(_, text)| text).collect();
    // Events are asked for by what they are about, and each is written by itself.
    for (_, resource, verbs) in RIGHTS.iter().filter(|(_, resource, _)| *resource != "events") {
        let kind = match *resource {
            "iotpipelines" | "iotpipelines/status" => "IoTPipeline",
            "deployments" => "Deployment",
            "statefulsets" => "StatefulSet",
            "configmaps" => "ConfigMap",
            "cronjobs" => "CronJob",
            "jobs" => "Job",
            "secrets" => "Secret",
            "services" => "Service",
            "pods" => "Pod",
            "persistentvolumeclaims" => "PersistentVolumeClaim",
            "networkpolicies" => "NetworkPolicy",
            "ingresses" => "Ingress",
            "poddisruptionbudgets" => "PodDisruptionBudget",
            "httproutes" => "HTTPRoute",
            "certificates" => "Certificate",
            other => panic!("no kind is known for {other}"),
        };
        let is_watched =
            code.contains(&format!("Watched<PartialObjectMeta<{kind}>>")) || *resource == "iotpipelines";
        assert_eq!(verbs.contains(&"watch"), is_watched, "{resource}: watch");
        let is_listed = code.contains(&format!("list::<{kind}>")) || *resource == "iotpipelines";
        assert_eq!(verbs.contains(&"list"), is_listed, "{resource}: list");
        assert_eq!(
            verbs.contains(&"delete"),
            code.contains(&format!("sweep_kind::<{kind}>")),
            "{resource}: delete"
        );
    }
}

type Rights = BTreeSet<(String, String, BTreeSet<String>)>;

/// The rights of a role in the rendered chart.
fn granted(manifest: &str, kind: &str, role: &str) -> Rights {
    let mut granted = Rights::new();
    for document in manifest.split("\n---") {
        let Ok(value) = serde_saphyr::from_str::<serde_json::Value>(document) else { continue };
        if value["kind"] != kind || value["metadata"]["name"] != role {
            continue;
        }
        let texts = |value: &serde_json::Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(Into::into)).collect()
        };
        for rule in value["rules"].as_array().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    granted.insert((group.clone(), resource, texts(&rule["verbs"]).into_iter().collect()));
                }
            }
        }
    }
    granted
}

#[test]
fn the_chart_grants_what_the_code_uses_and_no_more() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/install.yaml");
    let manifest = fs::read_to_string(manifest).expect("manifests/install.yaml is there");
    for (kind, role, used) in [
        ("ClusterRole", "iotpipeline-operator", RIGHTS),
        ("Role", "iotpipeline-operator-leader-election", LEASE_RIGHTS),
    ] {
        let used: Rights = used
            .iter()
            .map(|(group, resource, verbs)| {
                ((*group).into(), (*resource).into(), verbs.iter().map(|&verb| verb.into()).collect())
            })
            .collect();
        assert_eq!(granted(&manifest, kind, role), used, "{kind} {role}");
    }
}
