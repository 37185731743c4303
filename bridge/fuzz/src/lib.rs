//! What is tried with bytes that nobody foresaw: a function for each reader of bytes that come from outside.
//!
//! cargo-fuzz calls them with what libFuzzer finds, on nightly; `bridge/tests/fuzz.rs` includes this file and
//! calls them with mutated seeds, on stable. A function takes any bytes. It panics if the reader does, or
//! if what the reader made of them breaks a promise of its own.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use api::topic::TopicPattern;
use bytes::BytesMut;
use iotpipeline_bridge::ack::Sequence;
use iotpipeline_bridge::batch::Batches;
use iotpipeline_bridge::config::Loaded;
use iotpipeline_bridge::health::Health;
use iotpipeline_bridge::intake::{Intake, Taken};
use iotpipeline_bridge::packet::{self, Incoming, PacketError, Publish};
use iotpipeline_bridge::route::{Levels, Trie};
use iotpipeline_bridge::session::Session;
use iotpipeline_bridge::sink::Outcome;
use iotpipeline_bridge::stamps::Stamps;
use iotpipeline_bridge::subscribe::Held;
use iotpipeline_bridge::table::Table;
use iotpipeline_bridge::version::Version;
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode::Success;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Packet, PubAck};

/// A target: any bytes.
pub type Target = fn(&[u8]);

/// All targets, by the names that they have in `fuzz_targets/`.
pub const TARGETS: [(&str, Target); 8] = [
    ("topic", topic),
    ("packets", packets),
    ("json", json),
    ("cbor", cbor),
    ("message_pack", message_pack),
    ("line_protocol", line_protocol),
    ("sparkplug", sparkplug),
    ("configuration", configuration),
];

/// As the bridge announces it by default.
const MAX_PACKET_SIZE: usize = 1 << 20;

/// The time at which all messages are received.
const STAMP: i64 = 1_700_000_000_000_000_000;

/// Topic patterns, a line each, and as the last line a topic: the trie finds what the plain matcher finds,
/// and a pattern's filter stands for the same topics as the pattern.
pub fn topic(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (patterns, topic) = text.rsplit_once('\n').unwrap_or((text, text));
    let patterns: Vec<TopicPattern> = patterns.lines().filter_map(|line| line.parse().ok()).collect();
    let naive: Vec<bool> = patterns.iter().map(|pattern| pattern.matches(topic).is_some()).collect();
    for (pattern, matches) in patterns.iter().zip(&naive) {
        let filter: TopicPattern = pattern.filter().parse().expect("a filter is a pattern");
        assert_eq!(filter.matches(topic).is_some(), *matches, "{pattern:?} and its filter differ");
        assert_eq!(filter.captures().next(), None);
        if let Some(captured) = pattern.matches(topic) {
            assert!(captured.iter().map(|(name, _)| *name).eq(pattern.captures()));
        }
    }
    let mut levels = Levels::default();
    if levels.split(topic) {
        let mut found = Vec::new();
        Trie::new(&patterns).matches(topic, &levels, &mut found);
        found.sort_unstable();
        let naive: Vec<usize> = (0..patterns.len()).filter(|&place| naive[place]).collect();
        assert_eq!(found, naive, "trie and matcher differ on {topic:?}: {patterns:?}");
    }
}

/// What a broker sends: packets are found and read, and messages stored, in either version. A session answers them.
pub fn packets(bytes: &[u8]) {
    for version in [Version::V5, Version::V311] {
        packets_of(version, bytes);
        session_of(version, bytes);
    }
}

/// Smaller than many messages, so that these are skipped in 3.1.1.
const SMALL_PACKET_SIZE: usize = 64;

