//! The MQTT session's state: answers each packet, and decides when a message is acknowledged.
//! Pure: packets and outcomes in, bytes and points out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::bridge_config::dead_letter_topic;
use api::bridge_status::Side;
use api::route::Overflow;
use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, PubAckReason};
use tokio::time::Instant;

use crate::ack::{Acks, Sequence};
use crate::batch::Batches;
use crate::canary::Canary;
use crate::config::Loaded;
use crate::dead::{DeadLetter, DeadLetters, Limits, PacketIds};
use crate::dropped::Dropped;
use crate::health::{Health, SUBSCRIBING};
use crate::intake::{Intake, Taken};
use crate::leave::Leave;
use crate::metrics::{ReasonLabel, RouteLabel, SideName};
use crate::packet::{Incoming, Publish};
use crate::rebirth::Rebirths;
use crate::room::Room;
use crate::sink::Outcome;
use crate::source::SourceError;
use crate::sparkplug::{LeftOut, Topic};
use crate::stamps::{self, Stamps};
use crate::subscribe::{Held, Subscriber};
use crate::table::Table;
use crate::version::Version;

/// For so long it is told that messages were refused.
const REFUSED_LATELY: Duration = Duration::from_secs(60);

/// Everything that is known of the session.
pub struct Session {
    health: Arc<Health>,
    pipeline: String,
    /// How the topics of its dead letters begin.
    own_letters: String,
    table: Arc<Table>,
    /// The routes before the last change: what the broker had queued for one that has gone is stored by it.
    retired: Option<Arc<Table>>,
    /// Messages below this position were received while it was in effect, or one before it.
    retired_until: u64,
    intake: Intake,
    stamps: Stamps,
    acks: Acks,
    letters: DeadLetters,
    rebirths: Rebirths,
    subscriber: Subscriber,
    ids: PacketIds,
    limits: Limits,
    room: Room,
    /// Takes part with others.
    divides: bool,
    /// Told to stop: messages are left with the broker.
    draining: bool,
    /// Told to leave the bridges that share the load.
    leave: Option<Leave>,
    /// When the last message was refused, and by which route.
    refused: Option<(Instant, String)>,
    /// Unless it was told to send none.
    canary: Option<Canary>,
    /// If the broker tells.
    dropped: Option<Dropped>,
}

impl Session {
    /// A session that may hold subscriptions from a life before, and deliver again what it delivered then.
    pub fn new(loaded: &Loaded, held: Held, mut stamps: Stamps, health: Arc<Health>) -> Self {
        let mut subscriber = Subscriber::default();
        subscriber.remember(held);
        subscriber.want(&loaded.filters);
        stamps.share(loaded.member);
        Self {
            health,
            pipeline: loaded.config.pipeline.clone(),
            own_letters: loaded.config.dead_letter_topic(""),
            table: Arc::clone(&loaded.table),
            retired: None,
            retired_until: 0,
            intake: Intake::new(loaded.config.max_message_size),
            stamps,
            acks: Acks::default(),
            letters: DeadLetters::default(),
            rebirths: Rebirths::default(),
            subscriber,
            ids: PacketIds::default(),
            limits: Limits { version: Version::V5, receive_maximum: 0, packet_size: 0 },
            room: Room::new(loaded.config.mqtt.receive_maximum),
            divides: loaded.member.is_some() && !loaded.leaves,
            draining: false,
            leave: loaded.leaves.then(Leave::default),
            refused: None,
            canary: loaded.canary.clone().map(|path| Canary::new(path, Instant::now())),
            dropped: loaded.config.mqtt.dropped_topic.as_deref().map(Dropped::new),
        }
    }

