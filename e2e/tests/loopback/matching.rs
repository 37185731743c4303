//! Which topics a filter matches: mosquitto's opinion beside the bridge's, for random pairs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use api::topic::TopicPattern;
use fastrand::Rng;
use iotpipeline_e2e::containers::broker;
use iotpipeline_e2e::environment::bridge_binary;
use iotpipeline_e2e::mqtt::Client;
use iotpipeline_e2e::scratch::Directory;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde_json::json;
use tokio::process::Command;

use crate::{SOON, seeded};

/// So many of each make 60,000 pairs.
const PATTERNS: usize = 200;
const TOPICS: usize = 300;
/// What the levels of topics are: few, so that many pairs match.
const LEVELS: [&str; 8] = ["", "a", "b", "ab", "é", "日本", "a b", "$x"];
/// The topic, and the subscription's identifier, of the message behind all others.
const LAST: (&str, usize) = ("last", PATTERNS + 1);

/// By topic, the patterns that match it, by their places.
type Matches = BTreeMap<usize, BTreeSet<usize>>;

#[tokio::test]
async fn the_bridge_and_mosquitto_agree_on_which_filters_match_which_topics() -> Result<()> {
    let mut random = seeded();
    let topics: Vec<String> = distinct(TOPICS, || topic(&mut random));
    // Of patterns with one filter mosquitto would keep one subscription.
    let mut filters = BTreeSet::new();
    let mut patterns = Vec::new();
    while patterns.len() < PATTERNS {
        let text = pattern(&mut random, &topics);
        let Ok(parsed) = text.parse::<TopicPattern>() else { continue };
        if filters.insert(parsed.filter()) {
            patterns.push((text, parsed));
        }
    }
    let (ours, theirs) =
        tokio::try_join!(by_the_bridge(&patterns, &topics), by_mosquitto(&patterns, &topics))?;
    for (place, topic) in topics.iter().enumerate() {
        let (ours, theirs) = (&ours[&place], &theirs[&place]);
        let differ =
            ours.symmetric_difference(theirs).map(|place| (&patterns[*place].0, ours.contains(place)));
        let differ: Vec<_> = differ.collect();
        ensure!(differ.is_empty(), "{topic:?}: patterns, and whether the bridge matches them: {differ:?}");
    }
    let matches: usize = ours.values().map(BTreeSet::len).sum();
    println!("{matches} of {} pairs match, by both", PATTERNS * TOPICS);
    ensure!(matches > PATTERNS, "hardly any pair matches");
    Ok(())
}

fn distinct(count: usize, mut draw: impl FnMut() -> String) -> Vec<String> {
    let mut all = BTreeSet::new();
    while all.len() < count {
        all.insert(draw());
    }
    all.into_iter().collect()
}

fn levels(random: &mut Rng) -> Vec<&'static str> {
    (0..random.usize(1..=5)).map(|_| LEVELS[random.usize(..LEVELS.len())]).collect()
}

/// No topic is empty.
fn topic(random: &mut Rng) -> String {
    let topic = levels(random).join("/");
    if topic.is_empty() { "/".into() } else { topic }
}

/// Half of the patterns are topics of which levels have become wildcards; the others have nothing to do with
/// any topic.
fn pattern(random: &mut Rng, topics: &[String]) -> String {
    let base = match random.bool() {
        true => topics[random.usize(..topics.len())].split('/').map(str::to_owned).collect(),
        false => levels(random).into_iter().map(str::to_owned).collect::<Vec<_>>(),
    };
    let mut levels: Vec<String> = base
        .into_iter()
        .enumerate()
        .map(|(place, level)| match random.u32(0..6) {
            0 => "+".into(),
            1 => format!("{{c{place}}}"),
            _ => level,
        })
        .collect();
    if random.u32(0..3) == 0 {
        levels.truncate(random.usize(..=levels.len()));
        levels.push(["#", "{rest...}"][random.usize(..2)].into());
    }
    levels.join("/")
}

/// What `explain` says: it looks the topics up in the trie that messages are routed by.
async fn by_the_bridge(patterns: &[(String, TopicPattern)], topics: &[String]) -> Result<Matches> {
    let routes = patterns.iter().enumerate().map(
        |(place, (text, _))| json!({"name": place.to_string(), "topic": text, "payload": {"string": {}}}),
    );
    let pipeline = json!({"kind": "IoTPipeline", "spec": {"routes": routes.collect::<Vec<_>>()}});
    let messages: String =
        topics.iter().map(|topic| format!("{}\n", json!({"topic": topic, "payload": "x"}))).collect();
    let directory = Directory::new("matching")?;
    let output = Command::new(bridge_binary()?)
        .args(["explain", "--pipeline"])
        .arg(directory.write("pipeline.yaml", &pipeline.to_string())?)
        .arg("--messages")
        .arg(directory.write("messages.jsonl", &messages)?)
        .output()
        .await?;
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines().peekable();
    let mut matches = Matches::new();
    for (place, topic) in topics.iter().enumerate() {
        let heading = lines.next();
        ensure!(heading == Some(topic), "{heading:?}: {}", String::from_utf8_lossy(&output.stderr));
        let found = matches.entry(place).or_default();
        while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
            if let Some(route) = line.strip_prefix("  route ") {
                found.insert(route.strip_suffix(" stores").context("not stored")?.parse()?);
            }
        }
    }
    Ok(matches)
}

/// What is delivered: a copy names the subscriptions that it is for.
async fn by_mosquitto(patterns: &[(String, TopicPattern)], topics: &[String]) -> Result<Matches> {
    let broker = broker().await?;
    let mut client = Client::connect(broker.port, "matching", None).await?;
    client.subscribe_as(LAST.0, LAST.1).await?;
    for (place, (_, pattern)) in patterns.iter().enumerate() {
        client.subscribe_as(&pattern.filter(), place + 1).await?;
    }
    for (place, topic) in topics.iter().enumerate() {
        let answer = client.publish(topic, place.to_string()).await?;
        let taken = matches!(answer, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
        ensure!(taken, "{topic:?}: {answer:?}");
    }
    client.publish(LAST.0, "").await?;
    let mut matches: Matches = (0..topics.len()).map(|place| (place, BTreeSet::new())).collect();
    loop {
        let message = client.message(SOON).await?;
        let properties = message.properties.as_ref().context("a copy for no subscription")?;
        let ids = &properties.subscription_identifiers;
        if message.topic == LAST.0 {
            if ids.contains(&LAST.1) {
                return Ok(matches);
            }
            continue;
        }
        let topic: usize = std::str::from_utf8(&message.payload)?.parse()?;
        ensure!(message.topic == topics[topic] && !ids.is_empty(), "{message:?}");
        matches.entry(topic).or_default().extend(ids.iter().map(|id| id - 1));
    }
}
