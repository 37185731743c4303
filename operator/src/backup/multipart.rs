//! Takes one part out of a stream of several, such as InfluxDB's metadata: its other parts may be large, and hold
//! what is nobody's business.

use anyhow::ensure;

/// No description of buckets is larger.
const LIMIT: usize = 64 * 1024 * 1024;

const HEADERS: usize = 64 * 1024;

/// Looks for a part while the stream comes in.
pub(super) struct Finder {
    wanted: &'static str,
    delimiter: Vec<u8>,
    buffer: Vec<u8>,
    /// No delimiter begins before this.
    searched: usize,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Skipping,
    Headers,
    Taking,
}

impl Finder {
    /// Looks for the part of this name in a stream of this content type; none, if that has no parts.
    pub(super) fn new(wanted: &'static str, content_type: &str) -> Option<Self> {
        let boundary = parameter(content_type, "boundary")?;
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        Some(Self { wanted, delimiter, buffer: b"\r\n".to_vec(), searched: 0, state: State::Skipping })
    }

    /// Takes in what comes next, and returns the part once all of it is there.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        self.buffer.extend_from_slice(chunk);
        loop {
            match self.state {
                State::Skipping => {
                    let Some(at) = self.delimiter() else {
                        self.buffer.drain(..self.searched);
                        self.searched = 0;
                        return Ok(None);
                    };
                    self.consume(at + self.delimiter.len(), State::Headers);
                }
                State::Headers => {
                    let Some(end) = position(&self.buffer, b"\r\n\r\n") else {
                        ensure!(self.buffer.len() <= HEADERS, "a part without an end of its headers");
                        return Ok(None);
                    };
                    let headers = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                    let is_wanted = name(&headers).as_deref() == Some(self.wanted);
                    // The line break before an empty part's delimiter is the headers' own.
                    self.consume(end + 2, if is_wanted { State::Taking } else { State::Skipping });
                }
                State::Taking => {
                    let Some(at) = self.delimiter() else {
                        ensure!(self.buffer.len() <= LIMIT, "a description of more than {LIMIT} bytes");
                        return Ok(None);
                    };
                    return Ok(Some(self.buffer.get(2..at).unwrap_or_default().to_vec()));
                }
            }
        }
    }

    fn delimiter(&mut self) -> Option<usize> {
        let found = position(&self.buffer[self.searched..], &self.delimiter).map(|at| at + self.searched);
        if found.is_none() {
            self.searched = (self.buffer.len() + 1).saturating_sub(self.delimiter.len());
        }
        found
    }

    fn consume(&mut self, bytes: usize, state: State) {
        self.buffer.drain(..bytes);
        (self.searched, self.state) = (0, state);
    }
}

fn position(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|window| window == pattern)
}

fn name(headers: &str) -> Option<String> {
    let lines = headers.lines().filter_map(|line| line.split_once(':'));
    let mut disposition = lines.filter(|(key, _)| key.trim().eq_ignore_ascii_case("content-disposition"));
    parameter(disposition.next()?.1, "name")
}

fn parameter(header: &str, name: &str) -> Option<String> {
    let pairs = header.split(';').skip(1).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/mixed; boundary=b0";

    const STREAM: &str = "--b0\r\nContent-Disposition: attachment; filename=a; name=kv\r\n\r\nbinary\r\n--b\r\n\
                          \r\n--b0\r\ncontent-disposition: attachment; name=\"buckets\"\r\nX: y\r\n\r\n[1]\r\n--b0--\r\n";

    fn find(wanted: &'static str, stream: &str, step: usize) -> Option<Vec<u8>> {
        let mut finder = Finder::new(wanted, TYPE).expect("there are parts");
        let mut chunks = stream.as_bytes().chunks(step);
        chunks.find_map(|chunk| finder.feed(chunk).expect("it is well-formed"))
    }

    #[test]
    fn a_part_is_found_however_the_stream_is_cut() {
        for step in 1..STREAM.len() {
            assert_eq!(find("buckets", STREAM, step).as_deref(), Some(&b"[1]"[..]), "{step}");
            assert_eq!(find("kv", STREAM, step).as_deref(), Some(&b"binary\r\n--b\r\n"[..]), "{step}");
        }
    }

    #[test]
    fn what_is_cut_off_or_missing_is_not_found() {
        assert_eq!(find("sql", STREAM, 9), None);
        assert_eq!(find("buckets", STREAM.trim_end_matches("\r\n--b0--\r\n"), 9), None);
        assert!(Finder::new("buckets", "application/json").is_none());
        let empty = "--b0\r\nContent-Disposition: x; name=buckets\r\n\r\n\r\n--b0--";
        assert_eq!(find("buckets", empty, 3).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn headers_without_an_end_are_refused() {
        let mut finder = Finder::new("buckets", TYPE).expect("there are parts");
        finder.feed(b"--b0\r\n").expect("so far it is well-formed");
        assert!(finder.feed(&vec![b'x'; HEADERS + 1]).is_err());
    }
}
