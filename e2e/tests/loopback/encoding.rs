//! Random points through the bridge's encoder into a real influxd, and back by Flux.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use iotpipeline_e2e::conditions::{Probe, eventually};
use iotpipeline_e2e::influx::{Influx, text as column};
use iotpipeline_e2e::mqtt::Client;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde_json::{Value, json};

use crate::{Chain, SOON, seeded, with_chain};

const POINTS: usize = 300;
/// The time of the first point; each has one of its own, by which it is found again. All are in one shard.
const TIME: i64 = 1_795_000_000_000_000_000;
/// What texts are made of: all that line protocol, Flux or JSON could mistake for something else.
const SIGNS: [&str; 27] = [
    "a", "B", "0", "_", " ", ",", "=", "\"", "\\", "'", "`", "#", "/", ".", ":", ";", "%", "<", "&", "é",
    "日本", "🌡", "\u{200d}", "\t", "\u{1}", "i", "e9",
];
/// Numbers at the ends of what there is, and some that are hard to write.
const FLOATS: [f64; 12] = [
    0.0,
    -0.0,
    f64::MAX,
    f64::MIN,
    f64::MIN_POSITIVE,
    5e-324,
    0.1,
    1e21,
    1e-7,
    9_007_199_254_740_993.0,
    2.225_073_858_507_201e-308,
    -123_456_789.123_456_78,
];
const INTEGERS: [i64; 6] = [0, -1, i64::MAX, i64::MIN, 1 << 53, -(1 << 53) - 1];

/// A point as it is meant: what its route declares, and what its message brings.
#[derive(Clone, Debug, PartialEq)]
struct Point {
    measurement: String,
    tags: BTreeMap<String, String>,
    fields: BTreeMap<String, Field>,
}

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Float(f64),
    Integer(i64),
    Boolean(bool),
    Text(String),
}

/// What a route is of, in its order: names and values.
struct Drawn {
    measurement: String,
    constant: (String, String),
    tag: (String, String),
    fields: Vec<(String, Field)>,
}

#[tokio::test]
async fn random_points_are_read_back_as_they_were_meant() {
    let mut random = seeded();
    let drawn: Vec<Drawn> = (0..POINTS).map(|_| draw(&mut random)).collect();
    let routes: Vec<Value> = drawn.iter().enumerate().map(|(place, drawn)| drawn.route(place)).collect();
    with_chain(&Value::from(routes).to_string(), async |chain| store_and_read(chain, &drawn).await).await;
}

async fn store_and_read(chain: &Chain, drawn: &[Drawn]) -> Result<()> {
    // Names are checked when a route is read; what a message brings can turn out to be impossible.
    let (good, bad): (Vec<usize>, Vec<usize>) =
        (0..drawn.len()).partition(|place| can_be_written(&drawn[*place].tag.1));
    println!("{} points, {} of them with a tag that InfluxDB can't store", drawn.len(), bad.len());
    ensure!(good.len() > POINTS / 2 && !bad.is_empty(), "{bad:?}");
    let mut letters = Client::connect(chain.broker.port, "letters", None).await?;
    letters.subscribe("iotpipeline/lab/dead-letter/#").await?;
    let mut client = Client::connect(chain.broker.port, "points", None).await?;
    // So that all but the first go in one write.
    chain.database.freeze().await?;
    for (place, drawn) in drawn.iter().enumerate() {
        let payload = drawn.payload(place).to_string();
        ensure!(client.publish(&format!("p/{place}"), payload).await? == PubAckReason::Success);
    }
    chain.database.thaw().await?;
    let mut refused = BTreeSet::new();
    for _ in &bad {
        let letter = letters.message(SOON).await?;
        let topic = String::from_utf8(letter.topic.to_vec())?;
        refused.insert(topic.rsplit_once("/r").context(topic.clone())?.1.parse::<usize>()?);
    }
    ensure!(refused.iter().eq(&bad), "refused are {refused:?}, and {bad:?} should be");
    let stored = eventually("all points are stored", SOON, async || {
        let stored = read(&chain.influx).await?;
        Ok(match stored.len() >= good.len() {
            true => Probe::Found(stored),
            false => {
                let missing = good.iter().filter(|place| !stored.contains_key(&(TIME + **place as i64)));
                let missing: Vec<_> = missing.map(|place| (place, drawn[*place].point())).collect();
                Probe::NotYet(format!("{} of {}: without {missing:?}", stored.len(), good.len()))
            }
        })
    })
    .await?;
    ensure!(stored.len() == good.len(), "{} points are stored", stored.len());
    for place in good {
        let (meant, found) = (drawn[place].point(), stored.get(&(TIME + place as i64)));
        ensure!(found == Some(&meant), "point {place}: meant {meant:?}, stored {found:?}");
    }
    Ok(())
}

impl Drawn {
    fn route(&self, place: usize) -> Value {
        let fields = self.fields.iter().enumerate().map(|(path, (name, field))| {
            let kind = match field {
                Field::Float(_) => "float",
                Field::Integer(_) => "integer",
                Field::Boolean(_) => "boolean",
                Field::Text(_) => "string",
            };
            json!({"path": format!("f{path}"), "name": name, "type": kind})
        });
        let object = json!({
            "timestamp": {"path": "at", "unit": "ns"},
            "tags": [{"path": "tag", "name": self.tag.0}],
            "fields": fields.collect::<Vec<_>>(),
        });
        json!({
            "name": format!("r{place}"),
            "topic": format!("p/{place}"),
            "measurement": self.measurement,
            "tags": [{"name": self.constant.0, "value": self.constant.1}],
            "payload": {"json": object},
        })
    }

