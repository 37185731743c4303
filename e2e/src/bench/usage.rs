//! What a process has cost so far, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The processor time of all threads that a process has, of its own code and of the kernel's on its
/// behalf. By the scheduler's nanoseconds: the usual counters have ticks of 10 ms, which is all that some
/// rows cost. A thread that has ended is missing; neither the bridge nor Telegraf ends one under load.
///
/// # Errors
/// If there is no such process.
pub fn processor_time(process: u32) -> Result<Duration> {
    let tasks = format!("/proc/{process}/task");
    let mut sum = 0;
    for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        // One that ends while they are counted is no error.
        if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
            sum += first_number(&text).with_context(|| format!("{tasks}: schedstat is {text:?}"))?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// The processor time of a process since its start, of threads that have ended too: exact to 20 ms.
///
/// # Errors
/// If there is no such process.
pub fn whole_processor_time(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    ticks(&text).map(|ticks| Duration::from_millis(10 * ticks)).with_context(|| format!("{path}: {text:?}"))
}

/// User and system time, fields 14 and 15. The second field is a name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    Some(times.next()?? + times.next()??)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The most memory that a process ever had, in KiB.
///
/// # Errors
/// If there is no such process.
pub fn peak_memory(process: u32) -> Result<u64> {
    status(process, "VmHWM:")
}

/// The memory that a process has at this moment, in KiB.
///
/// # Errors
/// If there is no such process.
pub fn memory(process: u32) -> Result<u64> {
    status(process, "VmRSS:")
}

fn status(process: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(first_number).with_context(|| format!("{path} has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_whatever_the_program_is_called() {
        assert_eq!(ticks("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14"), Some(42));
        assert_eq!(ticks("7 (a) S 1 2"), None);
    }

    #[test]
    fn a_process_costs_what_it_does() {
        let own = std::process::id();
        let (before, memory) = (processor_time(own).expect("ours"), peak_memory(own).expect("ours"));
        let mut bytes = vec![1_u8; 32 << 20];
        while processor_time(own).expect("ours") < before + Duration::from_millis(5) {
            bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3));
        }
        assert!(peak_memory(own).expect("ours") >= memory);
        assert!(std::hint::black_box(bytes).len() > 1);
    }
}
