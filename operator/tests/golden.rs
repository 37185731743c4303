//! Every object that a pipeline is made of, as a reviewer can read it. `UPDATE=1` rewrites the files.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use iotpipeline_operator::plan::Plan;
use iotpipeline_operator::resources::desired;
use support::render::render;
use support::{Case, config, tokens};

const EXAMPLES: [(&str, &str); 2] = [("lab", "lab.yaml"), ("minimal", "minimal.yaml")];

fn check(case: &str, pipeline: &Path) {
    let read = Case::read(pipeline);
    let plan =
        || Plan::new(&read.pipeline, &read.observed, &config()).expect("the case's pipeline can be planned");
    let rendered = render(&desired(&plan(), &tokens()));
    assert_eq!(rendered, render(&desired(&plan(), &tokens())), "{case}: built twice, the objects differ");

    let file = golden().join(case).join("desired.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(golden().join(case)).expect("the case has a directory");
        fs::write(&file, &rendered).expect("the file can be written");
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == rendered,
        "{} has drifted: look at what changes with UPDATE=1 cargo test -p iotpipeline-operator --test golden\n{}",
        file.display(),
        first_difference(&committed, &rendered)
    );
}

fn first_difference(committed: &str, rendered: &str) -> String {
    let differs = committed.lines().zip(rendered.lines()).enumerate().find(|(_, (old, new))| old != new);
    match differs {
        Some((line, (old, new))) => format!("line {}:\n- {old}\n+ {new}", line + 1),
        None => "one is longer than the other".into(),
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn the_objects_of_each_example_are_the_committed_ones() {
    for (case, file) in EXAMPLES {
        check(case, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples").join(file));
    }
}

#[test]
fn the_objects_of_each_case_are_the_committed_ones() {
    let mut count = 0;
    for entry in fs::read_dir(golden()).expect("there are cases") {
        let directory = entry.expect("it can be read").path();
        let pipeline = directory.join("pipeline.yaml");
        if pipeline.exists() {
            count += 1;
            check(&directory.file_name().expect("it has a name").to_string_lossy(), &pipeline);
        }
    }
    assert!(count >= 8, "only {count} cases were found");
}
