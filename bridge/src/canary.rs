//! A message of the bridge's own, now and then: it is published, comes back by a subscription, and is stored
//! like any other. While it does, messages can cross; that the connections stand says less.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::bridge_config::canary_topic;
use api::bridge_status::Side;
use api::route::Route;
use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish};
use serde_json::json;
use tokio::time::Instant;

use crate::table::{CompileError, Subscription, Table};
use crate::version::Version;

/// How often one is sent.
const PERIOD: Duration = Duration::from_millis(1_500);

/// One that takes longer is reported.
const LATE: Duration = Duration::from_secs(2);

/// Where the canary goes.
#[derive(Clone, Debug)]
pub struct Path {
    /// Its topic, which no other bridge has.
    pub topic: String,
    /// What the broker is asked for, so that it comes back.
    pub subscription: Subscription,
    table: Arc<Table>,
}

impl Path {
    /// For the bridge of this number in a pipeline.
    ///
    /// # Errors
    /// If the route can't be compiled.
    pub fn new(pipeline: &str, member: u32) -> Result<Self, CompileError> {
        let topic = canary_topic(pipeline, member);
        let route: Route = serde_json::from_value(json!({
            "name": "canary",
            "topic": topic,
            "measurement": "iotpipeline_canary",
            "tags": [{"name": "bridge", "value": member.to_string()}],
            "payload": {"integer": {"field": "sent"}},
        }))
        .expect("a route of our own");
        let table = Arc::new(Table::new(&[route])?);
        let subscription = table.filters().get(&topic).copied().expect("the only filter");
        Ok(Self { topic, subscription: Subscription { own: true, ..subscription }, table })
    }
}

/// The canary that is on its way, and how the last ones fared.
#[derive(Debug)]
pub struct Canary {
    path: Path,
    sent: Option<Sent>,
    next: Instant,
    refusal: Option<String>,
    /// How long the last one took, which has crossed.
    took: Option<Duration>,
    /// What the bridge had done when that was looked at last, and since when it is no more.
    done: (u64, Instant),
}

#[derive(Debug)]
struct Sent {
    /// Microseconds since 1970; the payload.
    number: i64,
    at: Instant,
    packet_id: u16,
    /// What the bridge had done by then.
    done: u64,
}

impl Canary {
    /// None has been sent yet.
    pub fn new(path: Path, now: Instant) -> Self {
        Self { path, sent: None, next: now, refusal: None, took: None, done: (0, now) }
    }

    /// The routes of a message on this topic, if it is a canary's; another bridge's has none.
    pub fn table(&self, topic: &[u8]) -> Option<Arc<Table>> {
        let own = self.path.topic.as_bytes();
        let place = own.iter().rposition(|byte| *byte == b'/')?;
        let is_canary = topic.get(..=place) == Some(&own[..=place]);
        is_canary.then(|| if topic == own { Arc::clone(&self.path.table) } else { Arc::default() })
    }

    /// Whether a packet id is in use.
    pub fn uses(&self, packet_id: u16) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.packet_id == packet_id)
    }

    /// Whether another is to be sent.
    pub fn is_due(&self, now: Instant) -> bool {
        self.sent.is_none() && now >= self.next
    }

    /// Appends the next one. `done` is a number that grows with whatever the bridge does.
    pub fn write(
        &mut self,
        now: Instant,
        clock: SystemTime,
        version: Version,
        packet_id: u16,
        done: u64,
        out: &mut BytesMut,
    ) {
        let number = clock.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        let payload = Bytes::from(number.to_string());
        let mut publish = Publish::new(self.path.topic.clone(), QoS::AtLeastOnce, payload, None);
        publish.pkid = packet_id;
        if version.write(Packet::Publish(publish), out).is_ok() {
            self.sent = Some(Sent { number, at: now, packet_id, done });
        }
        self.next = now + PERIOD;
    }

    /// The broker answers the publishing.
    pub fn answered(&mut self, reason: PubAckReason) {
        self.refusal = match reason {
            PubAckReason::Success => None,
            PubAckReason::NoMatchingSubscribers => Some("the broker knows no subscription for it".into()),
            reason => {
                Some(format!("the broker refuses it: {reason:?}: allow {} to the bridge", self.path.topic))
            }
        };
        if self.refusal.is_some() {
            self.sent = None;
        }
    }

    /// A point of a canary's is stored, or refused by the database.
    pub fn settled(&mut self, payload: &[u8], refusal: Option<&str>, now: Instant) {
        let is_it = |sent: &Sent| payload == sent.number.to_string().as_bytes();
        // One of an earlier connection tells nothing of this.
        let Some(sent) = self.sent.take_if(|sent| is_it(sent)) else { return };
        self.refusal = refusal.map(|reason| format!("the database refuses it: {reason}"));
        if self.refusal.is_none() {
            self.took = Some(now - sent.at);
        }
    }

    /// The connection has gone, and perhaps the canary with it.
    pub fn disconnected(&mut self, now: Instant) {
        self.sent = None;
        self.next = now;
    }

    /// How long the last one took that has crossed.
    pub fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Whether messages cross. To be asked now and then, as it sees by that whether the bridge gets on.
    pub fn report(&mut self, now: Instant, done: u64) -> Side {
        if done != self.done.0 {
            self.done = (done, now);
        }
        let gets_on = now - self.done.1 <= LATE;
        let side = |ready, reason: &str, message| Side { ready, reason: reason.into(), message };
        let late =
            self.sent.as_ref().map(|sent| (now - sent.at, sent.done)).filter(|(since, _)| *since > LATE);
        match (&self.refusal, late, self.took) {
            (Some(refusal), ..) => {
                side(false, "NotCrossing", format!("a message of the bridge's own does not cross: {refusal}"))
            }
            (None, Some((_, before)), Some(_)) if done > before && gets_on => side(true, "Behind", behind()),
            (None, Some(_), _) => {
                // No figure that grows: since when it is so, the condition's transition time says.
                let message = format!(
                    "a message of the bridge's own was not stored within {0} s, nor any other in the last {0} s: look into \
                     the database's log, and whether its disk is full",
                    LATE.as_secs()
                );
                side(false, "NotCrossing", message)
            }
            // Until one crosses in time: otherwise it would be one and the other by turns.
            (None, None, Some(took)) if took > LATE => side(true, "Behind", behind()),
            (None, None, Some(_)) => {
                side(true, "Crossed", "messages cross from the broker to the database".into())
            }
            (None, None, None) => {
                side(false, "Starting", "no message of the bridge's own has crossed yet".into())
            }
        }
    }
}

