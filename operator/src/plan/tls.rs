//! The certificates that managed parts show to their clients: of the pipeline's own authority, or given.

use api::iotpipeline::{IoTPipelineSpec, SecretName, Tls};
use jiff::Timestamp;

use super::given::Given;
use super::{Broker, Dashboard, DatabasePlace, Plan, Refusal};
use crate::certificate::{Pair, Subject};
use crate::observe::Observed;
use crate::resources::names::{Component, Names};

/// How a part is known to its clients.
pub struct ServerTls {
    /// Its certificate.
    pub pair: Pair,
    /// The authorities to check it by, as PEM; the public ones, if none.
    pub ca: Option<String>,
}

impl ServerTls {
    /// As keys of the part's Secret.
    pub fn files(&self) -> Vec<(&'static str, &str)> {
        let pair = [("tls.crt", self.pair.certificate.as_str()), ("tls.key", self.pair.key.as_str())];
        pair.into_iter().chain(self.ca.as_deref().map(|ca| ("ca.crt", ca))).collect()
    }
}

/// Until when the certificates of a plan hold, by part.
pub fn expiries(plan: &Plan) -> Vec<(&'static str, Timestamp)> {
    let broker = match &plan.broker {
        Broker::Managed(managed) => Some(&managed.tls.pair),
        Broker::External(_) => None,
    };
    let database = match &plan.database.place {
        DatabasePlace::Managed(managed) => managed.tls.as_ref().map(|tls| &tls.pair),
        DatabasePlace::External(_) => None,
    };
    let dashboard = match &plan.dashboard {
        Some(Dashboard::Managed { tls, .. }) => tls.as_ref().map(|tls| &tls.pair),
        Some(Dashboard::External { .. }) | None => None,
    };
    [
        (Component::Broker, broker),
        (Component::Database, database),
        (Component::Dashboard, dashboard),
        (Component::Authority, plan.authorities.as_ref().map(|own| &own.newest)),
    ]
    .into_iter()
    .filter_map(|(component, pair)| Some((component.as_str(), pair?.validity()?.until)))
    .collect()
}

/// The managed parts that speak TLS.
pub fn tls_of_parts(spec: &IoTPipelineSpec) -> Vec<(Component, Tls)> {
    let broker = spec.broker.external.is_none().then(|| spec.broker.tls.clone().unwrap_or_default());
    let database = spec.database.tls.clone();
    let dashboard = spec.dashboard.as_ref().and_then(|dashboard| dashboard.tls.clone());
    [(Component::Broker, broker), (Component::Database, database), (Component::Dashboard, dashboard)]
        .into_iter()
        .filter_map(|(component, tls)| Some((component, tls?)))
        .collect()
}

/// The Secret in which a part's certificate is, unless it is of the pipeline's own authority.
pub(super) fn secret_of(component: Component, tls: &Tls, names: &Names) -> Option<SecretName> {
    let issued = tls.issuer_ref.as_ref().map(|_| SecretName { name: names.of_issued(component) });
    tls.secret_ref.clone().or(issued)
}

/// The certificate of a part, if it speaks TLS.
pub(super) fn server_tls(
    spec: &IoTPipelineSpec,
    component: Component,
    names: &Names,
    observed: &Observed,
) -> Result<Option<ServerTls>, Refusal> {
    let Some((_, tls)) = tls_of_parts(spec).into_iter().find(|(part, _)| *part == component) else {
        return Ok(None);
    };
    let Some(secret) = secret_of(component, &tls, names) else {
        let signed = observed.credentials.signed.as_ref();
        let of_part = |signed: &'_ crate::credentials::Signed| {
            Some(ServerTls {
                pair: signed.servers.get(&component)?.clone(),
                ca: Some(signed.authorities.trusted()),
            })
        };
        return Ok(signed.and_then(of_part));
    };
    let given = Given(&observed.given);
    if tls.issuer_ref.is_some() && !observed.given.contains_key(&secret.name) {
        return Err(Refusal::NotIssued(secret.name));
    }
    let field = format!("{}.tls", component.as_str());
    let (certificate, key) = given.pair(&secret, &field)?;
    let tls = ServerTls { pair: Pair { certificate, key }, ca: given.text(&secret.name, "ca.crt") };
    // Nobody within the pipeline reaches the dashboard.
    let hosts: Vec<String> =
        if component == Component::Dashboard { Vec::new() } else { vec![names.host(component)] };
    match tls.pair.check(Subject::Server(&hosts), tls.ca.as_deref(), observed.now) {
        Ok(()) => Ok(Some(tls)),
        Err(source) => Err(Refusal::Certificate { name: secret.name, field, source }),
    }
}
