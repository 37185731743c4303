//! The credentials that the operator makes itself. Each is made once and lives in a Secret from then on.

mod authority;
mod rotation;

use std::collections::BTreeMap;

use api::iotpipeline::{Dashboard, IoTPipeline, Tls};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use ring::rand::{SecureRandom, SystemRandom};

use crate::certificate::{Pair, Subject};
use crate::plan::tls_of_parts;
use crate::resources::mosquitto::BRIDGE_USER;
use crate::resources::names::{Component, Names};

pub use authority::{Authorities, NoCertificate};
pub use rotation::{OUTDATED, ROTATE, ROTATED};
use rotation::{Rotation, has_outdated_token};

/// What the operator made, or is about to make.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Passwords of the broker's users, as far as they are not given.
    pub users: BTreeMap<String, String>,
    /// The password of the bridge's own user.
    pub bridge: String,
    /// The secret part of its client id. It names what waits at the broker, so it is never made anew.
    pub session: String,
    /// InfluxDB's administrator.
    pub database: DatabaseAdmin,
    /// The password of Grafana's administrator.
    pub dashboard: String,
    /// The token that InfluxDB made for the bridge.
    pub bridge_token: Option<String>,
    /// The token that InfluxDB made for the dashboard.
    pub dashboard_token: Option<String>,
    /// The pipeline's own authority, if it has one, and what it signed.
    pub signed: Option<Signed>,
    /// When passwords and tokens were made anew, by Secret, as far as they were.
    pub rotated: BTreeMap<String, String>,
    /// The tokens that are still of before that, by Secret.
    pub outdated: BTreeMap<String, String>,
}

/// What the pipeline's own authority signed.
#[derive(Clone)]
pub struct Signed {
    /// The authority.
    pub authorities: Authorities,
    /// The certificates of parts.
    pub servers: BTreeMap<Component, Pair>,
    /// The certificates of the broker's users.
    pub clients: BTreeMap<String, Pair>,
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

/// A credential could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NoCredential {
    /// Randomness failed; the system has none.
    #[error("generate a credential")]
    Randomness,
    /// A certificate failed.
    #[error(transparent)]
    Certificate(#[from] NoCertificate),
}

/// The names of the Secrets that hold the credentials of this pipeline.
pub fn secret_names(pipeline: &IoTPipeline) -> Vec<String> {
    let names = Names::of(pipeline);
    let spec = &pipeline.spec;
    let mut secrets = vec![names.of_part(Component::Bridge)];
    if signs(pipeline) {
        secrets.push(names.of_part(Component::Authority));
    }
    if spec.broker.external.is_none() {
        secrets.push(names.of_part(Component::Broker));
        secrets.push(names.of_user(BRIDGE_USER));
        let generated = spec.broker.users.iter().filter(|user| user.password_secret_ref.is_none());
        secrets.extend(generated.map(|user| names.of_user(&user.name)));
    }
    if spec.database.external.is_none() {
        secrets.push(names.of_part(Component::Database));
    }
    // Of one elsewhere, the token that a managed database has made for it.
    let has_secret = |dashboard: &Dashboard| dashboard.external.is_none() || spec.database.external.is_none();
    if spec.dashboard.as_ref().is_some_and(has_secret) {
        secrets.push(names.of_part(Component::Dashboard));
    }
    secrets
}

/// What is in the Secrets, and new ones for what isn't.
///
/// # Errors
/// If the system has no randomness.
pub fn complete(
    pipeline: &IoTPipeline,
    secrets: &[Secret],
    now: Timestamp,
) -> Result<Credentials, NoCredential> {
    let names = Names::of(pipeline);
    let (bridge, database, dashboard) = (
        names.of_part(Component::Bridge),
        names.of_part(Component::Database),
        names.of_part(Component::Dashboard),
    );
    let (rotation, mut rotated) = (Rotation::of(pipeline, now), BTreeMap::new());
    let mut turn = |name: &str| {
        let turn = rotation.turn(secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some(name)));
        rotated.extend(turn.rotated.map(|when| (name.to_owned(), when)));
        turn.is_due
    };
    let mut password = |name: &str| match turn(name) {
        true => generate(),
        false => kept_or_new(secrets, name, "password"),
    };
    let mut users = BTreeMap::new();
    for user in &pipeline.spec.broker.users {
        if user.password_secret_ref.is_none() && user.certificate.is_none() {
            users.insert(user.name.clone(), password(&names.of_user(&user.name))?);
        }
    }
    let bridge_password = password(&names.of_user(BRIDGE_USER))?;
    let dashboard_password = password(&dashboard)?;
    // Its token is the database's to make, as the dashboard's is.
    turn(&bridge);
    let kept = kept(secrets, &database, "password").is_some() && kept(secrets, &database, "token").is_some();
    Ok(Credentials {
        users,
        bridge: bridge_password,
        session: kept_or_new(secrets, &bridge, "session")?,
        database: DatabaseAdmin {
            password: kept_or_new(secrets, &database, "password")?,
            token: kept_or_new(secrets, &database, "token")?,
            kept,
        },
        dashboard: dashboard_password,
        bridge_token: self::kept(secrets, &bridge, "token"),
        dashboard_token: self::kept(secrets, &dashboard, "token"),
        signed: signed(pipeline, secrets, now)?,
        outdated: outdated_tokens(pipeline, secrets, &rotated),
        rotated,
    })
}

