//! Which messages may be acknowledged: in the order of receipt, each after all of its parts ended.
//!
//! A part is a point to store or a dead letter to publish. A message is known by a sequence number
//! that is never used again, so what ends after its connection has gone acknowledges nothing: the
//! broker redelivers, and the acknowledgement of one connection can't hit a message of the next.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

/// Names one received message of QoS 1 or 2 in this process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Sequence(u64);

impl Sequence {
    /// For a message of QoS 0: nothing to acknowledge.
    pub const NONE: Self = Self(u64::MAX);
}

/// The messages of this connection that are not acknowledged yet.
#[derive(Debug, Default)]
pub struct Acks {
    /// The sequence number of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    /// Those of QoS 2 that wait for their last step: packet id and position.
    releasing: VecDeque<(u16, u64)>,
    /// The position of the last one that was answered.
    answered: Option<u64>,
}

#[derive(Debug)]
struct Slot {
    packet_id: u16,
    exactly_once: bool,
    parts: u32,
    position: u64,
}

impl Acks {
    /// The sequence number that the next received message gets.
    pub fn next(&self) -> Sequence {
        Sequence(self.first + self.slots.len() as u64)
    }

    /// Takes note of a received message, which has this position in the memory of stamps; it may be
    /// acknowledged once `parts` have ended.
    pub fn receive(&mut self, packet_id: u16, exactly_once: bool, parts: u32, position: u64) -> Sequence {
        let sequence = self.next();
        self.slots.push_back(Slot { packet_id, exactly_once, parts, position });
        sequence
    }

    /// One part of a message ended well. Nothing happens if its connection has gone.
    pub fn complete(&mut self, sequence: Sequence) {
        let slot = sequence.0.checked_sub(self.first).and_then(|place| self.slots.get_mut(place as usize));
        if let Some(slot) = slot {
            slot.parts = slot.parts.saturating_sub(1);
        }
    }

    /// Appends the packets that acknowledge all messages whose turn it is.
    pub fn write(&mut self, out: &mut BytesMut) {
        const PUBACK: u8 = 0x40;
        const PUBREC: u8 = 0x50;
        while self.slots.front().is_some_and(|slot| slot.parts == 0)
            && let Some(slot) = self.slots.pop_front()
        {
            self.first += 1;
            let [high, low] = slot.packet_id.to_be_bytes();
            let answer = if slot.exactly_once { PUBREC } else { PUBACK };
            out.put_slice(&[answer, 2, high, low]);
            if slot.exactly_once {
                self.releasing.push_back((slot.packet_id, slot.position));
            }
            self.answered = Some(slot.position);
        }
    }

    /// The position in the memory of stamps of the last message that has had its last answer, and all before it.
    pub fn ended(&self) -> Option<u64> {
        match self.releasing.front() {
            None => self.answered,
            Some((_, position)) => position.checked_sub(1),
        }
    }

    /// The broker gives a packet id of QoS 2 free: appends PUBCOMP, whichever id it is. Returns whether its message came by
    /// this connection.
    pub fn release(&mut self, packet_id: u16, out: &mut BytesMut) -> bool {
        const PUBCOMP: u8 = 0x70;
        let [high, low] = packet_id.to_be_bytes();
        out.put_slice(&[PUBCOMP, 2, high, low]);
        let place = self.releasing.iter().position(|(releasing, _)| *releasing == packet_id);
        place.and_then(|place| self.releasing.remove(place)).is_some()
    }

    /// The connection has gone: what was received over it can't be acknowledged any more.
    pub fn disconnect(&mut self) {
        self.first += self.slots.len() as u64;
        self.slots.clear();
        self.releasing.clear();
        self.answered = None;
    }

    /// Whether a message of this packet id was received and has not had its last answer yet.
    pub fn awaits(&self, packet_id: u16) -> bool {
        self.slots.iter().any(|slot| slot.packet_id == packet_id)
            || self.releasing.iter().any(|(releasing, _)| *releasing == packet_id)
    }

    /// How many messages are not acknowledged yet.
    pub fn outstanding(&self) -> usize {
        self.slots.len()
    }