    /// The connection is open, and this is what the broker said. What was received before and waits is
    /// stored in any case, though a resumed session delivers it again, which makes the same point: a broker
    /// that was killed may have acknowledged to the publisher what it had not saved yet, and then only the
    /// bridge has it.
    pub fn connected(&mut self, version: Version, connack: &ConnAck) {
        let properties = connack.properties.as_ref();
        self.limits = Limits {
            version,
            receive_maximum: properties.and_then(|all| all.receive_max).unwrap_or(u16::MAX).into(),
            packet_size: properties.and_then(|all| all.max_packet_size).unwrap_or(u32::MAX) as usize,
        };
        let identifiers =
            properties.and_then(|all| all.subscription_identifiers_available).is_none_or(|flag| flag != 0);
        self.room.connected(version);
        self.subscriber.connect(version, identifiers, connack.session_present);
        self.stamps.connected(connack.session_present);
        self.health.metrics.connections.inc();
        tracing::info!(resumed = connack.session_present, "connected to the broker, in {version}");
    }

    /// Whether this bridge can do what it is told to in the connection's version.
    ///
    /// # Errors
    /// If it can't.
    pub fn check_version(&self) -> Result<(), SourceError> {
        match self.limits.version {
            Version::V311 if self.divides => Err(SourceError::Sharing(Version::V311)),
            _ => Ok(()),
        }
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        if self.limits.receive_maximum > 0 {
            self.health.metrics.disconnections.inc();
        }
        self.limits.receive_maximum = 0;
        self.room.disconnected();
        self.acks.disconnect();
        self.stamps.disconnected();
        self.letters.disconnect();
        self.rebirths.disconnect();
        self.intake.disconnected();
        self.subscriber.disconnect();
        if let Some(canary) = &mut self.canary {
            canary.disconnected(Instant::now());
        }
        if let Some(leave) = &mut self.leave {
            leave.disconnected();
        }
    }

    /// The connection was closed on purpose, to go on with other settings; another session may hold
    /// these subscriptions.
    pub fn moved(&mut self, held: Option<Held>) {
        self.disconnected();
        if let Some(held) = held {
            self.stamps.forget();
            self.subscriber.remember(held);
        }
    }

    /// The topic filters that the broker's session may hold.
    pub fn held(&self) -> &Held {
        self.subscriber.held()
    }

    /// The same, if they may have changed since this was asked last.
    pub fn held_if_changed(&mut self) -> Option<&Held> {
        self.subscriber.held_if_changed()
    }

    /// Other routes from now on. Points of the old ones are stored all the same.
    pub fn reconfigure(&mut self, loaded: &Loaded, changes_routes: bool) {
        self.pipeline.clone_from(&loaded.config.pipeline);
        self.own_letters = loaded.config.dead_letter_topic("");
        let before = std::mem::replace(&mut self.table, Arc::clone(&loaded.table));
        if changes_routes {
            self.retired = Some(before);
            self.retired_until = self.stamps.next_position();
        }
        let tables: Vec<&Table> =
            [Some(&self.table), self.retired.as_ref()].into_iter().flatten().map(Arc::as_ref).collect();
        self.intake.reconfigure(&tables, loaded.config.max_message_size);
        self.subscriber.want(&loaded.filters);
        self.stamps.share(loaded.member);
        self.room.resize(loaded.config.mqtt.receive_maximum);
        self.divides = loaded.member.is_some() && !loaded.leaves;
        if self.leave.is_some() != loaded.leaves {
            self.leave = loaded.leaves.then(Leave::default);
        }
        if self.canary.is_some() != loaded.canary.is_some() {
            self.canary = loaded.canary.clone().map(|path| Canary::new(path, Instant::now()));
        }
    }

    /// No more messages: those that come are left with the broker.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Tells the time, once for all packets that were read together.
    pub fn tick(&mut self, now: SystemTime) {
        self.stamps.tick(now);
    }

    /// The times of reception, for the journal.
    pub fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// Whether a ping is wanted before it is due, to learn what the broker has forgotten.
    pub fn wants_ping(&self) -> bool {
        self.stamps.wants_ping() || self.leave.as_ref().is_some_and(Leave::wants_ping)
    }

