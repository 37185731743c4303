//! A broker that is reached in every way that an external one can be: besides plain MQTT by WebSocket, with TLS
//! and without, and by TLS for clients that have a certificate.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::containers::{Container, broker_with};
use crate::scratch::free_port;

/// The name in the certificate that the broker takes for a user.
pub const USER: &str = "plant";

/// What is before the first user is for clients without a name. Only the user of the certificate may read `plant`.
const RIGHTS: &str = "\
topic readwrite open/#
topic write plant/#
user plant
topic read plant/#
";

const DOORS: &str = "
acl_file @FILES@/acl
listener @WS@ 127.0.0.1
protocol websockets
listener @WSS@ 127.0.0.1
protocol websockets
certfile @FILES@/server.crt
keyfile @FILES@/server.key
listener @MQTTS@ 127.0.0.1
certfile @FILES@/server.crt
keyfile @FILES@/server.key
cafile @FILES@/ca.crt
require_certificate true
use_identity_as_username true
";

/// The broker, with the ports of its doors.
pub struct Doors {
    /// It runs while this is here.
    pub broker: Container,
    /// WebSocket.
    pub ws: u16,
    /// WebSocket over TLS.
    pub wss: u16,
    /// TLS, for clients with a certificate of this authority.
    pub mqtts: u16,
    /// Who vouches for the broker, and for its clients.
    pub authority: Authority,
}

impl Doors {
    /// Starts the broker.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn open() -> Result<Self> {
        let authority = Authority::new()?;
        let (certificate, key) = authority.sign("127.0.0.1")?;
        let (ws, wss, mqtts) = (free_port()?, free_port()?, free_port()?);
        let conf = [("@WS@", ws), ("@WSS@", wss), ("@MQTTS@", mqtts)]
            .into_iter()
            .fold(DOORS.to_owned(), |conf, (place, port)| conf.replace(place, &port.to_string()));
        let files = [
            ("acl", RIGHTS),
            ("server.crt", &certificate),
            ("server.key", &key),
            ("ca.crt", &authority.certificate),
        ];
        let broker = broker_with(&conf, &files).await?;
        Ok(Self { broker, ws, wss, mqtts, authority })
    }
}

/// Signs certificates.
pub struct Authority {
    /// Its own, as PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub fn new() -> Result<Self> {
        let mut parameters = CertificateParams::new([])?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "e2e");
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(parameters, key) })
    }

    /// A certificate of this name, and its key, as PEM.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub fn sign(&self, name: &str) -> Result<(String, String)> {
        let mut parameters = CertificateParams::new([name.to_owned()])?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        Ok((parameters.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}
