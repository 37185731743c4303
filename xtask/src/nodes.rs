//! The tests of nodes that die. They have a cluster of their own, since the others want a quiet one: it is made
//! for them, and removed when all is well.

use crate::cargo::cargo;
use crate::context::Context;
use crate::demo::environment;
use crate::process::Log;
use crate::progress::{Lock, Outcome, Step};
use crate::{Result, chart, checks, cluster, images};

/// Makes the cluster, runs the tests, and removes it.
pub(crate) const STEP: Step = Step {
    name: "nodes",
    about: "nodes die, in a second cluster that has two to lose (7 min)",
    lock: None,
    work: nodes,
};

/// A pipeline is divided between two nodes; the control plane is on a third, which doesn't die.
const WORKERS: usize = 2;

fn nodes(context: &mut Context, log: &Log) -> Result<Outcome> {
    let mut own = context.beside("nodes", WORKERS);
    let turn = own.turn(Lock::Cluster, log)?;
    cluster::up(&mut own, log)?;
    images::load(&mut own, log)?;
    chart::install(&mut own, log)?;
    drop(turn);
    let mut command = cargo(&own.paths);
    // The feature of the other tests in a cluster: nothing is compiled twice.
    command.args(["test", "--workspace", "--features", "iotpipeline-e2e/cluster", "--test", "nodes"]);
    // One node at a time.
    command.args(["--no-fail-fast", "--", "--test-threads", "1"]);
    environment(&own, &mut command)?;
    let outcome = checks::tests(context, &mut command, log)?;
    let _turn = own.turn(Lock::Cluster, log)?;
    cluster::down(&mut own, log)?;
    Ok(outcome)
}
