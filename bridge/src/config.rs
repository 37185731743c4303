//! Reads the configuration file, and notices when it changes.
//!
//! In a pod the file is a mounted ConfigMap, which the kubelet replaces by swapping a link; so the
//! file is looked at several times a second rather than watched.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use api::bridge_config::BridgeConfig;
use reqwest::Url;
use sha2::{Digest, Sha256};

use crate::canary;
use crate::dropped::Dropped;
use crate::identity::Identity;
use crate::stamps::CAPACITY;
use crate::table::{CompileError, Subscription, Table};

/// A configuration that is checked and compiled.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file's content.
    pub config: BridgeConfig,
    /// Its routes, compiled.
    pub table: Arc<Table>,
    /// What this bridge asks the broker for. Nothing, if it is to leave.
    pub filters: BTreeMap<String, Subscription>,
    /// This bridge's number among those that share the load, if they do.
    pub member: Option<u32>,
    /// Whether it is to leave them.
    pub leaves: bool,
    /// Where its canary goes, if it sends one.
    pub canary: Option<canary::Path>,
    /// SHA-256 of the file's bytes, in hex.
    pub hash: String,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Not YAML.
    #[error("the configuration is not YAML: {0}")]
    Yaml(String),
    /// Not a configuration.
    #[error("the configuration is not valid: {0}")]
    Shape(#[from] serde_json::Error),
    /// The routes can't be used.
    #[error(transparent)]
    Routes(#[from] CompileError),
    /// A URL can't be used.
    #[error("{what} {url:?} is not {expected}")]
    Url {
        /// Which setting.
        what: &'static str,
        /// Its value.
        url: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A client certificate can't be used as it is given.
    #[error("mqtt.certificateFile and mqtt.keyFile {0}")]
    ClientCertificate(&'static str),
    /// An authority to check the broker by, and no TLS to check anything.
    #[error("mqtt.caFile needs TLS: write mqtts:// or wss:// in mqtt.url")]
    AuthorityWithoutTls,
    /// The secret part of the client id can't be kept.
    #[error(
        "cannot keep {path}, without which the session at the broker would be lost at a restart: {source}"
    )]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A number is out of its range.
    #[error("{what} can't be {value}: {expected}")]
    Number {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What it should be.
        expected: &'static str,
    },
}

impl Loaded {
    /// Parses, checks and compiles a configuration file's bytes, for the bridge of this number, if it has one.
    ///
    /// # Errors
    /// If it can't be used; says what to change.
    pub fn parse(bytes: &[u8], member: Option<u32>) -> Result<Self, ConfigError> {
        // By way of a JSON value, which reads the enumerations as the API server writes them.
        let value: serde_json::Value = serde_saphyr::from_slice_with_options(bytes, yaml_options())
            .map_err(|error| ConfigError::Yaml(error.to_string()))?;
        let mut config: BridgeConfig = serde_json::from_value(value)?;
        let table = Arc::new(Table::new(&config.routes)?);
        check(&config)?;
        if let Some(member) = member {
            config.mqtt.client_id = format!("{}_{member}", config.mqtt.client_id);
        }
        let number = member.unwrap_or_default();
        // Where nothing is shared, all but the first have nothing to do.
        let leaves = number >= config.sharing.as_ref().map_or(1, |sharing| sharing.members);
        let mut filters = match &config.sharing {
            _ if leaves => BTreeMap::new(),
            None => table.filters().clone(),
            Some(sharing) => shared_filters(&table, &sharing.group, number),
        };
        let member = config.sharing.is_some().then_some(number);
        let canary = match config.canary && !leaves {
            true => Some(canary::Path::new(&config.pipeline, number)?),
            false => None,
        };
        filters.extend(canary.iter().map(|path| (path.topic.clone(), path.subscription)));
        if let Some(topic) = config.mqtt.dropped_topic.as_ref().filter(|_| !leaves) {
            filters.entry(topic.clone()).or_insert_with(Dropped::subscription);
        }
        Ok(Self { config, table, filters, member, leaves, canary, hash: hash(bytes) })
    }

    /// Reads and parses a configuration file.
    ///
    /// # Errors
    /// If it can't be read or used.
    pub fn read(path: &Path, identity: &Identity) -> Result<Self, ConfigError> {
        identity.complete(Self::parse(&read(path)?, identity.member)?)
    }
}

/// What one of several bridges asks for. A filter whose messages belong together is the first's alone.
fn shared_filters(table: &Table, group: &str, member: u32) -> BTreeMap<String, Subscription> {
    let own = table.filters().iter().filter_map(|(filter, subscription)| match subscription.undivided {
        true => (member == 0).then(|| (filter.clone(), *subscription)),
        false => Some((format!("$share/{group}/{filter}"), *subscription)),
    });
    own.collect()
}

/// As YAML 1.2 has it: `on`, `no` and `n` are texts.
pub(crate) fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read { path: path.into(), source })
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}

