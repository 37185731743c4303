//! What has failed in a row, by pipeline: how often, and for how long.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answers::asked_to_wait;
use super::{LONGEST_PAUSE, PASS_LIMIT};

/// Of each that fails, how often it has and when it began.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<String, (u32, Instant)>>);

/// A failure that was counted.
pub(super) struct Counted {
    /// After this it is tried again: twice as long after every failure in a row, longer if the API server asks for it.
    pub(super) pause: Duration,
    /// Whether it is worth a line in the log: the first, and fewer and fewer after it.
    pub(super) is_news: bool,
}

impl Failures {
    /// It has failed once more.
    pub(super) fn count(&self, pipeline: String, error: &(dyn std::error::Error + 'static)) -> Counted {
        let mut failures = self.lock();
        let (count, _) = failures.entry(pipeline).or_insert_with(|| (0, Instant::now()));
        *count += 1;
        let pause = Duration::from_secs(1 << (*count - 1).min(5)).min(LONGEST_PAUSE);
        Counted { pause: pause.max(asked_to_wait(error).min(PASS_LIMIT)), is_news: count.is_power_of_two() }
    }

    /// For how long it has failed, if it did when it was tried last.
    pub(super) fn lasting(&self, pipeline: &str) -> Duration {
        self.lock().get(pipeline).map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// It has not failed.
    pub(super) fn end(&self, pipeline: &str) {
        self.lock().remove(pipeline);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_it_has_not_failed() {
        let failures = Failures::default();
        let fail = || {
            let Counted { pause, is_news } = failures.count("n/lab".into(), &std::fmt::Error);
            (pause.as_secs(), is_news)
        };
        let counted: Vec<_> = (0..7).map(|_| fail()).collect();
        let expected = [(1, true), (2, true), (4, false), (8, true), (16, false), (30, false), (30, false)];
        assert_eq!(counted, expected);
        assert!(failures.lasting("n/lab") > Duration::ZERO && failures.lasting("n/other").is_zero());
        failures.end("n/lab");
        assert!(failures.lasting("n/lab").is_zero() && failures.lock().is_empty());
    }
}