    /// A ping goes out.
    pub fn pinged(&mut self) {
        self.stamps.pinged();
        self.subscriber.pinged();
        let nothing_waits =
            self.subscriber.held().is_empty() && self.acks.have_ended() && self.letters.is_empty();
        if let Some(leave) = &mut self.leave {
            leave.pinged(nothing_waits);
        }
    }

    /// Whether this bridge was told to leave, and nothing is held for it any more.
    pub fn has_left(&self) -> bool {
        let is_over = self.leave.as_ref().is_some_and(Leave::is_over);
        is_over && !self.draining && !self.room.has_left_some()
    }

    /// Whether nothing waits for the broker's answer.
    pub fn is_settled(&self) -> bool {
        self.letters.is_empty() || self.limits.receive_maximum == 0
    }

    /// How many messages are not acknowledged.
    pub fn outstanding(&self) -> usize {
        self.acks.outstanding()
    }

    /// Whether messages are to stay unread, since as many are unacknowledged as may be.
    pub fn is_full(&self) -> bool {
        self.room.is_full(&self.acks, !self.letters.is_empty())
    }

    /// Whether the connection is to be made anew, for messages that were left with the broker.
    pub fn wants_reconnect(&self) -> bool {
        self.room.wants_reconnect(&self.acks, &self.letters, &self.stamps)
    }

    /// Deals with one packet.
    ///
    /// # Errors
    /// If the broker closes the connection or breaks the protocol.
    pub fn handle(
        &mut self,
        packet: Incoming<'_>,
        batches: &mut Batches,
        output: &mut BytesMut,
    ) -> Result<(), SourceError> {
        match packet {
            Incoming::Publish(publish) => self.receive(&publish, batches),
            Incoming::Other(packet) => return self.handle_other(*packet, output),
            Incoming::Disconnect => return Err(SourceError::Closed(String::new())),
        }
        Ok(())
    }

