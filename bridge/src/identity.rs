//! Who this bridge is to the broker: its number, and a part of its client id that nobody else knows.
//!
//! A broker gives a session to whoever names it, with any account. So where others have accounts, a client id that
//! can be guessed lets each of them end the bridge's session, and with it all that waits there. The bridge makes its
//! secret part itself and keeps it beside its journal, which is of use for the same session only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::{ConfigError, Loaded};

/// How many random bytes there are.
const SECRET: usize = 24;

/// What the bridge is by its place, not by its configuration.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its number, where several share the load.
    pub member: Option<u32>,
    /// What outlives a restart.
    pub directory: PathBuf,
}

impl Identity {
    /// Completes the client id, if the configuration asks for a secret part.
    ///
    /// # Errors
    /// If that can't be kept: with another one after each restart, what waits at the broker would never be fetched.
    pub fn complete(&self, mut loaded: Loaded) -> Result<Loaded, ConfigError> {
        let mqtt = &mut loaded.config.mqtt;
        if mqtt.secret_client_id {
            let path = self.directory.join("client-id");
            let secret = kept_or_made(&path).map_err(|source| ConfigError::Secret { path, source })?;
            mqtt.client_id = format!("{}_{secret}", mqtt.client_id);
        }
        Ok(loaded)
    }
}

fn kept_or_made(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(kept) if is_whole(&kept) => Ok(kept),
        Ok(_) => made(path),
        Err(error) if error.kind() == ErrorKind::NotFound => made(path),
        Err(error) => Err(error),
    }
}

fn is_whole(secret: &str) -> bool {
    URL_SAFE_NO_PAD.decode(secret).is_ok_and(|bytes| bytes.len() == SECRET)
}

/// On the disk before the broker hears of it, and whole or not at all.
fn made(path: &Path) -> io::Result<String> {
    let mut bytes = [0; SECRET];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| io::Error::other("the system has no randomness"))?;
    let secret = URL_SAFE_NO_PAD.encode(bytes);
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
pipeline: lab
mqtt: {url: 'mqtt://broker', clientId: lab, secretClientId: true}
database: {url: 'http://influxdb:8086', organization: lab, bucket: mesure, tokenFile: /token}
sharing: {group: lab, members: 2}
routes:
- {name: r, topic: 'a/{x}', payload: {float: {}}}
";

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("bridge-identity-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        directory
    }

    fn client_id(directory: &Path, member: u32, config: &str) -> Result<String, ConfigError> {
        let identity = Identity { member: Some(member), directory: directory.into() };
        let loaded = Loaded::parse(config.as_bytes(), identity.member)?;
        Ok(identity.complete(loaded)?.config.mqtt.client_id)
    }

    #[test]
    fn the_secret_part_is_made_once_for_each_bridge_and_has_192_bits() {
        let (one, two) = (directory("one"), directory("two"));
        let id = |directory: &Path, member| client_id(directory, member, CONFIG).expect("an id");
        let first = id(&one, 0);
        assert_eq!(first, id(&one, 0), "another after a restart");
        let secret = first.strip_prefix("lab_0_").expect("it begins as before");
        assert_eq!(secret.len(), 32);
        let second = id(&two, 1);
        assert!(second.starts_with("lab_1_") && !second.ends_with(secret));
        // Half of one names no session that is there.
        fs::write(one.join("client-id"), &secret[..9]).expect("it is there");
        let made_anew = id(&one, 0);
        assert!(made_anew.len() == first.len() && made_anew != first);
        for directory in [one, two] {
            fs::remove_dir_all(directory).expect("it is there");
        }
    }

    #[test]
    fn without_a_place_to_keep_it_there_is_none() {
        let error = client_id(Path::new("/nowhere"), 0, CONFIG).expect_err("nothing can be kept").to_string();
        assert!(error.contains("/nowhere/client-id"), "{error}");
    }

    #[test]
    fn at_a_broker_of_others_the_client_id_is_the_one_that_is_given() {
        let config = CONFIG.replace(", secretClientId: true", "");
        assert_eq!(client_id(Path::new("/nowhere"), 1, &config).expect("an id"), "lab_1");
    }
}
