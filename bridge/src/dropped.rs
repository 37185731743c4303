//! What the broker itself drops: mosquitto says how many messages, in a topic of its own. It is not the bridge's
//! doing, and nobody else would tell of it.

use std::time::Duration;

use api::bridge_status::Side;
use tokio::time::Instant;

use crate::table::Subscription;

/// For so long it is told that messages were dropped.
const LATELY: Duration = Duration::from_secs(60);

/// The topic, and what it told.
#[derive(Debug)]
pub struct Dropped {
    topic: String,
    /// How many since the broker's start.
    total: Option<u64>,
    /// When more were told of, and how many.
    more: Option<(Instant, u64)>,
}

impl Dropped {
    /// Nothing has been told yet.
    pub fn new(topic: &str) -> Self {
        Self { topic: topic.into(), total: None, more: None }
    }

    /// What the broker is asked for.
    pub fn subscription() -> Subscription {
        // No filter of a route has the largest identifier but by chance, and then they only share their copies.
        Subscription { qos: 0, id: 268_435_455, undivided: true, own: false }
    }

    /// Takes note of what a message on this topic tells, if it is the topic: how many were dropped since the broker's
    /// start.
    pub fn take(&mut self, topic: &[u8], payload: &[u8], now: Instant) -> Option<u64> {
        if topic != self.topic.as_bytes() {
            return None;
        }
        let total = std::str::from_utf8(payload).ok()?.parse().ok()?;
        // A broker that was restarted counts from 0. Of what was before the bridge's own start, nobody knows when.
        let more = match self.total {
            Some(before) if total >= before => total - before,
            Some(_) => total,
            None => 0,
        };
        self.total = Some(total);
        if more > 0 {
            self.more = Some((now, more));
        }
        Some(total)
    }

    /// What is to be said of it, while it is news.
    pub fn report(&self, now: Instant) -> Option<Side> {
        let (_, more) = self.more.filter(|(since, _)| now - *since < LATELY)?;
        Some(Side {
            ready: true,
            reason: "BrokerDropped".into(),
            message: format!(
                "the broker has dropped {more} messages, since more wait for a client than it has room for: look which \
                 client is away or slow; broker.queue is the bound for each, in bytes"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "$SYS/broker/publish/messages/dropped";

    fn told(dropped: &mut Dropped, payload: &str, now: Instant) -> Option<String> {
        dropped.take(TOPIC.as_bytes(), payload.as_bytes(), now);
        dropped.report(now).map(|side| side.message[23..].chars().take_while(char::is_ascii_digit).collect())
    }

    #[tokio::test]
    async fn only_what_is_dropped_while_the_bridge_looks_is_told_of_and_for_a_minute() {
        let (mut dropped, now) = (Dropped::new(TOPIC), Instant::now());
        assert_eq!(told(&mut dropped, "7", now), None);
        assert_eq!(told(&mut dropped, "9", now), Some("2".into()));
        assert_eq!(told(&mut dropped, "9", now + LATELY), None);
        assert_eq!(told(&mut dropped, "5", now + LATELY), Some("5".into()), "the broker was restarted");
    }

    #[test]
    fn other_topics_and_what_is_no_number_tell_nothing() {
        let mut dropped = Dropped::new(TOPIC);
        assert_eq!(dropped.take(b"$SYS/broker/uptime", b"7", Instant::now()), None);
        assert_eq!(dropped.take(TOPIC.as_bytes(), b"many", Instant::now()), None);
        assert_eq!(dropped.take(TOPIC.as_bytes(), b"7", Instant::now()), Some(7));
    }
}
