//! How many messages may be unacknowledged. A broker of MQTT 5 was told when the bridge connected. One of 3.1.1
//! can't be, so the bridge stops reading when it has as many; no more could be remembered, were they delivered
//! again. Of QoS 2, those that have had their PUBREC are not counted there: what ends them has to be read.
//!
//! There is one thing to be read all the same: the answer to a dead letter, without which the message before it
//! is not acknowledged, comes behind whatever the broker had sent before. So while one is due, messages are read
//! and left with the broker, the first and all that follow, and come again by a new connection in the end. In MQTT 5
//! that happens when dead letters take too much memory.

use crate::ack::Acks;
use crate::dead::DeadLetters;
use crate::packet::Publish;
use crate::stamps::Stamps;
use crate::version::Version;

/// The room for messages that are unacknowledged.
#[derive(Debug)]
pub struct Room {
    messages: usize,
    version: Version,
    /// A message was left with the broker on this connection.
    left_behind: bool,
}

impl Room {
    /// Room for so many.
    pub fn new(messages: u16) -> Self {
        Self { messages: messages.into(), version: Version::V5, left_behind: false }
    }

    /// Room for another number.
    pub fn resize(&mut self, messages: u16) {
        self.messages = messages.into();
    }

    /// A new connection.
    pub fn connected(&mut self, version: Version) {
        (self.version, self.left_behind) = (version, false);
    }

    /// The connection has gone.
    pub fn disconnected(&mut self) {
        self.left_behind = false;
    }

    /// Whether a message was left with the broker, which has to come again.
    pub fn has_left_some(&self) -> bool {
        self.left_behind
    }

    /// Whether messages are to stay unread.
    pub fn is_full(&self, acks: &Acks, awaits_answer: bool) -> bool {
        !self.has_some(acks) && !awaits_answer && !self.left_behind
    }

    fn has_some(&self, acks: &Acks) -> bool {
        self.version == Version::V5 || acks.outstanding() < self.messages
    }

    /// Whether a message that was read is left with the broker, or is there already: some brokers send again on
    /// the same connection what is not acknowledged, which MQTT 5 forbids.
    pub fn leaves(&mut self, publish: &Publish<'_>, acks: &Acks, letters: &DeadLetters) -> bool {
        if publish.qos == 0 {
            return false;
        }
        if publish.dup && acks.awaits(publish.packet_id) {
            return true;
        }
        // Were one taken behind one that was left, their order would be lost, by which repetitions are known.
        self.left_behind |= letters.are_many() || !self.has_some(acks);
        self.left_behind
    }

    /// Whether the connection is to be made anew, so that what was left comes again: when there is room for it, and
    /// nothing that was taken on this one can be mistaken for it any more.
    pub fn wants_reconnect(&self, acks: &Acks, letters: &DeadLetters, stamps: &Stamps) -> bool {
        self.left_behind && !letters.are_many() && acks.have_ended() && stamps.is_settled()
    }
}
