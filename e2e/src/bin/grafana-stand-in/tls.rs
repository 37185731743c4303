//! HTTPS, with a certificate from files. It is read anew for each connection: Grafana does so at an interval
//! (`certs_watch_interval`), and goes on with what it had when it can't read the new one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Who connects and says nothing is not waited for.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Accepts connections by TLS.
pub(crate) struct Listener {
    tcp: TcpListener,
    files: (PathBuf, PathBuf),
    acceptor: TlsAcceptor,
}

impl Listener {
    /// With the files of a certificate and its key.
    pub(crate) fn new(tcp: TcpListener, files: (PathBuf, PathBuf)) -> Result<Self> {
        let acceptor = acceptor(&files)?;
        Ok(Self { tcp, files, acceptor })
    }
}

fn acceptor((certificate, key): &(PathBuf, PathBuf)) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .with_context(|| certificate.display().to_string())?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(Arc::new(config).into())
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.tcp).await;
            match acceptor(&self.files) {
                Ok(acceptor) => self.acceptor = acceptor,
                Err(error) => eprintln!("stand-in: the certificate stays as it was: {error:#}"),
            }
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
