//! The routes, compiled: everything that a message needs, decided when the configuration is read.

use std::collections::BTreeMap;

use api::route::{Route, RouteError, check_routes};
use api::topic::Level;

use crate::decode::{DecodeError, Decoder, Values};
use crate::encode::{self, EncodeError, MAX_SERIES_BYTES};
use crate::route::{Levels, Trie};

/// All routes. Built anew when the configuration changes, then swapped in whole.
#[derive(Debug, Default)]
pub struct Table {
    trie: Trie,
    routes: Vec<CompiledRoute>,
    filters: BTreeMap<String, Subscription>,
}

/// What the broker is asked for one topic filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subscription {
    /// The highest quality of service that a route with this filter wants.
    pub qos: u8,
    /// The subscription identifier, which the broker puts on each copy that it delivers for this filter.
    pub id: u32,
}

/// One route.
#[derive(Debug)]
pub struct CompiledRoute {
    /// Its name.
    pub name: String,
    /// The identifier of the subscription that feeds it.
    pub subscription: u32,
    measurement: Vec<u8>,
    tags: Vec<Tag>,
    fields: Vec<Field>,
    decoder: Decoder,
}

#[derive(Debug)]
struct Tag {
    name: String,
    /// `,name=`, escaped.
    key: Vec<u8>,
    source: TagSource,
}

#[derive(Clone, Copy, Debug)]
enum TagSource {
    Level(usize),
    Rest(usize),
    Slot(usize),
}

#[derive(Debug)]
struct Field {
    /// `name=`, escaped.
    key: Vec<u8>,
    slot: usize,
}

/// Why routes can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A route is not one.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A name of a route can't be written.
    #[error("route {route}: {name:?} {source}: choose another name")]
    Name {
        /// The route's name.
        route: String,
        /// The measurement's, tag's or field's name.
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
            let subscription = filters.entry(filter).or_insert(Subscription { qos: 0, id });
            subscription.qos = subscription.qos.max(route.qos as u8);
        }
        let compiled = routes
            .iter()
            .zip(&patterns)
            .map(|(route, pattern)| {
                CompiledRoute::new(route, pattern.levels(), subscription_id(&pattern.filter()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { trie: Trie::new(&patterns), routes: compiled, filters })
    }

    /// The topic filters to subscribe to.
    pub fn filters(&self) -> &BTreeMap<String, Subscription> {
        &self.filters
    }

    /// The routes, in the configuration's order.
    pub fn routes(&self) -> &[CompiledRoute] {
        &self.routes
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
        if !subscriptions.is_empty() && self.routes.iter().any(is_meant) {
            found.retain(|&place| is_meant(&self.routes[place]));
        }
    }
}

/// A number for a filter that stays the same across restarts, since the broker queues it with messages:
/// FNV-1a, folded into the 28 bits that MQTT has for it. Two filters of one number only share their copies.
fn subscription_id(filter: &str) -> u32 {
    const LARGEST: u32 = 268_435_455;
    let hash =
        filter.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % LARGEST + 1
}

impl CompiledRoute {
    fn new(route: &Route, levels: &[Level], subscription: u32) -> Result<Self, CompileError> {
        let field_count = route.payload.fields().len();
        let mut tags: Vec<(String, TagSource)> = Vec::new();
        for (place, level) in levels.iter().enumerate() {
            match level {
                Level::One(Some(name)) => tags.push((name.clone(), TagSource::Level(place))),
                Level::Rest(Some(name)) => tags.push((name.clone(), TagSource::Rest(place))),
                _ => {}
            }
        }
        let payload_tags = route.payload.tags().into_iter().map(str::to_owned).enumerate();
        tags.extend(payload_tags.map(|(place, name)| (name, TagSource::Slot(field_count + place))));
        // InfluxDB finds a series faster when its tags come sorted.
        tags.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let named = |name: &str| {
            let (route, name) = (route.name.clone(), name.to_owned());
            move |source| CompileError::Name { route, name, source }
        };
        let mut measurement = Vec::new();
        encode::measurement(&mut measurement, route.measurement()).map_err(named(route.measurement()))?;
        let key = |before: &[u8], name: &str| {
            let mut key = before.to_vec();
            encode::tag(&mut key, name).map_err(named(name))?;
            key.push(b'=');
            Ok::<_, CompileError>(key)
        };
        let tags = tags
            .into_iter()
            .map(|(name, source)| Ok(Tag { key: key(b",", &name)?, name, source }))
            .collect::<Result<_, CompileError>>()?;
        let fields = route.payload.fields().into_iter().enumerate();
        let fields = fields
            .map(|(slot, (name, _))| Ok(Field { key: key(b"", name)?, slot }))
            .collect::<Result<_, CompileError>>()?;
        let decoder = Decoder::new(&route.payload);
        Ok(Self { name: route.name.clone(), subscription, measurement, tags, fields, decoder })
    }

    /// Appends the message's point to `out` as one line, or leaves `out` as it was.
    ///
    /// # Errors
    /// If the payload is not what the route declares, or can't be stored.
    pub fn write_point(
        &self,
        message: Message<'_>,
        stamp: i64,
        values: &mut Values,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        self.decoder.decode(message.payload, values)?;
        let start = out.len();
        let written = self.write_line(message, stamp, values, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn write_line(
        &self,
        message: Message<'_>,
        stamp: i64,
        values: &Values,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let start = out.len();
        out.extend_from_slice(&self.measurement);
        for tag in &self.tags {
            let text = match tag.source {
                TagSource::Level(level) => message.levels.one(message.topic, level),
                TagSource::Rest(level) => message.levels.rest(message.topic, level),
                TagSource::Slot(slot) => {
                    if let Some(written) = values.get(slot) {
                        out.extend_from_slice(&tag.key);
                        out.extend_from_slice(written);
                    }
                    continue;
                }
            };
            if !text.is_empty() {
                out.extend_from_slice(&tag.key);
                encode::tag(out, text)
                    .map_err(|source| DecodeError::Capture { tag: tag.name.clone(), source })?;
            }
        }
        if out.len() - start > MAX_SERIES_BYTES {
            return Err(DecodeError::SeriesTooLong(out.len() - start));
        }
        let mut separator = b' ';
        for field in &self.fields {
            if let Some(written) = values.get(field.slot) {
                out.push(separator);
                out.extend_from_slice(&field.key);
                out.extend_from_slice(written);
                separator = b',';
            }
        }
        encode::timestamp(out, values.timestamp.unwrap_or(stamp));
        Ok(())
    }
}

/// One message, as the routes see it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'m> {
    /// Its topic.
    pub topic: &'m str,
    /// Where the topic's levels are.
    pub levels: &'m Levels,
    /// What was published.
    pub payload: &'m [u8],
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
        found.into_iter().map(|place| table.routes()[place].name.clone()).collect()
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
