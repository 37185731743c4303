//! What happens in a run, drawn from its seed: the same seed draws the same plan.
//!
//! A fault's moment is a count of acknowledged messages, not a time: a run that is replayed on a slower
//! machine meets the same faults at the same messages, though not at the same packets.

use std::fmt;
use std::time::Duration;

use crate::fault_proxy::{End, Flow};

/// Messages of a run, beside those that bring the packet ids round.
const MESSAGES: u64 = 4_000;
/// Packet ids that there are.
const PACKET_IDS: u64 = 65_535;
/// One seed in so many is of a special kind, each kind at another remainder.
const SPECIAL: u64 = 16;

/// One side of the bridge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Side {
    /// Its connection to mosquitto.
    Broker,
    /// Its connections to InfluxDB.
    Database,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The bridge is killed by SIGKILL, and started again with what is on its volume.
    BridgeKilled,
    /// The bridge is told to end by SIGTERM, and started again.
    BridgeTerminated,
    /// Every connection of a side ends.
    Cut(Side, End),
    /// A side's connections stay open and carry less, or nothing, for a while; then they are healed, or cut.
    Ailing {
        /// Which side.
        side: Side,
        /// From the bridge.
        out: Flow,
        /// To the bridge.
        back: Flow,
        /// For how long.
        span: Duration,
        /// Cut in the end; otherwise healed.
        cut: bool,
    },
    /// Connections are reset, and new ones refused for a while.
    Refused(Side, Duration),
    /// InfluxDB stands still (SIGSTOP) for a while.
    DatabaseFrozen(Duration),
    /// InfluxDB is killed by SIGKILL, and started again with the same data after a while.
    DatabaseKilled(Duration),
    /// The broker is told to end by SIGTERM, and started again.
    BrokerRestarted,
    /// The broker is killed by SIGKILL, and started again with the same data.
    BrokerKilled,
    /// The bridge's configuration gets a route more, or has it no more. No fault, but a bad moment for others.
    RouteChanged,
}

/// A fault and its moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How many messages are acknowledged before.
    pub after: u64,
    /// Waits, besides, until the bridge stores again; otherwise it may strike while another lasts.
    pub waits: bool,
    /// What goes wrong.
    pub fault: Fault,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// The quality of service of publishers and subscriptions: 1 or 2.
    pub qos: u8,
    /// Messages of repeating content that are published before the first fault, so that packet ids
    /// come round, and old ones meet new messages that look like theirs.
    pub before: u64,
    /// Messages during which the faults happen.
    pub messages: u64,
    /// In the order of their moments.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let round = random.u64(500..3_500);
        let mut moments: Vec<u64> =
            (0..random.usize(3..=6)).map(|_| random.u64(MESSAGES / 20..MESSAGES * 9 / 10)).collect();
        moments.sort_unstable();
        let mut steps: Vec<Step> = moments
            .into_iter()
            .map(|after| Step { after, waits: random.bool(), fault: draw(&mut random) })
            .collect();
        // A database takes seconds to start, which is no test of the bridge: one in a plan.
        let mut databases = 0;
        for step in &mut steps {
            if let Fault::DatabaseKilled(span) = step.fault {
                databases += 1;
                step.fault = if databases > 1 { Fault::DatabaseFrozen(span) } else { step.fault };
            }
        }
        if seed % SPECIAL == 11 {
            // Longer than the bridge waits for a sign of life.
            let (side, span) = (Side::Broker, Duration::from_secs(7));
            let last = steps.last_mut().expect("at least three");
            last.fault = Fault::Ailing { side, out: Flow::Stops, back: Flow::Stops, span, cut: false };
        }
        if seed % SPECIAL == 5 {
            steps.extend(stopped_without_a_connection());
        }
        // One is added, and removed again.
        for _ in 0..2 {
            let after = random.u64(MESSAGES / 20..MESSAGES * 9 / 10);
            steps.push(Step { after, waits: random.bool(), fault: Fault::RouteChanged });
        }
        steps.sort_by_key(|step| step.after);
        Self {
            seed,
            qos: if seed % SPECIAL / 2 == 1 { 2 } else { 1 },
            before: if seed % SPECIAL == 7 { PACKET_IDS - round } else { 0 },
            messages: MESSAGES,
            steps,
        }
    }
}

/// The bridge is told to end when it has just lost its broker, and has something left to store: so the broker repeats
/// to a bridge that takes nothing any more.
fn stopped_without_a_connection() -> [Step; 3] {
    let (after, span) = (MESSAGES / 2, Duration::from_secs(1));
    let standstill =
        Fault::Ailing { side: Side::Database, out: Flow::Stops, back: Flow::Stops, span, cut: false };
    let step = |after, fault| Step { after, waits: false, fault };
    [
        step(after, standstill),
        step(after + 300, Fault::Cut(Side::Broker, End::Reset)),
        step(after + 300, Fault::BridgeTerminated),
    ]
}

