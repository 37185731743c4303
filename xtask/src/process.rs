//! Runs the tools underneath. What they print goes to the step's log file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// A step's log file.
#[derive(Clone, Debug)]
pub(crate) struct Log(PathBuf);

impl Log {
    /// Starts an empty log.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(path.parent().ok_or("a log without a folder")?)?;
        File::create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Adds a line of our own.
    pub(crate) fn note(&self, line: &str) {
        // A log that can't be written is no reason to stop.
        let _ = self.file().and_then(|mut file| Ok(writeln!(file, "{line}")?));
    }

    /// Runs a command, and fails if it does.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        match self.succeeds(command)? {
            true => Ok(()),
            false => Err(failure(command)),
        }
    }

    /// Runs a command, and says whether it succeeded.
    pub(crate) fn succeeds(&self, command: &mut Command) -> Result<bool> {
        self.note(&format!("$ {}", shown(command)));
        let status = command.stdin(Stdio::null()).stdout(self.file()?).stderr(self.file()?).status();
        Ok(status.map_err(|e| cannot_start(command, &e))?.success())
    }

    /// Runs a command and returns what it printed, without the white space around it.
    pub(crate) fn output(&self, command: &mut Command) -> Result<String> {
        self.note(&format!("$ {}", shown(command)));
        let output = command.stdin(Stdio::null()).stderr(self.file()?).output();
        let output = output.map_err(|e| cannot_start(command, &e))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(failure(command)),
        }
    }

    /// Runs a command that reads this text.
    pub(crate) fn feed(&self, command: &mut Command, input: &str) -> Result<()> {
        self.note(&format!("$ {} <<END\n{input}END", shown(command)));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(self.file()?)
            .stderr(self.file()?)
            .spawn()
            .map_err(|e| cannot_start(command, &e))?;
        child.stdin.take().ok_or("no standard input")?.write_all(input.as_bytes())?;
        match child.wait()?.success() {
            true => Ok(()),
            false => Err(failure(command)),
        }
    }

    /// Runs `from | to`.
    pub(crate) fn pipe(&self, from: &mut Command, to: &mut Command) -> Result<()> {
        self.note(&format!("$ {} | {}", shown(from), shown(to)));
        let mut source = from
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.file()?)
            .spawn()
            .map_err(|e| cannot_start(from, &e))?;
        let between = source.stdout.take().ok_or("no standard output")?;
        let sink = to.stdin(between).stdout(self.file()?).stderr(self.file()?).status();
        let sink = sink.map_err(|e| cannot_start(to, &e))?;
        match (source.wait()?.success(), sink.success()) {
            (true, true) => Ok(()),
            (false, _) => Err(failure(from)),
            (_, false) => Err(failure(to)),
        }
    }

    /// The last lines, for a failure's report: without the frames of a panic's backtrace, which
    /// would leave no room for what was said before it.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let content = self.end(64 * 1024).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        let all: Vec<&str> = content.lines().filter(|line| !is_frame(line)).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Everything in it.
    pub(crate) fn content(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.0).unwrap_or_default()).into_owned()
    }

    fn end(&self, bytes: u64) -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&self.0)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(content)
    }

    fn file(&self) -> Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(&self.0);
        Ok(file.map_err(|e| format!("cannot write {}: {e}", self.0.display()))?)
    }
}

/// Whether a command succeeds; nobody sees what it prints.
pub(crate) fn quietly(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What a command prints, if it succeeds.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The first program of this name in PATH.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether this line is of a backtrace: `  12: a::function` or `     at ./file.rs:3:4`.
fn is_frame(line: &str) -> bool {
    let Some(text) = line.strip_prefix("  ").map(str::trim_start) else { return false };
    let number = text.split_once(": ").map_or("", |(number, _)| number);
    text.starts_with("at ") || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let plain = !argument.is_empty() && !argument.contains([' ', '\n', '\'', '"', '$']);
        words.push(if plain { argument.into_owned() } else { format!("{argument:?}") });
    }
    words.join(" ")
}

/// Short: the log has all of it.
fn failure(command: &Command) -> Box<dyn std::error::Error + Send + Sync> {
    let shown = shown(command);
    let short: String = shown.chars().take(100).collect();
    format!("failed: {short}{}", if short.len() < shown.len() { " ..." } else { "" }).into()
}

fn cannot_start(command: &Command, problem: &std::io::Error) -> String {
    format!("cannot start {}: {problem}", command.get_program().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_backtrace_are_told_from_what_a_test_says() {
        for frame in ["   0: __rustc::rust_begin_unwind", "  12: std::rt", "             at ./src/a.rs:3:4"] {
            assert!(is_frame(frame), "{frame}");
        }
        for told in ["thread 'a' panicked at src/a.rs:3:4:", "12: twelve", "  pods: 3", "    attached", ""] {
            assert!(!is_frame(told), "{told}");
        }
    }
}
