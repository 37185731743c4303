//! The operator's own configuration: which images pipelines run, and where the operator works.

use std::path::Path;

use api::iotpipeline::{Image, PullPolicy, SecretName};
use serde::Deserialize;

/// The file given by `--config`. An unknown key is refused, since it is a typing error that would
/// otherwise run the wrong image.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The operator's own image: a sidecar of the broker runs from it.
    pub image: DefaultImage,
    /// The images of the parts.
    pub images: Images,
    /// The namespaces to work in; all, if there are none.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// The operator's own namespace, from which network policies let it in. Without it there are none.
    #[serde(default)]
    pub namespace: Option<String>,
    /// How often pipelines and their objects are listed anew, beside being watched.
    #[serde(default = "half_an_hour")]
    pub relist_seconds: u64,
}

fn half_an_hour() -> u64 {
    1_800
}

/// The images of the parts.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    /// Takes the place of every part's registry.
    #[serde(default)]
    pub registry: String,
    /// Secrets to pull with, in each pipeline's namespace.
    #[serde(default)]
    pub pull_secrets: Vec<SecretName>,
    /// The broker.
    pub mosquitto: DefaultImage,
    /// The database.
    pub influxdb: DefaultImage,
    /// The dashboard.
    pub grafana: DefaultImage,
    /// The bridge.
    pub bridge: DefaultImage,
}

/// An image as the chart names it; an empty text is as good as none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefaultImage {
    /// Such as docker.io.
    #[serde(default)]
    pub registry: String,
    /// Such as library/eclipse-mosquitto.
    pub repository: String,
    /// Not used where a digest is given.
    #[serde(default)]
    pub tag: String,
    /// sha256:…
    #[serde(default)]
    pub digest: String,
    /// Kubernetes' default, if there is none.
    #[serde(default)]
    pub pull_policy: Option<PullPolicy>,
}

/// An image that a container runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageReference {
    /// registry/repository:tag or registry/repository@digest
    pub reference: String,
    /// When it is pulled.
    pub pull_policy: Option<PullPolicy>,
    /// The names of the Secrets to pull with.
    pub pull_secrets: Vec<String>,
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there, or not readable.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The file does not say what is asked for.
    #[error("parse {path}: {message}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong, and where.
        message: String,
    },
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// If it can't be read, or is no configuration.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: shown.clone(), source })?;
        serde_saphyr::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: shown, message: error.to_string() })
    }

    /// The image of a part: the default, replaced field by field by what the pipeline asks for.
    pub fn image_of(&self, default: &DefaultImage, wanted: Option<&Image>) -> ImageReference {
        let none = Image::default();
        let wanted = wanted.unwrap_or(&none);
        let registry = wanted
            .registry
            .as_deref()
            .or(Some(self.images.registry.as_str()).filter(|text| !text.is_empty()))
            .unwrap_or(&default.registry);
        let repository = wanted.repository.as_deref().unwrap_or(&default.repository);
        // The default's digest is of the default's repository and tag, so it goes when one of them does.
        let another = wanted.repository.is_some() || wanted.tag.is_some();
        let digest = match &wanted.digest {
            Some(digest) => digest,
            None if another => "",
            None => &default.digest,
        };
        let tag = wanted.tag.as_deref().unwrap_or(&default.tag);
        let mut reference =
            if registry.is_empty() { repository.to_owned() } else { format!("{registry}/{repository}") };
        match (digest, tag) {
            ("", "") => {}
            ("", tag) => reference.extend([":", tag]),
            (digest, _) => reference.extend(["@", digest]),
        }
        let mut pull_secrets: Vec<String> = Vec::new();
        for secret in self.images.pull_secrets.iter().chain(&wanted.pull_secrets) {
            if !pull_secrets.contains(&secret.name) {
                pull_secrets.push(secret.name.clone());
            }
        }
        ImageReference { reference, pull_policy: wanted.pull_policy.or(default.pull_policy), pull_secrets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn config(registry: &str) -> Config {
        serde_saphyr::from_str(&format!(
            "{{image: {{repository: operator}}, images: {{registry: '{registry}', pullSecrets: [{{name: mirror}}], \
             mosquitto: {{registry: docker.io, repository: mosquitto, tag: '2.1', digest: '{DIGEST}'}}, \
             influxdb: {{repository: i}}, grafana: {{repository: g}}, bridge: {{repository: b}}}}}}"
        ))
        .expect("the test's configuration is one")
    }

    fn reference(registry: &str, wanted: &str) -> String {
        let config = config(registry);
        let wanted: Image = serde_saphyr::from_str(wanted).expect("the test's image is one");
        config.image_of(&config.images.mosquitto, Some(&wanted)).reference
    }

    #[test]
    fn a_pipeline_s_image_replaces_the_default_field_by_field() {
        assert_eq!(reference("", "{}"), format!("docker.io/mosquitto@{DIGEST}"));
        assert_eq!(reference("", "{tag: '2.2'}"), "docker.io/mosquitto:2.2");
        assert_eq!(reference("", "{registry: r}"), format!("r/mosquitto@{DIGEST}"));
        assert_eq!(reference("mirror:5000", "{tag: x}"), "mirror:5000/mosquitto:x");
        assert_eq!(reference("mirror:5000", "{registry: r, repository: m, tag: x}"), "r/m:x");
    }

    #[test]
    fn pull_secrets_are_those_of_the_operator_and_of_the_pipeline() {
        let config = config("");
        let wanted: Image =
            serde_saphyr::from_str("{pullSecrets: [{name: own}, {name: mirror}]}").expect("an image");
        let image = config.image_of(&config.images.mosquitto, Some(&wanted));
        assert_eq!(image.pull_secrets, ["mirror", "own"]);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let refused = serde_saphyr::from_str::<DefaultImage>("{repository: r, tags: '2'}");
        assert!(refused.is_err());
    }
}
