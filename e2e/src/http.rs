//! HTTP clients, which need TLS set up even where they don't use it.

use std::time::Duration;

use crate::environment::install_tls;

/// A client that doesn't wait for ever.
///
/// # Panics
/// If the system has no way to make one.
pub fn client() -> reqwest::Client {
    install_tls();
    let timeout = Duration::from_secs(30);
    reqwest::Client::builder().timeout(timeout).build().expect("an HTTP client can be made")
}

/// Asks for an address.
///
/// # Errors
/// If there is no answer.
pub async fn get(address: &str) -> reqwest::Result<reqwest::Response> {
    client().get(address).send().await
}
