//! What the cluster is made of besides our own images: Kubernetes, mosquitto, InfluxDB, Grafana.
//!
//! There are two ways to it. Where a registry answers, the public images are pulled. Where none does,
//! the same programs are built from source (Go modules) and from Debian's packages. Grafana can't be
//! built so: a stand-in of ours takes its place, and whoever shows its results says so.
//!
//! *Pulling was written on machines that reach no image registry, and could not be tried there.*

pub(crate) mod debian;
pub(crate) mod docker;
pub(crate) mod go;
mod module;
pub(crate) mod node;
pub(crate) mod prometheus_operator;
pub(crate) mod pull;
pub(crate) mod s3;
pub(crate) mod telegraf;
pub(crate) mod witness;

use std::process::Command;

use crate::Result;
use crate::context::Context;
use crate::paths::Paths;
use crate::process::{Log, answer, quietly};
use crate::progress::{Outcome, Step};

/// The first part of every image name that exists on this machine only.
pub(crate) const LOCAL: &str = "iotpipeline.local";

/// Where parts come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Origin {
    Pull,
    Build,
}

impl Origin {
    /// As in `IOTPIPELINE_PARTS`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Build => "build",
        }
    }
}

/// The images of a pipeline's parts that others make.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) mosquitto: String,
    pub(crate) influxdb: String,
    /// None where there is only our stand-in.
    pub(crate) grafana: Option<String>,
}

impl Images {
    /// Their names, whether they exist already or not.
    pub(crate) fn of(paths: &Paths, origin: Origin) -> Result<Self> {
        Ok(match origin {
            Origin::Pull => Self {
                mosquitto: pull::MOSQUITTO.to_owned(),
                influxdb: pull::INFLUXDB.to_owned(),
                grafana: Some(pull::GRAFANA.to_owned()),
            },
            Origin::Build => {
                Self { mosquitto: debian::mosquitto(), influxdb: node::influxdb_image(paths)?, grafana: None }
            }
        })
    }
}

/// From nothing to all parts.
pub(crate) const STEPS: [&Step; 7] =
    [&docker::STEP, &PARTS, &debian::STEP, &go::KUBERNETES, &go::INFLUXD, &node::STEP, &pull::STEP];

const PARTS: Step =
    Step { name: "parts", about: "asks whether a registry answers", lock: None, work: choose };

fn choose(context: &mut Context, log: &Log) -> Result<Outcome> {
    let (origin, why) = match std::env::var("IOTPIPELINE_PARTS").ok().as_deref() {
        Some("pull") => (Origin::Pull, "as IOTPIPELINE_PARTS says"),
        Some("build") => (Origin::Build, "as IOTPIPELINE_PARTS says"),
        Some("") | None if pull::registry_answers(log) => (Origin::Pull, "a registry answers"),
        Some("") | None => (Origin::Build, "no registry answers"),
        Some(other) => return Err(format!("IOTPIPELINE_PARTS is {other:?}: pull or build?").into()),
    };
    context.origin = Some(origin);
    Ok(Outcome::Done(match origin {
        Origin::Pull => format!("pulled as public images ({why})"),
        Origin::Build => format!("built from source and Debian packages ({why}); Grafana by a stand-in"),
    }))
}

/// Whether Docker has an image of this name.
pub(crate) fn has_image(name: &str) -> bool {
    quietly(Command::new("docker").args(["image", "inspect", name]))
}

/// Removes the oldest images of an image's repository, so that it and `others` more are left.
///
/// Dates alone don't tell which one was just made: what is built again from other sources may come
/// out as the same bytes, and then Docker gives the new name to an image of the old date.
pub(crate) fn forget_old(made: &str, others: usize, log: &Log) {
    let repository = made.rsplit_once(':').map_or(made, |(repository, _)| repository);
    let list = ["images", "--format", "{{.Repository}}:{{.Tag}}", repository];
    let images = answer(Command::new("docker").args(list)).unwrap_or_default();
    for image in images.lines().filter(|image| *image != made).skip(others) {
        // One that a container still uses stays.
        let _ = log.succeeds(Command::new("docker").args(["rmi", image]));
    }
}
