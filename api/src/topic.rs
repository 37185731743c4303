//! Topic patterns: MQTT topic filters whose levels can be captured by name.
//!
//! `{name}` stands for one level, as `+` does, and `{name...}`, as the last level, for all that
//! remain, as `#` does. The notation of captures is AsyncAPI's channel parameters.
//! Filters: <https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html#_Toc3901247>

use std::fmt::Write;
use std::str::FromStr;

/// The longest topic filter that MQTT can carry, in bytes (section 1.5.4).
pub const MAX_FILTER_BYTES: usize = 65_535;

/// A parsed topic pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicPattern {
    levels: Vec<Level>,
}

/// One level of a pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Level {
    /// This text exactly; may be empty.
    Literal(String),
    /// Any one level; captured under the name, if there is one.
    One(Option<String>),
    /// Any remaining levels, none included; always last. Captured under the name, if there is one.
    Rest(Option<String>),
}

/// Why a text is no topic pattern.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum TopicError {
    /// No text at all.
    #[error("a topic can't be empty")]
    Empty,
    /// MQTT can't carry it.
    #[error("a topic has at most {MAX_FILTER_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// MQTT forbids the character NUL in topics.
    #[error("a topic can't hold the character NUL")]
    Nul,
    /// `#` or `{name...}` before the last level.
    #[error("level {0:?} stands for all that remain, so it must be the last")]
    RestNotLast(String),
    /// `+`, `#`, `{` or `}` as a part of a level.
    #[error("level {0:?} mixes text with a wildcard: +, # and {{name}} each stand for a whole level")]
    MixedLevel(String),
    /// Not a name for a tag.
    #[error("{0:?} is no name for a capture: a letter, then letters, digits and _")]
    CaptureName(String),
    /// The same name twice.
    #[error("capture {0:?} is named twice: give each its own name")]
    CaptureTwice(String),
    /// Shared subscriptions are the bridge's own choice.
    #[error("shared subscriptions are not for routes: remove $share/<group>/")]
    Shared,
}

impl FromStr for TopicPattern {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        match text {
            "" => return Err(TopicError::Empty),
            _ if text.len() > MAX_FILTER_BYTES => return Err(TopicError::TooLong(text.len())),
            _ if text.contains('\0') => return Err(TopicError::Nul),
            _ if text.starts_with("$share/") => return Err(TopicError::Shared),
            _ => {}
        }
        let levels = text.split('/').map(parse_level).collect::<Result<Vec<_>, _>>()?;
        let pattern = Self { levels };
        if let Some((place, _)) =
            pattern.levels.iter().enumerate().find(|(_, level)| matches!(level, Level::Rest(_)))
            && place + 1 < pattern.levels.len()
        {
            return Err(TopicError::RestNotLast(text.split('/').nth(place).unwrap_or_default().into()));
        }
        let mut captures: Vec<&str> = pattern.captures().collect();
        captures.sort_unstable();
        if let Some(pair) = captures.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(TopicError::CaptureTwice(pair[0].into()));
        }
        Ok(pattern)
    }
}

fn parse_level(level: &str) -> Result<Level, TopicError> {
    match level {
        "+" => return Ok(Level::One(None)),
        "#" => return Ok(Level::Rest(None)),
        _ => {}
    }
    if let Some(name) = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return match name.strip_suffix("...") {
            Some(name) => capture_name(name).map(|name| Level::Rest(Some(name))),
            None => capture_name(name).map(|name| Level::One(Some(name))),
        };
    }
    if level.contains(['+', '#', '{', '}']) {
        return Err(TopicError::MixedLevel(level.into()));
    }
    Ok(Level::Literal(level.into()))
}

fn capture_name(name: &str) -> Result<String, TopicError> {
    let letter_first = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if letter_first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(name.into())
    } else {
        Err(TopicError::CaptureName(name.into()))
    }
}