fn check(config: &BridgeConfig) -> Result<(), ConfigError> {
    let address = broker_address(&config.mqtt.url)?;
    match (&config.mqtt.certificate_file, &config.mqtt.key_file) {
        (None, None) => {}
        (Some(_), Some(_)) if address.tls => {}
        // Without TLS it would never be shown, and who gave it would believe that it was.
        (Some(_), Some(_)) => {
            return Err(ConfigError::ClientCertificate("need TLS: write mqtts:// or wss:// in mqtt.url"));
        }
        _ => return Err(ConfigError::ClientCertificate("belong together: give both, or neither")),
    }
    if config.mqtt.ca_file.is_some() && !address.tls {
        return Err(ConfigError::AuthorityWithoutTls);
    }
    let url = &config.database.url;
    let parsed = Url::parse(url).ok().filter(|parsed| matches!(parsed.scheme(), "http" | "https"));
    if parsed.is_none() {
        let expected = "a URL such as http://influxdb:8086";
        return Err(ConfigError::Url { what: "database.url", url: url.clone(), expected });
    }
    let (receive_maximum, size) = (config.mqtt.receive_maximum, config.mqtt.max_packet_size);
    // So that the memory of stamps holds all that can come again.
    if !(1..=CAPACITY).contains(&receive_maximum.into()) {
        let expected = "choose 1 to 32768";
        let value = receive_maximum.into();
        return Err(ConfigError::Number { what: "mqtt.receiveMaximum", value, expected });
    }
    if !(1_024..=268_435_460).contains(&size) {
        let expected = "choose 1024 to 268435460";
        return Err(ConfigError::Number { what: "mqtt.maxPacketSize", value: size.into(), expected });
    }
    Ok(())
}

/// Where a broker is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BrokerAddress {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether to speak TLS.
    pub tls: bool,
    /// The WebSocket to ask for, if it is one: its URL, with a path.
    pub websocket: Option<String>,
}

/// Where brokers have their WebSocket, unless they say otherwise.
const WEBSOCKET_PATH: &str = "/mqtt";

/// Takes a broker's URL apart.
///
/// # Errors
/// If it is none.
pub fn broker_address(url: &str) -> Result<BrokerAddress, ConfigError> {
    let refuse = || ConfigError::Url {
        what: "mqtt.url",
        url: url.into(),
        expected: "mqtt://host:port, mqtts://host:port, ws://host:port/path or wss://host:port/path, without a \
                   user or a query",
    };
    let mut parsed = Url::parse(url).map_err(|_| refuse())?;
    let (tls, is_websocket, default_port) = match parsed.scheme() {
        "mqtt" => (false, false, 1883),
        "mqtts" => (true, false, 8883),
        "ws" => (false, true, 80),
        "wss" => (true, true, 443),
        _ => return Err(refuse()),
    };
    // A query could hold a credential, which this file is no place for.
    let has_more = parsed.query().is_some() || parsed.fragment().is_some();
    let plain = parsed.username().is_empty() && parsed.password().is_none() && !has_more;
    if !plain || !is_websocket && !matches!(parsed.path(), "" | "/") {
        return Err(refuse());
    }
    // A parsed URL has the path / also where it was left out.
    if is_websocket && url.split_once("://").is_none_or(|(_, rest)| !rest.contains('/')) {
        parsed.set_path(WEBSOCKET_PATH);
    }
    let host = parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(refuse)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').into();
    let port = parsed.port().unwrap_or(default_port);
    Ok(BrokerAddress { host, port, tls, websocket: is_websocket.then(|| parsed.into()) })
}

/// Looks at a configuration file again and again.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    identity: Identity,
    seen: Option<Stamp>,
    /// The hash of the bytes that were last read, good or bad.
    hash: String,
}

