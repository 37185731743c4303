//! Looks for what is secret where it doesn't belong: as it is, and in the forms in which programs write it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DynamicObject, ListParams, LogParams};
use kube::{Api, Client, ResourceExt};

use crate::control_plane::namespaced_kinds;
use crate::namespaces::Namespace;

/// Less could be found by chance.
const SHORTEST: usize = 8;

/// What is to be found nowhere.
#[derive(Default)]
pub struct Secrets {
    /// By the forms of a value, what it is.
    names: BTreeMap<String, String>,
    values: BTreeSet<String>,
    places: usize,
    found: BTreeSet<String>,
}

impl Secrets {
    /// Adds a value. The name says what it is.
    ///
    /// # Errors
    /// If it is so short that it could be found by chance.
    pub fn add(&mut self, name: &str, value: &str) -> Result<()> {
        // Line breaks are written in many ways. A key's longest line is its own, unlike its first and its last.
        let lines = value.lines().filter(|line| !line.starts_with("-----"));
        let value = lines.max_by_key(|line| line.len()).unwrap_or_default();
        if value.len() < SHORTEST {
            bail!("{name} is too short to be looked for");
        }
        self.values.insert(value.to_owned());
        for form in forms(value) {
            self.names.entry(form).or_insert_with(|| name.to_owned());
        }
        Ok(())
    }

    /// Adds what is secret of a Secret: what its key calls a password, a token or a key, also of S3. The secret part of
    /// the bridge's client id is no credential: without an account it opens nothing, and mosquitto names clients in its
    /// log.
    ///
    /// # Errors
    /// If such a value is no text, or too short.
    pub fn add_secret(&mut self, secret: &Secret) -> Result<()> {
        for (key, value) in secret.data.iter().flatten() {
            if ["password", "token", ".key", "AccessKey", "accessKeyId"].iter().any(|end| key.ends_with(end))
            {
                let name = format!("{} {key}", secret.name_any());
                self.add(&name, std::str::from_utf8(&value.0).context("no text")?)?;
            }
        }
        Ok(())
    }

    /// How many values are looked for.
    pub fn values(&self) -> usize {
        self.values.len()
    }

    /// Looks through a text. The place says where it was.
    pub fn search(&mut self, place: &str, text: &str) {
        self.places += 1;
        for (form, name) in &self.names {
            if text.contains(form.as_str()) {
                self.found.insert(format!("{name} is in {place}, as {form:?}"));
            }
        }
    }

    /// What was found so far, and in how many texts it was looked for.
    pub fn found(&self) -> (&BTreeSet<String>, usize) {
        (&self.found, self.places)
    }
}

/// As it is; in base64, wherever it begins in what is encoded, and in its alphabet for addresses; with percent signs;
/// and as hexadecimal digits.
fn forms(value: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::from([value.to_owned()]);
    for before in 0..3 {
        let encoded = BASE64_STANDARD.encode([&b"   "[..before], value.as_bytes()].concat());
        // A character at an edge depends on what is beside the value too.
        let (first, left) = ([0, 2, 3][before], (before + value.len()) % 3);
        let last = encoded.len() - [0, 3, 2][left];
        let sure = &encoded[first..last];
        forms.extend([sure.to_owned(), sure.replace('+', "-").replace('/', "_")]);
    }
    for hex in [|byte| format!("%{byte:02X}"), |byte: u8| format!("%{byte:02x}")] {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let one = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { hex(byte) };
        forms.insert(value.bytes().map(one).collect());
    }
    forms.insert(value.bytes().map(|byte| format!("{byte:02x}")).collect());
    forms
}

/// Every object of a namespace that is no Secret, as JSON: its place and its text.
///
/// # Errors
/// If one of the kinds that the API server has can't be listed.
pub async fn objects(client: &Client, namespace: &str) -> Result<Vec<(String, String)>> {
    let mut objects = Vec::new();
    for resource in namespaced_kinds(client).await? {
        if resource.group.is_empty() && resource.kind == "Secret" {
            continue;
        }
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let listed = api.list(&ListParams::default()).await;
        for object in listed.with_context(|| format!("list {}", resource.plural))? {
            let place = format!("{} {}", resource.kind, object.name_any());
            objects.push((place, serde_json::to_string(&object)?));
        }
    }
    Ok(objects)
}

/// What every container of a namespace has said, also before its last restart: its place and its text.
///
/// # Errors
/// If the API server doesn't answer.
pub async fn logs(namespace: &Namespace) -> Result<Vec<(String, String)>> {
    let pods = namespace.api::<Pod>();
    let mut logs = Vec::new();
    for pod in pods.list(&ListParams::default()).await? {
        let spec = pod.spec.clone().unwrap_or_default();
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            for previous in [false, true] {
                let parameters =
                    LogParams { container: Some(container.name.clone()), previous, ..LogParams::default() };
                // Most have not restarted, and some have not started.
                if let Ok(log) = pods.logs(&pod.name_any(), &parameters).await {
                    logs.push((format!("the log of {}/{}", pod.name_any(), container.name), log));
                }
            }
        }
    }
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "needle/+in a hay=stack";

    fn found(text: &str) -> bool {
        let mut secrets = Secrets::default();
        secrets.add("it", VALUE).expect("it is long enough");
        secrets.search("here", text);
        !secrets.found().0.is_empty()
    }

    #[test]
    fn a_value_is_found_in_every_form_that_it_is_written_in() {
        for before in ["", "a", "ab", "abc", "user:", "Token "] {
            for after in ["", "x", "xy", "xyz"] {
                let text = format!("{before}{VALUE}{after}");
                assert!(found(&text), "{text}");
                assert!(found(&BASE64_STANDARD.encode(&text)), "{text} in base64");
                assert!(found(&base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(&text)), "{text} in base64");
            }
        }
        assert!(found("http://x/?q=needle%2F%2Bin%20a%20hay%3Dstack&p=1"));
        assert!(found("http://x/?q=needle%2f%2bin%20a%20hay%3dstack"));
        assert!(found(&VALUE.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for text in ["", "needle", "needle/+in a hay", "bmVlZGxl", &VALUE[1..]] {
            assert!(!found(text), "{text}");
        }
    }

    #[test]
    fn a_key_is_found_by_a_line_of_its_own() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\nawIBAQQg\n-----END PRIVATE KEY-----\n";
        let mut secrets = Secrets::default();
        secrets.add("key", key).expect("it has lines");
        secrets.search("a certificate", "-----BEGIN PRIVATE KEY-----\nsomething else");
        assert!(secrets.found().0.is_empty());
        secrets.search("JSON", &serde_json::json!({"tls.key": key}).to_string());
        assert_eq!(secrets.found().0.len(), 1);
    }

    #[test]
    fn a_value_that_anything_could_hold_is_refused() {
        assert!(Secrets::default().add("it", "short\n").is_err());
    }
}
