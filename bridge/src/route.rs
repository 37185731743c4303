//! Finds the routes that match a topic: a trie over topic levels, compiled from the routes' patterns.
//!
//! The cost of a look-up depends on the number of levels, not on the number of routes.

use std::collections::HashMap;
use std::ops::Range;

use api::topic::{Level, TopicPattern};

/// The deepest topic that is matched. MQTT knows no limit; mosquitto's is 200.
const MAX_LEVELS: usize = 256;

/// All patterns, compiled. A pattern is known by its place in the list that it was compiled from.
#[derive(Debug, Default)]
pub struct Trie {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    /// Patterns that end here.
    ends: Vec<usize>,
    /// Patterns whose last level takes all that remains from here.
    rests: Vec<usize>,
}

/// Where the levels of a topic are; reused from message to message.
#[derive(Debug, Default)]
pub struct Levels {
    ranges: Vec<Range<u32>>,
}

impl Levels {
    /// Splits a topic. False if it has more levels than are matched.
    pub fn split(&mut self, topic: &str) -> bool {
        self.ranges.clear();
        let mut start = 0;
        for (place, byte) in topic.bytes().enumerate() {
            if byte == b'/' {
                self.ranges.push(start..place as u32);
                start = place as u32 + 1;
            }
        }
        self.ranges.push(start..topic.len() as u32);
        self.ranges.len() <= MAX_LEVELS
    }

    /// The text of one level; empty if the topic has no such level.
    pub fn one<'t>(&self, topic: &'t str, level: usize) -> &'t str {
        self.ranges.get(level).map_or("", |range| &topic[range.start as usize..range.end as usize])
    }

    /// The text from one level to the end; empty if the topic has no such level.
    pub fn rest<'t>(&self, topic: &'t str, level: usize) -> &'t str {
        self.ranges.get(level).map_or("", |range| &topic[range.start as usize..])
    }
}

impl Trie {
    /// Compiles patterns.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p TopicPattern>) -> Self {
        let mut trie = Self::default();
        for (place, pattern) in patterns.into_iter().enumerate() {
            trie.root.insert(pattern.levels(), place);
        }
        trie
    }

    /// Appends the places of all patterns that match the topic, whose levels were split before.
    pub fn matches(&self, topic: &str, levels: &Levels, found: &mut Vec<usize>) {
        let mut walk = Walk { topic, levels, found };
        walk.visit(&self.root, 0);
    }
}

impl Node {
    fn insert(&mut self, levels: &[Level], place: usize) {
        match levels.split_first() {
            None => self.ends.push(place),
            Some((Level::Rest(_), _)) => self.rests.push(place),
            Some((Level::One(_), tail)) => self.one.get_or_insert_default().insert(tail, place),
            Some((Level::Literal(text), tail)) => {
                self.literals.entry(text.as_str().into()).or_default().insert(tail, place);
            }
        }
    }
}

struct Walk<'w> {
    topic: &'w str,
    levels: &'w Levels,
    found: &'w mut Vec<usize>,
}

impl Walk<'_> {
    fn visit(&mut self, node: &Node, level: usize) {
        // A wildcard in the first level doesn't match the broker's own topics (section 4.7.2).
        let wild = level > 0 || !self.topic.starts_with('$');
        if wild {
            self.found.extend_from_slice(&node.rests);
        }
        if level == self.levels.ranges.len() {
            self.found.extend_from_slice(&node.ends);
            return;
        }
        if !node.literals.is_empty()
            && let Some(next) = node.literals.get(self.levels.one(self.topic, level))
        {
            self.visit(next, level + 1);
        }
        if wild && let Some(next) = &node.one {
            self.visit(next, level + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(patterns: &[TopicPattern], topic: &str) -> Vec<usize> {
        let mut levels = Levels::default();
        let mut found = Vec::new();
        assert!(levels.split(topic));
        Trie::new(patterns).matches(topic, &levels, &mut found);
        found.sort_unstable();
        found
    }

    #[test]
    fn a_topic_deeper_than_any_real_one_is_not_matched() {
        let mut levels = Levels::default();
        assert!(levels.split(&"a/".repeat(MAX_LEVELS - 1)));
        assert!(!levels.split(&"a/".repeat(MAX_LEVELS)));
    }

    #[test]
    fn levels_are_cut_where_the_topic_has_slashes() {
        let mut levels = Levels::default();
        assert!(levels.split("é//x"));
        assert_eq!([levels.one("é//x", 0), levels.one("é//x", 1), levels.rest("é//x", 1)], ["é", "", "/x"]);
        assert_eq!(levels.rest("é//x", 9), "");
    }

    proptest! {
        #[test]
        fn the_trie_finds_what_the_plain_matcher_finds(
            texts in prop::collection::vec(r"(\$S|[ab+]|\{x\}|)(/([ab+]|\{y\}|)){0,3}(/#|/\{r\.\.\.\})?|#", 1..12),
            topic in r"(\$S|[abc]|)(/[abc]?){0,4}",
        ) {
            let patterns: Vec<TopicPattern> = texts.iter().filter_map(|text| text.parse().ok()).collect();
            prop_assume!(!topic.is_empty());
            let naive: Vec<usize> = patterns.iter().enumerate()
                .filter(|(_, pattern)| pattern.matches(&topic).is_some())
                .map(|(place, _)| place)
                .collect();
            prop_assert_eq!(found(&patterns, &topic), naive);
        }
    }
}