/// The packets through a session, as the pipeline hands them over. Whatever comes, the session's answers are whole
/// packets, and each message that wants one has got it, once all is stored and every dead letter taken.
fn session_of(version: Version, bytes: &[u8]) {
    static LOADED: LazyLock<Loaded> = LazyLock::new(|| loaded(include_str!("../routes/packets.yaml")));
    let mut session = Session::new(&LOADED, Held::new(), Stamps::default(), Health::new(""));
    session.connected(version, &ConnAck { session_present: false, code: Success, properties: None });
    session.tick(SystemTime::UNIX_EPOCH + Duration::from_nanos(STAMP as u64));
    let (mut batches, mut output) = (Batches::default(), BytesMut::new());
    let (mut rest, mut wanted, mut released) = (bytes, 0, 0);
    while let Some((packet, after)) = next_packet(version, rest) {
        match &packet {
            Incoming::Publish(publish) => wanted += usize::from(publish.qos > 0),
            Incoming::Other(packet) => released += usize::from(matches!(**packet, Packet::PubRel(_))),
            Incoming::Disconnect => {}
        }
        if session.handle(packet, &mut batches, &mut output).is_err() {
            break;
        }
        rest = after;
    }
    let mut answers = 0;
    loop {
        while !batches.is_empty() {
            // None, if the first is empty.
            if let Some(batch) = batches.take() {
                session.settle(&Outcome { batch, refused: Vec::new() });
            }
        }
        session.write(&mut output);
        let letters = answered(version, &mut output, &mut answers);
        if letters.is_empty() {
            break;
        }
        for id in letters {
            let answer = Incoming::Other(Box::new(Packet::PubAck(PubAck::new(id, None))));
            session.handle(answer, &mut batches, &mut output).expect("an answer ends nothing");
        }
    }
    assert_eq!(session.outstanding(), 0, "nothing will end these");
    // In 3.1.1 a message that comes again before it is acknowledged is answered once.
    assert!(answers <= wanted + released, "{answers} answers");
    assert!(
        version == Version::V311 || answers == wanted + released,
        "{answers} answers, {wanted} and {released}"
    );
}

/// The next whole packet, or what is taken in of a message that is too large, and what follows it.
fn next_packet(version: Version, bytes: &[u8]) -> Option<(Incoming<'_>, &[u8])> {
    let max = if version == Version::V311 { SMALL_PACKET_SIZE } else { MAX_PACKET_SIZE };
    match packet::frame_length(bytes, max) {
        Ok(length) => {
            let (frame, after) = bytes.split_at_checked(length?)?;
            Some((packet::parse(frame, version).ok()?, after))
        }
        Err(PacketError::TooLarge { size, max }) if version == Version::V311 => {
            let (message, _) = packet::oversized(bytes, size, max).ok()??;
            Some((Incoming::Publish(message), bytes.get(size..).unwrap_or_default()))
        }
        Err(_) => None,
    }
}

/// Takes the session's packets: counts its answers to messages, and returns the packet ids of its dead letters.
fn answered(version: Version, output: &mut BytesMut, answers: &mut usize) -> Vec<u16> {
    let mut letters = Vec::new();
    while let Some(length) = packet::frame_length(output, MAX_PACKET_SIZE).expect("a packet") {
        let frame = output.split_to(length);
        match frame[0] >> 4 {
            // PUBACK, PUBREC, PUBCOMP.
            4 | 5 | 7 => *answers += 1,
            3 => {
                let Ok(Incoming::Publish(letter)) = packet::parse(&frame, version) else {
                    panic!("{frame:?}")
                };
                letters.extend((letter.qos > 0).then_some(letter.packet_id));
            }
            _ => {}
        }
    }
    assert!(output.is_empty(), "half a packet: {output:?}");
    letters
}

fn packets_of(version: Version, bytes: &[u8]) {
    static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| table(include_str!("../routes/packets.yaml")));
    let mut bridge = Bridge::new(&TABLE);
    // Also what is no whole frame must do no harm.
    drop(packet::parse(bytes, version));
    let mut rest = bytes;
    while let Ok(Some(length)) = packet::frame_length(rest, MAX_PACKET_SIZE) {
        assert!(length >= 2, "an empty frame would be found for ever");
        for known in 0..length.min(5).min(rest.len()) {
            let earlier = packet::frame_length(&rest[..known], MAX_PACKET_SIZE);
            assert!(matches!(earlier, Ok(None)) || earlier == Ok(Some(length)), "{earlier:?}, then {length}");
        }
        let Some((frame, after)) = rest.split_at_checked(length) else { break };
        match packet::parse(frame, version) {
            Ok(Incoming::Publish(publish)) => bridge.accept(&publish),
            Ok(Incoming::Other(_)) => {}
            Ok(Incoming::Disconnect) | Err(_) => break,
        }
        rest = after;
    }
    bridge.check();
}

