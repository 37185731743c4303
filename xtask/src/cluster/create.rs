//! Makes the cluster with kind, and joins its nodes into one network of pods.

use std::process::Command;
use std::time::Duration;

use super::{OWNER, is_ready, nodes};
use crate::Result;
use crate::context::{Context, wait_for};
use crate::parts::{Origin, node};
use crate::process::{Log, answer};

/// How long nodes may take to be ready.
const READY: &str = "--timeout=90s";

/// Keeps pods from a worker, until it knows which addresses are its pods'.
const WITHOUT_NETWORK: &str = "iotpipeline.io/without-network";

/// Makes it, with so many workers.
pub(super) fn create(context: &Context, workers: usize, log: &Log) -> Result<()> {
    let name = &context.cluster;
    let label = format!("{OWNER}={}", context.paths.root.display());
    log.run(Command::new("docker").args(["volume", "create", "--label", &label, name]))?;
    let mut create = kind(context);
    create.args(["create", "cluster", "--name", name, "--wait", "90s", "--config", "-"]);
    log.feed(&mut create, &configuration(context, workers)?)?;
    join_nodes(context, &nodes(name), log)?;
    // kind can be done before these are.
    let mut rollout = context.tool("kubectl");
    log.run(rollout.args(["--namespace=kube-system", "rollout", "status", "deployment/coredns", READY]))?;
    wait_for("the default service account", Duration::from_secs(60), || is_ready(context))
}

/// Tells each node where the others' pods are, and waits until all are ready. A node of our own image makes the
/// ways (`e2e/cluster/node/pod-network`); a public one brings what does.
pub(super) fn join_nodes(context: &Context, nodes: &[String], log: &Log) -> Result<()> {
    if context.origin()? == Origin::Build {
        let mut networks = String::new();
        wait_for("ranges of addresses for all pods", Duration::from_secs(30), || {
            networks = answer(&mut ranges(context)).unwrap_or_default();
            networks.lines().filter(|line| line.split_whitespace().count() == 2).count() == nodes.len()
        })?;
        let script = "cat > /etc/pod-networks && systemctl restart pod-network";
        for node in nodes {
            let exec = ["exec", "--interactive", node, "sh", "-c", script];
            log.feed(Command::new("docker").args(exec), &format!("{networks}\n"))?;
        }
        if nodes.len() > 1 {
            // They know the first node's name only now.
            let proxies = ["--namespace=kube-system", "delete", "pods", "--selector=k8s-app=kube-proxy"];
            log.run(context.tool("kubectl").args(proxies))?;
            let rollout = ["--namespace=kube-system", "rollout", "status", "daemonset/kube-proxy", READY];
            log.run(context.tool("kubectl").args(rollout))?;
        }
        let of_workers = "--selector=!node-role.kubernetes.io/control-plane";
        let without = format!("{WITHOUT_NETWORK}-");
        // Refused where it has been taken away already.
        log.succeeds(context.tool("kubectl").args(["taint", "nodes", of_workers, &without]))?;
    }
    log.run(context.tool("kubectl").args(["wait", "--for=condition=Ready", "nodes", "--all", READY]))
}

/// A line for each node: the range of its pods' addresses, and its name.
fn ranges(context: &Context) -> Command {
    let mut ask = context.tool("kubectl");
    ask.args(["get", "nodes", "--output"]);
    ask.arg(r#"jsonpath={range .items[*]}{.spec.podCIDR}{" "}{.metadata.name}{"\n"}{end}"#);
    ask
}

/// On cgroup v1, recent kubelets start only if told that it is all right.
fn configuration(context: &Context, workers: usize) -> Result<String> {
    Ok(match context.origin()? {
        Origin::Build => built(&node::image(&context.paths)?, workers),
        Origin::Pull => pulled(workers),
    })
}

/// A public node brings its network.
fn pulled(workers: usize) -> String {
    let first = "\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
  kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    failCgroupV1: false
";
    format!("{first}{}", "- role: worker\n".repeat(workers))
}

/// Our node has a bridge of its own, and a file that names a name server to pods.
fn built(image: &str, workers: usize) -> String {
    let first = format!(
        "\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  disableDefaultCNI: true
nodes:
- role: control-plane
  image: {image}
  kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    failCgroupV1: false
    resolvConf: /etc/pod-resolv.conf
"
    );
    let worker = format!(
        "\
- role: worker
  image: {image}
  kubeadmConfigPatches:
  - |
    kind: JoinConfiguration
    nodeRegistration:
      taints:
      - {{key: {WITHOUT_NETWORK}, effect: NoSchedule}}
"
    );
    format!("{first}{}", worker.repeat(workers))
}

/// kind, set to talk to this cluster.
pub(super) fn kind(context: &Context) -> Command {
    context.tool("kind")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_is_a_node_of_its_own_and_kept_from_pods_at_first() {
        let two = built("image:1", 2);
        assert_eq!(two.matches("- role: worker\n  image: image:1").count(), 2);
        assert_eq!(two.matches(WITHOUT_NETWORK).count(), 2);
        assert!(!built("image:1", 0).contains("worker"));
        assert_eq!(pulled(3).matches("- role: worker").count(), 3);
    }
}
