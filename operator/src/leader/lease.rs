//! Takes the Lease, keeps it, and gives it up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::fence::Fence;
use super::{Election, RENEW_DEADLINE, Step, released};
use crate::metrics::{Metrics, Role};

/// How often the holder renews.
const RENEW: Duration = Duration::from_secs(2);

/// How often a candidate looks: what a standby costs the API server, and what a failover waits for.
const LOOK: Duration = Duration::from_millis(500);

/// How soon a renewal that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// How long one request may take.
const ANSWER: Duration = Duration::from_millis(1500);

/// How long writes may take to end before the Lease is given up. If they take longer it runs out instead.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the Lease can't be read or written.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("the request failed")]
    Request(#[source] Box<kube::Error>),
    #[error("no answer within {} ms", ANSWER.as_millis())]
    NoAnswer,
}

/// Who would hold the Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    election: Election,
    metrics: Arc<Metrics>,
}

/// The time between an election and the loss of the Lease.
struct Term {
    lease: Lease,
    fence: Fence,
}

/// How an attempt to be elected ended.
enum Attempt {
    Elected(Box<Term>),
    Standby(Duration),
    /// Somebody else wrote at the same time.
    Overtaken,
}

impl Candidate {
    /// A candidate for the Lease of this name in the client's own namespace. The client must not be fenced.
    pub fn new(client: Client, name: String, identity: String, metrics: Arc<Metrics>) -> Self {
        Self { api: Api::default_namespaced(client), name, election: Election::new(identity), metrics }
    }

    /// Does the work whenever elected, until told to stop. The work is dropped when the Lease is lost, and
    /// begun anew after the next election; it may write as long as the fence that it is given lets it.
    ///
    /// # Errors
    /// The work's own.
    pub async fn lead<E, W: Future<Output = Result<(), E>>>(
        mut self,
        mut stop: watch::Receiver<bool>,
        work: impl Fn(Fence) -> W,
    ) -> Result<(), E> {
        while let Some(mut term) = self.elected(&mut stop).await {
            tracing::info!(lease = self.name, "elected");
            self.metrics.set_role(Role::Leader);
            let fence = term.fence.clone();
            let ended = tokio::select! {
                ended = work(fence.clone()) => Some(ended),
                () = fence.closed() => None,
                () = self.keep(&mut term) => None,
                () = stopped(&mut stop) => Some(Ok(())),
            };
            fence.close();
            self.metrics.set_role(Role::Candidate);
            if let Some(ended) = ended {
                self.give_up(term).await;
                return ended;
            }
            tracing::warn!(
                lease = self.name,
                "the lease is lost: nothing is written until the next election"
            );
        }
        Ok(())
    }

    /// Nothing if it was told to stop before. A request is never dropped half-way: it could be a claim
    /// that succeeds, and nobody would be there.
    async fn elected(&mut self, stop: &mut watch::Receiver<bool>) -> Option<Box<Term>> {
        let mut last = String::new();
        loop {
            let wait = match self.attempt().await {
                Ok(Attempt::Elected(term)) => return Some(term),
                Ok(Attempt::Standby(left)) => {
                    self.metrics.set_role(Role::Standby);
                    left.min(LOOK)
                }
                Ok(Attempt::Overtaken) => RETRY,
                Err(error) => {
                    self.metrics.set_role(Role::Candidate);
                    // An outage is told once, and not twice a second.
                    let error = told(&error);
                    if error != last {
                        tracing::warn!(lease = self.name, error, "the lease can't be had; it is tried again");
                        last = error;
                    }
                    LOOK
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = stopped(stop) => return None,
            }
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, LeaseError> {
        let found = answer(self.api.get_opt(&self.name)).await?;
        let spec = found.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        match self.election.step(spec.as_ref(), Instant::now(), Timestamp::now()) {
            Step::Wait(left) => Ok(Attempt::Standby(left)),
            Step::Claim(spec) => {
                let sent = Instant::now();
                let Some(lease) = self.write(found, spec).await? else { return Ok(Attempt::Overtaken) };
                let fence = Fence::until(sent + RENEW_DEADLINE);
                Ok(Attempt::Elected(Box::new(Term { lease, fence })))
            }
        }
    }

    /// Renews the Lease for as long as it can.
    async fn keep(&mut self, term: &mut Term) {
        loop {
            sleep(RENEW + jitter()).await;
            loop {
                match self.renew(term).await {
                    Ok(true) => break,
                    Ok(false) => return,
                    Err(error) => {
                        tracing::warn!(lease = self.name, error = told(&error), "the lease was not renewed");
                        sleep(RETRY).await;
                    }
                }
            }
        }
    }

    /// Whether it is still ours.
    async fn renew(&mut self, term: &mut Term) -> Result<bool, LeaseError> {
        loop {
            let spec = term.lease.spec.clone().unwrap_or_default();
            if !self.election.is_mine(&spec) {
                return Ok(false);
            }
            let renewed = LeaseSpec { renew_time: Some(MicroTime(Timestamp::now())), ..spec };
            let sent = Instant::now();
            if let Some(lease) = self.write(Some(term.lease.clone()), renewed).await? {
                term.lease = lease;
                term.fence.extend(sent + RENEW_DEADLINE);
                return Ok(true);
            }
            // Somebody took it, or only labelled it.
            let Some(found) = answer(self.api.get_opt(&self.name)).await? else { return Ok(false) };
            term.lease = found;
        }
    }

    /// Writes the Lease if it is still as it was found. Nothing if it isn't.
    async fn write(&self, found: Option<Lease>, spec: LeaseSpec) -> Result<Option<Lease>, LeaseError> {
        let parameters = PostParams::default();
        // Another code than these is no race: a namespace that isn't there, for one.
        let (written, overtaken): (_, &[u16]) = match found {
            Some(found) => {
                // With the resource version that was found.
                let lease = Lease { spec: Some(spec), ..found };
                (answer(self.api.replace(&self.name, &parameters, &lease)).await, &[409, 404])
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec) };
                (answer(self.api.create(&parameters, &lease)).await, &[409])
            }
        };
        match written {
            Ok(lease) => Ok(Some(lease)),
            Err(LeaseError::Request(error)) if code(&error).is_some_and(|code| overtaken.contains(&code)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Empties the Lease, so that a standby needs not wait; but never while a write is under way.
    async fn give_up(&self, term: Box<Term>) {
        if timeout(FAREWELL, term.fence.drained()).await.is_err() {
            tracing::warn!(lease = self.name, "a write has no answer: the lease is left to run out");
            return;
        }
        let spec = released(term.lease.spec.clone().unwrap_or_default(), Timestamp::now());
        match self.write(Some(term.lease), spec).await {
            Ok(_) => tracing::info!(lease = self.name, "gave the lease up"),
            Err(error) => {
                tracing::warn!(lease = self.name, error = told(&error), "the lease is left to run out")
            }
        }
    }
}

async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
    match timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(|error| LeaseError::Request(Box::new(error))),
        Err(_) => Err(LeaseError::NoAnswer),
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn told(error: &LeaseError) -> String {
    crate::controller::describe(error)
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: also the end.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// So that replicas which started together don't stay in step. The clock's last digits are random enough.
fn jitter() -> Duration {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Duration::from_millis(u64::from(now.subsec_micros() % 200))
}