/// The tokens that a rotation is to replace, by Secret. A password is made anew at once; a token waits for the
/// database.
fn outdated_tokens(
    pipeline: &IoTPipeline,
    secrets: &[Secret],
    rotated: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    // Of another's database they are given.
    if pipeline.spec.database.external.is_some() {
        return BTreeMap::new();
    }
    let names = Names::of(pipeline);
    let outdated = [Component::Bridge, Component::Dashboard].into_iter().filter_map(|part| {
        let name = names.of_part(part);
        let secret = secrets.iter().find(|secret| secret.metadata.name.as_ref() == Some(&name))?;
        let token = kept(secrets, &name, "token")?;
        has_outdated_token(secret, rotated.get(&name)).then_some((name, token))
    });
    outdated.collect()
}

/// Whether the pipeline has an authority of its own: a broker knows it before the first user has a certificate.
fn signs(pipeline: &IoTPipeline) -> bool {
    let has_broker = pipeline.spec.broker.external.is_none();
    has_broker || tls_of_parts(&pipeline.spec).iter().any(|(_, tls)| is_own(tls))
}

fn is_own(tls: &Tls) -> bool {
    tls.issuer_ref.is_none() && tls.secret_ref.is_none()
}

fn signed(
    pipeline: &IoTPipeline,
    secrets: &[Secret],
    now: Timestamp,
) -> Result<Option<Signed>, NoCertificate> {
    if !signs(pipeline) {
        return Ok(None);
    }
    let names = Names::of(pipeline);
    let parts = tls_of_parts(&pipeline.spec);
    let own = parts.iter().filter(|(_, tls)| is_own(tls));
    let users = pipeline.spec.broker.users.iter().filter(|user| user.certificate.is_some());
    let ca = names.of_part(Component::Authority);
    let kept = kept_pair(secrets, &ca, ["tls.crt", "tls.key"])
        .map(|newest| Authorities { newest, before: kept_pair(secrets, &ca, ["before.crt", "before.key"]) });
    let authorities = Authorities::kept_or_new(kept, now)?;
    let issued = |secret: String, subject: Subject<'_>| {
        authorities.kept_or_issued(kept_pair(secrets, &secret, ["tls.crt", "tls.key"]), subject, now)
    };
    let mut servers = BTreeMap::new();
    for (component, tls) in own {
        let hosts = [names.hosts(*component), tls.hosts.clone()].concat();
        servers.insert(*component, issued(names.of_part(*component), Subject::Server(&hosts))?);
    }
    let mut clients = BTreeMap::new();
    for user in users {
        clients.insert(user.name.clone(), issued(names.of_user(&user.name), Subject::User(&user.name))?);
    }
    Ok(Some(Signed { authorities, servers, clients }))
}

