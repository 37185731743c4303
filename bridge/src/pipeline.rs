//! The loop that joins the stages: messages from the link into batches, batches into the sink, and
//! what has ended back to the broker as acknowledgements. One task; nothing here waits for one side
//! while the other has something to say.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::bridge_config::{BridgeConfig, MqttConfig};
use bytes::Buf;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::batch::{Batches, MAX_BYTES};
use crate::config::{ConfigError, Loaded, Watch};
use crate::health::Health;
use crate::journal::Journal;
use crate::login::Login;
use crate::metrics::{ReasonLabel, SideName};
use crate::packet::{self, PacketError};
use crate::session::Session;
use crate::sink::{Outcome, Sink};
use crate::source::{Connection, Event, KeepAlive, Link, SourceError};
use crate::state::State;
use crate::subscribe::Held;
use crate::version::Version;
use crate::watchdog::Watchdog;

/// How often the configuration file, the keep-alive and refused subscriptions are looked at.
const TICK: Duration = Duration::from_millis(250);
/// What is in memory when the bridge is told to stop is stored within this, or left to the broker.
const DRAIN: Duration = Duration::from_secs(8);
/// When this much waits for a database that answers, nothing more is read until it has taken some: about one batch,
/// while another one is written.
const SLOW_BYTES: usize = MAX_BYTES;
/// When this much waits for one that is away, nothing more is read: the broker keeps it. More than before,
/// so that messages of QoS 0, which are dropped then, don't stop those that can wait.
const PAUSE_BYTES: usize = 64 << 20;

/// The whole bridge.
pub struct Pipeline {
    health: Arc<Health>,
    watch: Watch,
    config: BridgeConfig,
    login: Login,
    /// Credentials that are to be told as those in use, when they have been tried.
    untried: bool,
    state: State,
    journal: Journal,
    link: Link,
    session: Session,
    batches: Batches,
    sink: Sink,
    watchdog: Watchdog,
    /// Not all that was read has been taken in.
    behind: bool,
}

impl Pipeline {
    /// Prepares everything, with what the directory remembers; connects nowhere yet.
    pub fn new(loaded: Loaded, watch: Watch, directory: &Path, health: Arc<Health>) -> Self {
        let mqtt = &loaded.config.mqtt;
        let (link, login) = (Link::new(mqtt), Login::of(mqtt));
        health.login_taken(login.revision());
        let sink = Sink::start(&loaded.config.database, Arc::clone(&health));
        let state = State::open(directory);
        let (journal, stamps) = Journal::open(directory, &mqtt.url, &mqtt.client_id);
        let session = Session::new(&loaded, state.filters(mqtt), stamps, Arc::clone(&health));
        let batches = Batches::default();
        let watchdog = Watchdog::new(Instant::now());
        Self {
            health,
            watch,
            config: loaded.config,
            login,
            untried: false,
            state,
            journal,
            link,
            session,
            batches,
            sink,
            watchdog,
            behind: false,
        }
    }

