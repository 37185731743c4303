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
    /// What the broker's session may hold, also from connections before. Changed by `held_mut` only.
    held: Held,
    /// Whether that may have changed since [`Self::held_if_changed`] was asked.
    held_changed: bool,
    granted: BTreeMap<String, Subscription>,
    refused: BTreeMap<String, Refused>,
    /// What was asked for and not answered; nothing, where its end was asked for meanwhile.
    subscribing: HashMap<u16, Option<(String, Subscription)>>,
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
        *self.held_mut() = held;
    }

    /// What the session may hold.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// The same, if it may have changed since this was asked last: to compare a thousand filters after each
    /// read costs more than the messages that were read.
    pub fn held_if_changed(&mut self) -> Option<&Held> {
        std::mem::take(&mut self.held_changed).then_some(&self.held)
    }

    fn held_mut(&mut self) -> &mut Held {
        self.held_changed = true;
        &mut self.held
    }

    /// A new connection: everything is asked for again, but in 3.1.1 for what its session certainly holds.
    pub fn connect(&mut self, version: Version, identifiers: bool, session_present: bool) {
        if !session_present {
            self.held_mut().clear();
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
                self.held_mut().insert(filter, Some(qos));
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
            .filter(|(filter, _)| !self.subscribing.values().flatten().any(|(asked, _)| asked == *filter))
            .filter(|(filter, _)| self.refused.get(*filter).is_none_or(|refused| refused.again <= now))
            .map(|(filter, subscription)| (filter.clone(), *subscription))
            .collect();
        for (filter, subscription) in missing {
            let packet_id = next_id(self);
            self.write_subscribe(packet_id, &filter, subscription, out);
            if self.held.get(&filter) != Some(&Some(subscription.qos)) {
                self.held_mut().insert(filter.clone(), None);
            }
            self.subscribing.insert(packet_id, Some((filter, subscription)));
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
            // The broker grants what was asked for before, and ends it then.
            for asked in self.subscribing.values_mut() {
                asked.take_if(|(asked, _)| *asked == filter);
            }
            self.unsubscribing.insert(packet_id, filter);
        }
    }

    /// The broker answered a subscription. True if it was ours.
    pub fn suback(&mut self, answer: &SubAck, now: Instant) -> bool {
        let Some(asked) = self.subscribing.remove(&answer.pkid) else { return false };
        let Some((filter, subscription)) = asked else { return true };
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
            self.held_mut().remove(&filter);
        }
        true
    }

    /// Whether all that is wanted is granted.
    pub fn is_complete(&self) -> bool {
        // Asked after each answer, and so a thousand times for a thousand filters.
        self.granted.len() >= self.wanted.len()
            && self.wanted.keys().all(|filter| self.granted.contains_key(filter))
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
mod tests;
