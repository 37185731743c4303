//! One operator at a time: whoever holds the Lease works, the others stand by.
//!
//! The rules are those of client-go's leader election. What is decided is here, and pure; [`lease`] reads
//! and writes the Lease, [`fence`] stops the writes of one that has lost it.
//!
//! No clock is compared with another machine's: a candidate counts from when it saw the Lease change, the
//! holder from before it asked for the renewal. So the holder's time is over first:
//!
//! | since the holder sent its last renewal | |
//! |---|---|
//! | [`RENEW_DEADLINE`] | it hands no byte of a write to its kernel any more |
//! | \+ [`UNACKNOWLEDGED`] | its kernel has given up what the API server has not received |
//! | \+ [`WRITE_LIMIT`] | the API server has given up what it received and not done |
//! | [`LEASE`] | another may take the Lease |

pub mod fence;
pub mod lease;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::credentials::{self, NoCredential};

/// How long a Lease is respected that doesn't change any more.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long after its last renewal the holder may write.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(5);

/// How long the kernel keeps what was sent and not received. See tcp(7), `TCP_USER_TIMEOUT`.
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(2);

/// How long the API server may work on a write.
pub const WRITE_LIMIT: Duration = Duration::from_millis(2500);

const _: () = assert!(
    RENEW_DEADLINE.as_millis() + UNACKNOWLEDGED.as_millis() + WRITE_LIMIT.as_millis() < LEASE.as_millis()
);

/// What a candidate is to do about the Lease that it found.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Write this; whoever succeeds is the holder.
    Claim(LeaseSpec),
    /// It is another's, for this long at least.
    Wait(Duration),
}

/// What one candidate knows.
pub struct Election {
    identity: String,
    /// The Lease, and when it was first seen so.
    seen: Option<(LeaseSpec, Instant)>,
}

/// A name that no other process has: the pod's, and a random suffix, since a container restarts within
/// its pod.
///
/// # Errors
/// If the system has no randomness.
pub fn identity(pod: &str) -> Result<String, NoCredential> {
    Ok(format!("{pod}_{}", credentials::generate()?))
}

impl Election {
    /// A candidate that has seen nothing yet.
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None }
    }

    /// Whether this is the candidate's own.
    pub fn is_mine(&self, lease: &LeaseSpec) -> bool {
        lease.holder_identity.as_deref() == Some(&self.identity)
    }

    /// What to do. `now` is this machine's, and counts; `clock` is only written down, for people.
    pub fn step(&mut self, found: Option<&LeaseSpec>, now: Instant, clock: Timestamp) -> Step {
        let clock = Some(MicroTime(clock));
        let claim = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: clock.clone(),
            renew_time: clock,
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        let Some(found) = found else { return Step::Claim(claim) };
        if self.is_mine(found) {
            let (acquire_time, lease_transitions) = (found.acquire_time.clone(), found.lease_transitions);
            return Step::Claim(LeaseSpec { acquire_time, lease_transitions, ..claim });
        }
        let since = match &self.seen {
            Some((seen, since)) if seen == found => *since,
            _ => {
                self.seen = Some((found.clone(), now));
                now
            }
        };
        let respected = found.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let left = respected.map_or(LEASE, Duration::from_secs).saturating_sub(now - since);
        let is_free = found.holder_identity.as_deref().unwrap_or_default().is_empty();
        if !is_free && !left.is_zero() {
            return Step::Wait(left);
        }
        let lease_transitions = Some(found.lease_transitions.unwrap_or(0).saturating_add(1));
        Step::Claim(LeaseSpec { lease_transitions, ..claim })
    }
}

/// The Lease as its holder leaves it: nobody's.
pub fn released(lease: LeaseSpec, clock: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(clock)),
        ..lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Timestamp = Timestamp::UNIX_EPOCH;

    fn election(identity: &str) -> Election {
        Election::new(identity.into())
    }

    fn claimed(step: Step) -> LeaseSpec {
        match step {
            Step::Claim(spec) => spec,
            Step::Wait(left) => panic!("it waits {left:?}"),
        }
    }

    fn held_by(identity: &str, now: Instant) -> LeaseSpec {
        claimed(election(identity).step(None, now, EPOCH))
    }

    #[test]
    fn what_nobody_holds_is_claimed_at_once() {
        let now = Instant::now();
        let first = held_by("a", now);
        assert_eq!((first.holder_identity.as_deref(), first.lease_transitions), (Some("a"), Some(0)));
        let second = claimed(election("b").step(Some(&released(first, EPOCH)), now, EPOCH));
        assert_eq!((second.holder_identity.as_deref(), second.lease_transitions), (Some("b"), Some(1)));
    }

    #[test]
    fn another_s_is_respected_until_it_has_not_changed_for_its_duration() {
        let now = Instant::now();
        let (mut standby, lease) = (election("b"), held_by("a", now));
        assert_eq!(standby.step(Some(&lease), now, EPOCH), Step::Wait(LEASE));
        let late = now + LEASE - Duration::from_millis(1);
        assert_eq!(standby.step(Some(&lease), late, EPOCH), Step::Wait(Duration::from_millis(1)));
        claimed(standby.step(Some(&lease), now + LEASE, EPOCH));
    }

    #[test]
    fn a_renewal_starts_the_wait_anew() {
        let now = Instant::now();
        let (mut holder, mut standby, lease) = (election("a"), election("b"), held_by("a", now));
        standby.step(Some(&lease), now, EPOCH);
        let later = now + LEASE / 2;
        let renewed = claimed(holder.step(Some(&lease), later, EPOCH + Duration::from_secs(5)));
        assert_eq!((&renewed.acquire_time, renewed.lease_transitions), (&lease.acquire_time, Some(0)));
        assert_eq!(standby.step(Some(&renewed), later, EPOCH), Step::Wait(LEASE));
    }

    #[test]
    fn the_holder_s_clock_does_not_matter() {
        let now = Instant::now();
        let mut lease = held_by("a", now);
        for clock in [EPOCH, Timestamp::MAX] {
            lease.renew_time = Some(MicroTime(clock));
            assert_eq!(election("b").step(Some(&lease), now, EPOCH), Step::Wait(LEASE));
        }
    }

    #[test]
    fn a_holder_that_asks_for_longer_is_given_it() {
        let now = Instant::now();
        let lease = LeaseSpec { lease_duration_seconds: Some(60), ..held_by("a", now) };
        let mut standby = election("b");
        standby.step(Some(&lease), now, EPOCH);
        assert_eq!(standby.step(Some(&lease), now + LEASE, EPOCH), Step::Wait(Duration::from_secs(50)));
    }

    #[test]
    fn a_process_that_restarts_in_its_pod_is_another() {
        let (before, after) = (identity("pod").expect("randomness"), identity("pod").expect("randomness"));
        let now = Instant::now();
        let lease = held_by(&before, now);
        assert_eq!(election(&after).step(Some(&lease), now, EPOCH), Step::Wait(LEASE));
    }
}
