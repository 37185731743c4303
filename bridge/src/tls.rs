//! TLS to the broker: the system's certificate authorities, or those of a file. Never none.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt;
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
        source: rustls::pki_types::pem::Error,
    },
    /// The file has no certificate.
    #[error("{0} holds no certificate: put the certificate authority's PEM there")]
    Empty(String),
    /// The certificates can't be used.
    #[error("cannot use the certificates: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A connector that checks the server against a file's authorities, or the system's.
///
/// # Errors
/// If there are no usable certificates.
pub fn connector(ca_file: Option<&str>) -> Result<TlsConnector, TlsError> {
    let config = match ca_file {
        None => ClientConfig::with_platform_verifier()?,
        Some(path) => ClientConfig::builder().with_root_certificates(roots(path)?).with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(path: &str) -> Result<RootCertStore, TlsError> {
    let read = |source| TlsError::Read { path: path.into(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
        roots.add(certificate.map_err(read)?)?;
    }
    if roots.is_empty() { Err(TlsError::Empty(path.into())) } else { Ok(roots) }
}

/// A host as TLS names it.
///
/// # Errors
/// If it is no host name.
pub fn server_name(host: &str) -> Result<ServerName<'static>, std::io::Error> {
    let error = |error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
    ServerName::try_from(host.to_owned()).map_err(error)
}
