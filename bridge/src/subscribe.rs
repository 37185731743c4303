//! Keeps the broker's subscriptions as the routes want them: sends only the difference, and checks
//! each answer.
//!
//! In MQTT 5 everything is asked for anew on each connection. In 3.1.1 that would bring all that is retained
//! each time, so what a resumed session certainly holds is not asked for; and since a broker may deliver a copy
//! for each filter that matches, and can't say for which, no filter is asked for that another one includes.

mod cover;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, RetainForwardRule, SubAck, Subscribe, SubscribeProperties, SubscribeReasonCode, UnsubAck,
    Unsubscribe,
};
use tokio::time::Instant;

use crate::table::Subscription;
use crate::version::Version;

/// A filter that the broker refused is asked for again after this long: rights may have changed.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A subscription that was granted is certain after the answers to so many pings: the first says that the
/// broker has dealt with it, the second that it has finished the turn of its loop in which it did, and saved.
const CERTAIN_AFTER: u64 = 2;

/// The filters that a session at the broker may hold, each with the quality of service that it was granted for,
/// if that is certain.
pub type Held = BTreeMap<String, Option<u8>>;

/// What is wanted, asked and granted on this connection.
#[derive(Debug, Default)]
pub struct Subscriber {
    version: Version,
    /// What the routes want.
    routed: BTreeMap<String, Subscription>,
    /// What the broker is asked for, so that they get it.
    wanted: BTreeMap<String, Subscription>,
    /// What the broker's session may hold, also from connections before.
    held: Held,
    granted: BTreeMap<String, Subscription>,
    refused: BTreeMap<String, Refused>,
    subscribing: HashMap<u16, (String, Subscription)>,
    unsubscribing: HashMap<u16, String>,
    /// What was granted lately, and after how many answers it is certain.
    settling: VecDeque<(u64, String, u8)>,
    pinged: u64,
    answered: u64,
    /// Whether the broker understands subscription identifiers.
    identifiers: bool,
    /// Whether there may be a difference; spares looking at each filter after each read.
    changed: bool,
}

#[derive(Debug)]
struct Refused {
    reason: String,
    again: Instant,
}

impl Subscriber {
    /// Starts with what the session may hold from a life before.
    pub fn remember(&mut self, held: Held) {
        self.held = held;
    }

    /// What the session may hold.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// A new connection: everything is asked for again, but in 3.1.1 for what its session certainly holds.
    pub fn connect(&mut self, version: Version, identifiers: bool, session_present: bool) {
        if !session_present {
            self.held.clear();
        }
        self.disconnect();
        (self.version, self.identifiers) = (version, identifiers);
        self.plan();
        if version == Version::V311 {
            if let Some((one, other)) = cover::overlap(&self.wanted) {
                tracing::warn!(
                    "topic filters {one} and {other} overlap: before MQTT 5 a broker may deliver a message twice \
                     that both match, and it is stored twice then"
                );
            }
            let certain = |(filter, wanted): &(&String, &Subscription)| {
                self.held.get(*filter).is_some_and(|granted| *granted == Some(wanted.qos))
            };
            let certain = self.wanted.iter().filter(certain);
            self.granted = certain.map(|(filter, wanted)| (filter.clone(), *wanted)).collect();
        }
    }

    /// The connection has gone, and the answers with it.
    pub fn disconnect(&mut self) {
        self.granted.clear();
        self.refused.clear();
        self.subscribing.clear();
        self.unsubscribing.clear();
        self.settling.clear();
        (self.pinged, self.answered) = (0, 0);
        self.changed = true;
    }

    /// What the routes want from now on.
    pub fn want(&mut self, filters: &BTreeMap<String, Subscription>) {
        self.routed.clone_from(filters);
        self.refused.retain(|filter, _| filters.contains_key(filter));
        self.plan();
        self.changed = true;
    }