fn kept_pair(secrets: &[Secret], name: &str, [certificate, key]: [&str; 2]) -> Option<Pair> {
    Some(Pair { certificate: kept(secrets, name, certificate)?, key: kept(secrets, name, key)? })
}

fn kept(secrets: &[Secret], name: &str, key: &str) -> Option<String> {
    let secret = secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some(name))?;
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone()).ok().filter(|text| !text.is_empty())
}

fn kept_or_new(secrets: &[Secret], name: &str, key: &str) -> Result<String, NoCredential> {
    match kept(secrets, name, key) {
        Some(value) => Ok(value),
        None => generate(),
    }
}

/// 192 random bits, in letters, digits, - and _.
pub(crate) fn generate() -> Result<String, NoCredential> {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoCredential::Randomness)?;
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
        let credentials = complete(&pipeline, &secrets, Timestamp::now()).expect("there is randomness");
        assert_eq!(credentials.users["a"], "a");
        assert_eq!(credentials.bridge_token.as_deref(), Some("b"));
        assert_eq!(credentials.dashboard.len(), 32);
        assert!(!credentials.database.kept);
        assert_ne!(credentials.database.token, credentials.database.password);
    }

    #[test]
    fn a_token_is_outdated_from_a_rotation_until_its_secret_has_another() {
        let outdated = |annotations: &str, request: &str| {
            let mut pipeline: IoTPipeline = serde_saphyr::from_str(PIPELINE).expect("a pipeline");
            pipeline.metadata.annotations = Some([(ROTATE.to_owned(), request.to_owned())].into());
            let mut secret = secret("lab-bridge", "{token: Yg==}");
            secret.metadata.annotations = Some(serde_saphyr::from_str(annotations).expect("annotations"));
            complete(&pipeline, &[secret], Timestamp::now()).expect("there is randomness").outdated
        };
        let done = format!("{ROTATED}: '2026-01-01T00:00:00Z spring'");
        assert!(outdated("{}", "").is_empty());
        assert_eq!(outdated("{}", "spring")["lab-bridge"], "b");
        assert_eq!(outdated(&format!("{{{done}, {OUTDATED}: 'true'}}"), "spring")["lab-bridge"], "b");
        // As one that knew no such mark has left it, too.
        assert!(outdated(&format!("{{{done}}}"), "spring").is_empty());
    }

    #[test]
    fn a_dashboard_elsewhere_has_a_secret_if_the_database_makes_its_token() {
        let elsewhere = "dashboard: {external: {url: 'http://g', credentialsSecretRef: {name: g}}}";
        let database = "database: {external: {url: 'http://d', tokenSecretRef: {name: d, key: token}}}";
        let text = PIPELINE.replace("dashboard: {}", elsewhere);
        let names = |text: &str| secret_names(&serde_saphyr::from_str(text).expect("a pipeline"));
        let dashboard = "lab-dashboard".to_owned();
        assert!(names(&text).contains(&dashboard));
        assert!(!names(&text.replace("routes:", &format!("{database}, routes:"))).contains(&dashboard));
    }

    #[test]
    fn the_secrets_of_managed_parts_hold_credentials() {
        let pipeline = serde_saphyr::from_str(PIPELINE).expect("a pipeline");
        assert_eq!(
            secret_names(&pipeline),
            [
                "lab-bridge",
                "lab-ca",
                "lab-broker",
                "lab-broker-iotpipeline-bridge",
                "lab-broker-a",
                "lab-database",
                "lab-dashboard"
            ]
        );
    }
}