fn draw(random: &mut fastrand::Rng) -> Fault {
    let side = if random.bool() { Side::Broker } else { Side::Database };
    let end = if random.bool() { End::Reset } else { End::Fin };
    let span = Duration::from_millis(random.u64(30..400));
    match random.u32(0..24) {
        0..5 => Fault::BridgeKilled,
        5..7 => Fault::BridgeTerminated,
        7..12 => Fault::Cut(side, end),
        12..16 => {
            let (out, back) = match random.u32(0..3) {
                0 => (Flow::Stops, Flow::Passes),
                1 => (Flow::Passes, Flow::Stops),
                _ => (Flow::Stops, Flow::Stops),
            };
            Fault::Ailing { side, out, back, span, cut: random.bool() }
        }
        16..18 => {
            let flow = Flow::Trickles(random.u32(5_000..50_000));
            Fault::Ailing { side, out: flow, back: flow, span, cut: random.bool() }
        }
        18 => Fault::Refused(side, span),
        19 => Fault::DatabaseFrozen(span),
        20 => Fault::DatabaseKilled(span),
        21 => Fault::BrokerRestarted,
        _ => Fault::BrokerKilled,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan of seed {}: QoS {}, {} messages, {} before them",
            self.seed, self.qos, self.messages, self.before
        )?;
        self.steps.iter().try_for_each(|step| {
            let when = if step.waits { "when it stores again" } else { "at once" };
            writeln!(f, "  after {:>5}, {when}: {:?}", step.after, step.fault)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_plan() {
        for seed in [0, 7, 11, u64::MAX] {
            assert_eq!(Plan::draw(seed), Plan::draw(seed));
        }
        assert_ne!(Plan::draw(1).steps, Plan::draw(2).steps);
    }

    #[test]
    fn twenty_seeds_bring_packet_ids_round_and_both_qualities_of_service() {
        for first in 0..SPECIAL {
            let plans: Vec<Plan> = (first..first + 20).map(Plan::draw).collect();
            assert!(plans.iter().any(|plan| plan.before + plan.messages > PACKET_IDS));
            assert!(plans.iter().any(|plan| plan.qos == 2) && plans.iter().any(|plan| plan.qos == 1));
            assert!(plans.iter().any(|plan| plan.steps.iter().any(|step| is_long(step.fault))));
            let ends = stopped_without_a_connection();
            assert!(plans.iter().any(|plan| ends.iter().all(|step| plan.steps.contains(step))));
        }
    }

    #[test]
    fn every_kind_of_fault_is_drawn_and_the_slow_ones_are_rare() {
        let plans: Vec<Plan> = (0..1_000).map(Plan::draw).collect();
        let all = plans.iter().flat_map(|plan| &plan.steps).map(|step| step.fault);
        let (changes, faults): (Vec<Fault>, Vec<Fault>) =
            all.partition(|fault| *fault == Fault::RouteChanged);
        assert_eq!(changes.len(), 2 * plans.len());
        let share = |is: fn(&Fault) -> bool| {
            faults.iter().filter(|fault| is(fault)).count() as f64 / faults.len() as f64
        };
        let ailing =
            |side| move |fault: &&Fault| matches!(fault, Fault::Ailing { side: s, .. } if *s == side);
        for side in [Side::Broker, Side::Database] {
            assert!(faults.iter().any(|fault| matches!(fault, Fault::Cut(s, End::Reset) if *s == side)));
            assert!(faults.iter().any(|fault| matches!(fault, Fault::Cut(s, End::Fin) if *s == side)));
            assert!(faults.iter().any(|fault| matches!(fault, Fault::Refused(s, _) if *s == side)));
            assert!(faults.iter().filter(ailing(side)).count() > 100);
        }
        assert!(share(|fault| matches!(fault, Fault::BridgeKilled)) > 0.15);
        assert!(share(|fault| matches!(fault, Fault::BridgeTerminated)) > 0.05);
        assert!(share(|fault| matches!(fault, Fault::DatabaseFrozen(_))) > 0.02);
        assert!(share(|fault| matches!(fault, Fault::DatabaseKilled(_))) < 0.06);
        assert!(share(|fault| matches!(fault, Fault::BrokerRestarted)) > 0.02);
        assert!(share(|fault| matches!(fault, Fault::BrokerKilled)) > 0.05);
        assert!(share(|fault| is_long(*fault)) < 0.02);
    }

    fn is_long(fault: Fault) -> bool {
        matches!(fault, Fault::Ailing { span, .. } if span > Duration::from_secs(1))
    }
}
