//! The properties of a message (MQTT 5, section 3.3.2.3), read where they lie and only if a route
//! wants one.

/// The properties of one message, borrowed from its packet, and checked with it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Properties<'f>(&'f [u8]);

/// One property that routes can want, or that the bridge itself does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Property<'f> {
    ContentType(&'f [u8]),
    User(&'f [u8], &'f [u8]),
    Subscription(u32),
    TopicAlias,
    /// One that nobody wants.
    Other,
}

const CONTENT_TYPE: u8 = 0x03;
const USER: u8 = 0x26;

impl<'f> Properties<'f> {
    /// Bytes as a packet has them. What is malformed ends them.
    pub fn new(bytes: &'f [u8]) -> Self {
        Self(bytes)
    }

    /// The value of the last user property of this name.
    pub fn user(&self, name: &str) -> Option<&'f [u8]> {
        self.all()
            .filter_map(|property| match property {
                Property::User(key, value) if key == name.as_bytes() => Some(value),
                _ => None,
            })
            .last()
    }

    /// The content type.
    pub fn content_type(&self) -> Option<&'f [u8]> {
        self.all().find_map(|property| match property {
            Property::ContentType(value) => Some(value),
            _ => None,
        })
    }

    fn all(&self) -> impl Iterator<Item = Property<'f>> {
        let mut rest = self.0;
        std::iter::from_fn(move || next(&mut rest)?.ok())
    }
}

/// Properties as a packet has them, for messages that no broker delivered.
///
/// # Errors
/// If a text is longer than MQTT can carry.
pub(crate) fn written<'t>(
    user: impl IntoIterator<Item = (&'t str, &'t str)>,
    content_type: Option<&str>,
) -> Result<Vec<u8>, std::num::TryFromIntError> {
    let mut bytes = Vec::new();
    let mut text = |kind: Option<u8>, text: &str| {
        bytes.extend(kind);
        bytes.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        Ok::<_, std::num::TryFromIntError>(())
    };
    for (name, value) in user {
        text(Some(USER), name)?;
        text(None, value)?;
    }
    if let Some(value) = content_type {
        text(Some(CONTENT_TYPE), value)?;
    }
    Ok(bytes)
}

/// A property that is none.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Takes the first property off: nothing if there is none.
pub(crate) fn next<'f>(rest: &mut &'f [u8]) -> Option<Result<Property<'f>, Malformed>> {
    let (&kind, mut after) = rest.split_first()?;
    let property = read(kind, &mut after).ok_or(Malformed);
    *rest = after;
    Some(property)
}

fn read<'f>(kind: u8, rest: &mut &'f [u8]) -> Option<Property<'f>> {
    Some(match kind {
        0x0B => {
            let (id, length) = crate::packet::variable_integer(rest).ok().flatten()?;
            *rest = &rest[length..];
            Property::Subscription(id)
        }
        CONTENT_TYPE => Property::ContentType(text(rest)?),
        USER => Property::User(text(rest)?, text(rest)?),
        0x23 => Property::TopicAlias,
        0x01 => take(rest, 1).map(|_| Property::Other)?,
        0x02 => take(rest, 4).map(|_| Property::Other)?,
        0x08 | 0x09 => text(rest).map(|_| Property::Other)?,
        _ => return None,
    })
}

fn text<'f>(rest: &mut &'f [u8]) -> Option<&'f [u8]> {
    let length = take(rest, 2)?;
    take(rest, usize::from(u16::from_be_bytes([length[0], length[1]])))
}

fn take<'f>(rest: &mut &'f [u8], count: usize) -> Option<&'f [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_user_properties_of_one_name_the_last_counts() {
        let bytes = written([("a", "1"), ("b", "2"), ("a", "3")], Some("text/plain")).expect("short texts");
        let properties = Properties::new(&bytes);
        assert_eq!(properties.user("a"), Some(&b"3"[..]));
        assert_eq!(properties.user("c"), None);
        assert_eq!(properties.content_type(), Some(&b"text/plain"[..]));
        assert_eq!(Properties::default().content_type(), None);
    }
}
