//! Settings from the environment, by Grafana's names.
//! <https://grafana.com/docs/grafana/latest/setup-grafana/configure-grafana/#override-configuration-with-environment-variables>

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What can be set.
pub(crate) struct Settings {
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) provisioning: PathBuf,
    pub(crate) user: String,
    pub(crate) password: String,
    /// The files of the certificate and its key, for HTTPS.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// Reads `GF_…`; what is absent gets Grafana's default.
    pub(crate) fn from_environment() -> Result<Self> {
        let port = value("GF_SERVER_HTTP_PORT")?.unwrap_or_else(|| "3000".into());
        let file = |name: &str| -> Result<PathBuf> {
            Ok(value(name)?.with_context(|| format!("HTTPS needs {name}"))?.into())
        };
        let certificate = match value("GF_SERVER_PROTOCOL")?.as_deref() {
            None | Some("http") => None,
            Some("https") => Some((file("GF_SERVER_CERT_FILE")?, file("GF_SERVER_CERT_KEY")?)),
            Some(other) => bail!("GF_SERVER_PROTOCOL is {other:?}, which the stand-in doesn't know"),
        };
        Ok(Self {
            address: value("GF_SERVER_HTTP_ADDR")?.unwrap_or_else(|| "0.0.0.0".into()),
            port: port.parse().with_context(|| format!("GF_SERVER_HTTP_PORT is {port:?}"))?,
            provisioning: value("GF_PATHS_PROVISIONING")?
                .unwrap_or_else(|| "/etc/grafana/provisioning".into())
                .into(),
            user: value("GF_SECURITY_ADMIN_USER")?.unwrap_or_else(|| "admin".into()),
            password: value("GF_SECURITY_ADMIN_PASSWORD")?.unwrap_or_else(|| "admin".into()),
            certificate,
        })
    }
}

/// A variable's value, or the content of the file that the variable with `__FILE` names: the start
/// script of Grafana's image knows these.
fn value(name: &str) -> Result<Option<String>> {
    if let Some(path) = set(&format!("{name}__FILE")) {
        let text = std::fs::read_to_string(&path).with_context(|| format!("{name}__FILE: {path}"))?;
        return Ok(Some(text.trim_end_matches('\n').to_owned()));
    }
    Ok(set(name))
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
