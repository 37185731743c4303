//! What is compiled from Go modules: Kubernetes and its tools, and influxd.
//!
//! One pinned module, `e2e/cluster/tools`, resolves Kubernetes, etcd, containerd, CoreDNS, kind, helm
//! and the storage provisioner together, so that what they share is compiled once.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Origin, has_image, node};
use crate::Result;
use crate::context::Context;
use crate::hash::Key;
use crate::paths::{Paths, empty_folder};
use crate::process::{Log, which};
use crate::progress::{Lock, Outcome, Step};

pub(crate) const KUBERNETES: Step = Step {
    name: "kubernetes",
    about: "kind, helm, kubectl, and the node's programs (5 to 15 min the first time, on 2 cores)",
    lock: Some(Lock::Parts),
    work: kubernetes,
};

pub(crate) const CONTROL_PLANE: Step = Step {
    name: "control-plane",
    about: "etcd and kube-apiserver, to run without a cluster (5 min the first time, on 2 cores)",
    lock: Some(Lock::Parts),
    work: control_plane,
};

pub(crate) const INFLUXD: Step = Step {
    name: "influxd",
    about: "InfluxDB from source; its Flux parser is Rust (3 to 8 min the first time, on 2 cores)",
    lock: Some(Lock::Parts),
    work: influxd,
};

/// A program and the package that it is compiled from.
type Program = (&'static str, &'static str);

