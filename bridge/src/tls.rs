//! TLS to the broker: the system's certificate authorities, or those of a file. Never none. And, where the
//! broker wants to know its clients by them, a certificate of the bridge's own.

use std::io;
use std::sync::Arc;

use api::bridge_config::MqttConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::TlsConnector;

/// Why TLS can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file can't be read as PEM.
    #[error("cannot read certificates from {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: pem::Error,
    },
    /// The file has no certificate.
    #[error("{0} holds no certificate: put the certificate authority's PEM there")]
    Empty(String),
    /// The file has no certificate of the bridge.
    #[error("{0} holds no certificate: put the client certificate's PEM there, and then its issuers'")]
    NoCertificate(String),
    /// The key's file can't be read as PEM.
    #[error("cannot read a private key from {path}: {source}")]
    ReadKey {
        /// The file.
        path: String,
        /// Why not.
        source: pem::Error,
    },
    /// The key's file has no key.
    #[error("{0} holds no private key: put the client certificate's there, as PEM and unencrypted")]
    NoKey(String),
    /// The certificate and its key can't be used.
    #[error(
        "cannot use the certificate in {certificate} with the key in {key}: {source}; give the key that it \
         was made for"
    )]
    Pair {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// Why not.
        source: rustls::Error,
    },
    /// The certificates can't be used.
    #[error("cannot use the certificates: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The files that a connection is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// The authorities to trust, instead of the system's.
    pub authorities: Option<&'a str>,
    /// The bridge's certificate, and its key.
    pub pair: Option<(&'a str, &'a str)>,
}

impl<'a> From<&'a MqttConfig> for Files<'a> {
    fn from(config: &'a MqttConfig) -> Self {
        let pair = config.certificate_file.as_deref().zip(config.key_file.as_deref());
        Self { authorities: config.ca_file.as_deref(), pair }
    }
}

/// A connector that checks the server against a file's authorities, or the system's. Reads the files each
/// time, since certificates are replaced before they expire.
///
/// # Errors
/// If there are no usable certificates.
pub fn connector(files: &Files<'_>) -> Result<TlsConnector, TlsError> {
    let builder = match files.authorities {
        None => ClientConfig::builder().with_platform_verifier()?,
        Some(path) => ClientConfig::builder().with_root_certificates(roots(path)?),
    };
    let config = match files.pair {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(chain(certificate)?, private_key(key)?)
            .map_err(|source| TlsError::Pair { certificate: certificate.into(), key: key.into(), source })?,
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(path: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    if roots.is_empty() { Err(TlsError::Empty(path.into())) } else { Ok(roots) }
}

fn chain(path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = certificates(path)?;
    if chain.is_empty() { Err(TlsError::NoCertificate(path.into())) } else { Ok(chain) }
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read { path: path.into(), source };
    CertificateDer::pem_file_iter(path).map_err(read)?.map(|one| one.map_err(read)).collect()
}

fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey(path.into()),
        source => TlsError::ReadKey { path: path.into(), source },
    })
}

/// What to do about a broker's alert that is about the bridge's certificate, if the error is one.
pub fn certificate_refusal(error: &io::Error) -> Option<&'static str> {
    use AlertDescription as Alert;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    // What the bridge itself finds wrong with the broker's certificate is another error.
    let rustls::Error::AlertReceived(alert) = error else { return None };
    match alert {
        Alert::CertificateRequired => {
            Some("it wants a client certificate: give it one, as tls.crt and tls.key")
        }
        Alert::CertificateExpired => Some("the client certificate has expired: give it a new one"),
        Alert::CertificateRevoked => Some("the client certificate was revoked: give it another one"),
        Alert::UnknownCA => Some(
            "it does not know who signed the client certificate: give it one of an authority that it trusts, \
             followed by those in between",
        ),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::DecryptError
        | Alert::AccessDenied => Some("it does not accept the client certificate: give it another one"),
        _ => None,
    }
}

/// A host as TLS names it.
///
/// # Errors
/// If it is no host name.
pub fn server_name(host: &str) -> Result<ServerName<'static>, io::Error> {
    let error = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    ServerName::try_from(host.to_owned()).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two self-signed certificates and their keys, gone at the end.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            crate::source::install_crypto();
            let folder = Self(std::env::temp_dir().join(format!("bridge-tls-{name}-{}", std::process::id())));
            std::fs::create_dir_all(&folder.0).expect("a folder");
            for name in ["one", "other"] {
                let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
                folder.write(&format!("{name}.crt"), &made.cert.pem());
                folder.write(&format!("{name}.key"), &made.signing_key.serialize_pem());
            }
            folder.write("empty", "no PEM\n");
            folder
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.join(name), text).expect("a file");
        }

        fn error(&self, authorities: &str, certificate: &str, key: &str) -> Option<String> {
            let path = |name| self.0.join(name).display().to_string();
            let (authorities, certificate, key) = (path(authorities), path(certificate), path(key));
            let files = Files { authorities: Some(&authorities), pair: Some((&certificate, &key)) };
            connector(&files).err().map(|error| error.to_string())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // It is in the system's directory for temporary files anyway.
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_certificate_and_its_key_are_taken() {
        let folder = Folder::new("taken");
        assert_eq!(folder.error("other.crt", "one.crt", "one.key"), None);
        // As a Secret may hold both in one file.
        let both =
            ["one.crt", "one.key"].map(|name| std::fs::read_to_string(folder.0.join(name)).expect("PEM"));
        folder.write("both", &both.concat());
        assert_eq!(folder.error("other.crt", "both", "both"), None);
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_file_and_what_to_do() {
        let folder = Folder::new("refused");
        let cases = [
            ("empty", "one.crt", "one.key", "empty holds no certificate: put the certificate authority's"),
            ("one.crt", "one.key", "one.key", "one.key holds no certificate: put the client certificate's"),
            ("one.crt", "one.crt", "one.crt", "one.crt holds no private key: put the client certificate's"),
            ("one.crt", "one.crt", "gone", "gone: "),
            ("one.crt", "one.crt", "other.key", "; give the key that it was made for"),
        ];
        for (authorities, certificate, key, expected) in cases {
            let error = folder.error(authorities, certificate, key).expect("it is refused");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_alert_says_what_to_do_if_it_is_about_the_certificate() {
        let refusal = |alert| {
            certificate_refusal(&io::Error::other(rustls::Error::AlertReceived(alert))).unwrap_or_default()
        };
        assert!(
            refusal(AlertDescription::CertificateRequired).contains("give it one, as tls.crt and tls.key")
        );
        assert!(refusal(AlertDescription::UnknownCA).contains("an authority that it trusts"));
        assert_eq!(refusal(AlertDescription::HandshakeFailure), "");
        assert_eq!(certificate_refusal(&io::ErrorKind::ConnectionReset.into()), None);
    }
}
