//! The credentials that the operator makes itself. Each is made once and lives in a Secret from then on.

use std::collections::BTreeMap;

use api::iotpipeline::IoTPipeline;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::Secret;
use ring::rand::{SecureRandom, SystemRandom};

use crate::resources::mosquitto::BRIDGE_USER;
use crate::resources::names::{Component, Names};

/// What the operator made, or is about to make.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Passwords of the broker's users, as far as they are not given.
    pub users: BTreeMap<String, String>,
    /// The password of the bridge's own user.
    pub bridge: String,
    /// InfluxDB's administrator.
    pub database: DatabaseAdmin,
    /// The password of Grafana's administrator.
    pub dashboard: String,
    /// The token that InfluxDB made for the bridge.
    pub bridge_token: Option<String>,
    /// The token that InfluxDB made for the dashboard.
    pub dashboard_token: Option<String>,
}

/// InfluxDB's administrator.
#[derive(Clone, Default)]
pub struct DatabaseAdmin {
    /// The password.
    pub password: String,
    /// The token, which the operator chooses before the database exists.
    pub token: String,
    /// Both are in a Secret. Until they are, the database must not be set up with them.
    pub kept: bool,
}

/// Randomness failed; the system has none.
#[derive(Debug, thiserror::Error)]
#[error("generate a credential")]
pub struct NoRandomness;

/// The names of the Secrets that hold the credentials of this pipeline.
pub fn secret_names(pipeline: &IoTPipeline) -> Vec<String> {
    let names = Names::of(pipeline);
    let spec = &pipeline.spec;
    let mut secrets = vec![names.of_part(Component::Bridge)];
    if spec.broker.external.is_none() {
        secrets.push(names.of_user(BRIDGE_USER));
        let generated = spec.broker.users.iter().filter(|user| user.password_secret_ref.is_none());
        secrets.extend(generated.map(|user| names.of_user(&user.name)));
    }
    if spec.database.external.is_none() {
        secrets.push(names.of_part(Component::Database));
    }
    if spec.dashboard.as_ref().is_some_and(|dashboard| dashboard.external.is_none()) {
        secrets.push(names.of_part(Component::Dashboard));
    }
    secrets
}

/// What is in the Secrets, and new ones for what isn't.
///
/// # Errors
/// If the system has no randomness.
pub fn complete(pipeline: &IoTPipeline, secrets: &[Secret]) -> Result<Credentials, NoRandomness> {
    let names = Names::of(pipeline);
    let (bridge, database, dashboard) = (
        names.of_part(Component::Bridge),
        names.of_part(Component::Database),
        names.of_part(Component::Dashboard),
    );
    let mut users = BTreeMap::new();
    for user in &pipeline.spec.broker.users {
        if user.password_secret_ref.is_none() {
            users.insert(user.name.clone(), kept_or_new(secrets, &names.of_user(&user.name), "password")?);
        }
    }
    let kept = kept(secrets, &database, "password").is_some() && kept(secrets, &database, "token").is_some();
    Ok(Credentials {
        users,
        bridge: kept_or_new(secrets, &names.of_user(BRIDGE_USER), "password")?,
        database: DatabaseAdmin {
            password: kept_or_new(secrets, &database, "password")?,
            token: kept_or_new(secrets, &database, "token")?,
            kept,
        },
        dashboard: kept_or_new(secrets, &dashboard, "password")?,
        bridge_token: self::kept(secrets, &bridge, "token"),
        dashboard_token: self::kept(secrets, &dashboard, "token"),
    })
}

fn kept(secrets: &[Secret], name: &str, key: &str) -> Option<String> {
    let secret = secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some(name))?;
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone()).ok().filter(|text| !text.is_empty())
}

fn kept_or_new(secrets: &[Secret], name: &str, key: &str) -> Result<String, NoRandomness> {
    match kept(secrets, name, key) {
        Some(value) => Ok(value),
        None => generate(),
    }
}

/// 192 random bits, in letters, digits, - and _.
pub(crate) fn generate() -> Result<String, NoRandomness> {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPELINE: &str = "{apiVersion: iotpipeline.io/v1alpha1, kind: IoTPipeline, metadata: {name: lab, namespace: n}, \
        spec: {broker: {users: [{name: a}]}, dashboard: {}, routes: []}}";

    fn secret(name: &str, data: &str) -> Secret {
        serde_saphyr::from_str(&format!("{{metadata: {{name: {name}}}, data: {data}}}")).expect("a Secret")
    }

    #[test]
    fn what_is_in_a_secret_is_kept_and_the_rest_is_made() {
        let pipeline = serde_saphyr::from_str(PIPELINE).expect("a pipeline");
        let secrets = [secret("lab-broker-a", "{password: YQ==}"), secret("lab-bridge", "{token: Yg==}")];
        let credentials = complete(&pipeline, &secrets).expect("there is randomness");
        assert_eq!(credentials.users["a"], "a");
        assert_eq!(credentials.bridge_token.as_deref(), Some("b"));
        assert_eq!(credentials.dashboard.len(), 32);
        assert!(!credentials.database.kept);
        assert_ne!(credentials.database.token, credentials.database.password);
    }

    #[test]
    fn the_secrets_of_managed_parts_hold_credentials() {
        let pipeline = serde_saphyr::from_str(PIPELINE).expect("a pipeline");
        assert_eq!(
            secret_names(&pipeline),
            ["lab-bridge", "lab-broker-iotpipeline-bridge", "lab-broker-a", "lab-database", "lab-dashboard"]
        );
    }
}
