//! The topics of Sparkplug B (section 4.1 of the specification).

use api::route::SPARKPLUG_NAMESPACE;

use super::SparkplugError;

/// What a message's topic says (section 4.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Topic<'t> {
    pub group: &'t str,
    pub node: &'t str,
    /// Empty for the node itself.
    pub device: &'t str,
    pub(super) kind: Kind,
}

/// What a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Birth,
    Data,
    Death,
    Command,
}

impl<'t> Topic<'t> {
    /// Takes a topic apart.
    pub(crate) fn parse(topic: &'t str) -> Result<Self, SparkplugError> {
        let mut levels = topic.split('/');
        let mut next = || levels.next().unwrap_or_default();
        let (namespace, group, kind, node, device) = (next(), next(), next(), next(), levels.next());
        let kind = match (kind, device.is_some()) {
            _ if group == "STATE" => Kind::Command,
            ("NBIRTH", false) | ("DBIRTH", true) => Kind::Birth,
            ("NDATA", false) | ("DDATA", true) => Kind::Data,
            ("NDEATH", false) | ("DDEATH", true) => Kind::Death,
            ("NCMD", false) | ("DCMD", true) => Kind::Command,
            _ => return Err(SparkplugError::Topic),
        };
        let is_whole = levels.next().is_none() && ![group, node].contains(&"") && device != Some("");
        if namespace != SPARKPLUG_NAMESPACE || !is_whole && kind != Kind::Command {
            return Err(SparkplugError::Topic);
        }
        Ok(Self { group, node, device: device.unwrap_or_default(), kind })
    }

    pub(super) fn is_of_device(&self) -> bool {
        !self.device.is_empty()
    }

    pub(super) fn is_data(&self) -> bool {
        self.kind == Kind::Data
    }
}
