//! The anchor: prometheus-operator with as many resources of its own, measured in the same way.
//!
//! It has a control plane of its own: on ours it would keep what it watches of our objects and of the foreign Secrets.
//! Its rights, its variables and its resources are those of its makers' examples.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::fleet::{AT_ONCE, make_namespaces};
use super::report::{Anchor, Converged, mib};
use super::run::Plan;
use super::settled::{is_quiet, settled};
use super::tally::Tally;
use crate::bench::usage::{memory, peak_memory};
use crate::conditions::eventually_true;
use crate::control_plane::{ControlPlane, User, apply};
use crate::programs::Program;
use crate::scratch::{Directory, free_port};
use crate::stage::Stage;
use crate::{environment, http};

/// As in its module's go.mod.
const NAME: &str = "prometheus-operator 0.85";

/// Selects what it has made. The label that Kubernetes recommends is on its sets only.
const MANAGED: &str = "managed-by=prometheus-operator";

const PREFIX: &str = "anchor";

/// As many share a namespace as of our pipelines.
const IN_A_NAMESPACE: usize = 20;

const STARTS: Duration = Duration::from_secs(60);

/// It may never be quiet, which is then what the writes say.
const SETTLES: Duration = Duration::from_secs(60);

/// Measures it.
///
/// # Errors
/// If it doesn't come to its end.
pub(super) async fn run(plan: &Plan) -> Result<Anchor> {
    let folder = environment::prometheus_operator()?;
    let plane = ControlPlane::start().await?;
    let admin = plane.client(User::Admin).await?;
    install(&admin, &folder).await?;
    let _stage = Stage::start_for(&plane.client(User::Stage).await?, MANAGED).await?;
    make_namespaces(&admin, PREFIX, plan.pipelines.div_ceil(IN_A_NAMESPACE)).await?;
    let program = start(&plane, &folder).await?;
    let process = program.process_id().await.with_context(|| program.log(20))?;
    let idle = memory(process)?;

    let log = plane.audit_log().from_now()?;
    let tally =
        Tally::new(Api::all_with(admin.clone(), &resource()), watcher::Config::default(), is_available);
    let start = Instant::now();
    create(&admin, plan.pipelines).await?;
    let available = tally.reaches(plan.pipelines, plan.deadline()?).await;
    let took = available.with_context(|| program.log(20))? - start;
    drop(tally);
    let is_settled = is_quiet(&plane, User::Anchor, SETTLES).await;
    let converged = Converged {
        objects: plan.pipelines + made(&admin).await?,
        seconds: took.as_secs_f64(),
        requests: log.requests_of(User::Anchor)?.len(),
        idle_mib: mib(idle),
        peak_mib: mib(peak_memory(process)?),
    };
    converged.tell(NAME);
    if let Err(error) = is_settled {
        println!("{NAME}: {error:#}");
    }
    let settled = settled(&plane, User::Anchor, process, plan.settle).await?;
    settled.tell(NAME);
    let peak_mib = mib(peak_memory(process)?);
    Ok(Anchor { name: NAME.into(), converged: Converged { peak_mib, ..converged }, settled })
}

/// Its definitions and its rights.
async fn install(client: &Client, folder: &Path) -> Result<()> {
    for part in ["definitions", "rights"] {
        let files = std::fs::read_dir(folder.join(part)).with_context(|| folder.display().to_string())?;
        for file in files {
            let text = std::fs::read_to_string(file?.path())?;
            for document in serde_saphyr::from_multiple::<Value>(&text)? {
                apply(client, document).await?;
            }
        }
    }
    let resources: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
    eventually_true("its definitions are served", STARTS, async || {
        resources.list(&ListParams::default()).await?;
        Ok(true)
    })
    .await
}

async fn start(plane: &ControlPlane, folder: &Path) -> Result<Program> {
    let port = free_port()?;
    let arguments = vec![format!("--web.listen-address=127.0.0.1:{port}")];
    let kubeconfig = plane.kubeconfig_file(User::Anchor)?.display().to_string();
    let variables = vec![("KUBECONFIG".to_owned(), kubeconfig), ("GOGC".to_owned(), "30".to_owned())];
    let directory = Directory::new("prometheus-operator")?;
    let program = folder.join("prometheus-operator");
    let program = Program::start_with(program, arguments, variables, directory).await?;
    let url = format!("http://127.0.0.1:{port}/healthz");
    let ready = eventually_true(format!("{NAME} is ready"), STARTS, async || {
        Ok(http::get(&url).await?.status().is_success())
    });
    ready.await.with_context(|| program.log(20))?;
    Ok(program)
}

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("monitoring.coreos.com", "v1", "Prometheus");
    ApiResource::from_gvk_with_plural(&kind, "prometheuses")
}

async fn create(client: &Client, count: usize) -> Result<()> {
    let created = stream::iter(0..count).map(async |number| {
        let namespace = format!("{PREFIX}-{}", number / IN_A_NAMESPACE);
        let wanted: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "Prometheus",
            "metadata": {"name": format!("p-{number}")},
            "spec": {
                "serviceAccountName": "prometheus",
                "serviceMonitorSelector": {"matchLabels": {"team": "frontend"}},
                "resources": {"requests": {"memory": "400Mi"}},
                "enableAdminAPI": false,
            },
        }))?;
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource());
        api.create(&PostParams::default(), &wanted).await?;
        anyhow::Ok(())
    });
    created.buffer_unordered(AT_ONCE).try_collect().await.context("create a Prometheus")
}

/// It has made what is wanted, and the pods are ready.
fn is_available(resource: &DynamicObject) -> bool {
    let conditions = resource.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    ["Available", "Reconciled"].iter().all(|type_| {
        conditions.iter().any(|condition| {
            condition["type"] == *type_
                && condition["status"] == "True"
                && condition["observedGeneration"].as_i64() == resource.metadata.generation
        })
    })
}

/// How many objects it has made.
async fn made(client: &Client) -> Result<usize> {
    let counts = tokio::try_join!(
        count::<Secret>(client),
        count::<ConfigMap>(client),
        count::<Service>(client),
        count::<StatefulSet>(client),
    )?;
    Ok(counts.0 + counts.1 + counts.2 + counts.3)
}

async fn count<K>(client: &Client) -> Result<usize>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let made = Api::<K>::all(client.clone()).list_metadata(&ListParams::default().labels(MANAGED)).await?;
    Ok(made.items.len())
}
