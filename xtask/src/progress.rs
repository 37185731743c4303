//! Runs a list of steps, and shows where it is: on a terminal a line that moves, elsewhere a line at
//! each step's end and one every 20 seconds in between.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::Result;
use crate::context::Context;
use crate::process::Log;

/// One named step of a command.
pub(crate) struct Step {
    /// Short, and also the log's name.
    pub(crate) name: &'static str,
    /// What a reader should know while it runs.
    pub(crate) about: &'static str,
    /// What it changes that others may be changing too.
    pub(crate) lock: Option<Lock>,
    pub(crate) work: fn(&mut Context, &Log) -> Result<Outcome>,
}

/// What all commands on this machine share: only one at a time may change it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock {
    Docker,
    Parts,
    Images,
    Cluster,
}

/// How a step ended, when it didn't fail.
pub(crate) enum Outcome {
    /// It did its work. The text says what came of it, and may be empty.
    Done(String),
    /// Its inputs are those of the last time: nothing to do.
    Unchanged(String),
    /// It doesn't apply here. The text says why.
    Skipped(String),
}

/// A finished step, for the summary.
pub(crate) struct Finished {
    name: &'static str,
    result: String,
    took: Duration,
}

/// The display of one command.
pub(crate) struct Progress {
    logs: PathBuf,
    started: Instant,
    finished: Vec<Finished>,
}

const HEARTBEAT: Duration = Duration::from_secs(20);
const FRAME: Duration = Duration::from_millis(120);
const SPINNER: [char; 8] = ['⣷', '⣯', '⣟', '⡿', '⢿', '⣻', '⣽', '⣾'];
/// Columns that every terminal has.
const NARROW: usize = 79;
const QUOTED_LINES: usize = 40;

impl Progress {
    /// Begins; each step's log goes to this folder.
    pub(crate) fn new(logs: PathBuf) -> Self {
        Self { logs, started: Instant::now(), finished: Vec::new() }
    }

    /// Runs the steps in order. Stops at the first that fails, says which, and quotes its log.
    pub(crate) fn run(&mut self, context: &mut Context, steps: &[&Step]) -> Result<()> {
        for (index, step) in steps.iter().enumerate() {
            self.step(context, step, &format!("[{:>2}/{}]", index + 1, steps.len()))?;
        }
        Ok(())
    }

    fn step(&mut self, context: &mut Context, step: &Step, position: &str) -> Result<()> {
        let log = Log::create(self.logs.join(format!("{}.log", step.name)))?;
        let started = Instant::now();
        let title = format!("{position} {:<12}", step.name);
        let ticker = Ticker::start(&title, step.about, &log);
        let result = perform(context, step, &log);
        ticker.stop();
        let took = started.elapsed();
        let (word, remark) = match &result {
            Ok(Outcome::Done(remark)) => ("done", remark.clone()),
            Ok(Outcome::Unchanged(remark)) => ("unchanged", remark.clone()),
            Ok(Outcome::Skipped(remark)) => ("skipped", remark.clone()),
            Err(problem) => ("FAILED", problem.to_string()),
        };
        println!("{title} {word:<9} {:>11}  {remark}", seconds(took));
        self.finished.push(Finished { name: step.name, result: word.to_owned(), took });
        result.map(|_| ()).inspect_err(|_| quote(&log))
    }

    /// A table of all steps with their times.
    pub(crate) fn summary(&self) {
        println!("\n{:<14} {:<10} {:>11}", "step", "result", "time");
        for step in &self.finished {
            println!("{:<14} {:<10} {:>11}", step.name, step.result, seconds(step.took));
        }
        println!("{:<14} {:<10} {:>11}", "all", "", seconds(self.started.elapsed()));
    }

    /// The time since the command began.
    pub(crate) fn elapsed(&self) -> String {
        seconds(self.started.elapsed())
    }
}

fn perform(context: &mut Context, step: &Step, log: &Log) -> Result<Outcome> {
    let _turn = step.lock.map(|lock| context.turn(lock, log)).transpose()?;
    (step.work)(context, log)
}

fn quote(log: &Log) {
    println!("\nThe end of {}:\n", log.path().display());
    for line in log.tail(QUOTED_LINES).lines() {
        println!("    {line}");
    }
    println!();
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// Shows that a step lives, from a thread of its own, until it is told to stop.
struct Ticker {
    stop: Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Ticker {
    fn start(title: &str, about: &str, log: &Log) -> Self {
        let (stop, stopped) = channel();
        let (title, about, log) = (title.to_owned(), about.to_owned(), log.clone());
        let thread = std::thread::spawn(move || match std::io::stdout().is_terminal() {
            true => spin(&title, &about, &log, &stopped),
            false => beat(&title, &about, &log, &stopped),
        });
        Self { stop, thread }
    }

    fn stop(self) {
        // Both fail only when the thread is gone already.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn spin(title: &str, about: &str, log: &Log, stopped: &Receiver<()>) {
    let started = Instant::now();
    for frame in SPINNER.iter().cycle() {
        let latest = latest_line(log, usize::MAX);
        let shown = if latest.is_empty() { about } else { &latest };
        let line = format!("{title} {frame} {:>11}  {shown}", seconds(started.elapsed()));
        // A line that wraps can't be drawn over.
        print!("\r\x1b[K{}", line.chars().take(NARROW).collect::<String>());
        let _ = std::io::stdout().flush();
        if stopped.recv_timeout(FRAME) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    print!("\r\x1b[K");
}

fn beat(title: &str, about: &str, log: &Log, stopped: &Receiver<()>) {
    let started = Instant::now();
    // What is over at once needs no announcement.
    if stopped.recv_timeout(Duration::from_secs(2)) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    println!("{title} {about}");
    while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
        println!("{title} ...       {:>11}  {}", seconds(started.elapsed()), latest_line(log, 100));
    }
}

fn latest_line(log: &Log, width: usize) -> String {
    let tail = log.tail(1);
    tail.chars().filter(|c| !c.is_control()).take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_to_read() {
        assert_eq!(seconds(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(605)), "10 min 05 s");
    }
}