    /// A filter that is refused includes no other: those may be granted.
    fn plan(&mut self) {
        self.wanted = match self.version {
            Version::V5 => self.routed.clone(),
            Version::V311 => cover::largest(&self.routed, |filter| self.refused.contains_key(filter)),
        };
    }

    /// A ping goes out.
    pub fn pinged(&mut self) {
        self.pinged += 1;
    }

    /// A ping was answered: what was granted long enough before is certain.
    pub fn ping_answered(&mut self) {
        self.answered += 1;
        while let Some((_, filter, qos)) = self.settling.pop_front_if(|(after, ..)| *after <= self.answered) {
            if self.granted.get(&filter).is_some_and(|granted| granted.qos == qos) {
                self.held.insert(filter, Some(qos));
            }
        }
    }

    /// Whether a packet id is in use.
    pub fn uses(&self, packet_id: u16) -> bool {
        self.subscribing.contains_key(&packet_id) || self.unsubscribing.contains_key(&packet_id)
    }

    /// Appends what makes up the difference. New filters come first, so that a message that an old and
    /// a new filter match is never in between.
    pub fn write(&mut self, now: Instant, next_id: &mut impl FnMut(&Self) -> u16, out: &mut BytesMut) {
        if !self.changed && self.refused.values().all(|refused| refused.again > now) {
            return;
        }
        if std::mem::take(&mut self.changed) {
            self.plan();
        }
        let missing: Vec<_> = self
            .wanted
            .iter()
            .filter(|(filter, subscription)| self.granted.get(*filter) != Some(subscription))
            .filter(|(filter, _)| !self.subscribing.values().any(|(asked, _)| asked == *filter))
            .filter(|(filter, _)| self.refused.get(*filter).is_none_or(|refused| refused.again <= now))
            .map(|(filter, subscription)| (filter.clone(), *subscription))
            .collect();
        for (filter, subscription) in missing {
            let packet_id = next_id(self);
            self.write_subscribe(packet_id, &filter, subscription, out);
            if self.held.get(&filter) != Some(&Some(subscription.qos)) {
                self.held.insert(filter.clone(), None);
            }
            self.subscribing.insert(packet_id, (filter, subscription));
        }
        // What another filter includes goes when that one is granted, and not before.
        let is_wanted = |filter: &String| {
            self.wanted.contains_key(filter) || self.routed.contains_key(filter) && !self.is_complete()
        };
        let is_obsolete = |filter: &&String| {
            !is_wanted(filter) && !self.unsubscribing.values().any(|asked| asked == *filter)
        };
        let obsolete: Vec<_> = self.held.keys().filter(is_obsolete).cloned().collect();
        for filter in obsolete {
            let packet_id = next_id(self);
            let mut unsubscribe = Unsubscribe::new(filter.clone(), None);
            unsubscribe.pkid = packet_id;
            self.version.write(Packet::Unsubscribe(unsubscribe), out).expect("a filter fits into a packet");
            self.granted.remove(&filter);
            self.unsubscribing.insert(packet_id, filter);
        }
    }

    /// The broker answered a subscription. True if it was ours.
    pub fn suback(&mut self, answer: &SubAck, now: Instant) -> bool {
        let Some((filter, subscription)) = self.subscribing.remove(&answer.pkid) else { return false };
        match answer.return_codes.first() {
            Some(SubscribeReasonCode::Success(granted)) => {
                if (*granted as u8) < subscription.qos {
                    tracing::warn!(
                        filter,
                        wanted = subscription.qos,
                        granted = *granted as u8,
                        "the broker grants a lower quality of service"
                    );
                }
                self.refused.remove(&filter);
                self.settling.push_back((self.pinged + CERTAIN_AFTER, filter.clone(), subscription.qos));
                self.granted.insert(filter, subscription);
                // What is wanted may have changed while the broker answered.
                self.changed = true;
            }
            code => {
                let reason = code.map_or("no reason given".into(), |code| format!("{code:?}"));
                self.refused.insert(filter, Refused { reason, again: now + ASK_AGAIN });
                // Those that it includes may be granted.
                self.changed |= self.version == Version::V311;
            }
        }
        true
    }

