//! The command line, as a value.

/// What `cargo xtask help` prints.
pub(crate) const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--down]                the whole chain in a local cluster, from sensor to curve; --down removes the cluster
  test [--fast]                every test; --fast leaves out what needs Docker
  soak [--seeds N] [--seed S]  faults at random between bridge, broker and database: N seeds (1000) from S on
                               (otherwise from one that is printed); what was acknowledged is stored once
  bench [bridge] [--rounds N] [--row NAME] [--quick]
                               the bridge beside Telegraf: CPU, memory, messages a second, latency, N times (3)
                               each; of one row, or of those whose names begin so; --quick: once, few messages
  bench operator [--pipelines N] [--settle SECONDS] [--no-anchor]
                               the operator on a real kube-apiserver and etcd, with fakes of all else: N pipelines
                               (1000) at once beside a bare client, memory, edits, and SECONDS (600) of silence;
                               then prometheus-operator with N Prometheus resources, unless --no-anchor
  nodes                        the tests of nodes that die, in a cluster of three that is made for them
  cluster up [--workers N]     a local Kubernetes cluster (kind), kubeconfig in target/cluster/; with N nodes (0 to 3)
                               beside the first: one with another number of them is made anew
  cluster down|status          removes it; says how it is, and how to reach it
  images                       builds the project's images, and loads them into the cluster if it runs
  install                      cluster, images, and the operator by its chart
  generate                     rewrites the generated files: CRD, manifests, golden files
  help                         this text

  --name NAME                  the cluster's name, for all that use one (otherwise from the checkout's path)

environment:
  IOTPIPELINE_PARTS=pull|build whether public images are pulled or the same parts built from source
                               (otherwise: pulled where a registry answers)
";

/// How many seeds a soak runs if nobody says: not quite an hour on 2 cores.
const SEEDS: u64 = 1_000;

/// How often each is measured if nobody says.
const ROUNDS: u64 = 3;

/// How many pipelines the operator's bench has if nobody says.
const PIPELINES: u64 = 1_000;

/// For how many seconds nothing may be written there.
const SETTLE: u64 = 600;

/// A parsed command line.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Help,
    Demo { down: bool, name: Option<String> },
    Test { fast: bool, name: Option<String> },
    Soak { seeds: u64, seed: Option<u64> },
    Bench { rounds: u64, row: Option<String>, quick: bool },
    BenchOperator { pipelines: u64, settle: u64, anchor: bool },
    Cluster { action: ClusterAction, name: Option<String> },
    Images { name: Option<String> },
    Install { name: Option<String> },
    Nodes { name: Option<String> },
    Generate,
}

/// What to do with the cluster.
#[derive(Debug, PartialEq)]
pub(crate) enum ClusterAction {
    Up { workers: usize },
    Down,
    Status,
}

/// More would be another machine's work.
const MOST_WORKERS: u64 = 3;

impl Command {
    /// How many workers the cluster is to have, if it matters.
    pub(crate) fn workers(&self) -> Option<usize> {
        match self {
            Self::Cluster { action: ClusterAction::Up { workers }, .. } => Some(*workers),
            _ => None,
        }
    }

    /// The cluster's name, if one was given.
    pub(crate) fn cluster_name(&self) -> Option<&str> {
        match self {
            Self::Demo { name, .. }
            | Self::Test { name, .. }
            | Self::Cluster { name, .. }
            | Self::Images { name }
            | Self::Nodes { name }
            | Self::Install { name } => name.as_deref(),
            Self::Help
            | Self::Generate
            | Self::Soak { .. }
            | Self::Bench { .. }
            | Self::BenchOperator { .. } => None,
        }
    }
}

