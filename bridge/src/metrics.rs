//! What the bridge counts, for Prometheus. Labels are bounded: routes, sides, and reasons from fixed lists.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// By route.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct RouteLabel {
    /// The route's name.
    pub route: String,
}

/// By reason.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ReasonLabel {
    /// One word of a fixed list.
    pub reason: &'static str,
}

/// By side of the bridge.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct SideLabel {
    /// Which.
    pub side: SideName,
}

/// The sides of the bridge.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SideName {
    /// Where messages come from.
    Broker,
    /// Where points go.
    Database,
}

impl std::fmt::Display for SideName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Broker => "broker",
            Self::Database => "database",
        })
    }
}

impl EncodeLabelValue for SideName {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        write!(encoder, "{self}")
    }
}

/// All that is counted. Each is described where it is registered.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Metrics {
    registry: Registry,
    pub messages_received: Counter,
    pub messages_repeated: Counter,
    pub bytes_received: Counter,
    pub messages_unrouted: Counter,
    pub messages_dropped: Family<ReasonLabel, Counter>,
    pub broker_messages_dropped: Gauge,
    pub messages_acknowledged: Counter,
    pub messages_in_flight: Gauge,
    pub canary_seconds: Gauge<f64, AtomicU64>,
    pub points_stored: Family<RouteLabel, Counter>,
    pub dead_letters: Family<RouteLabel, Counter>,
    pub dead_letters_dropped: Family<RouteLabel, Counter>,
    pub series: Family<RouteLabel, Gauge>,
    pub series_overflows: Family<RouteLabel, Counter>,
    pub sparkplug_metrics_left_out: Family<ReasonLabel, Counter>,
    pub sparkplug_rebirths_requested: Counter,
    pub writes: Family<ReasonLabel, Counter>,
    pub write_bytes: Counter,
    pub write_duration: Option<Histogram>,
    pub batch_points: Option<Histogram>,
    pub connections: Counter,
    pub disconnections: Counter,
    pub config_changes: Family<ReasonLabel, Counter>,
    pub ready: Family<SideLabel, Gauge>,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> Self {
        let mut metrics = Self {
            write_duration: Some(Histogram::new(buckets(0.001, 2.0, 15))),
            batch_points: Some(Histogram::new(buckets(1.0, 4.0, 8))),
            ..Self::default()
        };
        let mut registry = Registry::with_prefix("iotpipeline_bridge");
        macro_rules! register {
            ($($field:ident: $help:literal,)*) => {
                $(registry.register(stringify!($field), $help, metrics.$field.clone());)*
            };
        }
        register! {
            messages_received: "Messages that the broker delivered, copies included",
            messages_repeated: "Messages that the broker delivered again; stored under the time that they had",
            bytes_received: "Bytes read from the broker",
            messages_unrouted: "Messages that no route matches; acknowledged",
            messages_dropped: "Messages that were dropped by policy; once for each route whose policy it is",
            broker_messages_dropped: "Messages that the broker has dropped since its start, as it says itself",
            messages_acknowledged: "Messages that were acknowledged to the broker",
            messages_in_flight: "Messages received and not acknowledged yet",
            canary_seconds: "How long the last message of the bridge's own took from the broker into the database",
            points_stored: "Points that the database stored",
            dead_letters: "Messages that a route or the database refused, published as dead letters",
            dead_letters_dropped: "Dead letters that the broker refused; dropped",
            series: "Series that a route with a bound has made since the start",
            series_overflows: "Messages with a series above their route's bound, whatever became of them",
            sparkplug_metrics_left_out: "Metrics of stored Sparkplug messages that can't be fields, by why not",
            sparkplug_rebirths_requested: "Requests to Sparkplug nodes for their births",
            writes: "Writes to the database by what became of them; one that takes long is Unresponsive meanwhile",
            write_bytes: "Bytes of line protocol sent to the database, before compression",
            connections: "Connections made to the broker",
            disconnections: "Connections to the broker that were lost",
            config_changes: "Changed configurations, by whether they were taken",
            ready: "Whether a side is ready: 1 or 0",
        }
        if let Some(duration) = &metrics.write_duration {
            let help = "Time that a write took";
            registry.register_with_unit("write_duration", help, Unit::Seconds, duration.clone());
        }
        if let Some(points) = &metrics.batch_points {
            registry.register("batch_points", "Points in a batch", points.clone());
        }
        metrics.registry = registry;
        metrics
    }

    /// All of it in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}

/// The bounds of a histogram's buckets. The crate's own function for this raises to powers, and so makes the program
/// load a mathematical library, which takes half a megabyte.
fn buckets(first: f64, factor: f64, count: usize) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(first), move |bound| Some(bound * factor)).take(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_prefix_and_the_suffix() {
        let metrics = Metrics::new();
        metrics.points_stored.get_or_create(&RouteLabel { route: "rooms".into() }).inc();
        let text = metrics.text();
        assert!(text.contains("iotpipeline_bridge_points_stored_total{route=\"rooms\"} 1"), "{text}");
        assert!(text.contains("iotpipeline_bridge_write_duration_seconds_bucket"), "{text}");
    }
}
