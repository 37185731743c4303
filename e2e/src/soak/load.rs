//! What is published in a run, and what became of it as far as the publishers know.
//!
//! Each number is published once and never again: what was on its way when a connection broke may have
//! reached the broker or not, and is accounted for as unknown. So whatever is stored twice was made two
//! by the bridge or the broker, and not by the publisher.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, PubCompReason, PubRecReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::mqtt::options;
use crate::publisher::{SILENCE, UNSETTLED};

/// Publishers at a time. The numbers of each are its own modulo this.
pub const PUBLISHERS: u64 = 3;
/// Series of numbered messages.
const NUMBERED: u64 = 3;
/// Series of messages that repeat themselves.
const REPEATED: u64 = 2;
/// Names of the fields that hold numbers: neighbours in a series have different ones, so that two
/// messages that merge into one point leave both.
pub const NUMBER_FIELDS: u64 = 8;
/// One turn in so many of the numbered is poison: 1.5 % of all messages.
const POISON: u64 = 40;
/// What a sensor that repeats itself has to say.
const READINGS: [&str; 2] = ["20.5", "21"];

/// A message, by its number.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Content {
    /// Holds its number: `{"n3": 1234}` to the series of this index.
    Numbered(u64),
    /// Holds the same reading as many others: the indices of series and reading.
    Repeated(u64, u64),
    /// Can't be stored: its end is a dead letter, which holds its number.
    Poison(Poison),
}

/// Who finds out that a message can't be stored.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Poison {
    /// The bridge can't decode it. Two of three are such, which is 1 % of all messages.
    Undecodable,
    /// The database has another type in its field.
    WronglyTyped,
}

impl Content {
    /// What the message of a number holds.
    pub fn of(number: u64) -> Self {
        let (kind, turn) = (number % (NUMBERED + REPEATED), number / (NUMBERED + REPEATED));
        match kind.checked_sub(NUMBERED) {
            None if turn % POISON == POISON / 3 && (turn / POISON).is_multiple_of(3) => {
                Self::Poison(Poison::WronglyTyped)
            }
            None if turn % POISON == POISON / 3 => Self::Poison(Poison::Undecodable),
            None => Self::Numbered(kind),
            Some(series) => Self::Repeated(series, turn / PUBLISHERS % READINGS.len() as u64),
        }
    }

    fn message(self, root: &str, number: u64) -> (String, String) {
        match self {
            Self::Numbered(series) => {
                let field = number / (NUMBERED + REPEATED) % NUMBER_FIELDS;
                (format!("{root}/numbered/s{series}"), format!(r#"{{"n{field}":{number}}}"#))
            }
            Self::Repeated(series, reading) => {
                (format!("{root}/repeated/s{series}"), READINGS[reading as usize].to_owned())
            }
            Self::Poison(Poison::Undecodable) => (format!("{root}/undecodable"), format!("number {number}")),
            Self::Poison(Poison::WronglyTyped) => (format!("{root}/typed"), number.to_string()),
        }
    }

    /// The names of series and reading in the database, for what repeats itself.
    pub fn repeated(series: &str, value: f64) -> Option<Self> {
        let series = series.strip_prefix('s')?.parse().ok()?;
        let reading = READINGS.iter().position(|reading| reading.parse::<f64>() == Ok(value))?;
        Some(Self::Repeated(series, reading as u64))
    }
}

/// What one publisher knows of its messages.
#[derive(Debug, Default)]
pub struct Account {
    /// Acknowledged, and must be stored.
    pub settled: Vec<u64>,
    /// Acknowledged within the last moment of a broker that was killed: see [`crate::publisher`].
    pub unsettled: Vec<u64>,
    /// Sent or about to be, but not acknowledged: may be stored.
    pub unknown: Vec<u64>,
}

impl Account {
    /// Both together.
    pub fn plus(mut self, other: Self) -> Self {
        self.settled.extend(other.settled);
        self.unsettled.extend(other.unsettled);
        self.unknown.extend(other.unknown);
        self
    }

    /// How many messages are acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.settled.len() + self.unsettled.len()
    }
}

/// One publisher's load.
pub struct Load<'a> {
    /// Where the broker is, on 127.0.0.1.
    pub port: u16,
    /// The first levels of all topics.
    pub root: &'a str,
    /// Which of the publishers this is.
    pub publisher: u64,
    /// The quality of service: 1 or 2.
    pub qos: u8,
    /// Only messages that repeat themselves.
    pub repeats: bool,
    /// The first turn: numbers of turns before were used by an earlier load of this publisher.
    pub first: u64,
    /// How many messages are to be acknowledged.
    pub count: u64,
    /// Messages in a second.
    pub rate: u64,
    /// How often the broker was killed so far.
    pub broker_deaths: &'a AtomicU32,
    /// Counts acknowledged messages, of all publishers.
    pub progress: &'a watch::Sender<u64>,
    /// When to give up.
    pub deadline: Duration,
}

