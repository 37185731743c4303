//! A stand-in for Grafana, for machines where its image can't be pulled. It draws nothing.
//!
//! It reads the provisioning directories as Grafana does, refuses to start where Grafana would, and
//! answers the part of Grafana's HTTP API that the operator, the tests and the demo use, by running
//! the panels' own queries against the data source. What it must answer was recorded from a real
//! Grafana: `tests/contract/`. Everywhere it shows itself it says that it is a stand-in.
//!
//! Reading guide: `settings` (environment), `interpolate` and `provisioning` (files), `store` (what
//! is known), `tls` (HTTPS), `http` (the API), `flux` (from a panel's query to InfluxDB and back), `table` and
//! `frame` (from InfluxDB's CSV to Grafana's data frames).

mod flux;
mod frame;
mod http;
mod interpolate;
mod provisioning;
mod settings;
mod store;
mod table;
mod tls;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::settings::Settings;
use crate::store::Store;

const BANNER: &str = "\
This is NOT Grafana: it is the stand-in of iotpipeline's tests, for machines that can't pull Grafana's image.
It answers a part of Grafana's HTTP API from the provisioned files and the real database. It draws nothing.";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    eprintln!("{BANNER}");
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stand-in: refusing to start, as Grafana would: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let settings = Settings::from_environment()?;
    let store = Arc::new(Store::default());
    store.replace_provisioned_data_sources(provisioning::data_sources(&settings.provisioning)?);
    for provider in provisioning::providers(&settings.provisioning)? {
        tokio::spawn(provisioning::watch(provider, store.clone()));
    }
    let address = (settings.address.as_str(), settings.port);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {}:{}", settings.address, settings.port))?;
    eprintln!("stand-in: listening on {}", listener.local_addr()?);
    let certificate = settings.certificate.clone();
    let router = http::router(settings, store);
    match certificate {
        None => axum::serve(listener, router).with_graceful_shutdown(asked_to_stop()).await?,
        Some(certificate) => {
            let listener = tls::Listener::new(listener, certificate)?;
            axum::serve(listener, router).with_graceful_shutdown(asked_to_stop()).await?;
        }
    }
    Ok(())
}

async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