/// A payload for routes of JSON.
pub fn json(bytes: &[u8]) {
    static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| objects("json"));
    payload(&TABLE, bytes);
}

/// A payload for routes of CBOR.
pub fn cbor(bytes: &[u8]) {
    static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| objects("cbor"));
    payload(&TABLE, bytes);
}

/// A payload for routes of MessagePack.
pub fn message_pack(bytes: &[u8]) {
    static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| objects("messagePack"));
    payload(&TABLE, bytes);
}

/// A payload for routes of line protocol.
pub fn line_protocol(bytes: &[u8]) {
    static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| table(include_str!("../routes/lines.yaml")));
    payload(&TABLE, bytes);
}

/// Messages of Sparkplug's, one after the other, since they hang together: see [`sparkplug_messages`].
pub fn sparkplug(bytes: &[u8]) {
    static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| table(include_str!("../routes/sparkplug.yaml")));
    let mut bridge = Bridge::new(&TABLE);
    for (repeated, topic, payload) in sparkplug_messages(bytes) {
        bridge.repeated = repeated;
        bridge.accept(&Publish {
            qos: 1,
            packet_id: 1,
            topic: topic.as_bytes(),
            payload,
            ..Publish::default()
        });
    }
    bridge.check();
}

/// A configuration file, for a bridge alone and for one of several.
pub fn configuration(bytes: &[u8]) {
    for member in [None, Some(0), Some(7)] {
        if let Ok(loaded) = Loaded::parse(bytes, member) {
            assert_eq!(loaded.table.routes().len(), loaded.config.routes.len());
            assert!(!loaded.leaves || loaded.filters.is_empty());
        }
    }
}

/// What Sparkplug's messages are about.
pub const SPARKPLUG_TOPICS: [&str; 10] = [
    "spBv1.0/G/NBIRTH/N",
    "spBv1.0/G/NDATA/N",
    "spBv1.0/G/NDEATH/N",
    "spBv1.0/G/DBIRTH/N/D",
    "spBv1.0/G/DDATA/N/D",
    "spBv1.0/G/DDEATH/N/D",
    "spBv1.0/G/NBIRTH/M",
    "spBv1.0/G/NDATA/M",
    "spBv1.0/G/NCMD/N",
    "spBv1.0/STATE/H/x",
];

/// Each message is a byte that chooses the topic, and by its highest bit says that the message comes again;
/// then two bytes of length, and so much payload, or what there is.
pub fn sparkplug_messages(bytes: &[u8]) -> impl Iterator<Item = (bool, &'static str, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&[kind, high, low], after) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (payload, after) = after.split_at(length);
        rest = after;
        let topic = SPARKPLUG_TOPICS[usize::from(kind & 0x7f) % SPARKPLUG_TOPICS.len()];
        Some((kind & 0x80 != 0, topic, payload))
    })
}

/// A message as [`sparkplug_messages`] reads it; nothing if its topic is none of those.
pub fn sparkplug_message(topic: &str, payload: &[u8]) -> Option<Vec<u8>> {
    let kind = SPARKPLUG_TOPICS.iter().position(|other| *other == topic)?;
    let [high, low] = u16::try_from(payload.len()).ok()?.to_be_bytes();
    Some([&[kind as u8, high, low], payload].concat())
}

/// Compiles routes.
fn table(routes: &str) -> Arc<Table> {
    loaded(routes).table
}

/// Routes with what else a configuration needs.
fn loaded(routes: &str) -> Loaded {
    let rest = "pipeline: lab
mqtt: {url: 'mqtt://broker', clientId: lab-bridge-0}
database: {url: 'http://influxdb:8086', organization: lab, bucket: mesure, tokenFile: /token}";
    Loaded::parse(format!("{rest}\n{routes}").as_bytes(), None).expect("the routes are some")
}

fn objects(format: &str) -> Arc<Table> {
    table(&include_str!("../routes/objects.yaml").replace("FORMAT", format))
}