fn behind() -> String {
    format!(
        "messages wait for more than {} s between the broker and the database: either what has waited is being stored, \
         or more come than can be stored: give the database more CPU, or the pipeline more bridges",
        LATE.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: SystemTime = UNIX_EPOCH;

    fn sent(now: Instant) -> Canary {
        let path = Path::new("lab", 0).expect("a path");
        let mut canary = Canary::new(path, now);
        canary.write(now, CLOCK, Version::V5, 7, 0, &mut BytesMut::new());
        canary
    }

    fn reason(canary: &mut Canary, now: Instant, done: u64) -> (bool, String) {
        let side = canary.report(now, done);
        (side.ready, side.reason)
    }

    #[tokio::test]
    async fn nothing_crosses_before_the_first_has() {
        let now = Instant::now();
        let mut canary = sent(now);
        assert_eq!(reason(&mut canary, now, 0), (false, "Starting".into()));
        canary.settled(b"1", None, now);
        assert_eq!(reason(&mut canary, now, 0), (false, "Starting".into()), "that was another");
        canary.settled(b"0", None, now + Duration::from_millis(30));
        assert_eq!(reason(&mut canary, now, 0), (true, "Crossed".into()));
        assert_eq!(canary.took(), Some(Duration::from_millis(30)));
        assert!(!canary.is_due(now + PERIOD / 2));
        assert!(canary.is_due(now + PERIOD));
    }

    #[tokio::test]
    async fn one_that_is_late_means_that_nothing_crosses_or_that_much_waits() {
        let now = Instant::now();
        let mut canary = sent(now);
        canary.settled(b"0", None, now);
        canary.write(now, CLOCK, Version::V5, 8, 100, &mut BytesMut::new());
        let later = now + LATE * 2;
        assert_eq!(reason(&mut canary, later, 100), (false, "NotCrossing".into()));
        assert_eq!(reason(&mut canary, later, 101), (true, "Behind".into()));
        assert_eq!(reason(&mut canary, later + LATE, 101), (true, "Behind".into()));
        let stands = later + LATE + Duration::from_millis(1);
        assert_eq!(reason(&mut canary, stands, 101), (false, "NotCrossing".into()), "nothing more was done");
        assert_eq!(reason(&mut canary, stands, 102), (true, "Behind".into()));
        let mut late = sent(now);
        late.settled(b"0", None, later);
        assert_eq!(reason(&mut late, later, 0), (true, "Behind".into()), "it crossed, and late");
        late.write(later, CLOCK, Version::V5, 8, 0, &mut BytesMut::new());
        late.settled(b"0", None, later + LATE);
        assert_eq!(reason(&mut late, later + LATE, 0), (true, "Crossed".into()));
        canary.disconnected(later);
        assert_eq!(reason(&mut canary, later, 100), (true, "Crossed".into()), "the broker's side says that");
        assert!(canary.is_due(later));
    }

    #[tokio::test]
    async fn a_refusal_by_either_side_is_told() {
        let now = Instant::now();
        let mut canary = sent(now);
        canary.answered(PubAckReason::NotAuthorized);
        assert_eq!(reason(&mut canary, now, 0), (false, "NotCrossing".into()));
        canary.write(now, CLOCK, Version::V5, 8, 0, &mut BytesMut::new());
        canary.answered(PubAckReason::Success);
        canary.settled(b"0", Some("no"), now);
        let side = canary.report(now, 0);
        assert_eq!((side.ready, side.message.ends_with("refuses it: no")), (false, true), "{side:?}");
    }

    #[test]
    fn another_bridge_s_canary_has_no_route() {
        let canary = Path::new("lab", 1).expect("a path");
        let canary = Canary::new(canary, Instant::now());
        let routes = |topic: &str| canary.table(topic.as_bytes()).map(|table| table.routes().len());
        assert_eq!(routes("iotpipeline/lab/canary/1"), Some(1));
        assert_eq!(routes("iotpipeline/lab/canary/0"), Some(0));
        assert_eq!(routes("iotpipeline/lab/dead-letter/1"), None);
    }
}
