//! The paths of a route, joined into a tree that a visitor goes down.

use api::route::Step;

use crate::values::{Slot, Values};
use std::ops::Range;

/// A place in the payload that paths lead to or through.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub children: Vec<Child>,
    /// Where every key leads that no child has.
    pub every: Option<Box<Node>>,
    /// The number of the capture that gets the key that led here.
    pub capture: Option<usize>,
    /// Slots of the values that are exactly here.
    pub slots: Vec<usize>,
    /// Wildcards whose values are exactly here.
    pub wildcards: Vec<usize>,
    /// A point begins here: the tree of its own paths.
    pub element: Option<Box<Node>>,
    /// All wildcards here and below.
    below: Vec<usize>,
    /// Whether points begin here or below.
    pub has_elements: bool,
}

#[derive(Debug)]
pub(super) struct Child {
    pub key: Box<str>,
    pub index: Option<usize>,
    pub node: Node,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum End {
    Slot(usize),
    Wildcard(usize),
    Element(Box<Node>),
}

impl Node {
    pub(super) fn insert(&mut self, steps: &[Step<'_>], end: End) {
        self.insert_counting(steps, end, 0);
    }

    fn insert_counting(&mut self, steps: &[Step<'_>], end: End, captures: usize) {
        match &end {
            End::Wildcard(wildcard) => self.below.push(*wildcard),
            End::Element(_) => self.has_elements = true,
            End::Slot(_) => {}
        }
        match steps.split_first() {
            None => match end {
                End::Slot(slot) => self.slots.push(slot),
                End::Wildcard(wildcard) => self.wildcards.push(wildcard),
                End::Element(node) => self.element = Some(node),
            },
            Some((Step::Every(name), rest)) => {
                let every = self.every.get_or_insert_default();
                if name.is_some() {
                    every.capture = Some(captures);
                }
                every.insert_counting(rest, end, captures + usize::from(name.is_some()));
            }
            Some((Step::Key(key), rest)) => {
                let place = self.children.iter().position(|child| *child.key == **key).unwrap_or_else(|| {
                    let index = key.parse().ok();
                    self.children.push(Child { key: key.as_ref().into(), index, node: Self::default() });
                    self.children.len() - 1
                });
                self.children[place].node.insert_counting(rest, end, captures);
            }
        }
    }

    /// Forgets what a key that comes again had given.
    #[inline]
    pub(super) fn clear(&self, values: &mut Values, base: usize, key: Option<&Range<usize>>) {
        for &slot in &self.slots {
            *values.slot_mut(base + slot) = Slot::Absent;
        }
        self.children.iter().for_each(|child| child.node.clear_slots(values, base));
        if !self.below.is_empty() {
            values.forget(&self.below, key);
        }
    }

    fn clear_slots(&self, values: &mut Values, base: usize) {
        for &slot in &self.slots {
            *values.slot_mut(base + slot) = Slot::Absent;
        }
        self.children.iter().for_each(|child| child.node.clear_slots(values, base));
    }
}
