//! The tests, from the quick ones that need nothing to those in a cluster.

use std::process::Command;

use crate::Result;
use crate::cargo::cargo;
use crate::context::Context;
use crate::counts::{Counts, failed_tests};
use crate::demo::environment;
use crate::parts::{go, s3, witness};
use crate::process::Log;
use crate::progress::{Outcome, Step};

pub(crate) const FORMAT: Step = Step { name: "format", about: "cargo fmt --check", lock: None, work: format };
pub(crate) const CLIPPY: Step = Step {
    name: "clippy",
    about: "no warnings, in any target (4 min the first time)",
    lock: None,
    work: clippy,
};
pub(crate) const UNIT: Step = Step {
    name: "unit",
    about: "unit, golden and case tests (5 min the first time)",
    lock: None,
    work: unit,
};
pub(crate) const DENY: Step = Step {
    name: "deny",
    about: "licences, bans, sources, advisories of dependencies",
    lock: None,
    work: deny,
};
pub(crate) const CHART: Step =
    Step { name: "chart", about: "the chart, with helm: lint, drift, refusals", lock: None, work: chart };
pub(crate) const WITNESSED: Step = Step {
    name: "witnessed",
    about: "network policies and statuses, as cyclonus and kstatus read them",
    lock: None,
    work: witnessed,
};
pub(crate) const LOOPBACK: Step = Step {
    name: "loopback",
    about: "the bridge against a real mosquitto and a real influxd",
    lock: None,
    work: loopback,
};
pub(crate) const CONTROL_PLANE: Step = Step {
    name: "operator",
    about: "the operator against a real kube-apiserver and etcd",
    lock: None,
    work: control_plane,
};
pub(crate) const IN_CLUSTER: Step =
    Step { name: "in-cluster", about: "the whole chain, in the cluster", lock: None, work: in_cluster };
pub(crate) const GENERATE: Step =
    Step { name: "generate", about: "rewrites the files that tests compare", lock: None, work: generate };

/// Two cores and one cluster: more tests at a time only make each slower.
const CLUSTER_TEST_THREADS: &str = "2";

fn format(context: &mut Context, log: &Log) -> Result<Outcome> {
    log.run(cargo(&context.paths).args(["fmt", "--all", "--check"]))?;
    Ok(Outcome::Done(String::new()))
}

fn clippy(context: &mut Context, log: &Log) -> Result<Outcome> {
    let mut command = cargo(&context.paths);
    command.args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"]);
    log.run(&mut command)?;
    Ok(Outcome::Done(String::new()))
}

fn unit(context: &mut Context, log: &Log) -> Result<Outcome> {
    let mut command = cargo(&context.paths);
    command.args(["test", "--workspace", "--no-fail-fast"]);
    tests(context, &mut command, log)
}

// All name the whole workspace, so that dependencies are compiled once, with the same features.

fn chart(context: &mut Context, log: &Log) -> Result<Outcome> {
    let mut command = with_helm(context);
    tests(context, &mut command, log)
}

/// The tests of the chart that need helm.
fn with_helm(context: &Context) -> Command {
    let mut command = cargo(&context.paths);
    command.args(["test", "--workspace", "--test", "chart", "--no-fail-fast", "--", "--ignored"]);
    command.env("PATH", context.search_path());
    command
}

fn witnessed(context: &mut Context, log: &Log) -> Result<Outcome> {
    let mut command = cargo(&context.paths);
    command.args(["test", "--workspace", "--test", "network", "--test", "gitops", "--no-fail-fast"]);
    command.args(["--", "--ignored"]);
    witness::tell(&context.paths, &mut command)?;
    tests(context, &mut command, log)
}

fn loopback(context: &mut Context, log: &Log) -> Result<Outcome> {
    let mut command = cargo(&context.paths);
    command.args(["test", "--workspace", "--features", "iotpipeline-e2e/loopback", "--test", "loopback"]);
    command.arg("--no-fail-fast");
    environment(context, &mut command)?;
    s3::tell(&context.paths, &mut command)?;
    tests(context, &mut command, log)
}