/// Messages that were handed to the client, until they are acknowledged.
struct Flight<'a> {
    /// The turn of the next message.
    next: &'a Cell<u64>,
    /// In the order in which the client gets them; not known to be sent.
    handed: RefCell<VecDeque<u64>>,
}

impl Load<'_> {
    /// Publishes until enough messages are acknowledged.
    ///
    /// # Errors
    /// If the broker refuses a message, or the deadline passes.
    pub async fn publish(&self) -> Result<Account> {
        let start = Instant::now();
        let mut account = Account::default();
        let next = Cell::new(self.first);
        for connection in 1.. {
            let left = self.count - account.acknowledged() as u64;
            if left == 0 {
                break;
            }
            if start.elapsed() > self.deadline {
                bail!("publisher {}: {left} messages not acknowledged in time", self.publisher);
            }
            let deaths = self.broker_deaths.load(Ordering::SeqCst);
            let client_id =
                format!("{}-publisher-{}-{connection}", self.root.replace('/', "-"), self.publisher);
            let (requests, events) = AsyncClient::new(options(self.port, &client_id, None), 16);
            let flight = Flight { next: &next, handed: RefCell::default() };
            let mut acknowledged = Vec::new();
            let mut flying = HashMap::new();
            tokio::select! {
                outcome = self.follow(events, left, &flight, &mut flying, &mut acknowledged) => outcome?,
                () = self.feed(&requests, left, &flight) => {}
            }
            let killed = self.broker_deaths.load(Ordering::SeqCst) != deaths;
            for (number, when) in acknowledged {
                let unsettled = killed && when.elapsed() < UNSETTLED;
                if unsettled { &mut account.unsettled } else { &mut account.settled }.push(number);
            }
            account.unknown.extend(flying.into_values().chain(flight.handed.take()));
            // The broker may be starting: don't ask it a thousand times a second.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(account)
    }

    fn number(&self, turn: u64) -> u64 {
        if !self.repeats {
            return turn * PUBLISHERS + self.publisher;
        }
        // Only numbers of messages that repeat themselves, each once.
        let all = turn * PUBLISHERS + self.publisher;
        all / REPEATED * (NUMBERED + REPEATED) + NUMBERED + all % REPEATED
    }

    /// Gives rumqttc so many messages in order, at the load's rate, and then never ends.
    async fn feed(&self, requests: &AsyncClient, left: u64, flight: &Flight<'_>) {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let qos = if self.qos == 2 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        let mut handed = 0;
        while handed < left {
            pace.tick().await;
            for _ in 0..(self.rate / 100).clamp(1, left - handed) {
                let number = self.number(flight.next.replace(flight.next.get() + 1));
                let (topic, payload) = Content::of(number).message(self.root, number);
                flight.handed.borrow_mut().push_back(number);
                requests.publish(topic, qos, false, payload).await.ok();
                handed += 1;
            }
        }
        std::future::pending().await
    }

    /// Follows what happens, until all is acknowledged or the connection can't be used any further.
    async fn follow(
        &self,
        mut events: EventLoop,
        left: u64,
        flight: &Flight<'_>,
        flying: &mut HashMap<u16, u64>,
        acknowledged: &mut Vec<(u64, Instant)>,
    ) -> Result<()> {
        while (acknowledged.len() as u64) < left {
            let Ok(Ok(event)) = tokio::time::timeout(SILENCE, events.poll()).await else { return Ok(()) };
            let packet_id = match event {
                Event::Outgoing(Outgoing::Publish(packet_id)) => {
                    let number = flight.handed.borrow_mut().pop_front();
                    flying.insert(packet_id, number.context("rumqttc sent more than it was given")?);
                    continue;
                }
                // The packet id is still taken. This broker acknowledges in order: that can't be.
                Event::Outgoing(Outgoing::AwaitAck(_)) => return Ok(()),
                Event::Incoming(Packet::PubAck(answer)) => match answer.reason {
                    PubAckReason::Success => answer.pkid,
                    refused => bail!("a message was refused: {refused:?}"),
                },
                Event::Incoming(Packet::PubRec(answer)) => match answer.reason {
                    PubRecReason::Success => continue,
                    refused => bail!("a message was refused: {refused:?}"),
                },
                Event::Incoming(Packet::PubComp(answer)) => match answer.reason {
                    PubCompReason::Success => answer.pkid,
                    refused => bail!("a message was refused: {refused:?}"),
                },
                _ => continue,
            };
            let number = flying.remove(&packet_id).context("an acknowledgement of nothing")?;
            acknowledged.push((number, Instant::now()));
            self.progress.send_modify(|all| *all += 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_are_published_once_by_one_publisher_whatever_the_load() {
        let (deaths, progress) = (AtomicU32::new(0), watch::Sender::new(0));
        let mut numbers = BTreeSet::new();
        for publisher in 0..PUBLISHERS {
            let load = |repeats| Load {
                port: 0,
                root: "",
                publisher,
                qos: 1,
                repeats,
                first: 0,
                count: 0,
                rate: 0,
                broker_deaths: &deaths,
                progress: &progress,
                deadline: Duration::ZERO,
            };
            for turn in 0..100 {
                let number = load(true).number(turn);
                assert!(matches!(Content::of(number), Content::Repeated(..)), "{number}");
                assert!(numbers.insert(number), "{number}");
            }
        }
        let last = *numbers.last().expect("some");
        assert_eq!(numbers.len() as u64, 100 * PUBLISHERS);
        assert!(last < 100 * PUBLISHERS * (NUMBERED + REPEATED), "{last}");
    }

    #[test]
    fn neighbours_in_a_series_have_different_fields() {
        let messages: Vec<_> = (0..100).map(|number| Content::of(number).message("r", number)).collect();
        let of_one: Vec<_> = messages.iter().filter(|(topic, _)| topic == "r/numbered/s1").collect();
        // A turn of poison among them takes a field.
        assert_eq!(of_one[0].1, r#"{"n0":1}"#);
        for pair in of_one.windows(NUMBER_FIELDS as usize - 1) {
            let fields: BTreeSet<_> = pair.iter().map(|(_, payload)| &payload[2..4]).collect();
            assert_eq!(fields.len(), pair.len(), "{pair:?}");
        }
    }

    #[test]
    fn a_sensor_repeats_itself_within_a_few_messages() {
        let repeated = (0..1_000).map(Content::of).filter(|one| matches!(one, Content::Repeated(..)));
        let kinds: BTreeSet<_> = repeated.collect();
        assert_eq!(kinds.len() as u64, REPEATED * READINGS.len() as u64);
        assert_eq!(Content::repeated("s1", 21.0), Some(Content::Repeated(1, 1)));
        assert_eq!(Content::repeated("s1", 22.0), None);
    }

    #[test]
    fn one_message_in_a_hundred_is_undecodable_and_half_as_many_are_wrongly_typed() {
        let count = |poison| {
            let all = (0..60_000).map(Content::of);
            all.filter(|content| *content == Content::Poison(poison)).count()
        };
        assert_eq!((count(Poison::Undecodable), count(Poison::WronglyTyped)), (600, 300));
    }
}