    fn payload(&self, place: usize) -> Value {
        let mut payload = json!({"at": TIME + place as i64, "tag": self.tag.1});
        for (path, (_, field)) in self.fields.iter().enumerate() {
            payload[format!("f{path}")] = match field {
                Field::Float(number) => json!(number),
                Field::Integer(number) => json!(number),
                Field::Boolean(is) => json!(is),
                Field::Text(text) => json!(text),
            };
        }
        payload
    }

    /// A tag without a text is none.
    fn point(&self) -> Point {
        let tags = [&self.constant, &self.tag].into_iter().filter(|(_, value)| !value.is_empty());
        Point {
            measurement: self.measurement.clone(),
            tags: tags.cloned().collect(),
            fields: self.fields.iter().cloned().collect(),
        }
    }
}

fn draw(random: &mut Rng) -> Drawn {
    let mut names = BTreeSet::new();
    let mut name = |random: &mut Rng| loop {
        let name = text(random, 1);
        let reserved = name.starts_with(['_', '#', '\t']) || name == "time";
        // In a measurement and a field's key it would be stored without the backslash.
        let is_changed = name.contains("\\\"");
        if !reserved && !is_changed && can_be_written(&name) && names.insert(name.clone()) {
            return name;
        }
    };
    let measurement = name(random);
    let value = std::iter::repeat_with(|| text(random, 1)).find(|value| can_be_written(value));
    let constant = (name(random), value.expect("one of them"));
    let mut value = text(random, 0);
    if random.u32(0..10) == 0 {
        value += ["\n", "\r", "\\"][random.usize(..3)];
    }
    let tag = (name(random), value);
    let fields = (0..random.usize(1..=5)).map(|_| (name(random), field(random))).collect();
    Drawn { measurement, constant, tag, fields }
}

fn field(random: &mut Rng) -> Field {
    match random.u32(0..8) {
        0 => Field::Float(FLOATS[random.usize(..FLOATS.len())]),
        1 | 2 => {
            Field::Float(Some(f64::from_bits(random.u64(..))).filter(|it| it.is_finite()).unwrap_or(1.5))
        }
        3 => Field::Integer(INTEGERS[random.usize(..INTEGERS.len())]),
        4 => Field::Integer(random.i64(..)),
        5 => Field::Boolean(random.bool()),
        _ => Field::Text(
            text(random, 0)
                + ["", "\n", "\r\n", "\\", "\\\"", "\"\n", "\u{7f}\0"][random.usize(..7)]
                + &text(random, 0),
        ),
    }
}

fn text(random: &mut Rng, least: usize) -> String {
    (0..random.usize(least..=8)).map(|_| SIGNS[random.usize(..SIGNS.len())]).collect()
}

/// Whether line protocol has a way to write this as a name or a tag's value. What can't be is a dead letter.
fn can_be_written(text: &str) -> bool {
    let is_escaped = |end: &str| text.contains(&format!("\\{end}"));
    !text.contains(['\n', '\r']) && !text.ends_with('\\') && ![",", " ", "="].into_iter().any(is_escaped)
}

/// All points of the bucket, by their times. A record comes as JSON, since CSV would change line breaks.
async fn read(influx: &Influx) -> Result<BTreeMap<i64, Point>> {
    let flux = format!(
        r#"import "json"
        import "types"
        from(bucket: {:?})
        |> range(start: 0, stop: 2100-01-01T00:00:00Z)
        |> drop(columns: ["_start", "_stop"])
        |> map(fn: (r) => ({{record: string(v: json.encode(v: {{r with
            _time: int(v: r._time),
            _value: string(v: r._value),
            _type: if types.isType(v: r._value, type: "float") then "float"
                else if types.isType(v: r._value, type: "int") then "int"
                else if types.isType(v: r._value, type: "bool") then "bool" else "string",
        }}))}}))"#,
        influx.bucket()
    );
    let mut points: BTreeMap<i64, Point> = BTreeMap::new();
    for record in influx.query(&flux).await? {
        let mut record: BTreeMap<String, Value> = serde_json::from_str(column(&record, "record"))?;
        let mut take = |column: &str| record.remove(column).with_context(|| format!("no {column}"));
        let time = take("_time")?.as_i64().context("no time")?;
        let [measurement, name, kind, value] = ["_measurement", "_field", "_type", "_value"].map(&mut take);
        let (measurement, name, kind, value) =
            (string(measurement?)?, string(name?)?, string(kind?)?, string(value?)?);
        let field = match kind.as_str() {
            "float" => Field::Float(value.parse()?),
            "int" => Field::Integer(value.parse()?),
            "bool" => Field::Boolean(value.parse()?),
            _ => Field::Text(value),
        };
        let tags = record.into_iter().map(|(name, value)| Ok((name, string(value)?)));
        let tags = tags.collect::<Result<BTreeMap<_, _>>>()?;
        let point = points.entry(time).or_insert_with(|| Point {
            measurement: measurement.clone(),
            tags: tags.clone(),
            fields: BTreeMap::new(),
        });
        ensure!(point.measurement == measurement && point.tags == tags, "two series at {time}: {point:?}");
        point.fields.insert(name, field);
    }
    Ok(points)
}

fn string(value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        other => bail!("no text: {other}"),
    }
}