fn control_plane(context: &mut Context, log: &Log) -> Result<Outcome> {
    let mut command = cargo(&context.paths);
    command.args(["test", "--workspace", "--features", "iotpipeline-e2e/control_plane"]);
    // What must happen within seconds is not disturbed by the others.
    command.args(["--test", "control_plane", "--no-fail-fast", "--", "--test-threads", "1"]);
    environment(context, &mut command)?;
    go::tell_control_plane(&context.paths, &mut command)?;
    tests(context, &mut command, log)
}

fn in_cluster(context: &mut Context, log: &Log) -> Result<Outcome> {
    let mut command = cargo(&context.paths);
    command.args(["test", "--workspace", "--features", "iotpipeline-e2e/cluster", "--test", "cluster"]);
    command.args(["--no-fail-fast", "--", "--test-threads", CLUSTER_TEST_THREADS]);
    environment(context, &mut command)?;
    tests(context, &mut command, log)
}

/// Runs tests, and adds what they counted.
pub(crate) fn tests(context: &mut Context, command: &mut Command, log: &Log) -> Result<Outcome> {
    let result = log.run(command);
    let output = log.content();
    let counts = Counts::in_output(&output);
    context.counts = context.counts.plus(counts);
    if counts.failed > 0 {
        return Err(format!("failed tests: {}", failed_tests(&output).join(", ")).into());
    }
    result?;
    Ok(Outcome::Done(format!("{} tests", counts.passed)))
}

const DENY_VERSION: &str = "0.20.2";

fn deny(context: &mut Context, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    let folder = paths.cache.join(format!("programs/cargo-deny-{DENY_VERSION}"));
    let program = folder.join("bin/cargo-deny");
    if !program.exists() {
        // Unoptimised: it is compiled in half the time, and runs for seconds.
        let mut install = cargo(paths);
        install.args(["install", "--locked", "--debug", "cargo-deny", "--version", DENY_VERSION, "--root"]);
        log.run(install.arg(&folder).arg("--target-dir").arg(paths.cache.join("cargo-deny")))?;
        std::fs::remove_dir_all(paths.cache.join("cargo-deny"))?;
    }
    let deny = || {
        let mut command = Command::new(&program);
        command.current_dir(&paths.root).args(["--all-features", "--color", "never", "check"]);
        command
    };
    log.run(deny().args(["bans", "licenses", "sources"]))?;
    if log.succeeds(deny().arg("advisories"))? {
        return Ok(Outcome::Done("bans, licences, sources, advisories".into()));
    }
    match advisories_unreachable(&log.content()) {
        true => Ok(Outcome::Done(
            "bans, licences, sources; advisories NOT checked: no access to their database".into(),
        )),
        false => Err("an advisory concerns a dependency".into()),
    }
}

/// Whether cargo-deny failed before it could compare anything.
fn advisories_unreachable(output: &str) -> bool {
    output.contains("failed to fetch advisory database")
        || output.contains("failed to load advisory database")
}

fn generate(context: &mut Context, log: &Log) -> Result<Outcome> {
    let has_helm = context.paths.cluster_tools().join("helm").exists();
    let render = || if has_helm { log.run(with_helm(context).env("UPDATE", "1")) } else { Ok(()) };
    // Before, since a test reads it; and after, since it has what tests write.
    render()?;
    log.run(cargo(&context.paths).args(["test", "--workspace", "--no-fail-fast"]).env("UPDATE", "1"))?;
    render()?;
    let what = match has_helm {
        true => "`git diff` shows what changed",
        false => "all but manifests/install.yaml, which needs helm: run `cargo xtask cluster up` first",
    };
    Ok(Outcome::Done(what.into()))
}
