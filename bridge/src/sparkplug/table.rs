//! What one birth has told of its metrics.

use super::metric::known;

/// Names, types and aliases.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct MetricTable {
    /// By name.
    metrics: Box<[Announced]>,
    /// By alias; the place of the metric.
    aliases: Box<[(u64, u32)]>,
}

/// One metric as its birth has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Announced {
    pub name: Box<str>,
    /// Nothing, if the birth does not tell, which it must.
    pub datatype: Option<u32>,
    pub alias: Option<u64>,
}

impl MetricTable {
    /// An alias that stands for two metrics stands for none: which of them is meant, nobody knows.
    pub(super) fn new(mut metrics: Vec<Announced>) -> Self {
        metrics.sort_by(|one, other| one.name.cmp(&other.name));
        // Of two with one name, the one that came last counts.
        metrics.reverse();
        metrics.dedup_by(|one, other| one.name == other.name);
        metrics.reverse();
        let places = metrics.iter().enumerate();
        let mut aliases: Vec<(u64, u32)> =
            places.filter_map(|(place, metric)| Some((metric.alias?, place as u32))).collect();
        aliases.sort_unstable();
        let aliases = aliases.chunk_by(|one, other| one.0 == other.0).filter(|same| same.len() == 1);
        Self { aliases: aliases.map(|same| same[0]).collect(), metrics: metrics.into() }
    }

    /// How many metrics it is worth: a long name counts as several.
    pub(super) fn weight(&self) -> usize {
        self.metrics.iter().map(|metric| 1 + metric.name.len() / 100).sum()
    }

    pub(super) fn by_alias(&self, alias: u64) -> Option<&Announced> {
        let place = self.aliases.binary_search_by_key(&alias, |(alias, _)| *alias).ok()?;
        self.metrics.get(self.aliases[place].1 as usize)
    }

    /// The type of the metric of this name.
    pub(super) fn datatype(&self, name: &str) -> Option<u32> {
        let place = self.metrics.binary_search_by(|metric| (*metric.name).cmp(name)).ok()?;
        known(self.metrics[place].datatype)
    }
}
