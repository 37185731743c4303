//! What is counted, for Prometheus.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::iotpipeline::IoTPipeline;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// How a pass ended.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// All its steps were done.
    Success,
    /// One failed; it comes again.
    Failure,
}

/// What this operator is in the election.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Role {
    /// It doesn't know: the Lease can't be read, or was lost.
    #[default]
    Candidate,
    /// Another works.
    Standby,
    /// It works.
    Leader,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Ended {
    outcome: Outcome,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Kind {
    kind: String,
}

/// By part, until when its certificate holds.
type Expiries = Vec<(&'static str, Timestamp)>;

/// Counters, and the caches from which gauges are taken when they are asked for.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    passes: Family<Ended, Counter>,
    seconds: Histogram,
    watch_failures: Family<Kind, Counter>,
    is_leader: Gauge,
    role: Mutex<Role>,
    stores: Mutex<Vec<Store<IoTPipeline>>>,
    /// By namespace and name of the pipeline: until when the certificate of each part holds.
    certificates: Mutex<BTreeMap<(String, String), Expiries>>,
    last_pass: Mutex<Instant>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("iotpipeline_operator");
        let passes = Family::<Ended, Counter>::default();
        let seconds = Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]);
        let watch_failures = Family::<Kind, Counter>::default();
        let is_leader = Gauge::default();
        registry.register("is_leader", "Whether this operator holds the lease: 1 or 0", is_leader.clone());
        registry.register("passes", "Passes over a pipeline, by how they ended", passes.clone());
        registry.register("pass_seconds", "How long a pass took", seconds.clone());
        registry.register(
            "watch_failures",
            "Watches that failed and were tried again",
            watch_failures.clone(),
        );
        Self {
            registry,
            passes,
            seconds,
            watch_failures,
            is_leader,
            role: Mutex::default(),
            stores: Mutex::default(),
            certificates: Mutex::default(),
            last_pass: Mutex::new(Instant::now()),
        }
    }
}

impl Metrics {
    /// What the operator is in the election. The caches are of one term.
    pub fn set_role(&self, role: Role) {
        let mut now = self.role.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != role {
            self.is_leader.set((role == Role::Leader).into());
            self.stores().clear();
            *self.last_pass.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            *now = role;
        }
    }

    /// What the operator is in the election.
    pub fn role(&self) -> Role {
        *self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pass has ended.
    pub fn reconciled(&self, outcome: Outcome, took: Duration) {
        self.passes.get_or_create(&Ended { outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
        *self.last_pass.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// A watch has failed.
    pub fn watch_failed(&self, kind: &str) {
        self.watch_failures.get_or_create(&Kind { kind: kind.into() }).inc();
    }

    /// Until when the certificate of each part of a pipeline holds.
    pub fn certificates(&self, namespace: &str, pipeline: &str, until: Expiries) {
        let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        certificates.insert((namespace.into(), pipeline.into()), until);
    }

    /// A cache of pipelines.
    pub fn add_store(&self, store: Store<IoTPipeline>) {
        self.stores().push(store);
    }

    /// Whether every cache has been filled.
    pub fn is_filled(&self) -> bool {
        let stores = self.stores().clone();
        !stores.is_empty()
            && stores.iter().all(|store| {
                use futures::FutureExt;
                store.wait_until_ready().now_or_never().is_some()
            })
    }

    /// How long no pass has ended, if there is a pipeline that should have had one. Time without any doesn't count, as
    /// long as this is asked now and then.
    pub fn idle(&self) -> Option<Duration> {
        let has_pass = |pipeline: &IoTPipeline| pipeline.metadata.deletion_timestamp.is_none();
        let has_work = self.stores().iter().any(|store| store.find(has_pass).is_some());
        let mut last = self.last_pass.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_work {
            *last = Instant::now();
        }
        has_work.then(|| last.elapsed())
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        let (ready, all) = self.pipelines();
        let gauge = format!(
            "# HELP iotpipeline_operator_pipelines Pipelines, by whether they are ready.\n\
             # TYPE iotpipeline_operator_pipelines gauge\n\
             iotpipeline_operator_pipelines{{ready=\"true\"}} {ready}\n\
             iotpipeline_operator_pipelines{{ready=\"false\"}} {}\n",
            all - ready
        );
        let body = text.trim_end_matches("# EOF\n").to_owned();
        text.clear();
        let _ = write!(text, "{body}{gauge}");
        self.write_certificates(&mut text);
        text.push_str("# EOF\n");
        text
    }

    fn write_certificates(&self, text: &mut String) {
        const NAME: &str = "iotpipeline_operator_certificate_expiry_timestamp_seconds";
        let mut certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody says when a pipeline is gone; its expiry would be told for ever.
        let there: HashSet<(String, String)> = self
            .stores()
            .iter()
            .flat_map(Store::state)
            .map(|pipeline| (pipeline.namespace().unwrap_or_default(), pipeline.name_any()))
            .collect();
        certificates.retain(|pipeline, _| there.contains(pipeline));
        let _ = write!(
            text,
            "# HELP {NAME} When the certificate of a part expires, or that of the pipeline's own authority.\n\
             # TYPE {NAME} gauge\n"
        );
        for ((namespace, pipeline), until) in certificates.iter() {
            for (part, until) in until {
                let labels = format!("namespace=\"{namespace}\",pipeline=\"{pipeline}\",part=\"{part}\"");
                let _ = writeln!(text, "{NAME}{{{labels}}} {}", until.as_second());
            }
        }
    }

    fn pipelines(&self) -> (usize, usize) {
        let pipelines: Vec<_> = self.stores().iter().flat_map(Store::state).collect();
        let is_ready = |pipeline: &IoTPipeline| {
            let conditions = pipeline.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        (pipelines.iter().filter(|pipeline| is_ready(pipeline)).count(), pipelines.len())
    }

    fn stores(&self) -> std::sync::MutexGuard<'_, Vec<Store<IoTPipeline>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;

    #[test]
    fn the_expiry_of_certificates_is_told_until_their_pipeline_is_gone() {
        let pipeline: IoTPipeline = serde_saphyr::from_str(
            "{apiVersion: iotpipeline.io/v1alpha1, kind: IoTPipeline, metadata: {name: hall, namespace: plant}, \
             spec: {routes: []}}",
        )
        .expect("a pipeline");
        let (store, mut writer) = kube::runtime::reflector::store();
        writer.apply_watcher_event(&Event::Apply(pipeline.clone()));
        let metrics = Metrics::default();
        metrics.add_store(store);
        let until = Timestamp::from_second(1_800_000_000).expect("a time");
        metrics.certificates("plant", "hall", vec![("broker", until)]);
        let text = metrics.text();
        let row = "iotpipeline_operator_certificate_expiry_timestamp_seconds{namespace=\"plant\",\
                   pipeline=\"hall\",part=\"broker\"} 1800000000\n# EOF\n";
        assert!(text.ends_with(row), "{text}");
        writer.apply_watcher_event(&Event::Delete(pipeline));
        assert!(!metrics.text().contains("plant"));
    }
}
