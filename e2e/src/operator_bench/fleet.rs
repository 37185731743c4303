//! Many pipelines, all as the lab's example: created at once, and edited one at a time.

use std::future::ready;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::iotpipeline::IoTPipeline;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::tally::Tally;
use crate::environment;
use crate::stage::MANAGED;

/// How many requests a bare client has under way.
pub const AT_ONCE: usize = 32;

/// How many pipelines share a namespace.
const IN_A_NAMESPACE: usize = 20;

/// An edit that has not been applied after this never will be.
const EDIT: Duration = Duration::from_secs(30);

/// The pipelines of one prefix.
pub struct Fleet {
    client: Client,
    count: usize,
    example: IoTPipeline,
}

impl Fleet {
    /// So many pipelines, which are not there yet; their namespaces are.
    ///
    /// # Errors
    /// If a namespace can't be made.
    pub async fn new(client: Client, count: usize) -> Result<Self> {
        let example = serde_saphyr::from_str(&environment::example("lab.yaml")?)?;
        let fleet = Self { client, count, example };
        make_namespaces(&fleet.client, "fleet", fleet.namespaces()).await?;
        Ok(fleet)
    }

    /// How many namespaces they take.
    pub fn namespaces(&self) -> usize {
        self.count.div_ceil(IN_A_NAMESPACE)
    }

    /// Counts those that are ready, of their newest generation.
    pub fn ready(&self) -> Tally {
        Tally::new(Api::<IoTPipeline>::all(self.client.clone()), watcher::Config::default(), is_ready)
    }

    /// Creates all, as fast as the API server takes them.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn create(&self) -> Result<()> {
        let created = stream::iter(0..self.count).map(|number| async move {
            let mut pipeline = self.example.clone();
            pipeline.metadata.name = Some(name(number));
            self.pipelines(number).create(&PostParams::default(), &pipeline).await
        });
        created.buffer_unordered(AT_ONCE).try_for_each(|_| ready(Ok(()))).await.context("create a pipeline")
    }

    /// Edits a route of so many pipelines, one after the other, and says how long it took until each bridge's
    /// configuration had it.
    ///
    /// # Errors
    /// If one was refused, or has not been applied in time.
    pub async fn edit(&self, edits: usize) -> Result<Vec<Duration>> {
        let bridges = format!("{MANAGED},app.kubernetes.io/component=bridge");
        let config = watcher::Config::default().labels(&bridges);
        let api = Api::<ConfigMap>::all(self.client.clone());
        let mut changes = watcher(api, config).default_backoff().applied_objects().boxed();
        let mut times = Vec::new();
        for edit in 0..edits {
            let number = edit * self.count / edits;
            let measurement = format!("edited_{edit}");
            let mut routes: Value = serde_json::to_value(&self.example.spec.routes)?;
            routes[0]["measurement"] = measurement.as_str().into();
            let patch = Patch::Merge(json!({"spec": {"routes": routes}}));
            let start = Instant::now();
            self.pipelines(number).patch(&name(number), &PatchParams::default(), &patch).await?;
            let applied = async {
                while let Some(change) = changes.next().await {
                    if change.is_ok_and(|map| holds(&map, &measurement)) {
                        return Some(start.elapsed());
                    }
                }
                None
            };
            let applied = tokio::time::timeout(EDIT, applied).await;
            times.push(applied.ok().flatten().with_context(|| format!("edit {edit} was not applied"))?);
        }
        Ok(times)
    }

    fn pipelines(&self, number: usize) -> Api<IoTPipeline> {
        Api::namespaced(self.client.clone(), &namespace("fleet", number / IN_A_NAMESPACE))
    }
}

/// Makes so many namespaces of a prefix.
///
/// # Errors
/// If one can't be made.
pub async fn make_namespaces(client: &Client, prefix: &str, count: usize) -> Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let made = stream::iter(0..count).map(|number| {
        let api = api.clone();
        async move {
            let namespace = serde_json::from_value(json!({"metadata": {"name": namespace(prefix, number)}}));
            api.create(&PostParams::default(), &namespace?).await?;
            anyhow::Ok(())
        }
    });
    made.buffer_unordered(AT_ONCE).try_collect().await.context("make a namespace")
}

fn namespace(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number}")
}

fn name(number: usize) -> String {
    format!("lab-{number}")
}

fn is_ready(pipeline: &IoTPipeline) -> bool {
    let conditions = pipeline.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready.any(|condition| condition.observed_generation == pipeline.metadata.generation)
}

fn holds(map: &ConfigMap, text: &str) -> bool {
    map.name_any().ends_with("-bridge")
        && map.data.iter().flat_map(|data| data.values()).any(|file| file.contains(text))
}