    /// Runs until it is told to stop, then stores what it has, acknowledges that, and says goodbye.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = None;
        loop {
            self.feed(deadline.is_some());
            if let Some(deadline) = deadline
                && (self.is_drained() || deadline <= Instant::now())
            {
                break;
            }
            let due = self.batches.due().filter(|_| !self.sink.is_busy());
            tokio::select! {
                biased;
                () = &mut stop, if deadline.is_none() => {
                    tracing::info!("told to stop: storing what was received");
                    self.session.drain();
                    deadline = Some(Instant::now() + DRAIN);
                }
                outcome = self.sink.outcome() => self.settle(outcome),
                _ = tick.tick() => self.look().await,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                event = self.link.next() => self.react(event),
            }
        }
        self.link.close().await;
        let left = self.session.outstanding();
        tracing::info!(left, "stopped; what was not stored is left with the broker");
    }

    /// Hands the sink a batch, if it is free and one is due.
    fn feed(&mut self, at_once: bool) {
        let is_due = self.batches.due().is_some_and(|due| at_once || due <= Instant::now());
        if is_due
            && !self.sink.is_busy()
            && let Some(batch) = self.batches.take()
        {
            self.sink.write(batch);
        }
        self.link.writing = self.sink.is_busy();
        let most = if self.health.database_answers() { SLOW_BYTES } else { PAUSE_BYTES };
        self.link.paused = self.batches.bytes() >= most || self.session.is_full();
    }

    fn is_drained(&mut self) -> bool {
        let written = self.link.connection().is_none_or(|connection| connection.output.is_empty());
        written && self.batches.is_empty() && !self.sink.is_busy() && self.session.is_settled()
    }

    /// A batch has been dealt with: acknowledge what is stored.
    fn settle(&mut self, outcome: Outcome) {
        self.session.settle(&outcome);
        self.batches.recycle(outcome.batch);
        self.flush();
        if self.behind
            && let Err(error) = self.take()
        {
            self.lose(error);
        }
    }

    /// Puts whatever the session has to say into the connection's output.
    fn flush(&mut self) {
        if let Some(connection) = self.link.connection() {
            self.session.write(&mut connection.output);
            // Before the output is written: that happens in the loop.
            if let Some(held) = self.session.held_if_changed() {
                self.state.save(&self.config.mqtt, held);
            }
        }
    }

    fn react(&mut self, event: Event) {
        let is_tried = matches!(event, Event::Connected(..) | Event::Lost(_));
        match event {
            Event::Connected(version, connack) => {
                self.session.connected(version, &connack);
                if let Err(error) = self.begin() {
                    self.lose(error);
                }
            }
            Event::Read(bytes) => {
                self.health.metrics.bytes_received.inc_by(bytes as u64);
                if let Err(error) = self.take() {
                    self.lose(error);
                }
            }
            Event::Written => {}
            Event::Lost(error) => self.lost(&error),
        }
        if is_tried && std::mem::take(&mut self.untried) {
            self.health.login_taken(self.login.revision());
        }
    }

    /// A connection is there.
    fn begin(&mut self) -> Result<(), SourceError> {
        self.session.check_version()?;
        self.flush();
        self.take()
    }

    /// Takes all whole packets out of the input.
    fn take(&mut self) -> Result<(), SourceError> {
        let max = self.config.mqtt.max_packet_size as usize;
        let Some(connection) = self.link.connection() else { return Ok(()) };
        let mut input = std::mem::take(&mut connection.input);
        let Connection { version, output, skip, .. } = connection;
        let version = *version;
        let mut taken = 0;
        self.session.tick(SystemTime::now());
        self.behind = false;
        let result = loop {
            if self.batches.bytes() > PAUSE_BYTES || self.session.is_full() {
                // Few bytes can make many points, and hold many messages.
                self.behind = true;
                break Ok(());
            }
            let skipped = (*skip).min(input.len() - taken);
            (taken, *skip) = (taken + skipped, *skip - skipped);
            let rest = &input[taken..];
            match packet::frame_length(rest, max) {
                Err(PacketError::TooLarge { size, .. }) if version == Version::V311 => {
                    match packet::oversized(rest, size, max) {
                        Ok(Some((message, length))) => {
                            self.session.receive(&message, &mut self.batches);
                            (taken, *skip) = (taken + length, size - length);
                        }
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error.into()),
                    }
                }
                Ok(Some(length)) if length <= rest.len() => {
                    let handled = packet::parse(&rest[..length], version)
                        .map_err(SourceError::from)
                        .and_then(|packet| self.session.handle(packet, &mut self.batches, output));
                    taken += length;
                    if let Err(error) = handled {
                        break Err(error);
                    }
                }
                Ok(_) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        input.advance(taken);
        connection.input = input;
        self.batches.received(Instant::now());
        self.journal.save(self.session.stamps());
        self.flush();
        result
    }

    fn lose(&mut self, error: SourceError) {
        if let Event::Lost(error) = self.link.lose(error) {
            self.lost(&error);
        }
    }

    fn lost(&mut self, error: &SourceError) {
        self.session.disconnected();
        self.health.not_ready(SideName::Broker, error.reason(), error.to_string());
    }

    /// What has to be looked at now and then.
    async fn look(&mut self) {
        self.health.beat();
        let mut is_silent = false;
        match self.link.keep_alive(self.session.wants_ping()) {
            Ok(KeepAlive { pinged, silent }) => {
                if pinged {
                    self.session.pinged();
                }
                self.flush();
                if let Some(silent) = silent {
                    is_silent = true;
                    self.silent(silent);
                }
            }
            Err(error) => self.lose(error),
        }
        // What it said before it fell silent is not how it is.
        if self.link.connection().is_some() && !is_silent {
            self.session.report();
        }
        if self.session.wants_reconnect() {
            self.link.close().await;
            self.session.disconnected();
        }
        self.leave().await;
        if self.login.poll() {
            tracing::info!("the credentials for the broker have changed: connecting anew");
            self.link.redial().await;
            self.session.disconnected();
            self.untried = true;
        }
        let nothing_waits =
            self.session.outstanding() == 0 && self.batches.is_empty() && !self.sink.is_busy();
        let excused = nothing_waits || !self.health.status().sides_are_ready();
        self.health.stuck(self.watchdog.look(Instant::now(), self.health.done(), excused));
        match self.watch.poll() {
            None => {}
            Some(Ok(loaded)) => self.reconfigure(loaded).await,
            Some(Err(error)) => self.refuse(&error),
        }
    }

    /// Ends the session at the broker when nothing is held for this bridge any more, if it was told to leave.
    async fn leave(&mut self) {
        // What is in memory may be the only copy, if the broker has lost the session.
        let is_stored = self.batches.is_empty() && !self.sink.is_busy();
        if self.session.has_left() && is_stored && self.link.connection().is_some() {
            if let Err(error) = self.link.leave().await {
                return self.lose(error);
            }
            self.forget(&self.config.mqtt.clone(), Held::new());
            self.state.save(&self.config.mqtt, self.session.held());
            self.health.left(true);
        }
    }

    /// The session at the broker is another one from now on, and may hold these subscriptions.
    fn forget(&mut self, mqtt: &MqttConfig, held: Held) {
        self.session.moved(Some(held));
        self.journal.change_session(&mqtt.url, &mqtt.client_id, self.session.stamps());
    }

    fn silent(&self, since: Duration) {
        let message = format!("the broker has been silent for {} s", since.as_secs());
        self.health.not_ready(SideName::Broker, "Unresponsive", message);
    }

    fn refuse(&self, error: &ConfigError) {
        tracing::warn!("the changed configuration is refused, the one before stays in effect: {error}");
        self.count_change("refused");
        self.health.config_error(Some(error.to_string()));
    }

    /// Another configuration takes effect: routes between two batches, without a new connection.
    async fn reconfigure(&mut self, loaded: Loaded) {
        self.session.reconfigure(&loaded, loaded.config.routes != self.config.routes);
        self.sink.reconfigure(&loaded.config.database);
        if loaded.config.mqtt != self.config.mqtt {
            let (old, new) = (&self.config.mqtt, &loaded.config.mqtt);
            let same_session = (&old.url, &old.client_id) == (&new.url, &new.client_id);
            self.link.reconfigure(&loaded.config.mqtt).await;
            match same_session {
                true => self.session.moved(None),
                false => self.forget(new, self.state.filters(new)),
            }
            self.login = Login::of(new);
            self.untried = true;
        }
        if !loaded.leaves {
            self.health.left(false);
            self.link.come_back();
        }
        if self.link.connection().is_some()
            && let Err(error) = self.session.check_version()
        {
            self.lose(error);
        }
        self.flush();
        tracing::info!(
            hash = loaded.hash,
            routes = loaded.config.routes.len(),
            "the configuration has changed"
        );
        self.count_change("taken");
        self.health.config_taken(&loaded.hash);
        self.config = loaded.config;
        self.flush();
    }

    fn count_change(&self, reason: &'static str) {
        self.health.metrics.config_changes.get_or_create(&ReasonLabel { reason }).inc();
    }
}