    fn handle_other(&mut self, packet: Packet, output: &mut BytesMut) -> Result<(), SourceError> {
        match packet {
            Packet::PubRel(release) => {
                if !self.acks.release(release.pkid, output) {
                    self.stamps.released(release.pkid, self.acks.have_ended());
                }
                if let Some(leave) = &mut self.leave {
                    leave.heard();
                }
            }
            Packet::PingResp(_) => {
                self.stamps.ping_answered();
                self.subscriber.ping_answered();
                if let Some(leave) = &mut self.leave {
                    leave.ping_answered();
                }
            }
            Packet::PubAck(ack) => match self.canary.as_mut().filter(|canary| canary.uses(ack.pkid)) {
                Some(canary) => canary.answered(ack.reason),
                None => self.letter_answered(ack.pkid, ack.reason),
            },
            Packet::SubAck(answer) => {
                self.subscriber.suback(&answer, Instant::now());
                self.report();
            }
            Packet::UnsubAck(answer) => {
                self.subscriber.unsuback(&answer);
            }
            Packet::Disconnect(disconnect) => {
                return Err(SourceError::Closed(format!(": {:?}", disconnect.reason_code)));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a message in, or what was read of it.
    pub fn receive(&mut self, publish: &Publish<'_>, batches: &mut Batches) {
        let telling = self.dropped.as_mut().filter(|dropped| dropped.is_told_by(publish.topic));
        let told = telling.and_then(|dropped| dropped.take(publish.payload, Instant::now()));
        if let Some(total) = told {
            self.health.metrics.broker_messages_dropped.set(i64::try_from(total).unwrap_or(i64::MAX));
            if !self.table.knows(publish.subscriptions.ids()) {
                return;
            }
        }
        self.health.metrics.messages_received.inc();
        if let Some(leave) = self.leave.as_mut().filter(|_| !self.draining) {
            leave.heard();
        }
        if self.draining || self.room.leaves(publish, &self.acks, &self.letters) {
            if publish.qos > 0 {
                self.stamps.left();
            }
            return;
        }
        let (sequence, stamp, repeated, position) = if publish.qos == 0 {
            (Sequence::NONE, self.stamps.fresh(), false, 0)
        } else {
            let hash = stamps::hash_of(publish.topic, publish.payload);
            let received = self.stamps.receive(publish.packet_id, hash);
            if received.repeated {
                self.health.metrics.messages_repeated.inc();
            }
            (self.acks.next(), received.stamp, received.repeated, received.position)
        };
        let canary = self.canary.as_ref().and_then(|canary| canary.table(publish.topic));
        // The routes that remain have copies of their own, if their filters overlap with the one that has gone. What is
        // repeated makes the points that it made.
        let ids = publish.subscriptions.ids();
        let was_before = repeated && position < self.retired_until;
        let is_for_retired =
            |retired: &&Arc<Table>| was_before || !self.table.knows(ids) && retired.knows(ids);
        let retired = self.retired.as_ref().filter(|retired| canary.is_none() && is_for_retired(retired));
        let mut by_retired = retired.is_some();
        let table = canary.as_ref().or(retired).unwrap_or(&self.table);
        let is_own = self.is_own_letter(publish.topic);
        let mut taken = match is_own {
            false => self.intake.accept(publish, stamp, repeated, sequence, table, batches),
            true => Taken::default(),
        };
        if canary.is_none()
            && !taken.is_routed()
            && !is_own
            && !taken.dropped
            && let Some(retired) = &self.retired
        {
            let other = if by_retired { &self.table } else { retired };
            taken = self.intake.accept(publish, stamp, repeated, sequence, other, batches);
            by_retired ^= taken.is_routed();
        }
        if canary.is_some() {
            // What isn't a number is not the bridge's.
            taken.refusals.clear();
        } else {
            self.count(&taken, by_retired);
        }
        if taken.asides.iter().any(|aside| aside.wants_birth) {
            self.ask_for_birth(publish.topic, stamp);
        }
        if publish.qos > 0 {
            self.acks.receive(publish.packet_id, publish.qos == 2, taken.parts(), position);
        }
        for refusal in taken.refusals {
            let table = Arc::clone(self.routes(by_retired));
            let route = &table.routes()[refusal.route].name;
            self.bury(sequence, route, publish.topic, publish.payload, refusal.reason);
        }
    }

    /// Before MQTT 5 a broker can't be told to keep them from who sent them.
    fn is_own_letter(&self, topic: &[u8]) -> bool {
        self.limits.version == Version::V311 && topic.starts_with(self.own_letters.as_bytes())
    }

    fn ask_for_birth(&mut self, topic: &[u8], stamp: i64) {
        let topic = str::from_utf8(topic).ok().and_then(|topic| Topic::parse(topic).ok());
        if topic.is_some_and(|topic| self.rebirths.ask(topic.group, topic.node, stamp)) {
            self.health.metrics.sparkplug_rebirths_requested.inc();
        }
    }

    fn routes(&self, retired: bool) -> &Arc<Table> {
        self.retired.as_ref().filter(|_| retired).unwrap_or(&self.table)
    }

    fn count(&self, taken: &Taken, by_retired: bool) {
        let metrics = &self.health.metrics;
        let dropped = |reason, count| {
            metrics.messages_dropped.get_or_create(&ReasonLabel { reason }).inc_by(count);
        };
        if taken.dropped {
            dropped("DatabaseTooSlow", 1);
        } else if !taken.is_routed() {
            metrics.messages_unrouted.inc();
        }
        if taken.skipped > 0 {
            dropped("Retained", taken.skipped.into());
        }
        for ignored in &taken.ignored {
            dropped(ignored.word(), 1);
        }
        for aside in &taken.asides {
            for (reason, count) in LeftOut::ALL.iter().zip(aside.left_out).filter(|(_, count)| *count > 0) {
                let label = ReasonLabel { reason: reason.word() };
                metrics.sparkplug_metrics_left_out.get_or_create(&label).inc_by(count.into());
            }
        }
        for (route, overflow) in &taken.overflows {
            let label = RouteLabel { route: self.routes(by_retired).routes()[*route].name.to_string() };
            metrics.series_overflows.get_or_create(&label).inc();
            if *overflow == Overflow::Drop {
                dropped("TooManySeries", 1);
            }
        }
    }

    /// A batch has been dealt with. A message becomes one dead letter for a route, however many of its
    /// points the database refuses.
    pub fn settle(&mut self, outcome: &Outcome) {
        if let Some(canary) = &mut self.canary
            && let Some(first) = outcome.batch.points().next()
            && canary.table(first.topic).is_some()
        {
            // Of a table of its own, and so of a batch of its own.
            let refusal = outcome.refused.first().map(|(_, reason)| reason.as_str());
            for point in outcome.batch.points() {
                canary.settled(point.payload, refusal, Instant::now());
                let took = canary.took().unwrap_or_default();
                self.health.metrics.canary_seconds.set(took.as_secs_f64());
                self.acks.complete(point.sequence);
            }
            return;
        }
        let mut refused = outcome.refused.iter().peekable();
        let mut buried = None;
        for (place, point) in outcome.batch.points().enumerate() {
            match refused.next_if(|(culprit, _)| *culprit == place) {
                None => self.acks.complete(point.sequence),
                Some(_) if buried == Some(point.message) => self.acks.complete(point.sequence),
                Some((_, reason)) => {
                    buried = Some(point.message);
                    let route = &outcome.batch.route(&point).name;
                    self.bury(point.sequence, route, point.topic, point.payload, reason.clone());
                }
            }
        }
    }

    /// A message can't be stored: it becomes a dead letter.
    fn bury(&mut self, sequence: Sequence, route: &str, topic: &[u8], payload: &[u8], reason: String) {
        self.refused = Some((Instant::now(), route.into()));
        let topic = String::from_utf8_lossy(topic).into_owned();
        let letter = DeadLetter {
            sequence,
            route: route.into(),
            destination: dead_letter_topic(&self.pipeline, route),
            payload: Bytes::copy_from_slice(payload),
            reason,
            topic,
        };
        // A dead letter that comes back, of this pipeline or another, must not become another one.
        let is_dead = letter.topic.starts_with("iotpipeline/") && letter.topic.contains("/dead-letter/");
        let dropped = if is_dead { Some(letter) } else { self.letters.push(letter) };
        if let Some(letter) = dropped {
            self.drop_letter(&letter, "there are too many, or it is a dead letter itself");
        }
    }

    fn letter_answered(&mut self, packet_id: u16, reason: PubAckReason) {
        let Some(letter) = self.letters.answered(packet_id) else { return };
        if matches!(reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
            let label = RouteLabel { route: letter.route };
            self.health.metrics.dead_letters.get_or_create(&label).inc();
            self.acks.complete(letter.sequence);
        } else {
            self.drop_letter(&letter, &format!("the broker refuses it: {reason:?}"));
        }
    }

    /// Not even a dead letter: counted and acknowledged, so that it does not block what follows.
    fn drop_letter(&mut self, letter: &DeadLetter, why: &str) {
        let label = RouteLabel { route: letter.route.clone() };
        let counter = self.health.metrics.dead_letters_dropped.get_or_create(&label);
        if counter.inc().is_power_of_two() {
            tracing::warn!(
                route = letter.route,
                topic = letter.topic,
                reason = letter.reason,
                "a dead letter is dropped: {why}"
            );
        }
        drop(counter);
        self.acks.complete(letter.sequence);
    }

    /// Appends everything that the bridge has to say: acknowledgements, subscriptions, dead letters.
    pub fn write(&mut self, output: &mut BytesMut) {
        let Self { letters, subscriber, ids, limits, canary, .. } = self;
        let used = |letters: &DeadLetters, subscriber: &Subscriber, id| {
            letters.uses(id) || subscriber.uses(id) || canary.as_ref().is_some_and(|canary| canary.uses(id))
        };
        subscriber.write(
            Instant::now(),
            &mut |subscriber| ids.next(|id| used(letters, subscriber, id)),
            output,
        );
        let too_large =
            letters.write(*limits, &mut |letters| ids.next(|id| used(letters, subscriber, id)), output);
        for letter in too_large {
            self.drop_letter(&letter, "it is larger than the broker allows");
        }
        self.write_canary(output);
        self.rebirths.write(self.limits, output);
        let before = self.acks.outstanding();
        self.acks.write(output);
        if let Some(position) = self.acks.ended() {
            self.stamps.acknowledge(position);
        }
        let metrics = &self.health.metrics;
        metrics.messages_acknowledged.inc_by((before - self.acks.outstanding()) as u64);
        metrics.messages_in_flight.set(self.acks.outstanding() as i64);
    }

    /// Whether messages cross, and whether all do.
    fn crossing(&mut self, now: Instant) -> Option<Side> {
        let done = self.health.done();
        let crossing = self.canary.as_mut().map(|canary| canary.report(now, done));
        let refused = self.refused.as_ref().filter(|(since, _)| now - *since < REFUSED_LATELY);
        let dropped = self.dropped.as_ref().and_then(|dropped| dropped.report(now));
        match (crossing, dropped, refused) {
            (Some(side), ..) if side.reason != "Crossed" => Some(side),
            (_, Some(side), _) => Some(side),
            (_, None, Some((_, route))) => Some(Side {
                ready: true,
                reason: "DeadLetters".into(),
                message: format!(
                    "messages are refused, the last by the route {route}: they are published to {}, each with the reason",
                    dead_letter_topic(&self.pipeline, route)
                ),
            }),
            (crossing, None, None) => crossing,
        }
    }

    fn write_canary(&mut self, output: &mut BytesMut) {
        let Self { letters, subscriber, ids, limits, canary, health, .. } = self;
        let Some(canary) = canary else { return };
        let now = Instant::now();
        if limits.receive_maximum > 0 && !self.draining && canary.is_due(now) && subscriber.is_complete() {
            let id = ids.next(|id| letters.uses(id) || subscriber.uses(id));
            canary.write(now, SystemTime::now(), limits.version, id, health.done(), output);
        }
    }

    /// Tells how the broker's side is, while connected, and whether messages cross.
    pub fn report(&mut self) {
        let crossing = self.crossing(Instant::now());
        self.health.crossing(crossing);
        for route in self.table.routes().iter().filter(|route| route.has_bound()) {
            let label = RouteLabel { route: route.name.to_string() };
            let count = self.intake.series(&route.name);
            self.health.metrics.series.get_or_create(&label).set(count as i64);
        }
        match self.subscriber.refusal() {
            _ if self.leave.is_some() => {
                let message = "leaving: taking what the broker still holds for this bridge";
                self.health.leaving(message);
            }
            Some((filter, reason)) => {
                let message = format!(
                    "the broker refuses the subscription to {filter}: {reason}: allow it to the bridge's user"
                );
                self.health.not_ready(SideName::Broker, "SubscriptionRefused", message);
            }
            None if self.subscriber.is_complete() => {
                let (version, filters) = (self.limits.version, self.subscriber.granted());
                let message = format!("connected in {version} and subscribed to {filters} topic filters");
                self.health.ready(SideName::Broker, message);
            }
            None => self.health.not_ready(
                SideName::Broker,
                SUBSCRIBING,
                "waiting for the broker to grant the subscriptions",
            ),
        }
    }
}
