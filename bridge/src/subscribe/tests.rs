//! What is sent, and what is remembered.

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
async fn a_filter_that_is_wanted_again_is_asked_for_again_though_the_first_answer_came_late() {
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    for is_answered_before in [true, false] {
        let mut subscriber = Subscriber::default();
        subscriber.connect(Version::V5, true, false);
        subscriber.want(&filters(&[("a", 1)]));
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, 1)]);
        subscriber.want(&filters(&[]));
        assert_eq!(write(&mut subscriber, Instant::now()), [(10, 2)]);
        if is_answered_before {
            grant(&mut subscriber, 1, granted);
        }
        subscriber.want(&filters(&[("a", 1)]));
        let again = if is_answered_before { 1 } else { 3 };
        assert_eq!(write(&mut subscriber, Instant::now()), [(8, again)]);
        if !is_answered_before {
            grant(&mut subscriber, 1, granted);
        }
        assert!(subscriber.unsuback(&UnsubAck { pkid: 2, reasons: Vec::new(), properties: None }));
        assert!(!subscriber.is_complete(), "what was granted has ended since");
        grant(&mut subscriber, again, granted);
        assert!(subscriber.is_complete());
    }
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
async fn what_the_session_may_hold_is_told_after_each_change_and_only_then() {
    let told = |subscriber: &mut Subscriber| subscriber.held_if_changed().cloned();
    let mut subscriber = Subscriber::default();
    subscriber.remember(Held::from([("b".into(), None)]));
    assert_eq!(told(&mut subscriber), Some(Held::from([("b".into(), None)])));
    subscriber.want(&filters(&[("a", 1)]));
    subscriber.connect(Version::V5, true, false);
    assert_eq!(told(&mut subscriber), Some(Held::new()));
    write(&mut subscriber, Instant::now());
    assert_eq!(told(&mut subscriber), Some(Held::from([("a".into(), None)])));
    grant(&mut subscriber, 1, SubscribeReasonCode::Success(QoS::AtLeastOnce));
    ping(&mut subscriber);
    assert_eq!(told(&mut subscriber), None);
    ping(&mut subscriber);
    assert_eq!(told(&mut subscriber), Some(Held::from([("a".into(), Some(1))])));
    subscriber.want(&filters(&[]));
    write(&mut subscriber, Instant::now());
    assert!(subscriber.unsuback(&UnsubAck { pkid: 1, reasons: Vec::new(), properties: None }));
    assert_eq!(told(&mut subscriber), Some(Held::new()));
    assert_eq!(told(&mut subscriber), None);
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
