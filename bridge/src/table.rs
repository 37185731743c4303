//! The routes, compiled: everything that a message needs, decided when the configuration is read.

use std::collections::{BTreeMap, HashSet};

use api::route::{Payload, Route, RouteError, check_routes};

use crate::encode::EncodeError;
use crate::point::Shared;
pub use crate::point::{CompiledRoute, Message, Written};
use crate::route::{Levels, Trie};

/// All routes. Built anew when the configuration changes, then swapped in whole.
#[derive(Debug, Default)]
pub struct Table {
    trie: Trie,
    routes: Vec<CompiledRoute>,
    filters: BTreeMap<String, Subscription>,
    /// The identifiers of all filters.
    identifiers: HashSet<u32>,
}

/// What the broker is asked for one topic filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscription {
    /// The highest quality of service that a route with this filter wants.
    pub qos: u8,
    /// The subscription identifier, which the broker puts on each copy that it delivers for this filter.
    pub id: u32,
    /// Its messages belong together: they can't be divided among several bridges.
    pub undivided: bool,
    /// Whether the bridge's own messages come back by it.
    pub own: bool,
}

/// Why routes can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A route is not one.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A name, or a text, of a route can't be written.
    #[error("route {route}: {name:?} {source}: choose another")]
    Name {
        /// The route's name.
        route: String,
        /// The name or the text.
        name: String,
        /// Why not.
        source: EncodeError,
    },
}

impl Table {
    /// Compiles routes.
    ///
    /// # Errors
    /// If one of them can't be used; says which and why.
    pub fn new(routes: &[Route]) -> Result<Self, CompileError> {
        check_routes(routes)?;
        let patterns = routes.iter().map(Route::pattern).collect::<Result<Vec<_>, _>>()?;
        let mut filters = BTreeMap::new();
        for (route, pattern) in routes.iter().zip(&patterns) {
            let filter = pattern.filter();
            let id = subscription_id(&filter);
            let subscription =
                filters.entry(filter).or_insert(Subscription { qos: 0, id, undivided: false, own: false });
            subscription.qos = subscription.qos.max(route.qos as u8);
            // A message by alias means nothing without the birth that came before it.
            subscription.undivided |= matches!(route.payload, Payload::Sparkplug(_));
        }
        let mut shared = Shared::default();
        let compiled = routes
            .iter()
            .zip(&patterns)
            .map(|(route, pattern)| {
                CompiledRoute::new(route, pattern.levels(), subscription_id(&pattern.filter()), &mut shared)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let identifiers = filters.values().map(|subscription| subscription.id).collect();
        Ok(Self { trie: Trie::new(&patterns), routes: compiled, filters, identifiers })
    }

    /// The topic filters to subscribe to.
    pub fn filters(&self) -> &BTreeMap<String, Subscription> {
        &self.filters
    }

    /// The routes, in the configuration's order.
    pub fn routes(&self) -> &[CompiledRoute] {
        &self.routes
    }

    /// Whether one of these subscriptions is for a filter of this table.
    pub fn knows(&self, subscriptions: &[u32]) -> bool {
        subscriptions.iter().any(|id| self.identifiers.contains(id))
    }

    /// Finds the places of the routes that one copy of a message goes to.
    ///
    /// Where filters overlap, a broker may deliver one copy for each of them. Each copy names the
    /// subscription that it is for, so each route sees each message once. A copy whose subscriptions
    /// are all unknown was queued for a filter that has gone since: it goes to all routes that match.
    pub fn matches(&self, topic: &str, levels: &Levels, subscriptions: &[u32], found: &mut Vec<usize>) {
        found.clear();
        self.trie.matches(topic, levels, found);
        if found.len() > 1 {
            found.sort_unstable();
        }
        let is_meant = |route: &CompiledRoute| subscriptions.contains(&route.subscription);
        // Nearly always one of those found is meant, and the others need no look.
        if !subscriptions.is_empty()
            && (found.iter().any(|&place| is_meant(&self.routes[place])) || self.knows(subscriptions))
        {
            found.retain(|&place| is_meant(&self.routes[place]));
        }
    }
}

/// A number for a filter that stays the same across restarts, since the broker queues it with messages:
/// FNV-1a, folded into the 28 bits that MQTT has for it. Two filters of one number only share their copies.
pub(crate) fn subscription_id(filter: &str) -> u32 {
    const LARGEST: u32 = 268_435_455;
    let hash =
        filter.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % LARGEST + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(yaml: &str) -> Table {
        let routes: Vec<Route> = serde_saphyr::from_str(yaml).expect("the test's routes are some");
        Table::new(&routes).expect("the test's routes compile")
    }

    fn names(table: &Table, topic: &str, subscriptions: &[u32]) -> Vec<String> {
        let (mut levels, mut found) = (Levels::default(), Vec::new());
        assert!(levels.split(topic));
        table.matches(topic, &levels, subscriptions, &mut found);
        found.into_iter().map(|place| table.routes()[place].name.to_string()).collect()
    }

    const OVERLAPPING: &str = "
        - {name: one, topic: 'a/{x}', qos: 1, payload: {float: {}}}
        - {name: all, topic: 'a/#', qos: 2, payload: {float: {}}}
        - {name: same, topic: 'a/+', qos: 0, payload: {string: {}}}";

    #[test]
    fn routes_with_one_filter_share_a_subscription_of_the_highest_qos() {
        let table = table(OVERLAPPING);
        let filters: Vec<_> =
            table.filters().iter().map(|(filter, sub)| (filter.as_str(), sub.qos)).collect();
        assert_eq!(filters, [("a/#", 2), ("a/+", 1)]);
    }

    #[test]
    fn a_copy_goes_to_the_routes_of_its_subscription_only() {
        let table = table(OVERLAPPING);
        let (all, one) = (subscription_id("a/#"), subscription_id("a/+"));
        assert_eq!(names(&table, "a/b", &[one]), ["one", "same"]);
        assert_eq!(names(&table, "a/b", &[all]), ["all"]);
        assert_eq!(names(&table, "a/b", &[one, all]), ["one", "all", "same"]);
        assert_eq!(names(&table, "a/b", &[]), ["one", "all", "same"]);
    }

    #[test]
    fn a_copy_for_a_filter_that_has_gone_goes_to_all_that_match() {
        let table = table(OVERLAPPING);
        assert_eq!(names(&table, "a/b", &[subscription_id("+/b")]), ["one", "all", "same"]);
    }

    #[test]
    fn a_name_that_cannot_be_written_is_refused_when_the_configuration_is_read() {
        let routes: Vec<Route> =
            serde_saphyr::from_str(r#"[{name: r, topic: a, measurement: "m\\", payload: {float: {}}}]"#)
                .expect("a route");
        let error = Table::new(&routes).expect_err("refused").to_string();
        assert!(error.starts_with(r#"route r: "m\\" ends with a backslash"#), "{error}");
    }
}