/// Parses everything after `cargo xtask`.
pub(crate) fn parse(arguments: &[String]) -> Result<Command, String> {
    let mut words = Vec::new();
    let mut flags = Vec::new();
    let (mut name, mut seeds, mut seed) = (None, None, None);
    let (mut rounds, mut row) = (None, None);
    let (mut pipelines, mut settle) = (None, None);
    let mut workers = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--name" => name = Some(valid_name(rest.next().ok_or("--name needs a value")?)?),
            "--seeds" => seeds = Some(number("--seeds", rest.next())?),
            "--seed" => seed = Some(number("--seed", rest.next())?),
            "--rounds" => rounds = Some(number("--rounds", rest.next())?),
            "--pipelines" => pipelines = Some(number("--pipelines", rest.next())?),
            "--settle" => settle = Some(number("--settle", rest.next())?),
            "--workers" => workers = Some(few_workers(rest.next())?),
            "--row" => row = Some(rest.next().ok_or("--row needs a name")?.clone()),
            "-h" | "--help" => return Ok(Command::Help),
            flag if flag.starts_with('-') => flags.push(flag),
            word => words.push(word),
        }
    }
    let command = match words.as_slice() {
        [] | ["help"] => Command::Help,
        ["demo"] => Command::Demo { down: take(&mut flags, "--down"), name },
        ["test"] => Command::Test { fast: take(&mut flags, "--fast"), name },
        ["soak"] => Command::Soak { seeds: seeds.take().unwrap_or(SEEDS), seed: seed.take() },
        ["bench"] | ["bench", "bridge"] => {
            let quick = take(&mut flags, "--quick");
            let rounds = rounds.take().unwrap_or(if quick { 1 } else { ROUNDS });
            Command::Bench { rounds, row: row.take(), quick }
        }
        ["bench", "operator"] => Command::BenchOperator {
            pipelines: pipelines.take().unwrap_or(PIPELINES),
            settle: settle.take().unwrap_or(SETTLE),
            anchor: !take(&mut flags, "--no-anchor"),
        },
        ["cluster", "up"] => {
            let workers = workers.take().unwrap_or_default();
            Command::Cluster { action: ClusterAction::Up { workers }, name }
        }
        ["cluster", "down"] => Command::Cluster { action: ClusterAction::Down, name },
        ["cluster", "status"] => Command::Cluster { action: ClusterAction::Status, name },
        ["images"] => Command::Images { name },
        ["install"] => Command::Install { name },
        ["nodes"] => Command::Nodes { name },
        ["generate"] => Command::Generate,
        other => return Err(format!("no such command: {}", other.join(" "))),
    };
    let given = [
        ("--seeds", seeds.is_some()),
        ("--seed", seed.is_some()),
        ("--rounds", rounds.is_some()),
        ("--row", row.is_some()),
        ("--pipelines", pipelines.is_some()),
        ("--settle", settle.is_some()),
        ("--workers", workers.is_some()),
    ];
    let untaken = given.into_iter().filter(|(_, given)| *given);
    flags.extend(untaken.map(|(option, _)| option));
    match flags.first() {
        Some(flag) => Err(format!("no such option here: {flag}")),
        None => Ok(command),
    }
}

fn take(flags: &mut Vec<&str>, flag: &str) -> bool {
    let before = flags.len();
    flags.retain(|other| *other != flag);
    flags.len() < before
}

fn number(option: &str, value: Option<&String>) -> Result<u64, String> {
    let value = value.ok_or_else(|| format!("{option} needs a number"))?;
    value.parse().map_err(|_| format!("{option} {value}: not a number"))
}

fn few_workers(value: Option<&String>) -> Result<usize, String> {
    match number("--workers", value)? {
        count @ 0..=MOST_WORKERS => Ok(count as usize),
        count => Err(format!("--workers {count}: at most {MOST_WORKERS}")),
    }
}

/// A cluster's name becomes a container's and a file's name.
fn valid_name(name: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 40 || name.starts_with('-') || !name.chars().all(valid) {
        return Err(format!("not a cluster name: {name:?} (lower-case letters, digits, -, at most 40)"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn commands_and_their_options_are_read_in_any_order() {
        assert_eq!(parsed("test --fast"), Ok(Command::Test { fast: true, name: None }));
        assert_eq!(parsed("--fast test"), Ok(Command::Test { fast: true, name: None }));
        assert_eq!(
            parsed("cluster --name lab up"),
            Ok(Command::Cluster { action: ClusterAction::Up { workers: 0 }, name: Some("lab".into()) })
        );
        assert_eq!(
            parsed("cluster up --workers 2"),
            Ok(Command::Cluster { action: ClusterAction::Up { workers: 2 }, name: None })
        );
        assert_eq!(parsed("soak --seed 7"), Ok(Command::Soak { seeds: SEEDS, seed: Some(7) }));
        assert_eq!(parsed("--seeds 3 soak"), Ok(Command::Soak { seeds: 3, seed: None }));
        assert_eq!(
            parsed("bench bridge --row json4-qos1 --rounds 5"),
            Ok(Command::Bench { rounds: 5, row: Some("json4-qos1".into()), quick: false })
        );
        assert_eq!(parsed("bench --quick"), Ok(Command::Bench { rounds: 1, row: None, quick: true }));
        assert_eq!(
            parsed("bench operator --settle 30"),
            Ok(Command::BenchOperator { pipelines: PIPELINES, settle: 30, anchor: true })
        );
        assert_eq!(
            parsed("bench operator --pipelines 9 --no-anchor"),
            Ok(Command::BenchOperator { pipelines: 9, settle: SETTLE, anchor: false })
        );
        assert_eq!(parsed(""), Ok(Command::Help));
    }

    #[test]
    fn what_a_command_does_not_take_is_refused() {
        assert!(parsed("demo --fast").is_err());
        assert!(parsed("test --seeds 3").is_err());
        assert!(parsed("soak --seeds many").is_err());
        assert!(parsed("soak --rounds 3").is_err());
        assert!(parsed("bench operator --rounds 2").is_err());
        assert!(parsed("bench --settle 2").is_err());
        assert!(parsed("bench --no-anchor").is_err());
        assert!(parsed("cluster").is_err());
        assert!(parsed("cluster up --workers 4").is_err());
        assert!(parsed("cluster down --workers 1").is_err());
        assert!(parsed("images --name").is_err());
        assert!(parsed("images --name ../x").is_err());
    }
}
