//! prometheus-operator, from its Go module: what our operator is measured beside.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::go::{go, require_go};
use crate::Result;
use crate::context::Context;
use crate::hash::Key;
use crate::paths::{Paths, empty_folder};
use crate::process::{Log, answer};
use crate::progress::{Lock, Outcome, Step};

pub(crate) const STEP: Step = Step {
    name: "anchor",
    about: "prometheus-operator from source, to compare with (5 min the first time, on 2 cores)",
    lock: Some(Lock::Parts),
    work: build,
};

/// As in its module's go.mod.
const VERSION: &str = "0.85.0";

const MODULE: &str = "github.com/prometheus-operator/prometheus-operator";

/// As its makers build it: optimised, and without what is for a debugger.
fn linker_flags() -> String {
    format!("-s -w -X github.com/prometheus/common/version.Version={VERSION}")
}

/// Folders of its module, and what they are called beside the program.
const EXAMPLES: [(&str, &str); 2] =
    [("example/prometheus-operator-crd", "definitions"), ("example/rbac/prometheus-operator", "rights")];

fn module(paths: &Paths) -> PathBuf {
    paths.root.join("e2e/bench/prometheus-operator")
}

/// Where it is with its definitions and rights; the name is a hash of what decides on their content.
fn folder(paths: &Paths) -> Result<PathBuf> {
    let mut key = Key::new("prometheus-operator", 1).text(&linker_flags());
    for file in ["go.mod", "go.sum"] {
        key = key.file(&module(paths).join(file))?;
    }
    Ok(paths.cache.join("programs").join(format!("prometheus-operator-{}", key.finish())))
}

/// Tells the bench where it is.
pub(crate) fn tell(paths: &Paths, command: &mut Command) -> Result<()> {
    command.env("IOTPIPELINE_PROMETHEUS_OPERATOR", folder(paths)?);
    Ok(())
}

fn build(context: &mut Context, log: &Log) -> Result<Outcome> {
    let paths = &context.paths;
    let folder = folder(paths)?;
    if folder.exists() {
        return Ok(Outcome::Unchanged(String::new()));
    }
    require_go()?;
    let unfinished = folder.with_extension("unfinished");
    empty_folder(&unfinished)?;
    let mut build = go(&module(paths));
    build.env("CGO_ENABLED", "0").args(["build", "-v", "-trimpath", "-ldflags", &linker_flags(), "-o"]);
    log.run(build.arg(unfinished.join("prometheus-operator")).arg(format!("{MODULE}/cmd/operator")))?;
    let list = answer(go(&module(paths)).args(["list", "-m", "-f", "{{.Dir}}", MODULE]));
    let sources = list.ok_or("go list does not know where the module is")?;
    for (examples, name) in EXAMPLES {
        copy_manifests(&Path::new(&sources).join(examples), &unfinished.join(name))?;
    }
    std::fs::rename(&unfinished, &folder)?;
    Ok(Outcome::Done(format!("prometheus-operator {VERSION}")))
}

/// What has to be applied before it starts; it is a process here, and no pod.
fn copy_manifests(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_wanted = name.ends_with("role.yaml") || name.ends_with("role-binding.yaml");
        if is_wanted || name.starts_with("monitoring.coreos.com_") {
            // A module's files can't be written to, and so neither could copies.
            std::fs::write(to.join(name), std::fs::read(&file)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_the_version_that_the_module_pins() {
        let module = include_str!("../../../e2e/bench/prometheus-operator/go.mod");
        assert!(module.contains(&format!("{MODULE} v{VERSION}")));
    }
}
