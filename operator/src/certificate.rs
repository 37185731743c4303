//! Certificates with their keys, as PEM: how long they hold, and whether they are good for what they are for.
//! Pure; who makes them is [`crate::credentials`].

mod validity;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

pub use validity::Validity;

/// A certificate, followed by those that signed it, and its private key: both PEM. It can't be printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Pair {
    /// The certificates.
    pub certificate: String,
    /// The key, unencrypted.
    pub key: String,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A server that is reached by these host names and addresses.
    Server(&'a [String]),
    /// A user of the broker, of this name.
    User(&'a str),
}

/// Why a certificate is not good for what it is for.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is none.
    #[error("tls.crt holds no certificate in PEM: put it there, followed by those that signed it")]
    Certificate,
    /// The key is none.
    #[error("tls.key holds no private key in PEM: put it there, unencrypted")]
    Key,
    /// They don't belong together.
    #[error("tls.key is not the key of the certificate in tls.crt: give the key that it was made for")]
    Pair,
    /// The authority is none.
    #[error("ca.crt holds no certificate in PEM: put the authority's there, or leave ca.crt out")]
    Authority,
    /// Too late.
    #[error("the certificate in tls.crt has expired, on {0}: replace it")]
    Expired(Timestamp),
    /// Too early.
    #[error("the certificate in tls.crt is not valid before {0}: check the clocks")]
    NotYet(Timestamp),
    /// It is another server's.
    #[error(
        "the certificate in tls.crt is not for {0}, by which the parts of the pipeline reach it: add that name"
    )]
    Name(String),
    /// It doesn't lead to the authority.
    #[error("ca.crt does not vouch for the certificate in tls.crt ({0}): give the authority that signed it")]
    Untrusted(rustls::Error),
}

impl Pair {
    /// From when until when the certificate holds; nothing, if it is none.
    pub fn validity(&self) -> Option<Validity> {
        Validity::of(chain(&self.certificate)?.first()?)
    }

    /// Whether the certificate is good for its subject now, and its key the right one. Without an authority to check
    /// it by, that it is signed by one that clients trust remains to be seen.
    ///
    /// # Errors
    /// If it isn't.
    pub fn check(
        &self,
        subject: Subject<'_>,
        authority: Option<&str>,
        now: Timestamp,
    ) -> Result<(), CertificateError> {
        let certificates = chain(&self.certificate).ok_or(CertificateError::Certificate)?;
        let leaf = certificates.first().ok_or(CertificateError::Certificate)?;
        let validity = Validity::of(leaf).ok_or(CertificateError::Certificate)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(|_| CertificateError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|_| CertificateError::Key)?;
        CertifiedKey::from_der(certificates.clone(), key, &default_provider()).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => CertificateError::Pair,
                _ => CertificateError::Key,
            },
        )?;
        if now >= validity.until {
            return Err(CertificateError::Expired(validity.until));
        }
        if now < validity.from {
            return Err(CertificateError::NotYet(validity.from));
        }
        if let Subject::Server(hosts) = subject {
            for host in hosts {
                // A wildcard is no name to connect to: any that it stands for.
                let name = ServerName::try_from(host.replace('*', "any"));
                let is_for = name.is_ok_and(|name| verify_server_name(&parsed, &name).is_ok());
                if !is_for {
                    return Err(CertificateError::Name(host.clone()));
                }
            }
        }
        match authority {
            None => Ok(()),
            Some(authority) => verify(leaf, &parsed, &certificates[1..], subject, authority, now),
        }
    }
}

/// The file in a directory of authorities in which OpenSSL looks for this one: named by the first bytes of its name's
/// SHA-1, of a name that is one string of UTF-8 without capitals, as those of pipelines' authorities are. Nothing, if
/// it is no certificate. <https://docs.openssl.org/3.0/man3/X509_LOOKUP_hash_dir/>
pub fn directory_name(authority: &str) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(authority)?);
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &roots.roots.first()?.subject);
    Some(format!("{:08x}.0", u32::from_le_bytes(*hash.as_ref().first_chunk()?)))
}

fn chain(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()
}

fn verify(
    leaf: &CertificateDer<'_>,
    parsed: &ParsedCertificate<'_>,
    between: &[CertificateDer<'_>],
    subject: Subject<'_>,
    authority: &str,
    now: Timestamp,
) -> Result<(), CertificateError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(authority).ok_or(CertificateError::Authority)?);
    if roots.is_empty() {
        return Err(CertificateError::Authority);
    }
    let provider = default_provider();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().unsigned_abs()));
    let verified = match subject {
        Subject::Server(_) => {
            let algorithms = provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(parsed, &roots, between, now, algorithms)
        }
        Subject::User(_) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider));
            let verifier = verifier.build().map_err(|_| CertificateError::Authority)?;
            verifier.verify_client_cert(leaf, between, now).map(|_| ())
        }
    };
    verified.map_err(CertificateError::Untrusted)
}

#[cfg(test)]
mod tests;
