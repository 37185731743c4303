//! Leaving the bridges that share the load, without leaving a message behind.
//!
//! A broker does not pass on what it queued for one member of a shared subscription to another, so who
//! leaves ends its subscriptions first, then takes what is still held for it. It has all of that when the
//! broker answers a ping that was sent after the last acknowledgement, and has sent no message before the
//! answer: an acknowledgement makes room for what is queued, and a broker answers in order.

use std::collections::VecDeque;

/// So many quiet pings in a row, in case a broker looks at its queue a moment after an acknowledgement.
const QUIET_PINGS: u32 = 2;

/// How far the leaving is.
#[derive(Debug, Default)]
pub struct Leave {
    /// Of each ping on its way: whether it is quiet so far.
    pings: VecDeque<bool>,
    quiet: u32,
}

impl Leave {
    /// A ping goes out; whether no subscription is left and nothing waits to be acknowledged.
    pub fn pinged(&mut self, nothing_waits: bool) {
        self.pings.push_back(nothing_waits);
    }

    /// A message was received, or the last step of one of QoS 2: the answer to that makes room, too.
    pub fn heard(&mut self) {
        self.pings.iter_mut().for_each(|quiet| *quiet = false);
        self.quiet = 0;
    }

    /// A ping was answered.
    pub fn ping_answered(&mut self) {
        self.quiet = if self.pings.pop_front() == Some(true) { self.quiet + 1 } else { 0 };
    }

    /// The connection has gone, and the answers with it.
    pub fn disconnected(&mut self) {
        *self = Self::default();
    }

    /// Whether a ping would be of use, and none is on its way.
    pub fn wants_ping(&self) -> bool {
        self.pings.is_empty() && !self.is_over()
    }

    /// Whether nothing is held for this bridge any more.
    pub fn is_over(&self) -> bool {
        self.quiet >= QUIET_PINGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(leave: &mut Leave, nothing_waits: bool) {
        leave.pinged(nothing_waits);
        leave.ping_answered();
    }

    #[test]
    fn it_is_over_after_two_quiet_pings_in_a_row() {
        let mut leave = Leave::default();
        ping(&mut leave, true);
        assert!(leave.wants_ping());
        ping(&mut leave, false);
        ping(&mut leave, true);
        assert!(!leave.is_over());
        ping(&mut leave, true);
        assert!(leave.is_over() && !leave.wants_ping());
    }

    #[test]
    fn a_message_or_a_lost_connection_begins_the_count_anew() {
        let mut leave = Leave::default();
        ping(&mut leave, true);
        leave.pinged(true);
        assert!(!leave.wants_ping(), "one is on its way");
        leave.heard();
        leave.ping_answered();
        ping(&mut leave, true);
        assert!(!leave.is_over());
        leave.disconnected();
        ping(&mut leave, true);
        assert!(!leave.is_over());
    }
}