/// A payload that all routes of a table get.
fn payload(table: &Arc<Table>, payload: &[u8]) {
    let mut bridge = Bridge::new(table);
    bridge.accept(&Publish { qos: 1, packet_id: 1, topic: b"t/x", payload, ..Publish::default() });
    bridge.check();
}

/// The first stages of a bridge, and what it said of the messages.
struct Bridge<'t> {
    table: &'t Arc<Table>,
    intake: Intake,
    batches: Batches,
    repeated: bool,
    messages: i64,
    points: usize,
}

impl<'t> Bridge<'t> {
    fn new(table: &'t Arc<Table>) -> Self {
        let (intake, batches) = (Intake::default(), Batches::default());
        Self { table, intake, batches, repeated: false, messages: 0, points: 0 }
    }

    fn accept(&mut self, publish: &Publish<'_>) {
        self.messages += 1;
        let stamp = STAMP + self.messages * 1_000_000;
        let Self { table, intake, batches, .. } = self;
        let taken = intake.accept(publish, stamp, self.repeated, Sequence::NONE, table, batches);
        let Taken { points, refusals, .. } = &taken;
        assert!(refusals.iter().all(|refusal| !refusal.reason.is_empty()));
        self.points += *points as usize;
    }

    /// Every point that was announced is a line that somebody else can read, and has its route's own tag.
    fn check(mut self) {
        let mut lines = VecDeque::new();
        let mut left = self.points;
        while left > 0 {
            let batch = self.batches.take().expect("what was announced is in a batch");
            left = left.checked_sub(batch.len()).expect("no more was announced than there is");
            lines.extend((0..batch.len()).map(|place| batch.lines(place..place + 1).to_vec()));
        }
        assert!(self.batches.is_empty(), "a point that was not announced");
        for line in lines {
            check_line(&line);
        }
    }
}

fn check_line(line: &[u8]) {
    let text = std::str::from_utf8(line).expect("a line is text");
    let said = || format!("written was {text:?}");
    assert_eq!(line_end(line), Some(line.len() - 1), "InfluxDB finds another end: {}", said());
    let fields = fields_start(line).unwrap_or_else(|| panic!("no fields: {}", said()));
    for (start, skipped) in [(0, &b" \t\0#"[..]), (fields, b" \t\0")] {
        assert!(!skipped.contains(&line[start]), "InfluxDB begins after {start}: {}", said());
    }
    // InfluxDB keeps these where nothing begins with them; the other parser ends a name there.
    let text = text.replace(['\t', '\0'], "_");
    let mut parsed = influxdb_line_protocol::parse_lines(&text);
    let point = parsed.next().unwrap_or_else(|| panic!("no point: {}", said()));
    let point = point.unwrap_or_else(|error| panic!("{error}: {}", said()));
    assert!(parsed.next().is_none(), "a second point: {}", said());
    assert!(point.timestamp.is_some(), "no time: {}", said());
    // No text of the message's reaches beyond its place: the tag that the route adds is there, and once.
    let tags = point.series.tag_set.iter().flatten();
    let site: Vec<String> =
        tags.filter(|(name, _)| *name == "site").map(|(_, value)| value.to_string()).collect();
    assert_eq!(site, ["lab"], "{}", said());
}

/// Where InfluxDB takes a line to end, which it finds out before it reads the line, by rules of its own: after
/// the first space, a quote begins or ends a text wherever there were more equals signs than commas.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut in_fields, mut quoted, mut equals, mut commas) = (0, false, false, 0, 0);
    while let Some(&byte) = bytes.get(at) {
        in_fields |= byte == b' ';
        match byte {
            b'\\' => at += 1,
            b'\n' if !quoted => return Some(at),
            b'"' if in_fields && equals > commas => quoted = !quoted,
            b'=' if in_fields && !quoted => equals += 1,
            b',' if in_fields && !quoted => commas += 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the fields begin: after the first space without a backslash before it.
fn fields_start(line: &[u8]) -> Option<usize> {
    let space = line.windows(2).position(|pair| pair[0] != b'\\' && pair[1] == b' ')?;
    Some(space + 2)
}
