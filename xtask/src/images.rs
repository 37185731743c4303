//! The project's own images: compiled here, put on a small base, loaded into the cluster.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::cargo::cargo;
use crate::cluster;
use crate::context::Context;
use crate::hash::Key;
use crate::parts::{LOCAL, Origin, debian, forget_old, has_image, node, pull};
use crate::paths::{Paths, empty_folder};
use crate::process::{Log, answer};
use crate::progress::{Lock, Outcome, Step};

/// Compiles and packs what has changed.
pub(crate) const BUILD: Step = Step {
    name: "images",
    about: "compiles the operator, the bridge, the Grafana stand-in (2 to 5 min the first time, on 2 cores)",
    lock: Some(Lock::Images),
    work: build,
};

/// Loads into the cluster what it doesn't have.
pub(crate) const LOAD: Step =
    Step { name: "load", about: "loads the images into the cluster", lock: Some(Lock::Cluster), work: load };

/// References of our images, and the programs in them as files of this machine.
#[derive(Clone, Debug)]
pub(crate) struct OwnImages {
    pub(crate) operator: String,
    pub(crate) bridge: String,
    /// Only where Grafana itself can't be had.
    pub(crate) stand_in: Option<String>,
    pub(crate) operator_program: PathBuf,
    pub(crate) bridge_program: PathBuf,
}

/// One image of ours.
struct Own {
    name: &'static str,
    program: &'static str,
    /// The crates that it is compiled from.
    crates: &'static [&'static str],
}

const OPERATOR: Own = Own { name: "operator", program: "iotpipeline-operator", crates: &["api", "operator"] };
const BRIDGE: Own = Own { name: "bridge", program: "iotpipeline-bridge", crates: &["api", "bridge"] };
const STAND_IN: Own = Own { name: "grafana-stand-in", program: "grafana-stand-in", crates: &["api", "e2e"] };

/// Folders of a crate that nothing in an image is compiled from.
const NOT_COMPILED: [&str; 6] = ["tests", "benches", "fuzz", "target", "cluster", "examples"];

/// How many older images of one name are kept: going back to an older state is then quick.
const KEPT: usize = 4;

impl Own {
    /// The image's name, by its sources.
    fn reference(&self, paths: &Paths, base: &str) -> Result<String> {
        let mut key = Key::new(self.name, 2).text(base);
        for file in ["Cargo.lock", "Cargo.toml", "rust-toolchain.toml"] {
            key = key.file(&paths.root.join(file))?;
        }
        for folder in self.crates {
            key = key.text(folder).tree(&paths.root.join(folder), &NOT_COMPILED)?;
        }
        Ok(format!("{LOCAL}/{}:{}", self.name, key.finish()))
    }

    /// Where the program of this image is kept as a file.
    fn file(&self, paths: &Paths, reference: &str) -> PathBuf {
        let tag = reference.rsplit(':').next().unwrap_or_default();
        paths.cluster().join("programs").join(tag).join(self.program)
    }

    /// Puts the program on the base. Nothing in the image is writable, and it runs as nobody.
    fn pack(&self, programs: &Path, base: &str, reference: &str, log: &Log) -> Result<()> {
        let context = std::env::temp_dir().join(format!("iotpipeline-{}-{}", self.name, std::process::id()));
        empty_folder(&context)?;
        std::fs::copy(programs.join(self.program), context.join(self.program))?;
        let path = format!("/usr/local/bin/{}", self.program);
        let dockerfile =
            format!("FROM {base}\nCOPY {} {path}\nUSER 65532:65532\nENTRYPOINT [\"{path}\"]\n", self.program);
        std::fs::write(context.join("Dockerfile"), dockerfile)?;
        let result = node::docker_build(&context, reference, &[], log);
        std::fs::remove_dir_all(&context)?;
        forget_old(reference, KEPT, log);
        result
    }

    /// The program out of its image: right also when another checkout has compiled it.
    fn extract(&self, paths: &Paths, reference: &str, log: &Log) -> Result<PathBuf> {
        let file = self.file(paths, reference);
        if file.exists() {
            return Ok(file);
        }
        let container = log.output(Command::new("docker").args(["create", reference]))?;
        let source = format!("{container}:/usr/local/bin/{}", self.program);
        std::fs::create_dir_all(file.parent().ok_or("a program without a folder")?)?;
        let copied = log.run(Command::new("docker").args(["cp", &source]).arg(&file));
        log.run(Command::new("docker").args(["rm", &container]))?;
        copied.map(|()| file)
    }
}

