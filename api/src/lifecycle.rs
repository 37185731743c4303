//! What becomes of a pipeline's objects: whether they are kept, and who may reach them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens to the volumes and to the database's admin Secret when the pipeline is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DeletionPolicy {
    /// They stay, and a pipeline of the same name finds its data again.
    #[default]
    Retain,
    /// They go too.
    Delete,
}

/// Whether network policies admit only the pipeline's own traffic.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NetworkPolicySettings {
    /// Whether they are made.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl Default for NetworkPolicySettings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

fn yes() -> bool {
    true
}
