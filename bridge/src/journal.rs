//! The file on the bridge's volume that holds the [`Stamps`] across a restart, also one by `kill -9`.
//!
//! It is written with one system call for all messages that were read together, before any of their
//! points can be stored. Nothing is synced: the page cache outlives the process. After a crash of the
//! whole machine the latest records may be missing, and what they were of is stored once more.
//!
//! Layout, little-endian: a header (magic, session, settled), then a ring of records, each with a
//! checksum, since a process can be killed in the middle of a write.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use crate::stamps::{CAPACITY, Record, Stamps, hash_of, slot};

/// Also names the layout's version.
const MAGIC: [u8; 8] = *b"IOTPJRN2";
const HEADER_BYTES: u64 = 24;
const RECORD_BYTES: usize = 32;

/// The journal of one session.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// None if it can't be used: then the memory lasts as long as the process.
    file: Option<File>,
    session: u64,
    /// What is before this position is in the file.
    written: u64,
    settled: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens the directory's journal, and returns what it holds of this session: that of a client id at
    /// a broker. A journal of another session, or one that can't be read, holds nothing.
    pub fn open(directory: &Path, broker: &str, client_id: &str) -> (Self, Stamps) {
        let path = directory.join("stamps.journal");
        let session = session(broker, client_id);
        let mut journal = Self { path, file: None, session, written: 0, settled: 0, buffer: Vec::new() };
        let stamps = match journal.load() {
            Ok(stamps) => stamps,
            Err(error) => {
                journal.give_up(&error);
                Stamps::default()
            }
        };
        (journal, stamps)
    }

    /// Goes on for another session; what was remembered is of no use to it.
    pub fn change_session(&mut self, broker: &str, client_id: &str, stamps: &Stamps) {
        self.session = session(broker, client_id);
        self.settled = stamps.settled();
        self.attempt(|journal, file| journal.write_header(file));
    }

    /// Writes what is not in the file yet. To be called before a point of these messages is stored.
    pub fn save(&mut self, stamps: &Stamps) {
        if self.file.is_none() {
            return;
        }
        if self.settled != stamps.settled() {
            self.settled = stamps.settled();
            self.attempt(|journal, file| journal.write_header(file));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut place = None;
        for record in stamps.records(self.written) {
            let next = slot(record.position);
            if next == 0 {
                // The ring begins anew.
                self.write_records(place.take(), &mut buffer);
            }
            place.get_or_insert(next);
            encode(&record, &mut buffer);
            self.written = record.position + 1;
        }
        self.write_records(place, &mut buffer);
        self.buffer = buffer;
    }

    fn load(&mut self) -> io::Result<Stamps> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        let mut reader = BufReader::with_capacity(64 << 10, &file);
        let stamps = match next::<{ HEADER_BYTES as usize }>(&mut reader)? {
            Some(header) if header[..8] == MAGIC && number(&header, 8) == self.session => {
                let mut records = Vec::new();
                while let Some(bytes) = next::<RECORD_BYTES>(&mut reader)? {
                    records.extend(decode(&bytes));
                }
                Stamps::restore(records, number(&header, 16))
            }
            _ => {
                file.set_len(0)?;
                allocate(&file)?;
                Stamps::default()
            }
        };
        self.settled = stamps.settled();
        self.written = stamps.next_position();
        self.write_header(&file)?;
        self.file = Some(file);
        Ok(stamps)
    }

    fn write_header(&self, file: &File) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES as usize];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.session.to_le_bytes());
        header[16..].copy_from_slice(&self.settled.to_le_bytes());
        file.write_all_at(&header, 0)
    }

    fn write_records(&mut self, place: Option<usize>, buffer: &mut Vec<u8>) {
        if let Some(place) = place {
            let offset = HEADER_BYTES + (place * RECORD_BYTES) as u64;
            self.attempt(|_, file| file.write_all_at(buffer, offset));
        }
        buffer.clear();
    }

    fn attempt(&mut self, write: impl FnOnce(&Self, &File) -> io::Result<()>) {
        if let Some(file) = &self.file
            && let Err(error) = write(self, file)
        {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        self.file = None;
        tracing::warn!(
            path = %self.path.display(),
            "cannot remember times of reception, so what is in flight when the bridge is killed is stored \
             twice: {error}"
        );
        // What is in it is of now. The next process must not take it for what it will have seen.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Fills the file with zeros, so that the volume can't be full later.
fn allocate(mut file: &File) -> io::Result<()> {
    let length = HEADER_BYTES + (CAPACITY * RECORD_BYTES) as u64;
    file.rewind()?;
    io::copy(&mut io::repeat(0).take(length), &mut file).map(drop)
}

/// The next bytes, if there are as many.
fn next<const LENGTH: usize>(file: &mut impl Read) -> io::Result<Option<[u8; LENGTH]>> {
    let mut bytes = [0; LENGTH];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn session(broker: &str, client_id: &str) -> u64 {
    hash_of(broker.as_bytes(), client_id.as_bytes())
}

fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&record.position.to_le_bytes());
    out.extend_from_slice(&record.stamp.to_le_bytes());
    out.extend_from_slice(&record.hash.to_le_bytes());
    out.extend_from_slice(&u32::from(record.packet_id).to_le_bytes());
    let check = checksum(&out[start..]);
    out.extend_from_slice(&check);
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let (content, check) = bytes.split_at(RECORD_BYTES - 4);
    let packet_id = u16::from_le_bytes([content[24], content[25]]);
    let record = Record {
        position: number(content, 0),
        stamp: number(content, 8) as i64,
        hash: number(content, 16),
        packet_id,
    };
    // MQTT has no packet id 0: that is a record which was never written.
    (packet_id != 0 && checksum(content) == check).then_some(record)
}

fn checksum(content: &[u8]) -> [u8; 4] {
    (XxHash3_64::oneshot(content) as u32).to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("bridge-journal-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn open(&self) -> (Journal, Stamps) {
            Journal::open(&self.0, "mqtt://one", "bridge")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn receive(stamps: &mut Stamps, count: u64) {
        for _ in 0..count {
            let number = stamps.next_position();
            stamps.receive((number % 65_535) as u16 + 1, number);
        }
    }

    fn contents(stamps: &Stamps) -> Vec<Record> {
        stamps.records(stamps.settled()).collect()
    }

    #[test]
    fn another_process_finds_what_was_saved() {
        let directory = Directory::new("found");
        let (mut journal, mut stamps) = directory.open();
        stamps.connected(false);
        receive(&mut stamps, 3);
        journal.save(&stamps);
        receive(&mut stamps, 2);
        journal.save(&stamps);
        let (_, found) = directory.open();
        assert_eq!(contents(&found), contents(&stamps));
        assert_eq!(found.next_position(), 5);
    }

    #[test]
    fn what_could_not_be_written_any_more_is_not_believed_by_the_next_process() {
        let directory = Directory::new("stale");
        let (mut journal, mut stamps) = directory.open();
        stamps.connected(false);
        receive(&mut stamps, 3);
        journal.save(&stamps);
        journal.file = Some(File::open(&journal.path).expect("it is there, to be read"));
        receive(&mut stamps, 2);
        journal.save(&stamps);
        let (_, found) = directory.open();
        assert_eq!(contents(&found), []);
    }

    #[test]
    fn the_ring_is_written_around_its_end() {
        let directory = Directory::new("around");
        let (mut journal, mut stamps) = directory.open();
        stamps.connected(false);
        receive(&mut stamps, CAPACITY as u64 - 2);
        journal.save(&stamps);
        receive(&mut stamps, 5);
        journal.save(&stamps);
        let (_, found) = directory.open();
        assert_eq!(contents(&found), contents(&stamps));
        assert_eq!(contents(&found).len(), CAPACITY);
        let length = std::fs::metadata(directory.0.join("stamps.journal")).expect("it is there").len();
        assert_eq!(length, HEADER_BYTES + (CAPACITY * RECORD_BYTES) as u64);
    }

    #[test]
    fn what_is_settled_stays_so() {
        let directory = Directory::new("settled");
        let (mut journal, mut stamps) = directory.open();
        stamps.connected(false);
        receive(&mut stamps, 4);
        stamps.forget();
        receive(&mut stamps, 1);
        journal.save(&stamps);
        let (_, found) = directory.open();
        assert_eq!((found.settled(), contents(&found).len()), (4, 1));
    }

    #[test]
    fn a_record_that_was_cut_off_is_left_out() {
        let directory = Directory::new("cut");
        let (mut journal, mut stamps) = directory.open();
        stamps.connected(false);
        receive(&mut stamps, 3);
        journal.save(&stamps);
        let file =
            OpenOptions::new().write(true).open(directory.0.join("stamps.journal")).expect("it is there");
        file.write_all_at(&[0xff], HEADER_BYTES + RECORD_BYTES as u64 + 9).expect("written");
        let (_, found) = directory.open();
        let positions: Vec<u64> = contents(&found).iter().map(|record| record.position).collect();
        assert_eq!(positions, [0, 2]);
    }

    #[test]
    fn another_session_starts_anew() {
        let directory = Directory::new("session");
        let (mut journal, mut stamps) = directory.open();
        stamps.connected(false);
        receive(&mut stamps, 3);
        journal.save(&stamps);
        let (_, found) = Journal::open(&directory.0, "mqtt://one", "another");
        assert_eq!(contents(&found), []);

        let (mut journal, mut stamps) = Journal::open(&directory.0, "mqtt://one", "another");
        receive(&mut stamps, 3);
        journal.save(&stamps);
        stamps.forget();
        journal.change_session("mqtt://two", "bridge", &stamps);
        receive(&mut stamps, 2);
        journal.save(&stamps);
        let (_, found) = Journal::open(&directory.0, "mqtt://two", "bridge");
        assert_eq!(contents(&found).len(), 2);
        let (_, found) = Journal::open(&directory.0, "mqtt://one", "another");
        assert_eq!(contents(&found), []);
    }

    #[test]
    fn without_a_directory_the_bridge_runs_and_remembers_nothing() {
        let (mut journal, mut stamps) = Journal::open(Path::new("/nowhere"), "mqtt://one", "bridge");
        receive(&mut stamps, 3);
        journal.save(&stamps);
        assert!(journal.file.is_none());
    }

    #[test]
    fn a_volume_that_takes_nothing_any_more_is_given_up_and_what_is_in_memory_stays() {
        let directory = Directory::new("full");
        let (mut journal, mut stamps) = directory.open();
        stamps.connected(false);
        receive(&mut stamps, 3);
        journal.save(&stamps);
        journal.file = Some(OpenOptions::new().read(true).write(true).open("/dev/full").expect("a device"));
        receive(&mut stamps, 2);
        journal.save(&stamps);
        assert!(journal.file.is_none());
        receive(&mut stamps, 2);
        journal.save(&stamps);
        assert_eq!(contents(&stamps).len(), 7);
    }
}
