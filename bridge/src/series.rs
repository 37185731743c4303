//! How many series each route has made, for those that have a bound. Kept as hashes, so that the
//! memory is bounded too; of two series with one hash the second is let through.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// The series of one route.
#[derive(Debug, Default)]
pub struct Series {
    seen: HashSet<u64>,
    /// Those of the message that is being taken in.
    new: Vec<u64>,
    hasher: RandomState,
}

impl Series {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// Whether a series may be: it was there before, or there are less than `limit`.
    pub fn admits(&mut self, series: &[u8], limit: usize) -> bool {
        let hash = self.hasher.hash_one(series);
        if self.seen.contains(&hash) || self.new.contains(&hash) {
            return true;
        }
        let has_room = self.seen.len() + self.new.len() < limit;
        if has_room {
            self.new.push(hash);
        }
        has_room
    }

    /// The message is stored, and its new series count; or it is not, and they don't.
    pub fn end(&mut self, is_stored: bool) {
        if is_stored {
            self.seen.extend(self.new.iter());
        }
        self.new.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_always_let_through() {
        let mut series = Series::default();
        assert!(series.admits(b"a", 2) && series.admits(b"b", 2) && !series.admits(b"c", 2));
        series.end(true);
        assert!(series.admits(b"a", 1) && series.admits(b"b", 1) && !series.admits(b"c", 2));
        assert_eq!(series.seen.len(), 2);
    }

    #[test]
    fn the_series_of_a_refused_message_don_t_count() {
        let mut series = Series::default();
        assert!(series.admits(b"a", 1));
        series.end(false);
        assert!(series.admits(b"b", 1) && !series.admits(b"a", 1));
    }

    #[test]
    fn a_flood_of_new_series_takes_no_more_memory_than_the_bound_has() {
        const LIMIT: usize = 1_000;
        let mut series = Series::default();
        let mut full = None;
        for number in 0..200_000_u32 {
            series.admits(&number.to_le_bytes(), LIMIT);
            series.end(true);
            if number as usize == LIMIT {
                full = Some((series.seen.capacity(), series.new.capacity()));
            }
        }
        assert_eq!(series.count(), LIMIT);
        assert_eq!(Some((series.seen.capacity(), series.new.capacity())), full);
    }
}
