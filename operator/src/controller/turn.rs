//! Whose turn it is: a pass holds what it works with in memory, so only some are at work at a time.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// An answer that takes longer than this is waited for aside.
const SHORT: Duration = Duration::from_secs(1);

/// How many passes are at work at once: more don't make an API server faster.
const AT_WORK: usize = 8;

/// The turns that there are.
pub(super) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(AT_WORK))
    }
}

/// A pass's turn. It ends when this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Turn<'a> {
    /// Waits until there is one.
    pub(super) async fn take(turns: &'a Turns) -> Self {
        // A semaphore that nobody closes refuses nobody.
        Self { turns, permit: turns.0.acquire().await.ok() }
    }

    /// Waits for somebody's answer. While a database that hangs is waited for, others have their turn.
    pub(super) async fn unless_long<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        if let Ok(answer) = timeout(SHORT, &mut answer).await {
            return answer;
        }
        self.permit = None;
        let answer = answer.await;
        self.permit = self.turns.0.acquire().await.ok();
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_long_lets_others_pass_and_goes_on_at_the_next_turn() {
        let turns = Turns(Semaphore::new(1));
        let mut slow = Turn::take(&turns).await;
        assert!(timeout(SHORT, Turn::take(&turns)).await.is_err(), "it is another's turn");
        assert_eq!(slow.unless_long(ready(1)).await, 1);
        assert!(timeout(SHORT, Turn::take(&turns)).await.is_err(), "a short answer ends no turn");

        let answer = async {
            sleep(SHORT * 10).await;
            2
        };
        let other = async {
            let turn = Turn::take(&turns).await;
            sleep(SHORT * 20).await;
            drop(turn);
            3
        };
        let begun = tokio::time::Instant::now();
        assert_eq!(tokio::join!(slow.unless_long(answer), other), (2, 3));
        assert_eq!(begun.elapsed(), SHORT * 21, "the other's turn came at once, and then its own again");
        assert!(timeout(SHORT, slow.unless_long(pending::<()>())).await.is_err());
    }
}
