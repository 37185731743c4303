//! What a route remembers of the messages before: the series that it has made, where it has a bound, and the
//! births of Sparkplug's nodes. Kept by the routes' names, so it outlives a change of the routes.

use std::collections::HashMap;

use crate::series::Series;
use crate::sparkplug::Births;
use crate::table::Table;

/// What all routes remember that remember anything.
#[derive(Debug, Default)]
pub struct Memories {
    by_route: HashMap<String, Memory>,
}

/// What one route remembers.
#[derive(Debug, Default)]
pub struct Memory {
    /// The series that it has made.
    pub series: Series,
    /// What Sparkplug's nodes and devices have told.
    pub births: Births,
}

impl Memories {
    /// What a route remembers, as a message begins, which may be one that was delivered before.
    pub fn of(&mut self, route: &str, repeated: bool) -> &mut Memory {
        if !self.by_route.contains_key(route) {
            self.by_route.insert(route.into(), Memory::default());
        }
        let memory = self.by_route.get_mut(route).expect("it was just made");
        memory.births.begin(repeated);
        memory
    }

    /// How many series a route has made.
    pub fn series(&self, route: &str) -> usize {
        self.by_route.get(route).map_or(0, |memory| memory.series.count())
    }

    /// The connection to the broker is lost, and messages may be missed.
    pub fn disconnected(&mut self) {
        self.by_route.values_mut().for_each(|memory| memory.births.disconnected());
    }

    /// Forgets the routes that have gone, or need no memory any more.
    pub fn retain(&mut self, tables: &[&Table]) {
        let routes = tables.iter().flat_map(|table| table.routes());
        let remembers =
            |name: &String| routes.clone().any(|route| *route.name == **name && route.has_memory());
        self.by_route.retain(|name, _| remembers(name));
    }
}
