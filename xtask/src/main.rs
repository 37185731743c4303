//! The project's commands: `cargo xtask help` lists them. Each is a list of named steps.
//!
//! Reading guide: `command` holds the lists; `progress` runs a list and shows it; `context` is what
//! steps share. Then one file per subject: `parts` (what the cluster is made of, pulled or built),
//! `cluster`, `images` (our own), `chart`, `checks` (the tests), `nodes` (those of nodes that die), `demo`,
//! `soak` and `bench` with `released` (what both compile).

mod args;
mod bench;
mod cargo;
mod chart;
mod checks;
mod cluster;
mod command;
mod context;
mod counts;
mod demo;
mod hash;
mod images;
mod nodes;
mod parts;
mod paths;
mod process;
mod progress;
mod released;
mod soak;

use std::process::ExitCode;

/// What a step or a whole command ends with. Errors are sentences: nobody handles them by kind.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match args::parse(&arguments) {
        Ok(args::Command::Help) => {
            print!("{}", args::USAGE);
            ExitCode::SUCCESS
        }
        Ok(command) => command::run(&command),
        Err(problem) => {
            eprintln!("{problem}\n\n{}", args::USAGE);
            ExitCode::from(2)
        }
    }
}
