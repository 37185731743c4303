//! Stores batches, one after the other, for as long as it takes.
//!
//! What the database refuses is searched for and handed back with the reason; the rest is stored.
//! What is not the points' fault is tried again until it works.

use std::sync::Arc;
use std::time::Duration;

use api::bridge_config::DatabaseConfig;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::database::{Answer, Database};
use crate::health::Health;
use crate::metrics::{ReasonLabel, RouteLabel, SideName};
use crate::refusal;
use crate::search::{Known, Search};
use crate::table::Table;

/// A database that has answered is asked again after this long without a write. With [`SLOW`] less than 5 s,
/// within which a failure is told.
const PROBE_READY: Duration = Duration::from_secs(2);
/// One that has not.
const PROBE_UNREADY: Duration = Duration::from_secs(1);
/// A write that takes longer is reported before it ends.
const SLOW: Duration = Duration::from_secs(2);
/// Tried again after waits up to this.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// The longest wait that the server can ask for. Whoever means more than an hour, by a date in a wrong year for
/// example, is asked again.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// A batch that has been dealt with.
#[derive(Debug)]
pub struct Outcome {
    /// The batch.
    pub batch: Batch,
    /// Places of the points that the database refuses, in order, and why; all others are stored.
    pub refused: Vec<(usize, String)>,
}

/// The pipeline's end of the sink: takes one batch at a time.
#[derive(Debug)]
pub struct Sink {
    batches: mpsc::Sender<Batch>,
    outcomes: mpsc::Receiver<Outcome>,
    config: watch::Sender<DatabaseConfig>,
    busy: bool,
}

impl Sink {
    /// Starts the sink's task.
    pub fn start(config: &DatabaseConfig, health: Arc<Health>) -> Self {
        let (batches, batch_receiver) = mpsc::channel(1);
        let (outcome_sender, outcomes) = mpsc::channel(1);
        let (config, config_receiver) = watch::channel(config.clone());
        let worker = Worker {
            config: config_receiver,
            database: None,
            health,
            backoff: Backoff::new(Duration::from_millis(100), LAST_WAIT),
            ready: false,
            not_before: Instant::now(),
            counters: Counters::default(),
            known: Known::default(),
        };
        tokio::spawn(worker.run(batch_receiver, outcome_sender));
        Self { batches, outcomes, config, busy: false }
    }

    /// Whether a batch is being written.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Hands a batch over. Only when not busy.
    pub fn write(&mut self, batch: Batch) {
        self.busy = self.batches.try_send(batch).is_ok();
    }

    /// Waits for the batch that is being written; for ever if there is none.
    pub async fn outcome(&mut self) -> Outcome {
        match self.outcomes.recv().await {
            Some(outcome) => {
                self.busy = false;
                outcome
            }
            None => std::future::pending().await,
        }
    }

    /// Goes on with another database, or another way to it; a batch that is being written too.
    pub fn reconfigure(&self, config: &DatabaseConfig) {
        self.config.send_if_modified(|now| {
            let changed = now != config;
            now.clone_from(config);
            changed
        });
    }
}

struct Worker {
    config: watch::Receiver<DatabaseConfig>,
    database: Option<Database>,
    health: Arc<Health>,
    backoff: Backoff,
    ready: bool,
    /// The server asked not to be asked before.
    not_before: Instant,
    counters: Counters,
    known: Known,
}

/// Counters of the routes of one table, at their places there. To look one up by its name for each batch
/// costs more, with many routes, than to store what they have in it.
#[derive(Default)]
struct Counters {
    table: Arc<Table>,
    by_route: Vec<Option<Counter>>,
    /// Points of one batch; kept for its memory.
    counts: Vec<u64>,
}

