//! What messages become that hang together.

mod properties;
mod witness;

use api::route::Route;
use prost::Message as _;

use self::witness::{TheirMetric, TheirPayload, TheirValue};
use super::*;
use crate::memory::Memory;
use crate::properties::Properties;
use crate::route::Levels;
use crate::table::{Message, Table, Written};

/// A route with its memory.
struct Chain {
    table: Table,
    memory: Memory,
    values: Values,
    stamp: i64,
}

impl Chain {
    fn new() -> Self {
        let routes: Vec<Route> = serde_saphyr::from_str(
            "[{name: r, topic: 'spBv1.0/{group}/+/{node}/{device...}', payload: {sparkplug: {}}}]",
        )
        .expect("a route");
        let table = Table::new(&routes).expect("it compiles");
        Self { table, memory: Memory::default(), values: Values::default(), stamp: 0 }
    }

    fn take(&mut self, kind: &str, payload: &TheirPayload) -> String {
        self.stamp += 1_000;
        self.take_at(kind, payload, self.stamp, false)
    }

    /// What becomes of a message: lines, or the reason why not. `kind` is as in a topic, with what follows it.
    fn take_at(&mut self, kind: &str, payload: &TheirPayload, stamp: i64, repeated: bool) -> String {
        let topic = format!("spBv1.0/g/{kind}");
        let (mut levels, mut out) = (Levels::default(), Vec::new());
        assert!(levels.split(&topic));
        let payload = payload.encode_to_vec();
        let properties = Properties::default();
        let message =
            Message { topic: &topic, levels: &levels, payload: &payload, properties, retained: false };
        self.memory.births.begin(repeated);
        let memory = Some(&mut self.memory);
        match self.table.routes()[0].write_points(message, stamp, &mut self.values, memory, &mut out) {
            Ok(Written::Points { .. }) => String::from_utf8(out).expect("text").trim_end().into(),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    fn wants_birth(&self) -> bool {
        self.memory.births.wants_birth()
    }
}

fn payload(seq: u64, metrics: Vec<TheirMetric>) -> TheirPayload {
    TheirPayload { timestamp: Some(1), metrics, seq: Some(seq), ..TheirPayload::default() }
}

/// A metric of type Int32.
fn named(name: &str, alias: u64, value: u32) -> TheirMetric {
    TheirMetric { name: Some(name.into()), datatype: Some(3), ..aliased(alias, value) }
}

fn aliased(alias: u64, value: u32) -> TheirMetric {
    TheirMetric { alias: Some(alias), value: Some(TheirValue::Int(value)), ..TheirMetric::default() }
}

fn session_metric(number: u64) -> TheirMetric {
    TheirMetric {
        datatype: Some(8),
        value: Some(TheirValue::Long(number)),
        name: Some("bdSeq".into()),
        ..TheirMetric::default()
    }
}

const AT: &str = " 1000000";

fn node_birth(session: u64, metrics: Vec<TheirMetric>) -> TheirPayload {
    payload(0, [vec![session_metric(session)], metrics].concat())
}

#[test]
fn a_death_counts_for_the_session_that_was_born_last_and_takes_the_devices_along() {
    let mut chain = Chain::new();
    chain.take("NBIRTH/n", &node_birth(4, vec![]));
    chain.take("DBIRTH/n/b", &payload(1, vec![]));
    chain.take("DBIRTH/n/a", &payload(2, vec![]));
    chain.take("DBIRTH/n/gone", &payload(3, vec![]));
    chain.take("DDEATH/n/gone", &payload(4, vec![]));
    let will = |session| TheirPayload { metrics: vec![session_metric(session)], ..TheirPayload::default() };
    assert_eq!(chain.take("NDEATH/n", &will(3)), "Ignored(StaleDeath)");
    let dead = "r,group=g,node=n online=false 7000\nr,device=a,group=g,node=n online=false 7000\n\
                r,device=b,group=g,node=n online=false 7000";
    assert_eq!(chain.take("NDEATH/n", &will(4)), dead);
    assert_eq!(chain.take_at("NDEATH/n", &will(4), 7_000, true), dead, "delivered again");
    assert_eq!(
        chain.take("NDEATH/n", &will(4)),
        "r,group=g,node=n online=false 8000",
        "they are dead already"
    );
    chain.take("NDATA/n", &payload(5, vec![]));
    assert!(chain.wants_birth());
}

#[test]
fn what_is_delivered_again_is_read_by_the_birth_of_its_time() {
    let mut chain = Chain::new();
    let first = node_birth(1, vec![named("a", 1, 0)]);
    let second = node_birth(1, vec![named("b", 1, 0)]);
    chain.take("NBIRTH/n", &first);
    let data = payload(1, vec![aliased(1, 7)]);
    let before = chain.take("NDATA/n", &data);
    assert_eq!(before, format!("r,group=g,node=n a=7i{AT}"));
    chain.take("NBIRTH/n", &second);
    assert_eq!(chain.take_at("NDATA/n", &data, 2_000, true), before);
    assert!(!chain.wants_birth(), "nothing was missed");
    // The birth itself comes again, too, and changes nothing.
    chain.take_at("NBIRTH/n", &first, 1_000, true);
    assert_eq!(chain.take("NDATA/n", &data), format!("r,group=g,node=n b=7i{AT}"));
    assert!(!chain.wants_birth());
}

#[test]
fn a_birth_is_learnt_though_it_was_delivered_before_the_restart() {
    let mut chain = Chain::new();
    chain.take_at("NBIRTH/n", &node_birth(1, vec![named("a", 1, 0)]), 5_000, true);
    assert_eq!(
        chain.take_at("NDATA/n", &payload(1, vec![aliased(1, 7)]), 6_000, true),
        format!("r,group=g,node=n a=7i{AT}")
    );
    assert_eq!(
        chain.take_at("DBIRTH/n/d", &payload(2, vec![named("b", 2, 0)]), 7_000, true),
        format!("r,device=d,group=g,node=n b=0i,online=true{AT}")
    );
    assert_eq!(
        chain.take_at("DDATA/n/d", &payload(3, vec![aliased(2, 1)]), 8_000, true),
        format!("r,device=d,group=g,node=n b=1i{AT}")
    );
    chain.take_at("DDEATH/n/d", &payload(4, vec![]), 9_000, true);
    assert!(
        chain.take_at("DDATA/n/d", &payload(5, vec![aliased(2, 1)]), 10_000, true).contains("the alias 2")
    );
}

#[test]
fn a_number_that_skips_asks_for_a_birth_and_what_is_known_goes_on_to_hold() {
    let mut chain = Chain::new();
    chain.take("NBIRTH/n", &payload(254, vec![named("a", 1, 0)]));
    for (seq, skips) in [(255, false), (0, false), (0, false), (1, false), (3, true), (4, false)] {
        let stored = chain.take("NDATA/n", &payload(seq, vec![aliased(1, 7)]));
        assert_eq!((stored, chain.wants_birth()), (format!("r,group=g,node=n a=7i{AT}"), skips), "{seq}");
    }
}

/// Between two connections a node may have been born again, with its aliases in another order.
#[test]
fn after_a_reconnect_aliases_hold_only_if_no_number_was_missed() {
    for (seq, holds) in [(1, true), (9, false)] {
        let mut chain = Chain::new();
        chain.take("NBIRTH/n", &payload(0, vec![named("a", 1, 0)]));
        chain.memory.births.disconnected();
        let stored = chain.take("NDATA/n", &payload(seq, vec![aliased(1, 7)]));
        assert_eq!((stored.starts_with("r,"), chain.wants_birth()), (holds, !holds), "{stored}");
        let stored = chain.take("NDATA/n", &payload(seq + 1, vec![aliased(1, 7)]));
        assert_eq!((stored.starts_with("r,"), chain.wants_birth()), (holds, !holds), "{stored}");
    }
}

#[test]
fn a_node_s_birth_ends_what_its_devices_have_told() {
    let mut chain = Chain::new();
    chain.take("NBIRTH/n", &payload(0, vec![]));
    chain.take("DBIRTH/n/d", &payload(1, vec![named("a", 1, 0)]));
    chain.take("NBIRTH/n", &payload(0, vec![]));
    assert!(chain.take("DDATA/n/d", &payload(1, vec![aliased(1, 7)])).contains("no birth has told"));
    assert!(chain.wants_birth());
}

#[test]
fn a_birth_that_cannot_be_read_ends_what_was_known() {
    let mut chain = Chain::new();
    chain.take("NBIRTH/n", &payload(0, vec![named("a", 1, 0)]));
    let refused = chain.take("NBIRTH/n", &payload(0, vec![aliased(1, 0)]));
    assert_eq!(refused, "a metric has no name, which a birth must give");
    assert!(chain.take("NDATA/n", &payload(1, vec![aliased(1, 7)])).contains("the alias 1"));
}

#[test]
fn an_alias_that_stands_for_two_metrics_stands_for_none() {
    let mut chain = Chain::new();
    chain.take("NBIRTH/n", &payload(0, vec![named("a", 1, 0), named("b", 1, 0), named("c", 2, 0)]));
    assert!(chain.take("NDATA/n", &payload(1, vec![aliased(1, 7)])).contains("the alias 1"));
    assert_eq!(chain.take("NDATA/n", &payload(2, vec![aliased(2, 7)])), format!("r,group=g,node=n c=7i{AT}"));
}

#[test]
fn births_beyond_the_bound_are_stored_and_not_remembered() {
    let mut chain = Chain::new();
    let many = |from: u64| (from..from + 80_000).map(|alias| named(&format!("m{alias}"), alias, 0)).collect();
    for node in ["one", "two"] {
        assert!(chain.take(&format!("NBIRTH/{node}"), &payload(0, many(0))).starts_with("r,"));
    }
    assert!(chain.take("NBIRTH/three", &payload(0, many(0))).starts_with("r,"));
    let refused = chain.take("NDATA/three", &payload(1, vec![aliased(1, 0)]));
    assert!(refused.contains("a route knows at most 200000 metrics"), "{refused}");
    assert!(!chain.wants_birth(), "another birth would not help");
    // The dead make room.
    chain.take("NDEATH/one", &TheirPayload::default());
    chain.take("NBIRTH/three", &payload(0, many(0)));
    assert!(chain.take("NDATA/three", &payload(1, vec![aliased(1, 0)])).starts_with("r,"));
}

#[test]
fn nodes_beyond_the_bound_are_not_remembered() {
    let mut chain = Chain::new();
    for node in 0..MAX_ENTRIES + 3 {
        chain.take(&format!("NBIRTH/{node}"), &payload(0, vec![named("a", 1, 0)]));
    }
    let last = MAX_ENTRIES + 2;
    assert!(chain.take(&format!("NDATA/{last}"), &payload(1, vec![aliased(1, 0)])).contains("the alias 1"));
    assert!(chain.take("NDATA/0", &payload(1, vec![aliased(1, 0)])).starts_with("r,"));
    chain.take("NDEATH/0", &TheirPayload::default());
    chain.take(&format!("NBIRTH/{last}"), &payload(0, vec![named("a", 1, 0)]));
    assert!(chain.take(&format!("NDATA/{last}"), &payload(1, vec![aliased(1, 0)])).starts_with("r,"));
}

/// A few bytes of payload can't make gigabytes of lines.
#[test]
fn short_aliases_of_long_names_are_bounded() {
    let mut chain = Chain::new();
    chain.take("NBIRTH/n", &payload(0, vec![named(&"x".repeat(60_000), 1, 0)]));
    let metrics = (0..1_000).map(|time| TheirMetric { timestamp: Some(time), ..aliased(1, 0) }).collect();
    assert!(chain.take("NDATA/n", &payload(1, metrics)).contains("send several messages"));
}

#[test]
fn a_topic_of_another_shape_is_refused() {
    let mut chain = Chain::new();
    for kind in ["NDATA/n/d", "DDATA/n", "DDATA/n/d/e", "DDATA/n/", "FOO/n", "NDATA/"] {
        assert!(
            chain.take(kind, &payload(0, vec![])).starts_with("the topic is none of Sparkplug's"),
            "{kind}"
        );
    }
}
