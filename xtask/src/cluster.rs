//! The local cluster: one kind node, named after the checkout.

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
    about: "a kind cluster (40 s; longer where its image is pulled)",
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

/// The container that is the cluster's node.
pub(crate) fn node_container(cluster: &str) -> String {
    format!("{cluster}-control-plane")
}

fn up(context: &mut Context, log: &Log) -> Result<Outcome> {
    let name = context.cluster.clone();
    let ready = |took: &str| format!("{name} is ready{took}; KUBECONFIG={}", context.kubeconfig().display());
    if is_ours_and_current(context)? {
        if !context.kubeconfig().exists() {
            log.run(kind(context).args(["export", "kubeconfig", "--name", &name]))?;
        }
        // It may have been started a moment ago, together with Docker.
        if wait_for("the API server", Duration::from_secs(30), || is_ready(context)).is_ok() {
            return Ok(Outcome::Unchanged(ready("")));
        }
        log.note("The cluster doesn't answer: it is made anew.");
    }
    remove(&name, log)?;
    create(context, log)?;
    Ok(Outcome::Done(ready("")))
}

/// Whether the node runs, and from the image that it should be made of.
fn is_ours_and_current(context: &Context) -> Result<bool> {
    let format = ["inspect", "--format", "{{.State.Running}} {{.Config.Image}}"];
    let state = answer(Command::new("docker").args(format).arg(node_container(&context.cluster)));
    Ok(match (state, context.origin()?) {
        (Some(state), Origin::Build) => state == format!("true {}", node::image(&context.paths)?),
        (Some(state), Origin::Pull) => state.starts_with("true kindest/node"),
        (None, _) => false,
    })
}

/// Whether the API server answers, and the cluster has been set up to the end.
fn is_ready(context: &Context) -> bool {
    let mut ask = context.tool("kubectl");
    quietly(ask.args(["get", "serviceaccount", "default", "--request-timeout=5s"]))
}

fn create(context: &Context, log: &Log) -> Result<()> {
    let name = &context.cluster;
    let label = format!("{OWNER}={}", context.paths.root.display());
    log.run(Command::new("docker").args(["volume", "create", "--label", &label, name]))?;
    let mut create = kind(context);
    create.args(["create", "cluster", "--name", name, "--wait", "90s", "--config", "-"]);
    log.feed(&mut create, &configuration(context)?)?;
    if let Origin::Build = context.origin()? {
        keep_service_addresses_inside(name, log)?;
    }
    // kind can be done before these are.
    let mut rollout = context.tool("kubectl");
    rollout.args(["--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s"]);
    log.run(&mut rollout)?;
    wait_for("the default service account", Duration::from_secs(60), || is_ready(context))
}

/// kube-proxy takes a moment to make a new service's address known. Until then a packet to it would
/// follow the node's default route out of the cluster, and whoever answers there would get what was
/// meant for the service. The range is kubeadm's default for services.
fn keep_service_addresses_inside(cluster: &str, log: &Log) -> Result<()> {
    let node = node_container(cluster);
    let rule = ["iptables", "-I", "FORWARD", "-d", "10.96.0.0/16", "-j", "REJECT"];
    log.run(Command::new("docker").args(["exec", &node]).args(rule))
}

/// On cgroup v1, recent kubelets start only if told that it is all right.
fn configuration(context: &Context) -> Result<String> {
    let (network, image) = match context.origin()? {
        // Our node has a bridge of its own; a public one brings what it needs.
        Origin::Build => ("disableDefaultCNI: true", format!("  image: {}\n", node::image(&context.paths)?)),
        Origin::Pull => ("disableDefaultCNI: false", String::new()),
    };
    Ok(format!(
        "kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  {network}
nodes:
- role: control-plane
{image}  kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    failCgroupV1: false
"
    ))
}

fn kind(context: &Context) -> Command {
    context.tool("kind")
}

fn down(context: &mut Context, log: &Log) -> Result<Outcome> {
    if !docker::answers() {
        return Ok(Outcome::Unchanged("Docker doesn't run, so neither does a cluster".into()));
    }
    let existed = quietly(Command::new("docker").args(["inspect", &node_container(&context.cluster)]));
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
    let node = node_container(cluster);
    if quietly(Command::new("docker").args(["inspect", &node])) {
        log.run(Command::new("docker").args(["rm", "--force", "--volumes", &node]))?;
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
    let format =
        ["inspect", "--format", "{{.State.Status}}, image {{.Config.Image}}, since {{.State.StartedAt}}"];
    let node = answer(Command::new("docker").args(format).arg(node_container(&context.cluster)));
    let node = node.unwrap_or_else(|| "none: `cargo xtask cluster up` makes it".into());
    println!("node        {node}");
    let kubeconfig = context.kubeconfig();
    if !kubeconfig.exists() {
        return Ok(());
    }
    println!("API server  {}", if is_ready(context) { "answers" } else { "doesn't answer" });
    println!("\nexport KUBECONFIG={}", kubeconfig.display());
    println!("export PATH={}:$PATH", context.paths.cluster_tools().display());
    Ok(())
}
