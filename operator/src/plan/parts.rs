//! The managed parts, and those that are somebody else's, each as the spec has it.

use api::backup::RESTORING;
use api::iotpipeline::{self, IoTPipelineSpec, SecretKey, retention_seconds};
use k8s_openapi::api::apps::v1::StatefulSet;

use super::given::Given;
use super::requirements;
use super::tls::server_tls;
use super::volumes::volume;
use super::{
    Dashboard, Database, DatabasePlace, ExternalDatabase, GrafanaAccess, ManagedBroker, ManagedDatabase,
    Proof, Refusal, User, Workload,
};
use crate::config::Config;
use crate::credentials::Signed;
use crate::observe::Observed;
use crate::resources::names::{AUTHORITY_HASH, Component, Names};

pub(super) fn managed_broker(
    spec: &IoTPipelineSpec,
    names: &Names,
    observed: &Observed,
    config: &Config,
) -> Result<ManagedBroker, Refusal> {
    let broker = &spec.broker;
    let signed = observed.credentials.signed.as_ref().ok_or(Refusal::NoCertificate)?;
    let (authorities, set) = (signed.authorities.files(), names.of_part(Component::Broker));
    let mut users = Vec::with_capacity(broker.users.len());
    for user in &broker.users {
        users.push(User {
            name: user.name.clone(),
            proof: proof(user, observed)?,
            publish: user.publish.clone(),
            subscribe: user.subscribe.clone(),
        });
    }
    Ok(ManagedBroker {
        workload: Box::new(Workload::new(
            Component::Broker,
            config.image_of(&config.images.mosquitto, broker.image.as_deref()),
            (broker.resources.as_ref(), ("20m", "32Mi")),
            broker.pod.as_deref(),
            broker.service.as_ref(),
        )?),
        reloader: config.image_of(&config.image, None),
        volume: volume(broker.storage.as_ref(), "1Gi", &set, observed),
        queue_bytes: requirements::bytes(broker.queue.as_deref(), "broker.queue")?,
        tls: server_tls(spec, Component::Broker, names, observed)?.ok_or(Refusal::NoCertificate)?,
        plain: broker.plain.unwrap_or_default(),
        asked_for: asked_for(signed, &authorities, observed.children.set(&set)),
        authorities,
        users,
    })
}

/// A new authority restarts a broker only if clients have to know that it is one.
fn asked_for(signed: &Signed, authorities: &[(String, String)], set: Option<&StatefulSet>) -> String {
    let template = set.and_then(|set| set.spec.template.metadata.as_ref());
    let known = template.and_then(|template| template.annotations.as_ref()?.get(AUTHORITY_HASH));
    let newest = authorities.first().map(|(file, _)| file);
    let kept = known.filter(|_| signed.clients.is_empty());
    kept.or(newest).cloned().unwrap_or_default()
}

fn proof(user: &iotpipeline::User, observed: &Observed) -> Result<Proof, Refusal> {
    let (credentials, name) = (&observed.credentials, &user.name);
    if user.certificate.is_some() {
        let pair = credentials.signed.as_ref().and_then(|signed| signed.clients.get(name));
        return pair.cloned().map(Proof::Certificate).ok_or(Refusal::NoCertificate);
    }
    let field = format!("broker.users[{name}].passwordSecretRef");
    let given = Given(&observed.given).optional(user.password_secret_ref.as_ref(), &field)?;
    match given {
        Some(password) if password.contains(['\n', '\r', '\0']) || password.len() > 1024 => {
            Err(Refusal::Password(name.clone()))
        }
        Some(password) => Ok(Proof::GivenPassword(password)),
        None => Ok(Proof::OwnPassword(credentials.users.get(name).cloned().unwrap_or_default())),
    }
}

pub(super) fn plan_database(
    spec: &IoTPipelineSpec,
    names: &Names,
    observed: &Observed,
    config: &Config,
) -> Result<Database, Refusal> {
    let database = &spec.database;
    let given = Given(&observed.given);
    if database.bucket == RESTORING {
        return Err(Refusal::Bucket(database.bucket.clone()));
    }
    let place = match &database.external {
        None => DatabasePlace::Managed(Box::new(ManagedDatabase {
            workload: Box::new(Workload::new(
                Component::Database,
                config.image_of(&config.images.influxdb, database.image.as_deref()),
                (database.resources.as_ref(), ("50m", "128Mi")),
                database.pod.as_deref(),
                None,
            )?),
            volume: volume(database.storage.as_ref(), "5Gi", &names.of_part(Component::Database), observed),
            retention_seconds: retention_seconds(database.retention.as_deref().unwrap_or("0"))
                .map_err(Refusal::Retention)?,
            admin_password: observed.credentials.database.password.clone(),
            admin_token: observed.credentials.database.token.clone(),
            tls: server_tls(spec, Component::Database, names, observed)?,
        })),
        Some(external) => {
            let token = given.value(&external.token_secret_ref, "database.external.tokenSecretRef")?;
            DatabasePlace::External(ExternalDatabase {
                url: external.url.trim_end_matches('/').to_owned(),
                read_token: given
                    .optional(
                        external.read_token_secret_ref.as_ref(),
                        "database.external.readTokenSecretRef",
                    )?
                    .unwrap_or_else(|| token.clone()),
                token,
                ca: given.optional(external.ca_secret_ref.as_ref(), "database.external.caSecretRef")?,
            })
        }
    };
    Ok(Database { organization: database.organization.clone(), bucket: database.bucket.clone(), place })
}

pub(super) fn plan_dashboard(
    spec: &IoTPipelineSpec,
    dashboard: &iotpipeline::Dashboard,
    names: &Names,
    observed: &Observed,
    config: &Config,
) -> Result<Dashboard, Refusal> {
    let Some(external) = &dashboard.external else {
        return Ok(Dashboard::Managed {
            workload: Box::new(Workload::new(
                Component::Dashboard,
                config.image_of(&config.images.grafana, dashboard.image.as_deref()),
                (dashboard.resources.as_ref(), ("20m", "128Mi")),
                dashboard.pod.as_deref(),
                dashboard.service.as_ref(),
            )?),
            ingress: dashboard.ingress.clone(),
            route: dashboard.route.clone(),
            password: observed.credentials.dashboard.clone(),
            tls: server_tls(spec, Component::Dashboard, names, observed)?,
        });
    };
    let given = Given(&observed.given);
    let field = "dashboard.external.credentialsSecretRef";
    let secret = &external.credentials_secret_ref;
    let token = SecretKey { name: secret.name.clone(), key: "token".into() };
    let access = match (given.value(&token, field), given.login(Some(secret), field)) {
        (Ok(token), _) => GrafanaAccess::Token(token),
        (Err(_), Ok(Some((user, password)))) => GrafanaAccess::Basic(user, password),
        (Err(refusal), _) => return Err(refusal),
    };
    Ok(Dashboard::External {
        url: external.url.trim_end_matches('/').to_owned(),
        access,
        ca: given.optional(external.ca_secret_ref.as_ref(), "dashboard.external.caSecretRef")?,
    })
}
