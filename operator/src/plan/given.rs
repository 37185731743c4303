//! Secrets that the user gives.

use std::collections::BTreeMap;

use api::iotpipeline::{IoTPipeline, SecretKey, SecretName};
use k8s_openapi::api::core::v1::Secret;

use super::Refusal;
use super::tls::{secret_of, tls_of_parts};
use crate::resources::names::Names;

/// The names of the Secrets that a spec refers to.
pub fn given_secrets(pipeline: &IoTPipeline) -> Vec<String> {
    let spec = &pipeline.spec;
    let mut names: Vec<&str> = Vec::new();
    for user in &spec.broker.users {
        names.extend(user.password_secret_ref.as_ref().map(|key| key.name.as_str()));
    }
    if let Some(external) = &spec.broker.external {
        names.extend(external.credentials_secret_ref.as_ref().map(|secret| secret.name.as_str()));
        names.extend(external.ca_secret_ref.as_ref().map(|key| key.name.as_str()));
    }
    if let Some(external) = &spec.database.external {
        names.push(&external.token_secret_ref.name);
        names.extend(external.read_token_secret_ref.as_ref().map(|key| key.name.as_str()));
        names.extend(external.ca_secret_ref.as_ref().map(|key| key.name.as_str()));
    }
    if let Some(external) = spec.dashboard.as_ref().and_then(|dashboard| dashboard.external.as_ref()) {
        names.push(&external.credentials_secret_ref.name);
        names.extend(external.ca_secret_ref.as_ref().map(|key| key.name.as_str()));
    }
    let backup = spec.database.backup.as_ref().and_then(|backup| backup.s3.as_ref());
    let restore = spec.database.restore_from.as_ref().and_then(|from| from.s3.as_ref());
    for s3 in backup.into_iter().chain(restore) {
        names.push(&s3.credentials_secret_ref.name);
    }
    let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
    let own = Names::of(pipeline);
    let certificates = tls_of_parts(spec);
    names.extend(certificates.iter().filter_map(|(part, tls)| Some(secret_of(*part, tls, &own)?.name)));
    names.sort_unstable();
    names.dedup();
    names
}

/// The Secrets that the spec refers to, as far as they exist.
pub(super) struct Given<'a>(pub(super) &'a BTreeMap<String, Secret>);

impl Given<'_> {
    pub(super) fn value(&self, key: &SecretKey, field: &str) -> Result<String, Refusal> {
        let refused = || (key.name.clone(), field.to_owned());
        let secret = self.0.get(&key.name).ok_or_else(|| {
            let (name, field) = refused();
            Refusal::NoSecret { name, field }
        })?;
        text_of(secret, &key.key).ok_or_else(|| {
            let (name, field) = refused();
            Refusal::NoKey { name, key: key.key.clone(), field }
        })
    }

    /// The text under a key, if the Secret exists and has one there.
    pub(super) fn text(&self, name: &str, key: &str) -> Option<String> {
        text_of(self.0.get(name)?, key)
    }

    /// Whether the Secret exists and has the key, whatever is there.
    pub(super) fn has(&self, name: &str, key: &str) -> bool {
        let data = self.0.get(name).and_then(|secret| secret.data.as_ref());
        data.is_some_and(|data| data.contains_key(key))
    }

    pub(super) fn optional(&self, key: Option<&SecretKey>, field: &str) -> Result<Option<String>, Refusal> {
        key.map(|key| self.value(key, field)).transpose()
    }

    /// A certificate and its key.
    pub(super) fn pair(&self, secret: &SecretName, field: &str) -> Result<(String, String), Refusal> {
        let key = |key: &str| SecretKey { name: secret.name.clone(), key: key.into() };
        Ok((self.value(&key("tls.crt"), field)?, self.value(&key("tls.key"), field)?))
    }

    pub(super) fn login(
        &self,
        secret: Option<&SecretName>,
        field: &str,
    ) -> Result<Option<(String, String)>, Refusal> {
        let Some(secret) = secret else { return Ok(None) };
        let key = |key: &str| SecretKey { name: secret.name.clone(), key: key.into() };
        Ok(Some((self.value(&key("username"), field)?, self.value(&key("password"), field)?)))
    }
}

fn text_of(secret: &Secret, key: &str) -> Option<String> {
    let text = std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()?;
    // Files and `kubectl create secret --from-file` end in a line break that nobody means.
    let text = text.trim_end_matches(['\n', '\r']);
    (!text.is_empty()).then(|| text.to_owned())
}
