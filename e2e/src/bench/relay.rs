//! An HTTP relay before the database, the same for whoever is measured: it notes when a write was
//! answered with 204, and so when its points were stored, and keeps their lines where they are asked for.
//!
//! It passes a request on when it has all of it. That adds microseconds to a write on loopback, to
//! everybody's alike.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use libdeflater::Decompressor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A relay. Ends when dropped.
pub struct Relay {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    away: Arc<AtomicBool>,
    writes: Arc<Mutex<Writes>>,
    accept: JoinHandle<()>,
}

/// The writes since the last start.
#[derive(Default)]
struct Writes {
    last: Option<Instant>,
    keeps: bool,
    kept: Vec<Stored>,
}

/// A write that the database has taken.
pub struct Stored {
    /// When it said so.
    pub at: Instant,
    body: Vec<u8>,
    is_gzip: bool,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Relay {
    /// Listens on a port of 127.0.0.1 for a database on another.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start(database_port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (away, writes) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Writes>>::default());
        let shared = (Arc::clone(&away), Arc::clone(&writes));
        let accept = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A connection that breaks is its client's affair.
                let (away, writes) = shared.clone();
                tokio::spawn(carry(client, database_port, away, writes));
            }
        });
        Ok(Self { port, away, writes, accept })
    }

    /// Answers for a database that is away, or no longer: with 503, and without passing anything on.
    pub fn is_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// Forgets what it has noted, and keeps lines from now on, or not.
    pub fn start_over(&self, keeps: bool) {
        *lock(&self.writes) = Writes { keeps, ..Writes::default() };
    }

    /// When points were stored last.
    pub fn last(&self) -> Option<Instant> {
        lock(&self.writes).last
    }

    /// The writes that it has kept.
    pub fn take(&self) -> Vec<Stored> {
        std::mem::take(&mut lock(&self.writes).kept)
    }
}

fn lock(writes: &Mutex<Writes>) -> std::sync::MutexGuard<'_, Writes> {
    writes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stored {
    /// The numbers in the field `value` of its points.
    ///
    /// # Errors
    /// If the body can't be decompressed.
    pub fn numbers(&self) -> Result<Vec<u64>> {
        let lines = match self.is_gzip {
            true => decompress(&self.body)?,
            false => self.body.clone(),
        };
        Ok(String::from_utf8_lossy(&lines).lines().filter_map(number).collect())
    }
}

fn number(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" value=")?;
    rest.split([' ', ',']).next()?.parse().ok()
}

fn decompress(body: &[u8]) -> Result<Vec<u8>> {
    // gzip ends with the length of what it holds.
    let length = body.last_chunk().context("not gzip")?;
    let mut lines = vec![0; u32::from_le_bytes(*length) as usize];
    let length = Decompressor::new().gzip_decompress(body, &mut lines)?;
    lines.truncate(length);
    Ok(lines)
}

/// One connection, to its end.
async fn carry(
    mut client: TcpStream,
    database_port: u16,
    away: Arc<AtomicBool>,
    writes: Arc<Mutex<Writes>>,
) -> io::Result<()> {
    let mut database = TcpStream::connect(("127.0.0.1", database_port)).await?;
    client.set_nodelay(true)?;
    database.set_nodelay(true)?;
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    while let Some(asked) = whole(&mut client, &mut request).await? {
        if away.load(Ordering::Relaxed) {
            client.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await?;
            request.drain(..asked.length);
            continue;
        }
        database.write_all(&request[..asked.length]).await?;
        let Some(answered) = whole(&mut database, &mut answer).await? else { break };
        let at = Instant::now();
        client.write_all(&answer[..answered.length]).await?;
        if !asked.body.is_empty()
            && request.starts_with(b"POST /api/v2/write")
            && answer.starts_with(b"HTTP/1.1 204")
        {
            let mut writes = lock(&writes);
            writes.last = Some(at);
            if writes.keeps {
                let body = asked.body.iter().flat_map(|part| &request[part.clone()]).copied().collect();
                writes.kept.push(Stored { at, body, is_gzip: asked.is_gzip });
            }
        }
        request.drain(..asked.length);
        answer.drain(..answered.length);
    }
    Ok(())
}

/// One HTTP message at the start of the bytes.
#[derive(Debug, PartialEq)]
struct Message {
    length: usize,
    /// Where its body is, part by part.
    body: Vec<Range<usize>>,
    is_gzip: bool,
}

/// Reads until the bytes begin with a whole message; nothing if the stream ends before.
async fn whole(from: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<Option<Message>> {
    loop {
        if let Some(message) = parse(bytes) {
            return Ok(Some(message));
        }
        bytes.reserve(64 << 10);
        if from.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
}

/// The message at the start of the bytes, if all of it is there. What has neither length nor chunks has no
/// body: neither the clients nor the database send any other.
fn parse(bytes: &[u8]) -> Option<Message> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let header = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let is_gzip = header("content-encoding:") == Some("gzip");
    if header("transfer-encoding:") == Some("chunked") {
        let (body, length) = chunks(bytes, head)?;
        return Some(Message { length, body, is_gzip });
    }
    let content = header("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
    let body = head..head + content;
    (bytes.len() >= body.end).then(|| Message {
        length: body.end,
        body: Some(body).filter(|body| !body.is_empty()).into_iter().collect(),
        is_gzip,
    })
}

/// Where the chunks from a place on are, and where the last one ends.
fn chunks(bytes: &[u8], mut place: usize) -> Option<(Vec<Range<usize>>, usize)> {
    let mut body = Vec::new();
    loop {
        let line = find(bytes.get(place..)?, b"\r\n")?;
        let size = std::str::from_utf8(&bytes[place..place + line]).ok()?;
        let start = place + line + 2;
        let end = start + usize::from_str_radix(size, 16).ok()?;
        place = end + 2;
        if bytes.len() < place {
            return None;
        }
        if start == end {
            return Some((body, place));
        }
        body.push(start..end);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_when_its_body_is() {
        let text = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabcNEXT";
        let end = text.len() - 4;
        assert_eq!(parse(&text[..end - 1]), None);
        let message = Message { length: end, body: std::iter::once(end - 3..end).collect(), is_gzip: true };
        assert_eq!(parse(text), Some(message));
        let answer = b"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n";
        assert_eq!(parse(answer), Some(Message { length: answer.len(), body: vec![], is_gzip: false }));
    }

    #[test]
    fn chunks_are_followed_to_the_last() {
        let text =
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n";
        let message = parse(text).expect("whole");
        let body: Vec<u8> = message.body.iter().flat_map(|part| &text[part.clone()]).copied().collect();
        assert_eq!((body.as_slice(), message.length), (&b"abc0123456789"[..], text.len()));
        assert!((0..text.len()).all(|end| parse(&text[..end]).is_none()));
    }

    #[test]
    fn numbers_are_read_from_lines() {
        let stored = |body: &[u8], is_gzip| Stored { at: Instant::now(), body: body.into(), is_gzip };
        let lines = b"m,sensor=s1 value=17 1\nm value=-1 2\nm value=18\n";
        assert_eq!(stored(lines, false).numbers().expect("lines"), [17, 18]);
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut body = vec![0; compressor.gzip_compress_bound(lines.len())];
        let length = compressor.gzip_compress(lines, &mut body).expect("room");
        assert_eq!(stored(&body[..length], true).numbers().expect("gzip"), [17, 18]);
    }
}
