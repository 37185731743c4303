//! Brokers that know their clients by certificates: TLS in front of the fake broker.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rumqttc::v5::mqttbytes::QoS;
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::NUMBERS;
use crate::fakes::{Bridge, FakeBroker, FakeInflux};

/// Signs certificates.
pub(crate) struct Authority {
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let (pem, der) = (certificate.pem(), certificate.der().to_vec());
        Self { pem, der, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// Speaks TLS with clients that this authority knows, and passes on what they say.
    pub(crate) async fn guard(&self, broker: SocketAddr) -> SocketAddr {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone().into()).expect("an authority");
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
        let (certificate, key) = self.sign("127.0.0.1");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a server's certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                // A client that is refused is what some tests are about.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut broker = TcpStream::connect(broker).await.expect("the fake broker");
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut broker).await });
            }
        });
        address
    }
}

/// Files of PEM, gone at the end.
pub(crate) struct Files(PathBuf);

impl Files {
    /// With a certificate of this authority for the bridge, and the authority's own.
    pub(crate) fn of(authority: &Authority, name: &str) -> Self {
        let files = Self::new(name);
        files.write("ca.crt", &authority.pem);
        files.write_client(authority);
        files
    }

    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("bridge-certificates-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("a file");
    }

    fn write_client(&self, authority: &Authority) {
        let (certificate, key) = authority.sign("lab-bridge");
        self.write("client.crt", &certificate.pem());
        self.write("client.key", &key.serialize_pem());
    }

    /// How the bridge finds a broker, and with what.
    pub(crate) fn settings(&self, url: &str) -> String {
        let path = |name| self.0.join(name).display().to_string();
        let settings = format!("url: '{url}', caFile: '{}'", path("ca.crt"));
        if !self.0.join("client.crt").exists() {
            return settings;
        }
        format!("{settings}, certificateFile: '{}', keyFile: '{}'", path("client.crt"), path("client.key"))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // It is in the system's directory for temporary files anyway.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[tokio::test]
async fn a_broker_that_wants_a_client_certificate_gets_it() {
    iotpipeline_bridge::source::install_crypto();
    let authority = Authority::new();
    let files = Files::of(&authority, "given");
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let guard = authority.guard(broker.address()).await;
    let bridge = Bridge::connect(&files.settings(&format!("mqtts://{guard}")), &influx, NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    assert_eq!(peer.acknowledged(1).await, [1]);
    assert_eq!(influx.stored(), ["numbers,x=a value=1"]);
    bridge.status("ready", |status| status.ready()).await;
}

#[tokio::test]
async fn a_missing_client_certificate_is_named() {
    iotpipeline_bridge::source::install_crypto();
    let (authority, files) = (Authority::new(), Files::new("missing"));
    files.write("ca.crt", &authority.pem);
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let guard = authority.guard(broker.address()).await;
    let bridge = Bridge::connect(&files.settings(&format!("mqtts://{guard}")), &influx, NUMBERS).await;
    let status = bridge.status("a refusal", |status| status.broker.reason == "NotAuthorized").await;
    let expected = "the broker refused the connection: it wants a client certificate: give it one, as tls.crt and tls.key";
    assert_eq!(status.broker.message, expected);
}

#[tokio::test]
async fn a_client_certificate_that_is_replaced_is_used_without_a_restart() {
    iotpipeline_bridge::source::install_crypto();
    let (authority, files) = (Authority::new(), Files::new("replaced"));
    files.write("ca.crt", &authority.pem);
    files.write_client(&Authority::new());
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let guard = authority.guard(broker.address()).await;
    let bridge = Bridge::connect(&files.settings(&format!("mqtts://{guard}")), &influx, NUMBERS).await;
    let status = bridge.status("a refusal", |status| status.broker.reason == "NotAuthorized").await;
    assert!(status.broker.message.contains("client certificate: give it"), "{}", status.broker.message);
    files.write_client(&authority);
    let _peer = broker.accept(false, &["n/+"]).await;
    bridge.status("ready", |status| status.ready()).await;
}
