//! A reader that reads, takes apart, acknowledges and counts, and stores nothing: what no bridge can go
//! below. A process of its own, so that its cost is counted as that of the others is.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::bench::generator::open;
use crate::bench::packets::subscribe;
use crate::bench::usage::{peak_memory, processor_time};

/// Two reads are this far apart, as the bridge's are.
const GULP_WAIT: Duration = Duration::from_millis(1);
const GULP_BYTES: usize = 256 << 10;
/// When nothing more comes for so long, what was lost at QoS 0 is lost.
const SILENCE: Duration = Duration::from_secs(2);

/// What there is to read.
#[derive(Debug)]
pub struct Task {
    /// Where the broker is, on 127.0.0.1.
    pub port: u16,
    /// The session's name.
    pub client_id: String,
    /// The topics.
    pub filter: String,
    /// The quality of service.
    pub qos: u8,
    /// How many messages there are, after the first, which only says that all is ready.
    pub messages: u64,
}

/// What it came to; the process writes it to its standard output.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Counted {
    /// Messages after the first.
    pub received: u64,
    /// Processor time since the first.
    pub processor_nanoseconds: u64,
    /// The most memory it ever had.
    pub peak_memory_kib: u64,
    /// How long the last message was ago when it gave up waiting for more.
    pub silent_nanoseconds: u64,
}

/// Reads until all is there, or nothing more comes. Blocks.
///
/// # Errors
/// If the broker closes the connection, or sends what it should not.
pub fn read(task: &Task) -> Result<Counted> {
    let own = std::process::id();
    let mut stream = open(task.port, &task.client_id, false)?;
    stream.write_all(&subscribe(&task.filter, task.qos))?;
    let (mut input, mut filled, mut answers) = (vec![0; GULP_BYTES], 0, Vec::new());
    let (mut count, mut before, mut last) = (0, Duration::ZERO, Instant::now());
    while count <= task.messages {
        let read = match stream.read(&mut input[filled..]) {
            Ok(read) => read,
            Err(_) if count > 1 => break,
            Err(error) => return Err(error.into()),
        };
        ensure!(read > 0, "the broker has closed the floor's connection");
        last = Instant::now();
        filled += read;
        let messages = take(&input[..filled], &mut answers);
        input.copy_within(messages.bytes..filled, 0);
        filled -= messages.bytes;
        stream.write_all(&answers)?;
        answers.clear();
        if count == 0 && messages.count > 0 {
            before = processor_time(own)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        } else if count == 1 && messages.count > 0 {
            stream.set_read_timeout(Some(SILENCE))?;
        }
        count += messages.count;
        thread::sleep(GULP_WAIT.saturating_sub(last.elapsed()));
    }
    Ok(Counted {
        received: count.saturating_sub(1),
        processor_nanoseconds: (processor_time(own)? - before).as_nanos() as u64,
        peak_memory_kib: peak_memory(own)?,
        silent_nanoseconds: last.elapsed().as_nanos() as u64,
    })
}

/// What was taken of the input.
#[derive(Debug, Default, PartialEq)]
struct Taken {
    count: u64,
    bytes: usize,
}

/// Counts the messages among the whole packets, and appends their acknowledgements.
fn take(input: &[u8], answers: &mut Vec<u8>) -> Taken {
    const PUBLISH: u8 = 3;
    const PUBACK: [u8; 2] = [0x40, 2];
    let mut taken = Taken::default();
    while let Some((header, length)) = frame(&input[taken.bytes..])
        && let Some(packet) = input.get(taken.bytes..taken.bytes + header + length)
    {
        taken.bytes += packet.len();
        if packet[0] >> 4 != PUBLISH {
            continue;
        }
        taken.count += 1;
        let id = header + 2 + usize::from(u16::from_be_bytes([packet[header], packet[header + 1]]));
        if packet[0] & 6 != 0
            && let Some(id) = packet.get(id..id + 2)
        {
            answers.extend_from_slice(&PUBACK);
            answers.extend_from_slice(id);
        }
    }
    taken
}

/// The lengths of a packet's header and of what follows it.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (place, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((place + 2, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::packets::publish;

    #[test]
    fn whole_messages_are_counted_and_acknowledged() {
        let (mut input, mut answers) = (vec![0x90, 3, 0, 1, 1], Vec::new());
        publish(&mut input, 1, 7, "a/b", &"x".repeat(200));
        publish(&mut input, 0, 0, "a/b", "x");
        let whole = input.len();
        publish(&mut input, 1, 8, "a/b", "x");
        assert_eq!(take(&input[..input.len() - 1], &mut answers), Taken { count: 2, bytes: whole });
        assert_eq!(answers, [0x40, 2, 0, 7]);
        assert_eq!(take(&input[whole..], &mut answers).count, 1);
    }
}
