//! A broker that is not the operator's, and how the bridge is let in there.

use api::iotpipeline::{self, SecretName};

use super::Refusal;
use super::given::Given;

const FIELD: &str = "broker.external.credentialsSecretRef";

/// A broker that is not the operator's.
pub struct ExternalBroker {
    /// Its address.
    pub url: String,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// A client certificate with those that signed it, and its private key: both PEM.
    pub certificate: Option<(String, String)>,
    /// The certificate authority to trust.
    pub ca: Option<String>,
}

impl ExternalBroker {
    pub(super) fn new(external: &iotpipeline::ExternalBroker, given: &Given<'_>) -> Result<Self, Refusal> {
        let secret = external.credentials_secret_ref.as_ref();
        let certificate = match secret {
            None => None,
            Some(secret) => certificate(secret, &external.url, given)?,
        };
        // With a certificate, user name and password may be left out; half of them may not.
        let has_login = |secret: &SecretName| {
            certificate.is_none() || ["username", "password"].iter().any(|key| given.has(&secret.name, key))
        };
        if let Some(authority) = &external.ca_secret_ref
            && !has_tls(&external.url)
        {
            let (name, url) = (authority.name.clone(), external.url.clone());
            return Err(Refusal::AuthorityWithoutTls { name, url });
        }
        Ok(Self {
            url: external.url.clone(),
            login: given.login(secret.filter(|secret| has_login(secret)), FIELD)?,
            certificate,
            ca: given.optional(external.ca_secret_ref.as_ref(), "broker.external.caSecretRef")?,
        })
    }
}

/// The keys are those of Kubernetes' own type for it, so that what cert-manager writes can be named.
/// <https://kubernetes.io/docs/concepts/configuration/secret/#tls-secrets>
fn certificate(
    secret: &SecretName,
    url: &str,
    given: &Given<'_>,
) -> Result<Option<(String, String)>, Refusal> {
    const KEYS: [&str; 2] = ["tls.crt", "tls.key"];
    let name = || secret.name.clone();
    let half = |present, missing| Err(Refusal::HalfCertificate { name: name(), present, missing });
    match KEYS.map(|key| given.text(&secret.name, key)) {
        [None, None] => Ok(None),
        [Some(_), None] => half(KEYS[0], KEYS[1]),
        [None, Some(_)] => half(KEYS[1], KEYS[0]),
        [Some(_), Some(_)] if !has_tls(url) => {
            Err(Refusal::CertificateWithoutTls { name: name(), url: url.to_owned() })
        }
        [Some(certificate), Some(key)] => Ok(Some((certificate, key))),
    }
}

fn has_tls(url: &str) -> bool {
    url.starts_with("mqtts://") || url.starts_with("wss://")
}
