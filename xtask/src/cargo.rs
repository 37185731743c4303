//! Cargo, called from a command that Cargo runs.

use std::process::Command;

use crate::paths::Paths;

/// Cargo in the checkout. Continuous integration starts from a fresh clone each time: there, what is
/// compiled goes to the cache, where the next clone finds the dependencies.
pub(crate) fn cargo(paths: &Paths) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&paths.root);
    // What `cargo run` sets for xtask is not meant for what xtask runs.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        command.env("CARGO_TARGET_DIR", paths.cache.join("ci"));
    }
    command.env("CARGO_TERM_COLOR", "never");
    command
}
