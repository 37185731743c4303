//! Keeps the broker's subscriptions as the routes want them: sends only the difference, and checks
//! each answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, RetainForwardRule, SubAck, Subscribe, SubscribeProperties, SubscribeReasonCode, UnsubAck,
    Unsubscribe,
};
use tokio::time::Instant;

use crate::table::Subscription;

/// A filter that the broker refused is asked for again after this long: rights may have changed.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What is wanted, asked and granted on this connection.
#[derive(Debug, Default)]
pub struct Subscriber {
    wanted: BTreeMap<String, Subscription>,
    /// What the broker's session may hold, also from connections before.
    held: BTreeSet<String>,
    granted: BTreeMap<String, Subscription>,
    refused: BTreeMap<String, Refused>,
    subscribing: HashMap<u16, (String, Subscription)>,
    unsubscribing: HashMap<u16, String>,
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
    pub fn remember(&mut self, held: BTreeSet<String>) {
        self.held = held;
    }

    /// What the session may hold.
    pub fn held(&self) -> &BTreeSet<String> {
        &self.held
    }

    /// A new connection: everything is asked for again.
    pub fn connect(&mut self, identifiers: bool, session_present: bool) {
        if !session_present {
            self.held.clear();
        }
        self.identifiers = identifiers;
        self.disconnect();
    }

    /// The connection has gone, and the answers with it.
    pub fn disconnect(&mut self) {
        self.granted.clear();
        self.refused.clear();
        self.subscribing.clear();
        self.unsubscribing.clear();
        self.changed = true;
    }

    /// What the routes want from now on.
    pub fn want(&mut self, filters: &BTreeMap<String, Subscription>) {
        self.wanted.clone_from(filters);
        self.refused.retain(|filter, _| filters.contains_key(filter));
        self.changed = true;
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
        self.changed = false;
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
            write_subscribe(packet_id, &filter, subscription, self.identifiers, out);
            self.held.insert(filter.clone());
            self.subscribing.insert(packet_id, (filter, subscription));
        }
        let is_obsolete = |filter: &&String| {
            !self.wanted.contains_key(*filter) && !self.unsubscribing.values().any(|asked| asked == *filter)
        };
        let obsolete: Vec<_> = self.held.iter().filter(is_obsolete).cloned().collect();
        for filter in obsolete {
            let packet_id = next_id(self);
            let mut unsubscribe = Unsubscribe::new(filter.clone(), None);
            unsubscribe.pkid = packet_id;
            unsubscribe.write(out).expect("a filter fits into a packet");
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
                self.granted.insert(filter, subscription);
                // What is wanted may have changed while the broker answered.
                self.changed = true;
            }
            code => {
                let reason = code.map_or("no reason given".into(), |code| format!("{code:?}"));
                self.refused.insert(filter, Refused { reason, again: now + ASK_AGAIN });
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
}

fn write_subscribe(packet_id: u16, filter: &str, subscription: Subscription, id: bool, out: &mut BytesMut) {
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
    let mut subscribe = Subscribe::new(wanted, properties);
    subscribe.pkid = packet_id;
    subscribe.write(out).expect("a filter fits into a packet");
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
        subscriber.connect(true, false);
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
        subscriber.remember(BTreeSet::from(["old".to_owned()]));
        subscriber.want(&filters(&[("a", 1)]));
        subscriber.connect(true, true);
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1), (10, 2)]);
        let answer = UnsubAck { pkid: 2, reasons: Vec::new(), properties: None };
        assert!(subscriber.unsuback(&answer));
        assert_eq!(subscriber.held(), &BTreeSet::from(["a".to_owned()]));
        subscriber.connect(true, false);
        assert!(subscriber.held().is_empty());
    }

    #[tokio::test]
    async fn a_refused_filter_is_asked_for_again_later() {
        let mut subscriber = Subscriber::default();
        subscriber.connect(true, false);
        subscriber.want(&filters(&[("a", 1)]));
        write(&mut subscriber, Instant::now());
        grant(&mut subscriber, 1, SubscribeReasonCode::NotAuthorized);
        assert_eq!(subscriber.refusal(), Some(("a", "NotAuthorized")));
        assert_eq!(write(&mut subscriber, Instant::now()), []);
        assert_eq!(write(&mut subscriber, Instant::now() + ASK_AGAIN * 2), [(8, 1)]);
    }
}