/// Compiles all programs in one call, so that what they share is compiled once, into the cache, so
/// that other checkouts share it too. Returns the folder of the programs.
pub(crate) fn compile(paths: &Paths, log: &Log) -> Result<PathBuf> {
    let mut build = cargo(paths);
    build.args(["build", "--profile", PROFILE, "--bins"]);
    build.args(["--package", "iotpipeline-operator", "--package", "iotpipeline-bridge"]);
    build.args(["--package", "iotpipeline-e2e", "--target-dir"]);
    let target = paths.cache.join("cargo");
    log.run(build.arg(&target))?;
    Ok(target.join(PROFILE))
}

/// In the workspace's Cargo.toml.
const PROFILE: &str = "local";

fn build(context: &mut Context, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    let (base, wanted) = match context.origin()? {
        Origin::Build => (debian::base(), vec![&OPERATOR, &BRIDGE, &STAND_IN]),
        Origin::Pull => (pull::BASE.to_owned(), vec![&OPERATOR, &BRIDGE]),
    };
    let mut references = Vec::new();
    for own in &wanted {
        references.push(own.reference(paths, &base)?);
    }
    let missing: Vec<_> = wanted.iter().zip(&references).filter(|(_, image)| !has_image(image)).collect();
    if !missing.is_empty() {
        let programs = compile(paths, log)?;
        for (own, reference) in &missing {
            own.pack(&programs, &base, reference, log)?;
        }
    }
    let built: Vec<_> = missing.iter().map(|(own, _)| own.name).collect();
    let mut references = references.into_iter();
    let mut next = || references.next().unwrap_or_default();
    let (operator, bridge) = (next(), next());
    context.own = Some(OwnImages {
        operator_program: OPERATOR.extract(paths, &operator, log)?,
        bridge_program: BRIDGE.extract(paths, &bridge, log)?,
        operator,
        bridge,
        stand_in: Some(next()).filter(|reference| !reference.is_empty()),
    });
    Ok(match built.is_empty() {
        true => Outcome::Unchanged(String::new()),
        false => Outcome::Done(built.join(", ")),
    })
}

/// Loads into every node what it doesn't have.
pub(crate) fn load(context: &mut Context, log: &Log) -> Result<Outcome> {
    let own = context.own()?;
    let parts = context.images()?;
    // The node has mosquitto and InfluxDB if it was built here. Pulled ones are loaded: one download.
    let mut wanted = vec![own.operator.as_str(), &own.bridge, &parts.mosquitto, &parts.influxdb];
    wanted.extend(own.stand_in.as_deref());
    wanted.extend(parts.grafana.as_deref());
    let mut loaded = BTreeSet::new();
    let mut nodes = 0;
    for node in cluster::nodes(&context.cluster) {
        if let Some(missing) = load_into(&node, &wanted, log)? {
            nodes += 1;
            loaded.extend(missing);
        }
    }
    if nodes == 0 {
        return Ok(Outcome::Skipped("no cluster runs".into()));
    }
    Ok(match loaded.is_empty() {
        true => Outcome::Unchanged(String::new()),
        false => Outcome::Done(loaded.into_iter().collect::<Vec<_>>().join(", ")),
    })
}

/// Returns what the node didn't have; nothing if it doesn't run.
fn load_into<'i>(node: &str, wanted: &[&'i str], log: &Log) -> Result<Option<Vec<&'i str>>> {
    let list = ["exec", node, "ctr", "--namespace", "k8s.io", "images", "list", "--quiet"];
    let Some(present) = answer(Command::new("docker").args(list)) else { return Ok(None) };
    let is_present = |image: &str| present.lines().any(|line| line == image);
    let missing: Vec<_> = wanted.iter().copied().filter(|image| !is_present(image)).collect();
    if !missing.is_empty() {
        // All at once: Docker saves what they have in common, the base, once. They are unpacked when
        // a pod first needs them.
        let mut import = Command::new("docker");
        import.args(["exec", "--interactive", node, "ctr", "--namespace", "k8s.io", "images", "import"]);
        import.args(["--all-platforms", "--no-unpack", "-"]);
        log.pipe(Command::new("docker").arg("save").args(&missing), &mut import)?;
    }
    Ok(Some(missing))
}