impl TopicPattern {
    /// The levels, in order.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The names of the captures, in order.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter_map(|level| match level {
            Level::One(name) | Level::Rest(name) => name.as_deref(),
            Level::Literal(_) => None,
        })
    }

    /// The MQTT topic filter to subscribe to.
    pub fn filter(&self) -> String {
        let mut filter = String::new();
        for (place, level) in self.levels.iter().enumerate() {
            let text = match level {
                Level::Literal(text) => text,
                Level::One(_) => "+",
                Level::Rest(_) => "#",
            };
            let separator = if place == 0 { "" } else { "/" };
            write!(filter, "{separator}{text}").expect("writing to a String cannot fail");
        }
        filter
    }

    /// What the captures hold for a topic, or nothing if the topic doesn't match.
    ///
    /// One pattern at a time, plainly: the reference that the bridge's trie is tested against.
    /// A wildcard in the first level doesn't match a topic that starts with `$` (section 4.7.2).
    pub fn matches<'t>(&self, topic: &'t str) -> Option<Vec<(&str, &'t str)>> {
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Literal(_))) {
            return None;
        }
        let mut captured = Vec::new();
        let mut rest = Some(topic);
        for level in &self.levels {
            if let Level::Rest(name) = level {
                captured.extend(name.as_deref().map(|name| (name, rest.unwrap_or_default())));
                return Some(captured);
            }
            let (head, tail) = match rest?.split_once('/') {
                Some((head, tail)) => (head, Some(tail)),
                None => (rest?, None),
            };
            match level {
                Level::Literal(text) if text != head => return None,
                Level::One(Some(name)) => captured.push((name.as_str(), head)),
                _ => {}
            }
            rest = tail;
        }
        rest.is_none().then_some(captured)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        text.parse().expect("the test's pattern is one")
    }

    #[test]
    fn captures_become_wildcards_of_the_filter() {
        assert_eq!(pattern("sensor/{axis}/+/{rest...}").filter(), "sensor/+/+/#");
        assert_eq!(pattern("/a//b").filter(), "/a//b");
        assert_eq!(pattern("#").filter(), "#");
    }

    #[test]
    fn a_match_holds_what_was_captured() {
        let axis = pattern("sensor/accelero/{axis}");
        assert_eq!(axis.matches("sensor/accelero/roll"), Some(vec![("axis", "roll")]));
        assert_eq!(axis.matches("sensor/accelero"), None);
        assert_eq!(axis.matches("sensor/accelero/roll/raw"), None);
        assert_eq!(pattern("a/{r...}").matches("a/b/c"), Some(vec![("r", "b/c")]));
        assert_eq!(pattern("a/{r...}").matches("a"), Some(vec![("r", "")]));
        assert_eq!(pattern("a/{r...}").matches("a/"), Some(vec![("r", "")]));
        assert_eq!(pattern("é/+").matches("é/x"), Some(vec![]));
    }

    #[test]
    fn a_leading_wildcard_does_not_match_the_broker_s_own_topics() {
        assert_eq!(pattern("#").matches("$SYS/broker"), None);
        assert_eq!(pattern("+/broker").matches("$SYS/broker"), None);
        assert!(pattern("$SYS/#").matches("$SYS/broker").is_some());
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        let error = |text: &str| text.parse::<TopicPattern>().expect_err(text);
        assert_eq!(error(""), TopicError::Empty);
        assert_eq!(error("a/#/b"), TopicError::RestNotLast("#".into()));
        assert_eq!(error("{r...}/b"), TopicError::RestNotLast("{r...}".into()));
        assert_eq!(error("a/b+"), TopicError::MixedLevel("b+".into()));
        assert_eq!(error("a/x{b}"), TopicError::MixedLevel("x{b}".into()));
        assert_eq!(error("a/{}"), TopicError::CaptureName(String::new()));
        assert_eq!(error("a/{1}"), TopicError::CaptureName("1".into()));
        assert_eq!(error("{a}/{a...}"), TopicError::CaptureTwice("a".into()));
        assert_eq!(error("a\0b"), TopicError::Nul);
        assert_eq!(error("$share/g/a"), TopicError::Shared);
        assert_eq!(error(&"a".repeat(65_536)), TopicError::TooLong(65_536));
    }

    proptest! {
        #[test]
        fn a_topic_matches_the_pattern_that_is_its_own_text(topic in "[a-c/]{1,12}") {
            let pattern = pattern(&topic);
            prop_assert_eq!(pattern.matches(&topic), Some(vec![]));
        }

        #[test]
        fn what_remains_is_captured_whole(head in "[a-c]{1,4}", tail in "[a-c/]{0,12}") {
            let topic = format!("{head}/{tail}");
            let pattern = pattern(&format!("{head}/{{rest...}}"));
            prop_assert_eq!(pattern.matches(&topic), Some(vec![("rest", tail.as_str())]));
        }
    }
}