/// For people and tests on this machine.
const TOOLS: [Program; 3] = [
    ("kind", "sigs.k8s.io/kind"),
    ("helm", "helm.sh/helm/v4/cmd/helm"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
];

/// For the node and its system images.
const NODE: [Program; 12] = [
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    ("kubeadm", "k8s.io/kubernetes/cmd/kubeadm"),
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
    ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    ("coredns", "./coredns"),
    ("local-path-provisioner", "github.com/rancher/local-path-provisioner"),
];

/// Also where images are pulled: tests run these as processes. The variables tell where they are.
const PLANE: [(&str, Program); 2] =
    [("IOTPIPELINE_KUBE_APISERVER_BIN", NODE[0]), ("IOTPIPELINE_ETCD_BIN", NODE[6])];

/// Go's compiler writes down for a debugger what the linker then leaves out: a sixth of its time.
const NO_DEBUGGER: &str = "-gcflags=all=-dwarf=false";

/// kubeadm refuses components that don't know their version: releases get theirs from the linker.
fn linker_flags() -> String {
    let version = node::KUBERNETES;
    let set = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    let mut flags = String::from("-s -w");
    flags.push_str(&set("gitVersion", version));
    flags.push_str(&set("gitMajor", version.trim_start_matches('v').split('.').next().unwrap_or_default()));
    flags.push_str(&set("gitMinor", version.split('.').nth(1).unwrap_or_default()));
    flags.push_str(&set("gitTreeState", "clean"));
    flags.push_str(&set("gitCommit", "0"));
    flags.push_str(&set("buildDate", "1970-01-01T00:00:00Z"));
    flags
}

/// Where the programs of the tools module are; the name is a hash of what decides on their content.
pub(crate) fn programs(paths: &Paths) -> Result<PathBuf> {
    let key = Key::new("tools", 2).tree(&paths.recipes().join("tools"), &[])?.text(NO_DEBUGGER);
    Ok(paths.cache.join("programs").join(format!("tools-{}", key.text(&linker_flags()).finish())))
}

/// Where influxd is.
pub(crate) fn influxd_program(paths: &Paths) -> Result<PathBuf> {
    let key = Key::new("influxd", 2).tree(&paths.recipes().join("influxdb"), &[])?.text(NO_DEBUGGER);
    let key = key.text(node::INFLUXDB).text(PKG_CONFIG).finish();
    Ok(paths.cache.join("programs").join(format!("influxd-{key}")).join("influxd"))
}

fn kubernetes(context: &mut Context, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    if context.origin()? == Origin::Pull && TOOLS.iter().all(|(name, _)| which(name).is_some()) {
        TOOLS.iter().try_for_each(|(name, _)| which(name).map_or(Ok(()), |file| link(paths, name, &file)))?;
        return Ok(Outcome::Done("kind, helm and kubectl from PATH".into()));
    }
    let mut wanted = TOOLS.to_vec();
    if context.origin()? == Origin::Build && !has_image(&node::image(paths)?) {
        wanted.extend(NODE);
    }
    let built = build(paths, &wanted, log)?;
    for (name, _) in TOOLS {
        link(paths, name, &programs(paths)?.join(name))?;
    }
    Ok(match built {
        0 => Outcome::Unchanged(String::new()),
        count => Outcome::Done(format!("{count} programs, Kubernetes {}", node::KUBERNETES)),
    })
}

fn control_plane(context: &mut Context, log: &Log) -> Result<Outcome> {
    Ok(match build(&context.paths, &PLANE.map(|(_, program)| program), log)? {
        0 => Outcome::Unchanged(String::new()),
        _ => Outcome::Done(format!("Kubernetes {}", node::KUBERNETES)),
    })
}

/// Tells a program or test of `e2e` where etcd and kube-apiserver are.
pub(crate) fn tell_control_plane(paths: &Paths, command: &mut Command) -> Result<()> {
    let folder = programs(paths)?;
    command.envs(PLANE.map(|(variable, (name, _))| (variable, folder.join(name))));
    Ok(())
}

/// Compiles the programs that aren't there yet, as many as possible in one call: Go loads their
/// packages once.
fn build(paths: &Paths, wanted: &[Program], log: &Log) -> Result<usize> {
    let folder = programs(paths)?;
    let missing: Vec<_> = wanted.iter().filter(|(name, _)| !folder.join(name).exists()).copied().collect();
    if missing.is_empty() {
        return Ok(0);
    }
    require_go()?;
    let (alone, together): (Vec<_>, Vec<_>) = missing.iter().copied().partition(|(name, _)| *name == LONER);
    for batch in [together, alone].iter().filter(|batch| !batch.is_empty()) {
        compile(paths, &folder, batch, log)?;
    }
    Ok(missing.len())
}

/// It imports `Sirupsen/logrus` by its old name, which Go refuses beside `sirupsen/logrus`.
const LONER: &str = "local-path-provisioner";

fn compile(paths: &Paths, folder: &Path, programs: &[Program], log: &Log) -> Result<()> {
    let unfinished = folder.join("unfinished");
    empty_folder(&unfinished)?;
    let mut go = go(&paths.recipes().join("tools"));
    go.env("CGO_ENABLED", "0").args(["build", "-v", "-trimpath", NO_DEBUGGER]);
    go.args(["-ldflags", &linker_flags(), "-o"]);
    // With the slash, Go takes it for a folder also when there is one program.
    go.arg(unfinished.join("")).args(programs.iter().map(|(_, package)| package));
    log.run(&mut go)?;
    for (name, package) in programs {
        std::fs::rename(unfinished.join(executable_name(package)), folder.join(name))?;
    }
    Ok(std::fs::remove_dir(&unfinished)?)
}

/// What Go calls the program of a package: the last part of its path that is no version.
fn executable_name(package: &str) -> &str {
    let is_version = |part: &&str| part.strip_prefix('v').is_some_and(|n| n.parse::<u8>().is_ok());
    package.rsplit('/').find(|part| !is_version(part)).unwrap_or(package)
}

const PKG_CONFIG: &str = "github.com/influxdata/pkg-config@v0.2.7";

/// influxd links its Flux parser through its makers' own `pkg-config`, which compiles it with Cargo.
fn influxd(context: &mut Context, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    if context.origin()? == Origin::Pull {
        return Ok(Outcome::Skipped("pulled instead".into()));
    }
    let program = influxd_program(paths)?;
    let in_use = has_image(&node::influxdb_image(paths)?);
    if in_use || program.exists() {
        return Ok(Outcome::Unchanged(String::new()));
    }
    require_go()?;
    let folder = program.parent().ok_or("a program without a folder")?;
    let unfinished = folder.join("unfinished");
    empty_folder(&unfinished)?;
    let module = paths.recipes().join("influxdb");
    log.run(go(&module).env("GOBIN", &unfinished).args(["install", PKG_CONFIG]))?;
    let mut build = go(&module);
    build.env("CGO_ENABLED", "1").env("PKG_CONFIG", unfinished.join("pkg-config"));
    build.env("RUSTUP_TOOLCHAIN", rust_toolchain(paths)?);
    build.args(["build", "-v", "-trimpath", NO_DEBUGGER, "-tags", "sqlite_foreign_keys,sqlite_json"]);
    build.arg("-ldflags");
    build.arg(format!("-s -w -X main.version=v{}", node::INFLUXDB)).arg("-o").arg(unfinished.join(""));
    build.arg("github.com/influxdata/influxdb/v2/cmd/influxd");
    log.run(&mut build)?;
    std::fs::rename(unfinished.join("influxd"), &program)?;
    std::fs::remove_dir_all(&unfinished)?;
    Ok(Outcome::Done(format!("InfluxDB {}", node::INFLUXDB)))
}

/// The parser's sources pin a toolchain that is seldom installed. This project's compiles them.
fn rust_toolchain(paths: &Paths) -> Result<String> {
    let file = std::fs::read_to_string(paths.root.join("rust-toolchain.toml"))?;
    channel(&file).map(str::to_owned).ok_or_else(|| "rust-toolchain.toml names no channel".into())
}

fn channel(file: &str) -> Option<&str> {
    let value = file.lines().find_map(|line| line.trim().strip_prefix("channel"))?;
    value.trim_start().strip_prefix('=').map(|value| value.trim().trim_matches('"'))
}

/// Go in a module's folder. Versions are what go.sum says; the checkout's state is nobody's business.
pub(super) fn go(module: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(module).env("GOFLAGS", "-mod=readonly -buildvcs=false").env("GOWORK", "off");
    command
}

pub(super) fn require_go() -> Result<()> {
    match which("go") {
        Some(_) => Ok(()),
        None => Err(
            "Go is needed to build what can't be pulled: install it, then run this again (kind, helm and \
             kubectl are taken from PATH if they are there)"
                .into(),
        ),
    }
}

fn link(paths: &Paths, name: &str, program: &Path) -> Result<()> {
    let link = paths.cluster_tools().join(name);
    if std::fs::read_link(&link).is_ok_and(|current| current == program) || program == link {
        return Ok(());
    }
    if link.symlink_metadata().is_ok() {
        std::fs::remove_file(&link)?;
    }
    Ok(std::os::unix::fs::symlink(program, &link)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_s_file_is_named_after_its_package() {
        assert_eq!(executable_name("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(executable_name("./coredns"), "coredns");
        assert_eq!(executable_name("x/cmd/containerd-shim-runc-v2"), "containerd-shim-runc-v2");
    }

    #[test]
    fn the_control_plane_is_what_the_variables_say() {
        let programs = PLANE.map(|(variable, (name, _))| (variable, name));
        assert_eq!(programs[0], ("IOTPIPELINE_KUBE_APISERVER_BIN", "kube-apiserver"));
        assert_eq!(programs[1], ("IOTPIPELINE_ETCD_BIN", "etcd"));
    }

    #[test]
    fn the_toolchain_is_the_workspace_s() {
        assert_eq!(channel("[toolchain]\nchannel = \"1.95.0\"\n"), Some("1.95.0"));
        assert_eq!(channel("[toolchain]\n"), None);
    }

    #[test]
    fn kubernetes_is_told_the_version_that_the_module_pins() {
        let module = include_str!("../../../e2e/cluster/tools/go.mod");
        assert!(module.contains(&format!("k8s.io/kubernetes {}", node::KUBERNETES)));
        let influxdb = include_str!("../../../e2e/cluster/influxdb/go.mod");
        assert!(influxdb.contains(&format!("github.com/influxdata/influxdb/v2 v{}", node::INFLUXDB)));
        assert!(linker_flags().contains("gitMajor=1 "), "{}", linker_flags());
    }
}
