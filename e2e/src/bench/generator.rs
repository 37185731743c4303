//! Publishes a row's messages: as fast as the broker takes them, or evenly. It costs little, since what is
//! measured shares the processors with it: packets are built before, and written many at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::packets::{Packets, bad, connect, publish, share};
use crate::bench::rows::{Pace, Row};

/// Publishers at full speed. mosquitto reads 4 KiB of each in a turn of its loop, and saves once a turn:
/// with one, that would be the bound.
const PUBLISHERS: u64 = 4;
/// How many messages of QoS 1 one of them has on their way.
const WINDOW: u64 = 1_000;
/// More are sent when there is room for so many: a write for each would cost more than the message.
const BURST: u64 = WINDOW / 4;
/// How much of QoS 0 is written at once.
const GULP: u64 = 500;
/// A broker that is silent for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// A row's messages, ready to be published.
pub struct Generator {
    row: Row,
    run: String,
    packets: Vec<Packets>,
}

/// When messages were published.
pub struct Published {
    /// When the first one was.
    pub since: Instant,
    /// When each was, by its number; only where they are paced.
    pub times: Vec<Instant>,
}

impl Generator {
    /// Builds what can be built beforehand.
    pub fn new(row: &Row, run: &str) -> Self {
        let packets = match row.pace {
            Pace::Full => {
                (0..PUBLISHERS).map(|publisher| Packets::of(row, run, publisher, PUBLISHERS)).collect()
            }
            Pace::Rate(_) => Vec::new(),
        };
        Self { row: *row, run: run.to_owned(), packets }
    }

    /// How many of the messages can be stored.
    pub fn good(&self) -> u64 {
        self.row.messages - bad(&self.row, PUBLISHERS)
    }

    /// Publishes all messages, and returns when the broker has them. Blocks.
    ///
    /// # Errors
    /// If the broker closes a connection or says nothing for too long.
    pub fn publish(&self, port: u16) -> Result<Published> {
        match self.row.pace {
            Pace::Full => self.publish_all(port),
            Pace::Rate(rate) => self.publish_evenly(port, rate),
        }
    }

    fn publish_all(&self, port: u16) -> Result<Published> {
        let connections: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| Connection::open(port, &format!("{}-publisher-{publisher}", self.run)))
            .collect::<Result<_>>()?;
        let since = Instant::now();
        thread::scope(|scope| {
            let threads: Vec<_> = connections
                .into_iter()
                .zip(&self.packets)
                .zip(0..)
                .map(|((connection, packets), publisher)| {
                    let messages = share(self.row.messages, publisher, PUBLISHERS);
                    scope.spawn(move || match self.row.qos {
                        0 => connection.flood(packets, messages),
                        _ => connection.publish(packets, messages),
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a publisher does not panic"))
        })?;
        Ok(Published { since, times: Vec::new() })
    }

    fn publish_evenly(&self, port: u16, rate: u64) -> Result<Published> {
        let Row { qos, messages, .. } = self.row;
        ensure!(qos > 0, "a paced row is of QoS 1");
        let mut connection = Connection::open(port, &format!("{}-publisher", self.run))?;
        let mut answers = Answers::of(connection.stream.try_clone()?);
        let (mut packets, mut times) = (Vec::new(), Vec::new());
        let since = Instant::now();
        thread::scope(|scope| {
            let acknowledged = scope.spawn(move || {
                let mut left = messages;
                while left > 0 {
                    left = left.saturating_sub(answers.read()?);
                }
                anyhow::Ok(())
            });
            for number in 0..messages {
                // From the start, so that a pause is made up for and not added.
                let due = since + Duration::from_nanos(number * 1_000_000_000 / rate);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                packets.clear();
                let packet_id = (number % u64::from(u16::MAX)) as u16 + 1;
                publish(
                    &mut packets,
                    qos,
                    packet_id,
                    &self.row.topic(&self.run, number),
                    &number.to_string(),
                );
                times.push(Instant::now());
                connection.stream.write_all(&packets)?;
            }
            acknowledged.join().expect("a reader does not panic")
        })?;
        Ok(Published { since, times })
    }
}

/// One publisher's connection.
struct Connection {
    stream: TcpStream,
}

impl Connection {
    fn open(port: u16, client_id: &str) -> Result<Self> {
        let mut stream = open(port, client_id, true)?;
        stream.set_write_timeout(Some(STUCK))?;
        stream.flush()?;
        Ok(Self { stream })
    }

    /// Publishes at QoS 1, until all is acknowledged.
    fn publish(mut self, packets: &Packets, messages: u64) -> Result<()> {
        let mut answers = Answers::of(self.stream.try_clone()?);
        let (mut sent, mut acknowledged) = (0, 0);
        while acknowledged < messages {
            let room = (WINDOW - (sent - acknowledged)).min(messages - sent);
            if room >= BURST.min(messages - sent) && room > 0 {
                let (bytes, count) = packets.from(sent, room);
                self.stream.write_all(bytes)?;
                sent += count;
            } else {
                acknowledged += answers.read()?;
            }
        }
        Ok(())
    }

    /// Publishes at QoS 0, until the broker has read all of it: then it answers a ping.
    fn flood(mut self, packets: &Packets, messages: u64) -> Result<()> {
        const PINGREQ: [u8; 2] = [0xc0, 0];
        const PINGRESP: [u8; 2] = [0xd0, 0];
        let mut sent = 0;
        while sent < messages {
            let (bytes, count) = packets.from(sent, GULP.min(messages - sent));
            self.stream.write_all(bytes)?;
            sent += count;
        }
        self.stream.write_all(&PINGREQ)?;
        let mut answer = [0; 2];
        self.stream.read_exact(&mut answer).context("the broker does not answer")?;
        ensure!(answer == PINGRESP, "the broker answers a ping with {answer:?}");
        Ok(())
    }
}

/// Opens a connection and waits until the broker has taken it.
///
/// # Errors
/// If it doesn't.
pub(crate) fn open(port: u16, client_id: &str, clean: bool) -> Result<TcpStream> {
    const CONNACK: u8 = 0x20;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("can't reach the broker")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STUCK))?;
    stream.write_all(&connect(client_id, clean))?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).context("no answer to CONNECT")?;
    ensure!((answer[0], answer[3]) == (CONNACK, 0), "not a good answer to CONNECT: {answer:?}");
    Ok(stream)
}

/// Counts acknowledgements.
struct Answers {
    stream: TcpStream,
    bytes: [u8; 16 << 10],
    /// Of an acknowledgement that came in part.
    kept: usize,
}

impl Answers {
    fn of(stream: TcpStream) -> Self {
        Self { stream, bytes: [0; 16 << 10], kept: 0 }
    }

    /// Waits for some, and says how many came.
    fn read(&mut self) -> Result<u64> {
        const PUBACK: u8 = 0x40;
        const LENGTH: usize = 4;
        let read = match self.stream.read(&mut self.bytes[self.kept..]) {
            Ok(0) => bail!("the broker has closed a publisher's connection"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!("the broker acknowledges no more"),
            Err(error) => return Err(error.into()),
        };
        let all = self.kept + read;
        let whole = all - all % LENGTH;
        let are_good = self.bytes[..whole].chunks_exact(LENGTH).all(|answer| answer[0] == PUBACK);
        ensure!(are_good, "the broker sent something else than acknowledgements");
        self.bytes.copy_within(whole..all, 0);
        self.kept = all - whole;
        Ok((whole / LENGTH) as u64)
    }
}
