//! What happened a moment ago, and would be asked again otherwise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is older is as if it had not been. A watch that hangs is noticed within this time.
const MEMORY: Duration = Duration::from_secs(30);

/// What comes again after this is new.
const SPELL: Duration = Duration::from_secs(10);

/// What happened, and when, by a name. Nothing depends on it after a restart.
pub(super) struct Recent<T = ()>(Mutex<HashMap<String, (Instant, T)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Recent<T> {
    /// It happens now.
    pub(super) fn note(&self, name: String, what: T) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice as many as there can be of interest, or a few.
        if known.len() >= 64 && known.len() == known.capacity() {
            known.retain(|_, (time, _)| time.elapsed() < MEMORY);
        }
        known.insert(name, (Instant::now(), what));
    }

    /// What happened within this time.
    pub(super) fn within(&self, name: &str, time: Duration) -> Option<T> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|(then, _)| then.elapsed() < time).map(|(_, what)| what.clone())
    }

    /// What happened a moment ago.
    pub(super) fn latest(&self, name: &str) -> Option<T> {
        self.within(name, MEMORY)
    }
}

impl Recent {
    /// It happens now, unless it has happened a moment ago.
    pub(super) fn note_first(&self, name: &str) {
        if !self.is_within(name, SPELL) {
            self.note(name.to_owned(), ());
        }
    }

    /// Whether it happened within this time.
    pub(super) fn is_within(&self, name: &str, time: Duration) -> bool {
        self.within(name, time).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_known_for_a_while_and_of_it_alone() {
        let recent = Recent::default();
        recent.note("a".into(), ());
        assert!(recent.is_within("a", MEMORY));
        assert!(!recent.is_within("a", Duration::ZERO));
        assert!(!recent.is_within("b", MEMORY));
        let first = recent.0.lock().expect("nobody panics")["a"];
        recent.note_first("a");
        assert_eq!(recent.0.lock().expect("nobody panics")["a"], first);
    }
}
