//! Why a pipeline can't be carried out, in words that say what to do.

use api::route::RouteError;

use crate::certificate::CertificateError;

/// The reason of a pipeline that waits for cert-manager.
pub const NOT_ISSUED: &str = "WaitingForCertificate";

/// Why a pipeline can't be carried out as it is. What exists stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A route that can't be used.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// A retention that the schema should have refused.
    #[error("database.retention: {0}")]
    Retention(String),
    /// A bucket that the operator needs for itself.
    #[error("database.bucket: {0} is what a bucket is called while it is restored: choose another name")]
    Bucket(String),
    /// A Secret that is not there.
    #[error("the Secret {name} does not exist: create it in the pipeline's namespace ({field} names it)")]
    NoSecret {
        /// The Secret's name.
        name: String,
        /// The field that names it.
        field: String,
    },
    /// A Secret without the key.
    #[error("the Secret {name} has no key {key}, or it is empty or not text: add it ({field} needs it)")]
    NoKey {
        /// The Secret's name.
        name: String,
        /// The key.
        key: String,
        /// The field that names it.
        field: String,
    },
    /// A certificate without its key, or the other way round.
    #[error(
        "the Secret {name} has {present} and no {missing}, or it is empty or not text: a client certificate needs \
         both, so add {missing}, or remove {present} (broker.external.credentialsSecretRef names it)"
    )]
    HalfCertificate {
        /// The Secret's name.
        name: String,
        /// The key that is there.
        present: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// An authority to check a broker by that is not reached by TLS.
    #[error(
        "the Secret {name} has an authority to check the broker by, and {url} is not TLS: write mqtts:// or wss://, or leave out broker.external.caSecretRef"
    )]
    AuthorityWithoutTls {
        /// The Secret's name.
        name: String,
        /// The broker's address.
        url: String,
    },
    /// A client certificate that would never be shown.
    #[error(
        "the Secret {name} has a client certificate, and a connection to {url} is without TLS: write mqtts:// or \
         wss:// in broker.external.url, or remove tls.crt and tls.key"
    )]
    CertificateWithoutTls {
        /// The Secret's name.
        name: String,
        /// The broker's address.
        url: String,
    },
    /// A certificate that clients would refuse.
    #[error("the Secret {name}: {source} ({field} names it)")]
    Certificate {
        /// The Secret's name.
        name: String,
        /// The field that names it.
        field: String,
        /// What is the matter.
        source: CertificateError,
    },
    /// A certificate that the operator was to make and didn't; a fault of the operator.
    #[error("the pipeline's own authority has signed no certificate for this: look into the operator's log")]
    NoCertificate,
    /// A certificate that cert-manager has not made yet.
    #[error(
        "cert-manager has not made the Secret {0} yet: if it stays so, the Certificate of that name says why"
    )]
    NotIssued(String),
    /// Resources that Kubernetes would not take.
    #[error("{field}: {quantity:?} is no quantity: write a number with a unit, such as 100m or 128Mi")]
    Quantity {
        /// The field.
        field: String,
        /// What it holds.
        quantity: String,
    },
    /// Settings of pods that can't be used.
    #[error("{field}: {message}")]
    Pod {
        /// The field.
        field: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A place or a schedule for backups that can't be used.
    #[error("{field}: {message}")]
    BackupPlace {
        /// The field.
        field: String,
        /// What to do.
        message: &'static str,
    },
    /// A topic that mosquitto's access file can't carry.
    #[error("{field}: the topic {topic:?} has a control character: choose another topic")]
    ControlCharacter {
        /// The field.
        field: String,
        /// The topic.
        topic: String,
    },
    /// A password that mosquitto's password file can't carry.
    #[error("the password of the user {0} has a line break or is longer than 1024 bytes: choose another")]
    Password(String),
}

impl Refusal {
    /// For a condition: what is the matter, in one word.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::NoSecret { .. } => "SecretNotFound",
            Refusal::NoKey { .. } | Refusal::HalfCertificate { .. } => "SecretIncomplete",
            Refusal::Certificate { source: CertificateError::Expired(_), .. } => "CertificateExpired",
            Refusal::NotIssued(_) => NOT_ISSUED,
            Refusal::Certificate { .. } | Refusal::NoCertificate => "CertificateInvalid",
            Refusal::Routes(_)
            | Refusal::Retention(_)
            | Refusal::Bucket(_)
            | Refusal::Quantity { .. }
            | Refusal::Pod { .. }
            | Refusal::BackupPlace { .. }
            | Refusal::AuthorityWithoutTls { .. }
            | Refusal::CertificateWithoutTls { .. }
            | Refusal::Password(_)
            | Refusal::ControlCharacter { .. } => "InvalidSpec",
        }
    }
}
