//! The project's own images: compiled here, put on a small base, loaded into the cluster.

use std::path::PathBuf;
use std::process::Command;

use crate::Result;
use crate::cargo::cargo;
use crate::cluster::node_container;
use crate::context::Context;
use crate::hash::Key;
use crate::parts::{LOCAL, Origin, debian, has_image, node, pull};
use crate::paths::{Paths, empty_folder};
use crate::process::{Log, answer, quietly};
use crate::progress::{Outcome, Step};

/// Compiles and packs what has changed.
pub(crate) const BUILD: Step = Step {
    name: "images",
    about: "compiles the operator, the bridge and the Grafana stand-in (6 min the first time, on 2 cores)",
    alone: true,
    work: build,
};

/// Loads into the cluster what it doesn't have.
pub(crate) const LOAD: Step =
    Step { name: "load", about: "loads the images into the cluster", alone: true, work: load };

/// References of our images, and the programs in them as files of this machine.
#[derive(Debug)]
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
    package: &'static str,
    program: &'static str,
    /// The crates that it is compiled from.
    crates: &'static [&'static str],
    /// A test's tool needs no optimising, and shares what is compiled for the tests.
    release: bool,
}

const OPERATOR: Own = Own {
    name: "operator",
    package: "iotpipeline-operator",
    program: "iotpipeline-operator",
    crates: &["api", "operator"],
    release: true,
};
const BRIDGE: Own = Own {
    name: "bridge",
    package: "iotpipeline-bridge",
    program: "iotpipeline-bridge",
    crates: &["api", "bridge"],
    release: true,
};
const STAND_IN: Own = Own {
    name: "grafana-stand-in",
    package: "iotpipeline-e2e",
    program: "grafana-stand-in",
    crates: &["api", "e2e"],
    release: false,
};

/// Folders of a crate that nothing in an image is compiled from.
const NOT_COMPILED: [&str; 6] = ["tests", "benches", "fuzz", "target", "cluster", "examples"];

impl Own {
    /// The image's name, by its sources.
    fn reference(&self, paths: &Paths, base: &str) -> Result<String> {
        let mut key = Key::new(self.name, 1).text(base);
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

    /// Compiles the program and says where it is.
    fn compile(&self, paths: &Paths, log: &Log) -> Result<PathBuf> {
        let mut build = cargo(paths);
        build.args(["build", "--package", self.package, "--bin", self.program]);
        let target = if self.release {
            build.arg("--release");
            paths.cache.join("cargo")
        } else {
            paths.root.join("target")
        };
        log.run(build.arg("--target-dir").arg(&target))?;
        Ok(target.join(if self.release { "release" } else { "debug" }).join(self.program))
    }

    /// Puts the program on the base. Nothing in the image is writable, and it runs as nobody.
    fn pack(&self, program: &PathBuf, base: &str, reference: &str, log: &Log) -> Result<()> {
        let context = std::env::temp_dir().join(format!("iotpipeline-{}-{}", self.name, std::process::id()));
        empty_folder(&context)?;
        let packed = context.join(self.program);
        std::fs::copy(program, &packed)?;
        // Debug information is most of an unoptimised program. Without strip, it goes along.
        quietly(Command::new("strip").arg(&packed));
        let path = format!("/usr/local/bin/{}", self.program);
        let dockerfile =
            format!("FROM {base}\nCOPY {} {path}\nUSER 65532:65532\nENTRYPOINT [\"{path}\"]\n", self.program);
        std::fs::write(context.join("Dockerfile"), dockerfile)?;
        let result = node::docker_build(&context, reference, &[], log);
        std::fs::remove_dir_all(&context)?;
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

fn build(context: &mut Context, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    let (base, wanted) = match context.origin()? {
        Origin::Build => (debian::base(), vec![&OPERATOR, &BRIDGE, &STAND_IN]),
        Origin::Pull => (pull::BASE.to_owned(), vec![&OPERATOR, &BRIDGE]),
    };
    let mut built = Vec::new();
    let mut references = Vec::new();
    for own in wanted {
        let reference = own.reference(paths, &base)?;
        if !has_image(&reference) {
            let program = own.compile(paths, log)?;
            own.pack(&program, &base, &reference, log)?;
            built.push(own.name);
        }
        references.push(reference);
    }
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

fn load(context: &mut Context, log: &Log) -> Result<Outcome> {
    let node = node_container(&context.cluster);
    let list = ["exec", &node, "ctr", "--namespace", "k8s.io", "images", "list", "--quiet"];
    let Some(present) = answer(Command::new("docker").args(list)) else {
        return Ok(Outcome::Skipped("no cluster runs".into()));
    };
    let own = context.own()?;
    let parts = context.images()?;
    // The node has mosquitto and InfluxDB if it was built here. Pulled ones are loaded: one download.
    let mut wanted = vec![own.operator.as_str(), &own.bridge, &parts.mosquitto, &parts.influxdb];
    wanted.extend(own.stand_in.as_deref());
    wanted.extend(parts.grafana.as_deref());
    wanted.retain(|image| !present.lines().any(|line| line == *image));
    for image in &wanted {
        let mut load = context.tool("kind");
        log.run(load.args(["load", "docker-image", image, "--name", &context.cluster]))?;
    }
    Ok(match wanted.len() {
        0 => Outcome::Unchanged(String::new()),
        _ => Outcome::Done(wanted.join(", ")),
    })
}
