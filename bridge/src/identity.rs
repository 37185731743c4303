//! Who this bridge is to the broker: its number, and a part of its client id that nobody else knows.
//!
//! A broker gives a session to whoever names it, with any account. So where others have accounts, a client id that
//! can be guessed lets each of them end the bridge's session, and with it all that waits there. The secret part is
//! given in a file, and kept beside the journal from then on: a bridge that has lost its volume finds its session by the
//! file, and one of a pipeline that was made anew, with another file, by its volume.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::{ConfigError, Loaded};

/// Fewer characters are no secret, or not all of it.
const SHORTEST: usize = 32;

/// What the bridge is by its place, not by its configuration.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its number, where several share the load.
    pub member: Option<u32>,
    /// What outlives a restart.
    pub directory: PathBuf,
}

impl Identity {
    /// Completes the client id, if the configuration names a secret part.
    ///
    /// # Errors
    /// If there is none, or it can't be kept.
    pub fn complete(&self, mut loaded: Loaded) -> Result<Loaded, ConfigError> {
        let mqtt = &mut loaded.config.mqtt;
        if let Some(given) = &mqtt.secret_client_id_file {
            let path = self.directory.join("client-id");
            let secret = kept_or_given(&path, Path::new(given));
            let secret = secret.map_err(|source| ConfigError::Secret { path, source })?;
            mqtt.client_id = format!("{}_{secret}", mqtt.client_id);
        }
        Ok(loaded)
    }
}

fn kept_or_given(path: &Path, given: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(kept) if kept.len() >= SHORTEST => return Ok(kept),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let secret = fs::read_to_string(given)?.trim_end().to_owned();
    if secret.len() < SHORTEST {
        let problem = format!("{} has fewer than {SHORTEST} characters", given.display());
        return Err(io::Error::new(ErrorKind::InvalidData, problem));
    }
    keep(path, &secret)?;
    Ok(secret)
}

/// On the disk before the broker hears of it, and whole or not at all.
fn keep(path: &Path, secret: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
pipeline: lab
mqtt: {url: 'mqtt://broker', clientId: lab, secretClientIdFile: FILE}
database: {url: 'http://influxdb:8086', organization: lab, bucket: mesure, tokenFile: /token}
sharing: {group: lab, members: 2}
routes:
- {name: r, topic: 'a/{x}', payload: {float: {}}}
";
    const ONE: &str = "one-secret-of-thirty-two-letters";
    const TWO: &str = "two-secrets-of-thirty-two-letter";

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("bridge-identity-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        directory
    }

    fn client_id(directory: &Path, config: &str) -> Result<String, ConfigError> {
        let identity = Identity { member: Some(1), directory: directory.into() };
        let config = config.replace("FILE", &directory.join("given").display().to_string());
        let loaded = Loaded::parse(config.as_bytes(), identity.member)?;
        Ok(identity.complete(loaded)?.config.mqtt.client_id)
    }

    fn give(directory: &Path, secret: &str) {
        fs::write(directory.join("given"), secret).expect("it can be written");
    }

    #[test]
    fn the_session_is_found_by_the_volume_also_if_another_secret_is_given_and_by_the_secret_without_a_volume()
    {
        let directory = directory("kept");
        give(&directory, ONE);
        let first = client_id(&directory, CONFIG).expect("an id");
        assert_eq!(first, format!("lab_1_{ONE}"));
        give(&directory, TWO);
        assert_eq!(client_id(&directory, CONFIG).expect("an id"), first);
        // Half of one names no session that is there.
        fs::write(directory.join("client-id"), &ONE[..9]).expect("it is there");
        give(&directory, ONE);
        assert_eq!(client_id(&directory, CONFIG).expect("an id"), first);
        fs::remove_file(directory.join("client-id")).expect("it is there");
        assert_eq!(client_id(&directory, CONFIG).expect("an id"), first);
        fs::remove_dir_all(directory).expect("it is there");
    }

    #[test]
    fn without_a_secret_or_a_place_to_keep_it_there_is_none() {
        let directory = directory("none");
        let error = client_id(&directory, CONFIG).expect_err("no secret").to_string();
        assert!(error.contains("client-id"), "{error}");
        give(&directory, "short");
        assert!(client_id(&directory, CONFIG).is_err());
        fs::remove_dir_all(directory).expect("it is there");
    }

    #[test]
    fn at_a_broker_of_others_the_client_id_is_the_one_that_is_given() {
        let config = CONFIG.replace(", secretClientIdFile: FILE", "");
        assert_eq!(client_id(Path::new("/nowhere"), &config).expect("an id"), "lab_1");
    }
}
