//! What is measured: a row is a load, and who is measured under it.

use crate::bench::subjects::Subject;

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Payload {
    /// One number.
    Number,
    /// A JSON object of four fields: two fractions, a whole number, true or false.
    Json,
    /// A line of InfluxDB's own protocol.
    Line,
}

/// How fast messages are published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the broker takes them.
    Full,
    /// So many a second, evenly; each holds its number, so that its way can be timed.
    Rate(u64),
}

/// What is wrong with one message in a hundred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Poison {
    /// The bridge can't decode it.
    Undecodable,
    /// The database refuses it: a field comes in another type than before.
    WrongType,
}

/// A load, and who is measured under it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, on the command line and in the results.
    pub name: &'static str,
    /// What a message holds.
    pub payload: Payload,
    /// The quality of service, of publishing and of subscribing.
    pub qos: u8,
    /// How fast.
    pub pace: Pace,
    /// How many messages.
    pub messages: u64,
    /// On how many topics.
    pub topics: u64,
    /// Taken by how many routes.
    pub routes: u64,
    /// Whether the database is away until all messages are published.
    pub outage: bool,
    /// What is wrong with some messages. Only with lines, at full speed.
    pub poison: Option<Poison>,
    /// Who is measured.
    pub subjects: &'static [Subject],
}

const ALL: &[Subject] = &[Subject::Bridge, Subject::Telegraf, Subject::Floor];
const BOTH: &[Subject] = &[Subject::Bridge, Subject::Telegraf];
const OURS: &[Subject] = &[Subject::Bridge];

const NUMBER: Row = Row {
    name: "number-qos1",
    payload: Payload::Number,
    qos: 1,
    pace: Pace::Full,
    messages: 200_000,
    topics: 3_000,
    routes: 1,
    outage: false,
    poison: None,
    subjects: ALL,
};

const LINES: Row = Row { payload: Payload::Line, messages: 150_000, ..NUMBER };

/// All rows. What the last four measure should stay the same from one of a pair to the other.
pub const ROWS: [Row; 14] = [
    NUMBER,
    Row { name: "number-qos0", qos: 0, messages: 600_000, ..NUMBER },
    Row { name: "json4-qos1", payload: Payload::Json, messages: 150_000, subjects: BOTH, ..NUMBER },
    Row { name: "line-qos1", subjects: BOTH, ..LINES },
    Row {
        name: "sensors-2000",
        pace: Pace::Rate(2_000),
        messages: 20_000,
        topics: 2_000,
        subjects: BOTH,
        ..NUMBER
    },
    Row { name: "latency-1000", pace: Pace::Rate(1_000), messages: 8_000, subjects: BOTH, ..NUMBER },
    Row { name: "outage", outage: true, messages: 400_000, subjects: OURS, ..NUMBER },
    Row { name: "poison-clean", subjects: OURS, ..LINES },
    Row { name: "poison-decode", poison: Some(Poison::Undecodable), subjects: OURS, ..LINES },
    Row { name: "poison-refused", poison: Some(Poison::WrongType), subjects: OURS, ..LINES },
    Row { name: "routes-1", subjects: OURS, ..NUMBER },
    Row { name: "routes-1000", routes: 1_000, subjects: OURS, ..NUMBER },
    Row { name: "topics-10", topics: 10, subjects: OURS, ..NUMBER },
    Row { name: "topics-100000", topics: 100_000, subjects: OURS, ..NUMBER },
];

/// A quick look has this part of the messages.
const QUICK: u64 = 4;

impl Row {
    /// With fewer messages, for a quick look.
    pub fn quick(self) -> Self {
        Self { messages: self.messages / QUICK, ..self }
    }

    /// The routes that take its messages, for the run of this name.
    pub fn routes_yaml(&self, run: &str) -> String {
        let payload = match self.payload {
            Payload::Number => "float: {}",
            Payload::Json => {
                "json: {fields: [{path: temperature, type: float}, {path: humidity, type: float}, \
                 {path: battery, type: integer}, {path: open, type: boolean}]}"
            }
            Payload::Line => "lineProtocol: {}",
        };
        let sensor = if self.payload == Payload::Line { "+" } else { "{sensor}" };
        let measurement = match self.payload {
            Payload::Line => String::new(),
            _ => format!("measurement: {run}, "),
        };
        let route = |place: u64| {
            let group = if self.routes == 1 { "+".into() } else { group(place) };
            let qos = self.qos;
            format!(
                "- {{name: r{place}, topic: 'bench/{run}/{group}/{sensor}', qos: {qos}, {measurement}\
                 payload: {{{payload}}}}}\n"
            )
        };
        (0..self.routes).map(route).collect()
    }

    /// The topic of a message, by its number.
    pub fn topic(&self, run: &str, number: u64) -> String {
        let sensor = number % self.topics;
        format!("bench/{run}/{}/{}", group(sensor % GROUPS), sensor_name(sensor))
    }
}

/// As many as the most routes of a row.
const GROUPS: u64 = 1_000;

/// Of one length, like the sensors' names: then rows with many differ from those with few in nothing else.
fn group(number: u64) -> String {
    format!("g{number:03}")
}

/// The name of a sensor: the topic's last level, and a tag.
pub fn sensor_name(number: u64) -> String {
    format!("s{number:05}")
}

#[cfg(test)]
mod tests {
    use api::route::Route;

    use super::*;

    #[test]
    fn each_message_of_a_row_has_one_route() {
        for row in ROWS {
            let routes: Vec<Route> = serde_saphyr::from_str(&row.routes_yaml("run")).expect(row.name);
            assert_eq!(routes.len() as u64, row.routes, "{}", row.name);
            for number in [0, 1, 999, 1_000, row.messages - 1] {
                let topic = row.topic("run", number);
                let matches = |route: &&Route| route.pattern().is_ok_and(|p| p.matches(&topic).is_some());
                assert_eq!(routes.iter().filter(matches).count(), 1, "{}: {topic}", row.name);
            }
        }
    }
}
