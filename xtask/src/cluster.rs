//! The local cluster: a kind node with the control plane, and workers where they are asked for, named after the
//! checkout.

mod create;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::context::{Context, wait_for};
use crate::hash::Key;
use crate::parts::{Origin, docker, node};
use crate::process::{Log, answer, quietly};
use crate::progress::{Lock, Outcome, Step};

/// Creates the cluster, unless it runs.
pub(crate) const UP: Step = Step {
    name: "cluster",
    about: "a kind cluster (40 s, and 10 s for each worker; longer where its image is pulled)",
    lock: Some(Lock::Cluster),
    work: up,
};

/// Removes it.
pub(crate) const DOWN: Step = Step {
    name: "down",
    about: "removes the cluster and its volumes",
    lock: Some(Lock::Cluster),
    work: down,
};

/// An empty Docker volume with this label stands for each cluster that we made. It lives where the
/// cluster's node lives, and its label says which checkout it belongs to.
const OWNER: &str = "io.iotpipeline.checkout";

/// The name of a checkout's own cluster.
pub(crate) fn name_for(checkout: &Path) -> String {
    let key = Key::new("cluster", 1).text(&checkout.to_string_lossy()).finish();
    format!("iotpipeline-{}", &key[..8])
}

/// The containers that are the cluster's nodes, whether they run or not; the control plane is the first.
pub(crate) fn nodes(cluster: &str) -> Vec<String> {
    // kind's own label.
    let filter = format!("label=io.x-k8s.kind.cluster={cluster}");
    let list = ["ps", "--all", "--format", "{{.Names}}", "--filter", &filter];
    let mut nodes: Vec<_> =
        answer(Command::new("docker").args(list)).unwrap_or_default().lines().map(str::to_owned).collect();
    nodes.sort();
    nodes
}

/// As the step does.
pub(crate) fn up(context: &mut Context, log: &Log) -> Result<Outcome> {
    let name = context.cluster.clone();
    let ready = |took: &str| format!("{name} is ready{took}; KUBECONFIG={}", context.kubeconfig().display());
    let nodes = nodes(&name);
    if is_ours_and_current(context, &nodes)? {
        if !context.kubeconfig().exists() {
            log.run(create::kind(context).args(["export", "kubeconfig", "--name", &name]))?;
        }
        // One that was killed, as tests do.
        log.run(Command::new("docker").arg("start").args(&nodes))?;
        // It may have been started a moment ago, together with Docker.
        if wait_for("the API server", Duration::from_secs(30), || is_ready(context)).is_ok()
            && create::join_nodes(context, &nodes, log).is_ok()
        {
            return Ok(Outcome::Unchanged(ready("")));
        }
        log.note("The cluster doesn't answer: it is made anew.");
    }
    remove(&name, log)?;
    create::create(context, context.workers.unwrap_or_default(), log)?;
    Ok(Outcome::Done(ready("")))
}

/// Whether there are as many nodes as there should be, of the image that they should be made of. The first has
/// to run: what a control plane is like that was killed, nobody knows.
fn is_ours_and_current(context: &Context, nodes: &[String]) -> Result<bool> {
    let Some(first) = nodes.first() else { return Ok(false) };
    if context.workers.is_some_and(|workers| workers + 1 != nodes.len()) {
        return Ok(false);
    }
    let runs = answer(Command::new("docker").args(["inspect", "--format", "{{.State.Running}}", first]));
    let images =
        answer(Command::new("docker").args(["inspect", "--format", "{{.Config.Image}}"]).args(nodes));
    let is_current: Box<dyn Fn(&str) -> bool> = match context.origin()? {
        Origin::Build => {
            let image = node::image(&context.paths)?;
            Box::new(move |other| other == image)
        }
        Origin::Pull => Box::new(|image| image.starts_with("kindest/node")),
    };
    Ok(runs.as_deref() == Some("true") && images.is_some_and(|images| images.lines().all(is_current)))
}

/// Whether the API server answers, and the cluster has been set up to the end.
fn is_ready(context: &Context) -> bool {
    let mut ask = context.tool("kubectl");
    quietly(ask.args(["get", "serviceaccount", "default", "--request-timeout=5s"]))
}

/// As the step does.
pub(crate) fn down(context: &mut Context, log: &Log) -> Result<Outcome> {
    if !docker::answers() {
        return Ok(Outcome::Unchanged("Docker doesn't run, so neither does a cluster".into()));
    }
    let existed = !nodes(&context.cluster).is_empty();
    remove(&context.cluster, log)?;
    let kubeconfig = context.kubeconfig();
    if kubeconfig.exists() {
        std::fs::remove_file(kubeconfig)?;
    }
    Ok(match existed {
        true => Outcome::Done(format!("{} is gone", context.cluster)),
        false => Outcome::Unchanged(format!("there is no {}", context.cluster)),
    })
}

/// What `kind delete cluster` does, also where kind isn't there yet.
fn remove(cluster: &str, log: &Log) -> Result<()> {
    let nodes = nodes(cluster);
    if !nodes.is_empty() {
        log.run(Command::new("docker").args(["rm", "--force", "--volumes"]).args(nodes))?;
    }
    if quietly(Command::new("docker").args(["volume", "inspect", cluster])) {
        log.run(Command::new("docker").args(["volume", "rm", cluster]))?;
    }
    Ok(())
}

/// Removes clusters that we made, and of whose checkout this is said. Docker restarts the node of a
/// cluster that nobody took down, and it would use a machine's memory for nothing.
pub(crate) fn remove_strays(log: &Log, is_stray: impl Fn(&str) -> bool) -> Result<()> {
    let format = format!("{{{{.Name}}}}\t{{{{.Label \"{OWNER}\"}}}}");
    let filter = format!("label={OWNER}");
    let volumes =
        log.output(Command::new("docker").args(["volume", "ls", "--filter", &filter, "--format", &format]))?;
    for (cluster, checkout) in volumes.lines().filter_map(|line| line.split_once('\t')) {
        if is_stray(checkout) {
            remove(cluster, log)?;
        }
    }
    Ok(())
}

/// Prints what there is.
pub(crate) fn status(context: &Context) -> Result<()> {
    println!("cluster     {}", context.cluster);
    let nodes = nodes(&context.cluster);
    if nodes.is_empty() {
        println!("node        none: `cargo xtask cluster up` makes it");
    }
    for node in nodes {
        let format = "{{.State.Status}}, image {{.Config.Image}}, since {{.State.StartedAt}}";
        let state = answer(Command::new("docker").args(["inspect", "--format", format, &node]));
        let name = node.strip_prefix(&context.cluster).unwrap_or(&node).trim_start_matches('-');
        println!("node        {name}: {}", state.unwrap_or_else(|| "it has just gone".into()));
    }
    let kubeconfig = context.kubeconfig();
    if !kubeconfig.exists() {
        return Ok(());
    }
    println!("API server  {}", if is_ready(context) { "answers" } else { "doesn't answer" });
    println!("\nexport KUBECONFIG={}", kubeconfig.display());
    println!("export PATH={}:$PATH", context.paths.cluster_tools().display());
    Ok(())
}
