//! Notices when messages wait and nothing gets done, though both sides are well. That is a fault of the
//! bridge itself: /livez tells of it, and Kubernetes restarts the process, which loses nothing.

use std::time::Duration;

use tokio::time::Instant;

/// No single step takes this long while both sides answer.
const STUCK: Duration = Duration::from_secs(60);

/// Compares what is done with what waits.
#[derive(Debug)]
pub struct Watchdog {
    done: u64,
    since: Instant,
}

impl Watchdog {
    /// Nothing is done yet.
    pub fn new(now: Instant) -> Self {
        Self { done: 0, since: now }
    }

    /// For how long nothing has got done, if that is too long. `done` only grows; `excused` is true when
    /// nothing waits, or when what waits waits for one of the sides.
    pub fn look(&mut self, now: Instant, done: u64, excused: bool) -> Option<Duration> {
        if excused || done != self.done {
            *self = Self { done, since: now };
        }
        let stuck = now - self.since;
        (stuck > STUCK).then_some(stuck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wait_without_progress_and_without_an_excuse_is_reported() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watchdog = Watchdog::new(start);
        assert_eq!(watchdog.look(at(59), 0, false), None);
        assert_eq!(watchdog.look(at(62), 0, false), Some(Duration::from_secs(62)));
        assert_eq!(watchdog.look(at(63), 1, false), None, "something got done");
        assert_eq!(watchdog.look(at(120), 1, true), None, "the database is away");
        assert_eq!(watchdog.look(at(179), 1, false), None);
        assert_eq!(watchdog.look(at(181), 1, false), Some(Duration::from_secs(61)));
    }
}
