//! The short run of the fuzz targets, on stable and in seconds: each target gets its seeds, and then mutations
//! of them. `bridge/fuzz/` has the targets, and the long run, which libFuzzer guides by coverage.
//!
//! The mutations follow from a number, so that a failure comes again: `IOTPIPELINE_FUZZ_SEED` sets another
//! number, and `IOTPIPELINE_FUZZ_ITERATIONS` how many inputs each target gets.

mod mutate;
mod seeds;
#[path = "../../fuzz/src/lib.rs"]
pub mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;

use self::mutate::mutate;
use self::targets::{TARGETS, Target};

const SEED: u64 = 20_261_124;

/// All targets together take less than 5 s with so many, in a debug build on 2 cores.
const ITERATIONS: u64 = 1_500;

/// No input takes a hundredth of this. A busy machine does not make it fail, a loop without an end does.
const DEADLINE: Duration = Duration::from_secs(10);

/// More than the process ever needs, and less than a length of 32 bits that is believed would take.
const MAX_ADDRESS_SPACE: u64 = 3 << 30;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: no number")))
}

/// Says what was tried last, if that panics.
struct Trial<'i> {
    target: &'i str,
    seed: u64,
    iteration: u64,
    input: &'i [u8],
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { target, seed, iteration, input } = self;
            eprintln!("target {target}, IOTPIPELINE_FUZZ_SEED={seed}, input {iteration}:");
            eprintln!("{}", input.escape_ascii());
        }
    }
}

fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|(other, _)| *other == name);
    found.unwrap_or_else(|| panic!("no target {name}")).1
}

/// Gives a target its seeds, and then mutations of them.
fn fuzz(name: &str) {
    let (target, seeds) = (target(name), seeds::of(name));
    assert!(!seeds.is_empty(), "no seeds for {name}");
    let (seed, iterations) =
        (setting("IOTPIPELINE_FUZZ_SEED", SEED), setting("IOTPIPELINE_FUZZ_ITERATIONS", ITERATIONS));
    let mut random = Rng::with_seed(seed);
    for iteration in 0..seeds.len() as u64 + iterations {
        let input = match seeds.get(iteration as usize) {
            Some(whole) => whole.clone(),
            None => mutate(&seeds, &mut random),
        };
        let (trial, started) = (Trial { target: name, seed, iteration, input: &input }, Instant::now());
        target(&input);
        let took = started.elapsed();
        assert!(took < DEADLINE, "it took {took:?}");
        drop(trial);
    }
    if let Some(peak) = peak_address_space() {
        assert!(peak < MAX_ADDRESS_SPACE, "seed {seed}: {peak} bytes were allocated");
    }
}

/// Of this process, in bytes; nothing where the system does not tell.
fn peak_address_space() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}

#[test]
fn topics_are_matched_as_the_plain_matcher_does_it() {
    fuzz("topic");
}

#[test]
fn no_bytes_of_a_broker_break_the_session() {
    fuzz("packets");
}

#[test]
fn json_becomes_line_protocol_or_is_refused() {
    fuzz("json");
}

#[test]
fn cbor_becomes_line_protocol_or_is_refused() {
    fuzz("cbor");
}

#[test]
fn message_pack_becomes_line_protocol_or_is_refused() {
    fuzz("message_pack");
}

#[test]
fn line_protocol_is_written_anew_or_refused() {
    fuzz("line_protocol");
}

#[test]
fn sparkplug_becomes_line_protocol_or_is_refused() {
    fuzz("sparkplug");
}

#[test]
fn a_configuration_is_read_or_refused() {
    fuzz("configuration");
}

/// A target that nobody tries would be forgotten.
#[test]
fn each_target_has_a_program_and_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = include_str!("main.rs");
    for (name, _) in TARGETS {
        assert!(folder.join(format!("fuzz/fuzz_targets/{name}.rs")).exists(), "{name}");
        assert!(tests.contains(&format!("fuzz(\"{name}\");")), "{name}");
    }
    let programs = std::fs::read_dir(folder.join("fuzz/fuzz_targets")).expect("the programs").count();
    assert_eq!(programs, TARGETS.len());
}

/// What a long run starts from.
#[test]
#[ignore = "writes files: run it before cargo fuzz"]
fn the_seeds_become_a_corpus() {
    for (name, _) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        for (place, seed) in seeds::of(name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{place}")), seed).expect("to write a seed");
        }
    }
}
