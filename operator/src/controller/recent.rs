//! What happened a moment ago, and would be asked again otherwise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is older is forgotten.
const MEMORY: Duration = Duration::from_secs(10);

/// When something happened, by a name. Nothing depends on it after a restart.
#[derive(Default)]
pub(super) struct Recent(Mutex<HashMap<String, Instant>>);

impl Recent {
    /// It happens now.
    pub(super) fn note(&self, name: String) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice as many as there can be of interest, or a few.
        if times.len() >= 64 && times.len() == times.capacity() {
            times.retain(|_, time| time.elapsed() < MEMORY);
        }
        times.insert(name, Instant::now());
    }

    /// It happens now, unless it has happened a moment ago.
    pub(super) fn note_first(&self, name: &str) {
        if !self.is_within(name, MEMORY) {
            self.note(name.to_owned());
        }
    }

    /// Whether it happened within this time.
    pub(super) fn is_within(&self, name: &str, time: Duration) -> bool {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.get(name).is_some_and(|then| then.elapsed() < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_known_for_a_while_and_of_it_alone() {
        let recent = Recent::default();
        recent.note("a".into());
        assert!(recent.is_within("a", MEMORY));
        assert!(!recent.is_within("a", Duration::ZERO));
        assert!(!recent.is_within("b", MEMORY));
        let first = recent.0.lock().expect("nobody panics")["a"];
        recent.note_first("a");
        assert_eq!(recent.0.lock().expect("nobody panics")["a"], first);
    }
}
