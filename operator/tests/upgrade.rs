//! What an upgrade of the operator restarts: pods whose template is another than the last release's. CHANGELOG
//! names them. The templates of a version that is not out yet are written by `UPDATE=1`; those of a release stay.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use iotpipeline_operator::plan::Plan;
use iotpipeline_operator::resources::desired;
use serde_json::{Value, json};
use support::{Case, config, templates as templates_of, tokens};

/// The examples, and all of which the golden tests have the objects.
fn cases() -> Vec<String> {
    let golden = fs::read_dir(here().join("tests/golden")).expect("there are cases");
    let golden = golden.map(|entry| {
        format!("tests/golden/{}/pipeline.yaml", entry.expect("it can be read").file_name().display())
    });
    let mut cases: Vec<String> = golden.filter(|case| here().join(case).exists()).collect();
    cases.extend(["lab", "minimal"].map(|example| format!("../manifests/examples/{example}.yaml")));
    cases.sort_unstable();
    cases
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pod templates of every case, by case and part.
fn templates() -> Value {
    let of = |case: String| {
        let read = Case::read(&here().join(&case));
        let plan = Plan::new(&read.pipeline, &read.observed, &config()).expect("it can be planned");
        (case, templates_of(&desired(&plan, &tokens())))
    };
    cases().into_iter().map(of).collect()
}

/// The parts with a template that a pipeline of the released operator does not have so.
fn restarted(released: &Value, now: &Value) -> BTreeSet<String> {
    let cases = released.as_object().into_iter().flatten();
    let parts =
        cases.flat_map(|(case, parts)| parts.as_object().into_iter().flatten().map(move |part| (case, part)));
    parts
        .filter(|(case, (part, template))| now[case.as_str()][part.as_str()] != **template)
        .map(|(_, (part, _))| part.clone())
        .collect()
}

/// The parts that the section about what is not released yet names: `Restarts: broker, bridge.`
fn announced(changelog: &str) -> BTreeSet<String> {
    let section =
        changelog.split("\n## [").find(|section| section.starts_with("Unreleased]")).unwrap_or_default();
    let line = section.lines().find_map(|line| line.strip_prefix("Restarts: ")).unwrap_or_default();
    line.trim_end_matches('.').split(", ").filter(|part| !part.is_empty()).map(Into::into).collect()
}

/// The newest version of which templates are kept, and their file.
fn newest() -> (String, PathBuf) {
    let files = fs::read_dir(here().join("tests/released")).expect("there are templates");
    let numbers =
        |version: &str| version.split('.').map(|number| number.parse().unwrap_or(0)).collect::<Vec<u32>>();
    let versions = files.filter_map(|file| {
        let path = file.expect("it can be read").path();
        Some((path.file_stem()?.to_str()?.to_owned(), path))
    });
    versions.max_by_key(|(version, _)| numbers(version)).expect("there is one")
}

#[test]
fn an_upgrade_restarts_the_pods_that_the_changelog_names() {
    let changelog = fs::read_to_string(here().join("../CHANGELOG.md")).expect("there is a changelog");
    let (version, file) = newest();
    let is_out = changelog.contains(&format!("\n## [{version}]"));
    let now = templates();
    if !is_out && std::env::var_os("UPDATE").is_some() {
        fs::write(&file, serde_saphyr::to_string(&now).expect("JSON is YAML")).expect("it can be written");
    }
    let released: Value =
        serde_saphyr::from_str(&fs::read_to_string(&file).expect("it is there")).expect("it is YAML");
    let restarted = restarted(&released, &now);
    if is_out {
        let announced = announced(&changelog);
        assert_eq!(restarted, announced, "CHANGELOG.md, Unreleased, is to say `Restarts: ` and these parts");
    } else {
        assert!(
            restarted.is_empty(),
            "{} has drifted: run `cargo xtask generate`: {restarted:?}",
            file.display()
        );
    }
}

#[test]
fn a_part_is_restarted_by_any_change_of_its_template_and_not_by_being_new() {
    let released = json!({"a": {"broker": {"x": 1}, "bridge": {"x": 1}, "dashboard": null}});
    let now =
        json!({"a": {"broker": {"x": 2}, "bridge": {"x": 1}, "dashboard": null}, "b": {"database": {}}});
    assert_eq!(restarted(&released, &now), ["broker".to_owned()].into());
}

#[test]
fn the_changelog_s_newest_section_names_what_restarts() {
    let changelog =
        "# Changelog\n\n## [Unreleased]\n\nRestarts: broker, bridge.\n\n## [0.1.0]\n\nRestarts: database.\n";
    assert_eq!(announced(changelog), ["bridge".to_owned(), "broker".to_owned()].into());
    assert!(announced("\n## [Unreleased]\n\n- x\n\n## [0.1.0]\n\nRestarts: database.\n").is_empty());
}