impl Worker {
    async fn run(mut self, mut batches: mpsc::Receiver<Batch>, outcomes: mpsc::Sender<Outcome>) {
        let mut probe_at = Instant::now();
        loop {
            tokio::select! {
                batch = batches.recv() => {
                    let Some(batch) = batch else { return };
                    let refused = self.store(&batch).await;
                    if outcomes.send(Outcome { batch, refused }).await.is_err() {
                        return;
                    }
                }
                () = sleep_until(probe_at) => {
                    let answer = self.write(&[]).await;
                    self.report(&answer);
                }
                changed = self.config.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.database = None;
                    self.not_before = Instant::now();
                    let answer = self.write(&[]).await;
                    self.report(&answer);
                }
            }
            let pause = if self.ready { PROBE_READY } else { PROBE_UNREADY };
            probe_at = (Instant::now() + pause).max(self.not_before);
        }
    }

    /// Writes all points of a batch; returns those that the database refuses.
    async fn store(&mut self, batch: &Batch) -> Vec<(usize, String)> {
        if let Some(histogram) = &self.health.metrics.batch_points {
            histogram.observe(batch.len() as f64);
        }
        let mut search = Search::new(batch, std::mem::take(&mut self.known));
        let mut is_vouched_for = false;
        while let Some(lines) = search.lines() {
            if self.not_before > Instant::now() {
                self.wait_until(self.not_before).await;
            }
            let answer = self.write_points(&lines, &mut is_vouched_for).await;
            self.health.write_answered();
            self.report(&answer);
            match answer {
                Answer::Stored => search.stored(),
                Answer::Refused(reason) => search.refused(reason),
                Answer::TooLarge => search.too_large(),
                Answer::Later { .. } => {
                    let wait = self.backoff.next_wait();
                    self.wait_until(Instant::now() + wait).await;
                }
            }
        }
        let (refused, known) = search.end();
        self.known = known;
        self.count_stored(batch, &refused);
        refused
    }

    /// Writes points. A refusal that may be one of the request, by its words, convicts none of them unless the
    /// database accepts a write without points: that is asked once for a batch.
    async fn write_points(&mut self, lines: &[u8], is_vouched_for: &mut bool) -> Answer {
        let answer = self.write(lines).await;
        match &answer {
            Answer::Refused(reason) if !*is_vouched_for && !refusal::is_about_points(reason) => {}
            _ => return answer,
        }
        match self.write(&[]).await {
            Answer::Stored => {
                *is_vouched_for = true;
                answer
            }
            other => other,
        }
    }

    /// Waits, but not longer than for another database.
    async fn wait_until(&mut self, time: Instant) {
        tokio::select! {
            () = sleep_until(time) => {}
            Ok(()) = self.config.changed() => {
                self.database = None;
                self.not_before = Instant::now();
            }
        }
    }

    /// One request. Without a client, because its files can't be read yet, the answer is to wait.
    async fn write(&mut self, lines: &[u8]) -> Answer {
        if self.database.is_none() {
            match Database::new(&self.config.borrow_and_update()) {
                Ok(database) => self.database = Some(database),
                Err(error) => {
                    return Answer::Later {
                        reason: "Misconfigured",
                        message: error.to_string(),
                        after: None,
                    };
                }
            }
        }
        let Some(database) = &mut self.database else { unreachable!("it was just made") };
        let start = Instant::now();
        let mut request = std::pin::pin!(database.write(lines));
        let answer = match timeout(SLOW, &mut request).await {
            Ok(answer) => answer,
            Err(_) => {
                self.ready = false;
                let message = format!("the database has not answered for {} s", SLOW.as_secs());
                self.health.not_ready(SideName::Database, "Unresponsive", message);
                self.health.metrics.writes.get_or_create(&ReasonLabel { reason: "Unresponsive" }).inc();
                request.await
            }
        };
        if !lines.is_empty() {
            self.health.metrics.write_bytes.inc_by(lines.len() as u64);
            if let Some(histogram) = &self.health.metrics.write_duration {
                histogram.observe(start.elapsed().as_secs_f64());
            }
        }
        answer
    }

    fn report(&mut self, answer: &Answer) {
        let reason = match answer {
            Answer::Later { reason, message, after } => {
                self.ready = false;
                let pause = after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                self.not_before = Instant::now() + pause;
                let message = match pause.as_secs() {
                    0 => message.clone(),
                    seconds => format!("{message}; it asks to be left alone for {seconds} s"),
                };
                self.health.not_ready(SideName::Database, reason, message);
                reason
            }
            Answer::Stored | Answer::Refused(_) | Answer::TooLarge => {
                self.ready = true;
                self.backoff.reset();
                self.health.ready(SideName::Database, "the database accepts writes");
                if *answer == Answer::Stored { "Stored" } else { "Refused" }
            }
        };
        self.health.metrics.writes.get_or_create(&ReasonLabel { reason }).inc();
    }

    fn count_stored(&mut self, batch: &Batch, refused: &[(usize, String)]) {
        let Counters { table, by_route, counts } = &mut self.counters;
        let routes = batch.table.routes();
        if !Arc::ptr_eq(table, &batch.table) {
            *table = Arc::clone(&batch.table);
            by_route.clear();
            by_route.resize(routes.len(), None);
        }
        counts.clear();
        counts.resize(routes.len(), 0);
        let mut culprits = refused.iter().map(|(place, _)| *place).peekable();
        for (place, point) in batch.points().enumerate() {
            if culprits.next_if_eq(&place).is_none() {
                counts[point.route] += 1;
            }
        }
        for (place, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let counter = by_route[place].get_or_insert_with(|| {
                let label = RouteLabel { route: routes[place].name.to_string() };
                self.health.metrics.points_stored.get_or_create(&label).clone()
            });
            counter.inc_by(*count);
        }
    }
}
