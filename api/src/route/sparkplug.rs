//! The topics of Sparkplug B: spBv1.0/group/type/node, and spBv1.0/group/type/node/device (section 4.1 of
//! its specification, version 3.0).

use super::Route;
use super::payload::Payload;
use crate::topic::{Level, TopicPattern};

/// The first level of all topics of Sparkplug B.
pub const NAMESPACE: &str = "spBv1.0";

/// Whether a route with this topic gets every type of message, of nodes and of their devices, and its points
/// tell the nodes and the devices apart: two of one series and time would be one.
pub(super) fn admits(pattern: &TopicPattern) -> bool {
    let is_told = |level: &Level| matches!(level, Level::Literal(_) | Level::One(Some(_)));
    match pattern.levels() {
        [Level::Literal(namespace), group, Level::One(None), node, Level::Rest(Some(_))] => {
            namespace == NAMESPACE && is_told(group) && is_told(node)
        }
        _ => false,
    }
}

/// The topic by which a node is commanded (section 4.1.3).
pub fn command_topic(group: &str, node: &str) -> String {
    format!("{NAMESPACE}/{group}/NCMD/{node}")
}

impl Route {
    /// The filter of the topics that the bridge asks nodes for births by, if it does so for this route.
    pub fn command_filter(&self) -> Option<String> {
        let pattern = self.pattern().ok().filter(|_| matches!(self.payload, Payload::Sparkplug(_)))?;
        let level = |place: usize| match pattern.levels().get(place) {
            Some(Level::Literal(text)) => text.clone(),
            _ => "+".into(),
        };
        Some(command_topic(&level(1), &level(3)))
    }
}
