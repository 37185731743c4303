//! Waits that grow, and differ from one bridge to the next, so that many don't knock at once.

use std::time::Duration;

/// Doubles from `first` to `last`.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts at `first`.
    pub const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, attempts: 0 }
    }

    /// The next wait: between half of the step and all of it.
    pub fn next_wait(&mut self) -> Duration {
        let step = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.last);
        self.attempts = self.attempts.saturating_add(1);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked: start small again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_last_and_vary() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        for step in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let wait = backoff.next_wait().as_millis();
            assert!((step / 2..=step).contains(&wait), "{wait} of {step}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
