//! The HTTP client that the API clients share.

use std::time::Duration;

use reqwest::{Certificate, Client, redirect};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The certificate authority is not PEM.
    #[error("the certificate authority is no PEM certificate")]
    Authority(#[source] reqwest::Error),
    /// TLS could not be set up.
    #[error("set up an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// A client that gives up soon and follows nobody elsewhere with a credential. With a certificate
/// authority it trusts no other.
///
/// # Errors
/// If the certificate authority is none.
pub fn client(ca: Option<&str>) -> Result<Client, HttpError> {
    let mut builder = Client::builder()
        .connect_timeout(Duration::from_secs(3))
        .timeout(Duration::from_secs(10))
        // A kept connection would stay with what answered it first: before kube-proxy knows a new
        // service's address, that can be a stranger, and a pod that was replaced answers nothing.
        .pool_max_idle_per_host(0)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("iotpipeline-operator/", env!("CARGO_PKG_VERSION")));
    if let Some(ca) = ca {
        let authorities = Certificate::from_pem_bundle(ca.as_bytes()).map_err(HttpError::Authority)?;
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(HttpError::Client)
}