/// What changes when a file does: time of change, size, and which file it is.
type Stamp = (SystemTime, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

impl Watch {
    /// Watches a file whose content was read already.
    pub fn new(path: &Path, identity: Identity, loaded: &Loaded) -> Self {
        Self { path: path.into(), identity, seen: None, hash: loaded.hash.clone() }
    }

    /// The new configuration, or why it is refused, if the file has changed.
    pub fn poll(&mut self) -> Option<Result<Loaded, ConfigError>> {
        let now = stamp(&self.path);
        if now.is_some() && now == self.seen {
            return None;
        }
        let bytes = match read(&self.path) {
            Ok(bytes) => bytes,
            // Between two links, or gone: said once.
            Err(_) if self.hash.is_empty() => return None,
            Err(error) => {
                self.hash.clear();
                self.seen = None;
                return Some(Err(error));
            }
        };
        self.seen = now;
        let hash = hash(&bytes);
        if hash == self.hash {
            return None;
        }
        self.hash = hash;
        let loaded = Loaded::parse(&bytes, self.identity.member);
        Some(loaded.and_then(|loaded| self.identity.complete(loaded)))
    }
}

/// Reads a credential from its file, without the line break that editors add.
///
/// # Errors
/// If the file can't be read as text.
pub fn read_credential(path: &str) -> Result<String, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    Ok(text.trim_end_matches(['\r', '\n']).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
pipeline: lab
mqtt: {url: 'mqtt://broker', clientId: lab-bridge-0}
database: {url: 'http://influxdb:8086', organization: lab, bucket: mesure, tokenFile: /token}
routes:
- {name: r, topic: 'a/{x}', payload: {float: {}}}
";

    fn refusal(from: &str, to: &str) -> String {
        Loaded::parse(GOOD.replace(from, to).as_bytes(), None).expect_err("refused").to_string()
    }

    #[test]
    fn a_good_file_is_read_with_its_defaults() {
        let loaded = Loaded::parse(GOOD.as_bytes(), None).expect("it is good");
        assert_eq!(loaded.config.mqtt.receive_maximum, 10_000);
        assert_eq!(loaded.hash.len(), 64);
        assert_eq!(loaded.table.routes().len(), 1);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_to_change() {
        assert!(
            refusal("mqtt://broker", "http://broker").starts_with("mqtt.url \"http://broker\" is not mqtt")
        );
        assert!(refusal("http://influxdb:8086", "influxdb").starts_with("database.url"));
        assert!(refusal("name: r", "name: r, qos: 3").contains("choose 0, 1 or 2"));
        assert!(refusal("clientId: lab-bridge-0", "clientId: b, receiveMaximum: 0").contains("choose 1 to"));
        let pair = "clientId: b, certificateFile: /c, keyFile: /k";
        assert!(refusal("clientId: lab-bridge-0", pair).contains("need TLS: write mqtts://"));
        let half = "clientId: b, keyFile: /k";
        assert!(refusal("clientId: lab-bridge-0", half).contains("belong together: give both"));
        assert!(refusal("pipeline: lab", "pipelin: lab").contains("missing field `pipeline`"));
        assert!(refusal("routes:", "routes: [").contains("not YAML"));
    }

    #[test]
    fn bridges_that_share_the_load_have_sessions_of_their_own_and_those_beyond_leave() {
        let text = GOOD.replace("routes:", "sharing: {group: lab, members: 2}\nroutes:");
        let member = |number| Loaded::parse(text.as_bytes(), Some(number)).expect("it is good");
        for number in 0..2 {
            let loaded = member(number);
            assert_eq!(loaded.config.mqtt.client_id, format!("lab-bridge-0_{number}"));
            assert_eq!(loaded.filters.keys().collect::<Vec<_>>(), ["$share/lab/a/+"]);
            assert!(!loaded.leaves);
        }
        let sparkplug =
            "- {name: s, topic: 'spBv1.0/{group}/+/{node}/{device...}', payload: {sparkplug: {}}}\n";
        let with_births = format!("{text}{sparkplug}");
        let filters =
            |number| Loaded::parse(with_births.as_bytes(), Some(number)).expect("it is good").filters;
        assert_eq!(filters(0).len(), 2, "births and what refers to them come to one bridge");
        assert!(filters(0).keys().any(|filter| filter.starts_with("spBv1.0/")));
        assert_eq!(filters(1).len(), 1);
        let alone = |number| Loaded::parse(GOOD.as_bytes(), Some(number)).expect("it is good");
        assert!(!alone(0).leaves && alone(0).filters.contains_key("a/+"));
        assert!(alone(1).leaves && alone(1).filters.is_empty());
        let third = member(2);
        assert!(third.leaves && third.filters.is_empty());
    }

    #[test]
    fn a_broker_s_url_has_default_ports() {
        let address = |url| broker_address(url).map(|address| (address.host, address.port, address.tls)).ok();
        assert_eq!(address("mqtt://b"), Some(("b".into(), 1883, false)));
        assert_eq!(address("mqtts://b.example/"), Some(("b.example".into(), 8883, true)));
        assert_eq!(address("mqtt://[::1]:1884"), Some(("::1".into(), 1884, false)));
        assert_eq!(address("ws://b"), Some(("b".into(), 80, false)));
        assert_eq!(address("wss://b/mqtt"), Some(("b".into(), 443, true)));
        assert_eq!(address("ws://[::1]:8083/mqtt"), Some(("::1".into(), 8083, false)));
        for url in
            ["mqtt://user@b", "mqtt://b/path", "ws://user:word@b/mqtt", "ws://b/mqtt?token=x", "ws:///mqtt#x"]
        {
            assert_eq!(address(url), None, "{url}");
        }
    }

    #[test]
    fn a_websocket_has_a_path_and_only_if_none_is_given_it_is_mqtt() {
        let websocket = |url| broker_address(url).expect("an address").websocket;
        assert_eq!(websocket("mqtt://b"), None);
        assert_eq!(websocket("ws://b:9001").as_deref(), Some("ws://b:9001/mqtt"));
        assert_eq!(websocket("wss://b/").as_deref(), Some("wss://b/"));
        assert_eq!(websocket("wss://[::1]:8084/a/b").as_deref(), Some("wss://[::1]:8084/a/b"));
    }
}
