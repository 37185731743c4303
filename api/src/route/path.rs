//! Paths into a payload: keys joined by dots, with steps that stand for every key.

use std::borrow::Cow;

/// A path, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Path<'p> {
    /// Whether it starts at the payload's root (`$.`) though the route has `each`.
    pub from_root: bool,
    /// The way. Empty for `@`: the element of `each` itself.
    pub steps: Vec<Step<'p>>,
}

/// One step of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step<'p> {
    /// This key, or this place in an array.
    Key(Cow<'p, str>),
    /// Every key and every place; its text becomes the tag of this name, if there is one.
    Every(Option<&'p str>),
}

/// Why a text is no path for its purpose.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// No text at all.
    #[error("a path can't be empty")]
    Empty,
    /// `*` where one value is wanted.
    #[error(
        "a step * stands for every key, so it is for fields and for each only: name the key, or write \\*"
    )]
    NotOneValue,
    /// Two of them in a field's path.
    #[error("a field's path has at most one step *: use each for the others")]
    TwoWildcards,
    /// A wildcard that starts at the root, beside elements that have their own.
    #[error("a path that starts with $ leads to one value for all points: it can't have a step *")]
    WildcardFromRoot,
    /// `@` or `$` without a key.
    #[error("@ is the element that each finds: without each, name a key, or write \\@")]
    NoElement,
    /// An `each` that leads to one place only.
    #[error("each needs a step that is * or {{name}}: readings.* is every element of readings")]
    NotEach,
    /// Not a name for a tag.
    #[error("{0:?} is no name for a capture: a letter, then letters, digits and _")]
    CaptureName(String),
}

impl<'p> Path<'p> {
    /// The path of one value: a tag, a timestamp, a measurement.
    ///
    /// # Errors
    /// If it can lead to several, or nowhere.
    pub fn of_value(text: &'p str, with_each: bool) -> Result<Self, PathError> {
        let path = Self::of_field(text, with_each)?;
        if path.has_wildcard() { Err(PathError::NotOneValue) } else { Ok(path) }
    }

    /// The path of a field, in which one step may be `*`.
    ///
    /// # Errors
    /// If it has several, or leads nowhere.
    pub fn of_field(text: &'p str, with_each: bool) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text == "@" {
            return match with_each {
                true => Ok(Self { from_root: false, steps: Vec::new() }),
                false => Err(PathError::NoElement),
            };
        }
        let (from_root, text) = match text.strip_prefix("$.") {
            Some(rest) => (with_each, rest),
            None => (false, text),
        };
        let steps: Vec<_> = split(text).map(|key| step(key, false)).collect::<Result<_, _>>()?;
        let path = Self { from_root, steps };
        match path.steps.iter().filter(|step| matches!(step, Step::Every(_))).count() {
            0 => Ok(path),
            1 if path.from_root => Err(PathError::WildcardFromRoot),
            1 => Ok(path),
            _ => Err(PathError::TwoWildcards),
        }
    }

    /// The path of the elements that make a point each.
    ///
    /// # Errors
    /// If it leads to one place only, or names a capture that can't be a tag.
    pub fn of_each(text: &'p str) -> Result<Self, PathError> {
        let text = text.strip_prefix("$.").unwrap_or(text);
        let steps: Vec<_> = split(text).map(|key| step(key, true)).collect::<Result<_, _>>()?;
        let path = Self { from_root: true, steps };
        if path.has_wildcard() { Ok(path) } else { Err(PathError::NotEach) }
    }

    /// Whether a step stands for every key.
    pub fn has_wildcard(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Every(_)))
    }

    /// The names of the captures, in order.
    pub fn captures(&self) -> impl Iterator<Item = &'p str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Every(name) => *name,
            Step::Key(_) => None,
        })
    }
}

/// The texts between the dots; `\.` is a dot within a key.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |character| {
        let ends = character == '.' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    })
}

fn step(key: &str, is_each: bool) -> Result<Step<'_>, PathError> {
    if key == "*" {
        return Ok(Step::Every(None));
    }
    if is_each && let Some(name) = key.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let letter_first = name.starts_with(|c: char| c.is_ascii_alphabetic());
        return match letter_first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            true => Ok(Step::Every(Some(name))),
            false => Err(PathError::CaptureName(name.into())),
        };
    }
    Ok(Step::Key(unescaped(key)))
}

/// A backslash takes the meaning from a character that has one; before any other it is itself.
fn unescaped(key: &str) -> Cow<'_, str> {
    if !key.contains('\\') {
        return key.into();
    }
    let mut text = String::with_capacity(key.len());
    let mut characters = key.chars().peekable();
    while let Some(character) = characters.next() {
        match characters.peek() {
            Some('.' | '\\' | '*' | '$' | '@' | '{') if character == '\\' => text.extend(characters.next()),
            _ => text.push(character),
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        let path = Path::of_field(text, true).expect("a path");
        let keys = path.steps.into_iter().map(|step| match step {
            Step::Key(key) => key.into_owned(),
            Step::Every(_) => "every key".into(),
        });
        keys.collect()
    }

    #[test]
    fn a_path_is_cut_at_its_dots_but_not_at_escaped_ones() {
        assert_eq!(keys("a.b"), ["a", "b"]);
        assert_eq!(keys(r"a\.b.c"), ["a.b", "c"]);
        assert_eq!(keys(r"a\\.b"), [r"a\", "b"]);
        assert_eq!(keys(r"a\b"), [r"a\b"]);
        assert_eq!(keys("a."), ["a", ""]);
    }

    #[test]
    fn what_has_a_meaning_can_be_a_key_all_the_same() {
        assert_eq!(keys("a.*.b"), ["a", "every key", "b"]);
        assert_eq!(keys(r"\*.a*"), ["*", "a*"]);
        assert_eq!(keys(r"\@"), ["@"]);
        assert_eq!(keys(r"\$.{x}"), ["$", "{x}"]);
        assert_eq!(keys("$.a"), ["a"]);
        assert!(keys("@").is_empty());
    }

    #[test]
    fn a_path_leads_to_what_it_is_for() {
        assert_eq!(Path::of_value("a.*", true), Err(PathError::NotOneValue));
        assert_eq!(Path::of_field("*.*", true), Err(PathError::TwoWildcards));
        assert_eq!(Path::of_field("$.*", true), Err(PathError::WildcardFromRoot));
        assert_eq!(Path::of_field("@", false), Err(PathError::NoElement));
        assert_eq!(Path::of_each("readings"), Err(PathError::NotEach));
        assert_eq!(Path::of_each("{1}"), Err(PathError::CaptureName("1".into())));
        let each = Path::of_each("rooms.{room}.*").expect("a path");
        assert_eq!(each.captures().collect::<Vec<_>>(), ["room"]);
    }
}
