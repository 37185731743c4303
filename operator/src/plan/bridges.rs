//! How many bridges there are, and how many are to be.

use kube::ResourceExt;

use crate::observe::Children;
use crate::resources::names::{BRIDGES, Component, Names};

/// How many bridges there are, and how many are to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bridges {
    /// Whether they share the load, also if it is one.
    pub shared: bool,
    /// Those with a number below take part.
    pub members: u32,
    /// Those with a number below exist: who leaves stays until nothing waits for it at the broker.
    pub running: u32,
}

impl Bridges {
    pub(super) fn new(replicas: Option<i32>, names: &Names, children: &Children) -> Self {
        let members = replicas.and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
        let set = children.set(&names.of_part(Component::Bridge));
        let running = set.and_then(|set| u32::try_from(set.spec.replicas?).ok()).unwrap_or(0);
        // While they hibernate, each still has its session.
        let asleep = set.and_then(|set| set.annotations().get(BRIDGES)?.parse().ok()).unwrap_or(0);
        // Somebody may have scaled the set by hand, to any number.
        const MOST: u32 = 32;
        let running = running.max(asleep).min(MOST).max(members);
        // With subscriptions of its own each of several would store every message.
        Self { shared: replicas.is_some() || running > members, members, running }
    }
}