    /// The broker answered the end of a subscription. True if it was ours.
    pub fn unsuback(&mut self, answer: &UnsubAck) -> bool {
        let Some(filter) = self.unsubscribing.remove(&answer.pkid) else { return false };
        if !self.wanted.contains_key(&filter) {
            self.held.remove(&filter);
        }
        true
    }

    /// Whether all that is wanted is granted.
    pub fn is_complete(&self) -> bool {
        self.wanted.keys().all(|filter| self.granted.contains_key(filter))
    }

    /// The first refused filter, and why.
    pub fn refusal(&self) -> Option<(&str, &str)> {
        self.refused.iter().next().map(|(filter, refused)| (filter.as_str(), refused.reason.as_str()))
    }

    /// How many filters are granted.
    pub fn granted(&self) -> usize {
        self.granted.len()
    }

    fn write_subscribe(&self, packet_id: u16, filter: &str, subscription: Subscription, out: &mut BytesMut) {
        let mut subscribe = subscribe(filter, subscription, self.identifiers);
        subscribe.pkid = packet_id;
        self.version.write(Packet::Subscribe(subscribe), out).expect("a filter fits into a packet");
    }
}

fn subscribe(filter: &str, subscription: Subscription, id: bool) -> Subscribe {
    let mut wanted = Filter::new(
        filter,
        match subscription.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        },
    );
    // The bridge's own dead letters don't come back to it. A shared subscription must not ask for that
    // [MQTT-3.8.3-4].
    wanted.nolocal = !subscription.own && !filter.starts_with("$share/");
    // Retained messages come with a new subscription only, not with each reconnect.
    wanted.retain_forward_rule = RetainForwardRule::OnNewSubscribe;
    let properties =
        id.then(|| SubscribeProperties { id: Some(subscription.id as usize), user_properties: Vec::new() });
    Subscribe::new(wanted, properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(list: &[(&str, u8)]) -> BTreeMap<String, Subscription> {
        list.iter()
            .map(|(filter, qos)| {
                ((*filter).into(), Subscription { qos: *qos, id: 1, undivided: false, own: false })
            })
            .collect()
    }

    fn write(subscriber: &mut Subscriber, now: Instant) -> Vec<(u8, u16)> {
        let (mut out, mut last) = (BytesMut::new(), 0);
        subscriber.write(
            now,
            &mut |subscriber| {
                last += 1;
                while subscriber.uses(last) {
                    last += 1;
                }
                last
            },
            &mut out,
        );
        let mut sent = Vec::new();
        while out.len() > 1 {
            let frame = out.split_to(2 + usize::from(out[1]));
            sent.push((frame[0] >> 4, u16::from_be_bytes([frame[2], frame[3]])));
        }
        sent
    }

    fn grant(subscriber: &mut Subscriber, packet_id: u16, code: SubscribeReasonCode) {
        let answer = SubAck { pkid: packet_id, return_codes: vec![code], properties: None };
        assert!(subscriber.suback(&answer, Instant::now()));
    }

    #[tokio::test]
    async fn only_the_difference_is_sent() {
        let mut subscriber = Subscriber::default();
        subscriber.connect(Version::V5, true, false);
        subscriber.want(&filters(&[("a", 1), ("b", 1)]));
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1), (8, 2)]);
        assert_eq!(write(&mut subscriber, Instant::now()), []);
        for id in [1, 2] {
            grant(&mut subscriber, id, SubscribeReasonCode::Success(QoS::AtLeastOnce));
        }
        assert!(subscriber.is_complete());
        subscriber.want(&filters(&[("b", 1), ("c", 1)]));
        assert!(!subscriber.is_complete());
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1), (10, 2)]);
        subscriber.want(&filters(&[("b", 2), ("c", 1)]));
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 3)], "another qos is asked for");
    }

    #[tokio::test]
    async fn a_resumed_session_is_freed_of_what_is_not_wanted_any_more() {
        let mut subscriber = Subscriber::default();
        subscriber.remember(Held::from([("old".to_owned(), None)]));
        subscriber.want(&filters(&[("a", 1)]));
        subscriber.connect(Version::V5, true, true);
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1), (10, 2)]);
        let answer = UnsubAck { pkid: 2, reasons: Vec::new(), properties: None };
        assert!(subscriber.unsuback(&answer));
        assert_eq!(subscriber.held(), &Held::from([("a".to_owned(), None)]));
        subscriber.connect(Version::V5, true, false);
        assert!(subscriber.held().is_empty());
    }

    #[tokio::test]
    async fn a_refused_filter_is_asked_for_again_later() {
        let mut subscriber = Subscriber::default();
        subscriber.connect(Version::V5, true, false);
        subscriber.want(&filters(&[("a", 1)]));
        write(&mut subscriber, Instant::now());
        grant(&mut subscriber, 1, SubscribeReasonCode::NotAuthorized);
        assert_eq!(subscriber.refusal(), Some(("a", "NotAuthorized")));
        assert_eq!(write(&mut subscriber, Instant::now()), []);
        assert_eq!(write(&mut subscriber, Instant::now() + ASK_AGAIN * 2), [(8, 1)]);
    }

    fn on_3_1_1(subscriber: &mut Subscriber, resumed: bool) {
        subscriber.connect(Version::V311, false, resumed);
    }

    fn ping(subscriber: &mut Subscriber) {
        subscriber.pinged();
        subscriber.ping_answered();
    }

    #[tokio::test]
    async fn a_resumed_session_of_3_1_1_is_asked_only_for_what_it_does_not_certainly_hold() {
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        let mut subscriber = Subscriber::default();
        subscriber.want(&filters(&[("a", 1), ("b", 1)]));
        on_3_1_1(&mut subscriber, false);
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1), (8, 2)]);
        grant(&mut subscriber, 1, granted);
        ping(&mut subscriber);
        grant(&mut subscriber, 2, granted);
        ping(&mut subscriber);
        assert_eq!(subscriber.held(), &Held::from([("a".into(), Some(1)), ("b".into(), None)]));
        on_3_1_1(&mut subscriber, true);
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1)], "b is not certain");
        grant(&mut subscriber, 1, granted);
        assert!(subscriber.is_complete());
        subscriber.want(&filters(&[("a", 2), ("b", 1)]));
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1)], "another quality is asked for");
        on_3_1_1(&mut subscriber, false);
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1), (8, 2)], "another session holds nothing");
    }

    #[tokio::test]
    async fn in_3_1_1_a_filter_makes_room_for_one_that_includes_it_when_that_is_granted() {
        let mut subscriber = Subscriber::default();
        subscriber.want(&filters(&[("a/b", 1)]));
        on_3_1_1(&mut subscriber, false);
        write(&mut subscriber, Instant::now());
        grant(&mut subscriber, 1, SubscribeReasonCode::Success(QoS::AtLeastOnce));
        subscriber.want(&filters(&[("a/b", 1), ("a/#", 1)]));
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1)]);
        grant(&mut subscriber, 1, SubscribeReasonCode::Failure);
        assert_eq!(write(&mut subscriber, Instant::now()), [], "a/b is held all the time");
        assert_eq!(subscriber.refusal(), Some(("a/#", "Failure")));
        assert_eq!(write(&mut subscriber, Instant::now() + ASK_AGAIN * 2), [(8, 1)]);
        grant(&mut subscriber, 1, SubscribeReasonCode::Success(QoS::AtLeastOnce));
        assert_eq!(write(&mut subscriber, Instant::now()), [(10, 1)]);
        assert!(subscriber.is_complete());
    }
}
