//! Finds the routes that match a topic: a trie over topic levels, compiled from the routes' patterns.
//!
//! The cost of a look-up depends on the number of levels, not on the number of routes.

use std::num::NonZeroU32;
use std::ops::Range;

use api::topic::{Level, TopicPattern};
use hashbrown::HashTable;
use twox_hash::XxHash3_64;

/// The deepest topic that is matched. MQTT knows no limit; mosquitto's is 200.
const MAX_LEVELS: usize = 256;

/// All patterns, compiled. A pattern is known by its place in the list that it was compiled from.
///
/// With a thousand routes the trie competes for the processor's cache, so what a look-up needs is small and lies
/// close together: nodes are numbers, those of one pattern lie side by side, and so do the texts of all of them.
#[derive(Debug)]
pub struct Trie {
    /// The first is the root.
    nodes: Vec<Node>,
    /// The nodes of literal levels, by the node before and their text.
    literals: HashTable<u32>,
    /// The texts of the literal levels, one after the other.
    texts: String,
    /// For each pattern, the next one that ends alike.
    next: Vec<Link>,
}

/// A node, or a pattern, by its place; or none.
type Link = Option<NonZeroU32>;

#[derive(Debug, Default)]
struct Node {
    /// Of a literal level: the node before.
    parent: u32,
    /// Of a literal level: where its text begins and ends.
    text: Range<u32>,
    one: Link,
    /// The last of the patterns that end here, by its place and one.
    ends: Link,
    /// The same of the patterns whose last level takes all that remains from here.
    rests: Link,
    /// Whether literal levels follow.
    has_literals: bool,
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

impl Default for Trie {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            literals: HashTable::new(),
            texts: String::new(),
            next: Vec::new(),
        }
    }
}

impl Trie {
    /// Compiles patterns.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p TopicPattern>) -> Self {
        let mut trie = Self::default();
        for pattern in patterns {
            trie.insert(pattern.levels());
        }
        trie
    }

    /// Appends the places of all patterns that match the topic, whose levels were split before.
    pub fn matches(&self, topic: &str, levels: &Levels, found: &mut Vec<usize>) {
        let mut walk = Walk { trie: self, topic, levels, found };
        walk.visit(0, 0);
    }

    fn insert(&mut self, levels: &[Level]) {
        let pattern = NonZeroU32::new(self.next.len() as u32 + 1);
        let mut node = 0;
        let mut takes_rest = false;
        for level in levels {
            match level {
                Level::Literal(text) => node = self.literal(node, text),
                Level::One(_) => node = self.one(node),
                // Always the last.
                Level::Rest(_) => takes_rest = true,
            }
        }
        let Node { ends, rests, .. } = &mut self.nodes[node];
        self.next.push(std::mem::replace(if takes_rest { rests } else { ends }, pattern));
    }

    fn literal(&mut self, node: usize, text: &str) -> usize {
        if let Some(known) = self.find(node, text) {
            return known;
        }
        let start = self.texts.len() as u32;
        self.texts.push_str(text);
        let place = start..self.texts.len() as u32;
        let new = self.nodes.len();
        self.nodes.push(Node { parent: node as u32, text: place, ..Node::default() });
        self.nodes[node].has_literals = true;
        let Self { nodes, literals, texts, .. } = self;
        let hash_of = |&place: &u32| {
            let node = &nodes[place as usize];
            hash(node.parent as usize, node.text(texts))
        };
        literals.insert_unique(hash(node, text), new as u32, hash_of);
        new
    }

    /// The node of a literal level after another.
    fn find(&self, parent: usize, text: &str) -> Option<usize> {
        let is_it = |&place: &u32| {
            let node = &self.nodes[place as usize];
            node.parent as usize == parent && node.text(&self.texts) == text
        };
        self.literals.find(hash(parent, text), is_it).map(|&place| place as usize)
    }

    fn one(&mut self, node: usize) -> usize {
        let new = self.nodes.len();
        if let Some(place) = self.nodes[node].one {
            return place.get() as usize;
        }
        self.nodes[node].one = NonZeroU32::new(new as u32);
        self.nodes.push(Node::default());
        new
    }
}

impl Node {
    fn text<'t>(&self, texts: &'t str) -> &'t str {
        &texts[self.text.start as usize..self.text.end as usize]
    }
}

/// Only routes are in the table, so a stranger's topics can't fill it with what collides.
fn hash(parent: usize, text: &str) -> u64 {
    XxHash3_64::oneshot_with_seed(parent as u64, text.as_bytes())
}

struct Walk<'w> {
    trie: &'w Trie,
    topic: &'w str,
    levels: &'w Levels,
    found: &'w mut Vec<usize>,
}

impl Walk<'_> {
    fn visit(&mut self, node: usize, level: usize) {
        let &Node { has_literals, one, ends, rests, .. } = &self.trie.nodes[node];
        // A wildcard in the first level doesn't match the broker's own topics (section 4.7.2).
        let wild = level > 0 || !self.topic.starts_with('$');
        if wild {
            self.append(rests);
        }
        if level == self.levels.ranges.len() {
            self.append(ends);
            return;
        }
        if has_literals && let Some(next) = self.trie.find(node, self.levels.one(self.topic, level)) {
            self.visit(next, level + 1);
        }
        if wild && let Some(next) = one {
            self.visit(next.get() as usize, level + 1);
        }
    }

    /// Appends a pattern, and those before it that end alike.
    fn append(&mut self, mut last: Link) {
        while let Some(pattern) = last {
            let place = pattern.get() as usize - 1;
            self.found.push(place);
            last = self.trie.next[place];
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