    /// Whether each message has had its last answer.
    pub fn have_ended(&self) -> bool {
        self.slots.is_empty() && self.releasing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(acks: &mut Acks) -> Vec<u8> {
        let mut out = BytesMut::new();
        acks.write(&mut out);
        out.into()
    }

    #[test]
    fn acknowledgements_keep_the_order_of_receipt() {
        let mut acks = Acks::default();
        let one = acks.receive(7, false, 1, 0);
        let two = acks.receive(8, false, 1, 0);
        acks.complete(two);
        assert!(written(&mut acks).is_empty());
        acks.complete(one);
        assert_eq!(written(&mut acks), [0x40, 2, 0, 7, 0x40, 2, 0, 8]);
        assert_eq!(acks.outstanding(), 0);
    }

    #[test]
    fn a_message_waits_for_all_of_its_parts() {
        let mut acks = Acks::default();
        let message = acks.receive(1, false, 2, 0);
        acks.complete(message);
        assert!(written(&mut acks).is_empty());
        acks.complete(message);
        assert_eq!(written(&mut acks), [0x40, 2, 0, 1]);
    }

    #[test]
    fn a_message_without_parts_is_acknowledged_in_its_turn() {
        let mut acks = Acks::default();
        acks.receive(300, false, 0, 0);
        assert_eq!(written(&mut acks), [0x40, 2, 1, 44]);
    }

    #[test]
    fn what_ends_after_its_connection_acknowledges_nothing() {
        let mut acks = Acks::default();
        let old = acks.receive(1, false, 1, 0);
        acks.disconnect();
        let new = acks.receive(1, false, 1, 0);
        acks.complete(old);
        assert!(written(&mut acks).is_empty());
        acks.complete(new);
        assert_eq!(written(&mut acks), [0x40, 2, 0, 1]);
    }

    #[test]
    fn a_qos_2_message_is_answered_in_two_steps() {
        let mut acks = Acks::default();
        let message = acks.receive(5, true, 1, 0);
        acks.complete(message);
        assert_eq!(written(&mut acks), [0x50, 2, 0, 5]);
        assert!(acks.outstanding() == 0 && !acks.have_ended());
        let mut out = BytesMut::new();
        assert!(acks.release(5, &mut out) && acks.have_ended());
        assert!(!acks.release(5, &mut out), "it came by another connection");
        assert_eq!(out[..], [0x70, 2, 0, 5, 0x70, 2, 0, 5]);
    }

    #[test]
    fn the_position_is_told_up_to_which_all_have_had_their_last_answer() {
        let mut acks = Acks::default();
        assert_eq!(acks.ended(), None);
        acks.receive(1, false, 0, 40);
        acks.receive(2, true, 0, 41);
        acks.receive(3, true, 0, 42);
        acks.receive(4, false, 0, 43);
        let blocked = acks.receive(5, false, 1, 44);
        written(&mut acks);
        assert_eq!(acks.ended(), Some(40));
        acks.release(3, &mut BytesMut::new());
        assert_eq!(acks.ended(), Some(40));
        acks.release(2, &mut BytesMut::new());
        assert_eq!(acks.ended(), Some(43));
        acks.complete(blocked);
        written(&mut acks);
        assert_eq!(acks.ended(), Some(44));
        acks.disconnect();
        assert_eq!(acks.ended(), None);
    }

    proptest! {
        /// Against a model: the list of messages that this connection brought, of QoS 1 or 2, with what is left
        /// of each. Those of QoS 2 have their turn among the others, by another answer.
        #[test]
        fn only_a_prefix_of_ended_messages_is_acknowledged(
            steps in prop::collection::vec((0..4_u8, 0..12_usize, any::<bool>()), 0..80),
        ) {
            let mut acks = Acks::default();
            let mut ever: Vec<Sequence> = Vec::new();
            let mut model: Vec<(Sequence, [u8; 4], u32)> = Vec::new();
            let mut releasing: Vec<[u8; 2]> = Vec::new();
            for (step, number, exactly_once) in steps {
                let [high, low] = (ever.len() as u16 + 1).to_be_bytes();
                match step {
                    0 | 1 => {
                        let (packet_id, parts) = (ever.len() as u16 + 1, number as u32 % 3);
                        let sequence = acks.receive(packet_id, exactly_once, parts, 0);
                        ever.push(sequence);
                        model.push((sequence, [if exactly_once { 0x50 } else { 0x40 }, 2, high, low], parts));
                    }
                    2 if !ever.is_empty() => {
                        let sequence = ever[number % ever.len()];
                        acks.complete(sequence);
                        for message in model.iter_mut().filter(|message| message.0 == sequence) {
                            message.2 = message.2.saturating_sub(1);
                        }
                    }
                    3 if number == 0 => {
                        acks.disconnect();
                        model.clear();
                        releasing.clear();
                    }
                    3 if number == 1 && !releasing.is_empty() => {
                        let id = releasing.remove(0);
                        prop_assert!(acks.release(u16::from_be_bytes(id), &mut BytesMut::new()));
                    }
                    _ => {
                        let ended = model.iter().take_while(|message| message.2 == 0).count();
                        let expected: Vec<u8> = model.drain(..ended).flat_map(|(_, answer, _)| answer).collect();
                        let begun = expected.chunks(4).filter(|answer| answer[0] == 0x50);
                        releasing.extend(begun.map(|answer| [answer[2], answer[3]]));
                        prop_assert_eq!(written(&mut acks), expected);
                    }
                }
                prop_assert_eq!(acks.outstanding(), model.len());
                prop_assert_eq!(acks.have_ended(), model.is_empty() && releasing.is_empty());
                let awaited = |id: u16| {
                    let id = id.to_be_bytes();
                    model.iter().any(|message| message.1[2..] == id) || releasing.contains(&id)
                };
                prop_assert!((0..=ever.len() as u16).all(|id| acks.awaits(id) == awaited(id)));
            }
        }
    }
}
