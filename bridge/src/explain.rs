//! The dry run: which routes match a message, and the points or the reasons that come of it. No
//! broker, no database, no cluster.

use std::fmt::Write;
use std::path::PathBuf;

use api::route::{Route, command_topic};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::config::yaml_options;
use crate::memory::Memories;
use crate::properties::{self, Properties};
use crate::route::Levels;
use crate::sparkplug::{Births, LeftOut, Topic};
use crate::table::{CompileError, Message, Table, Written};
use crate::values::Values;

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A file can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Not YAML.
    #[error("the pipeline file is not YAML: {0}")]
    Yaml(String),
    /// No pipeline.
    #[error("the file holds no IoTPipeline: give one with kind: IoTPipeline and spec.routes")]
    NoPipeline,
    /// Not routes.
    #[error("spec.routes is not valid: {0}")]
    Routes(serde_json::Error),
    /// The routes can't be used.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A line of messages is none.
    #[error("line {line} of the messages is not one: {reason}")]
    Message {
        /// Which line, from 1.
        line: usize,
        /// Why not.
        reason: String,
    },
}

/// A message to explain: one line of a messages file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Its topic.
    pub topic: String,
    /// What is published, as text.
    #[serde(default)]
    payload: Option<String>,
    /// What is published, in base64 where it is no text.
    #[serde(default)]
    payload_base64: Option<String>,
    /// Its user properties: [[name, value], ...].
    #[serde(default)]
    user_properties: Vec<(String, String)>,
    /// Its content type.
    #[serde(default)]
    content_type: Option<String>,
    /// Whether the broker had retained it.
    #[serde(default)]
    retained: bool,
}

impl Example {
    /// A message of text.
    pub fn new(topic: String, payload: String) -> Self {
        Self {
            topic,
            payload: Some(payload),
            payload_base64: None,
            user_properties: Vec::new(),
            content_type: None,
            retained: false,
        }
    }

    fn properties(&self) -> Result<Vec<u8>, String> {
        let user = self.user_properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        properties::written(user, self.content_type.as_deref())
            .map_err(|_| "a property has at most 65535 bytes".into())
    }

    fn payload(&self) -> Result<Vec<u8>, String> {
        match (&self.payload, &self.payload_base64) {
            (Some(text), None) => Ok(text.as_bytes().to_vec()),
            (None, Some(base64)) => {
                BASE64_STANDARD.decode(base64).map_err(|error| format!("payload_base64: {error}"))
            }
            _ => Err("give payload, or payload_base64".into()),
        }
    }
}

/// Reads messages, one JSON object a line.
///
/// # Errors
/// If a line is no message.
pub fn parse_messages(text: &str) -> Result<Vec<Example>, ExplainError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(place, line)| {
            let example: Example = serde_json::from_str(line)
                .map_err(|error| ExplainError::Message { line: place + 1, reason: error.to_string() })?;
            let checked = example.payload().and_then(|_| example.properties());
            checked.map_err(|reason| ExplainError::Message { line: place + 1, reason })?;
            Ok(example)
        })
        .collect()
}

/// The routes of the first `IoTPipeline` in a YAML file, which may hold other resources too.
///
/// # Errors
/// If there is none, or its routes can't be used.
pub fn pipeline_table(yaml: &str) -> Result<Table, ExplainError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(yaml, yaml_options())
        .map_err(|error| ExplainError::Yaml(error.to_string()))?;
    let pipeline = documents
        .into_iter()
        .find(|document| document.get("kind").and_then(Value::as_str) == Some("IoTPipeline"))
        .ok_or(ExplainError::NoPipeline)?;
    let routes = pipeline.pointer("/spec/routes").cloned().ok_or(ExplainError::NoPipeline)?;
    let routes: Vec<Route> = serde_json::from_value(routes).map_err(ExplainError::Routes)?;
    Ok(Table::new(&routes)?)
}

/// What comes of one message.
#[derive(Debug, Default)]
pub struct Explanation {
    /// For people.
    pub text: String,
    /// Whether every route that matches, and at least one, stores the message.
    pub is_stored: bool,
}

/// What one route makes of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// Points: the lines.
    Stored(String),
    /// Nothing: why it goes to the dead-letter topic.
    Refused(String),
    /// Nothing: why it is dropped.
    Dropped(&'static str),
    /// Beside what else becomes of it: metrics that are left out, or a node that is asked for its birth.
    Aside(String),
}

/// Explains messages one after the other. Series add up and births are remembered, as in a bridge.
#[derive(Debug)]
pub struct Explainer<'t> {
    table: &'t Table,
    levels: Levels,
    values: Values,
    memories: Memories,
}

impl<'t> Explainer<'t> {
    /// Starts with no memory.
    pub fn new(table: &'t Table) -> Self {
        Self { table, levels: Levels::default(), values: Values::default(), memories: Memories::default() }
    }

    /// What each matching route makes of a message that was received at `stamp`.
    pub fn parts(&mut self, example: &Example, stamp: i64) -> Vec<(&'t str, Part)> {
        let (payload, properties) =
            (example.payload().unwrap_or_default(), example.properties().unwrap_or_default());
        let mut found = Vec::new();
        if !self.levels.split(&example.topic) {
            return Vec::new();
        }
        self.table.matches(&example.topic, &self.levels, &[], &mut found);
        let message = Message {
            topic: &example.topic,
            levels: &self.levels,
            payload: &payload,
            properties: Properties::new(&properties),
            retained: example.retained,
        };
        let mut parts = Vec::new();
        for route in found.into_iter().map(|place| &self.table.routes()[place]) {
            let mut memory = route.has_memory().then(|| self.memories.of(&route.name, false));
            let mut lines = Vec::new();
            let part =
                match route.write_points(message, stamp, &mut self.values, memory.as_deref_mut(), &mut lines)
                {
                    Ok(Written::Points { .. }) => {
                        Part::Stored(String::from_utf8_lossy(&lines).trim_end_matches('\n').to_owned())
                    }
                    Ok(Written::Skipped) => Part::Dropped("the broker had retained it"),
                    Ok(Written::Ignored(ignored)) => Part::Dropped(ignored.reason()),
                    Ok(Written::Dropped) => Part::Dropped("it would make more series than the route may"),
                    Err(error) => Part::Refused(error.to_string()),
                };
            parts.push((&*route.name, part));
            if route.is_sparkplug() {
                let asides = memory.map(|memory| asides(&example.topic, &memory.births)).unwrap_or_default();
                parts.extend(asides.into_iter().map(|aside| (&*route.name, Part::Aside(aside))));
            }
        }
        parts
    }

    /// Explains one message.
    pub fn explain(&mut self, example: &Example, stamp: i64) -> Explanation {
        let parts = self.parts(example, stamp);
        let mut text = format!("{}\n", example.topic);
        for (route, part) in &parts {
            match part {
                Part::Stored(lines) => {
                    writeln!(text, "  route {route} stores\n    {}", lines.replace('\n', "\n    "))
                }
                Part::Refused(reason) => {
                    writeln!(text, "  route {route} refuses it to the dead-letter topic\n    {reason}")
                }
                Part::Dropped(reason) => writeln!(text, "  route {route} drops it\n    {reason}"),
                Part::Aside(aside) => writeln!(text, "    {aside}"),
            }
            .expect("writing to a String cannot fail");
        }
        if parts.is_empty() {
            text.push_str("  no route matches: acknowledged and not stored\n");
        }
        let is_stored = !parts.is_empty()
            && parts.iter().all(|(_, part)| matches!(part, Part::Stored(_) | Part::Aside(_)));
        Explanation { text, is_stored }
    }
}

/// What a route of Sparkplug notices beside.
fn asides(topic: &str, births: &Births) -> Vec<String> {
    let left_out = LeftOut::ALL.iter().zip(births.left_out()).filter(|(_, count)| *count > 0);
    let mut asides: Vec<String> = left_out
        .map(|(reason, count)| format!("metrics that are left out for {}: {count}", reason.word()))
        .collect();
    if let Some(topic) = Topic::parse(topic).ok().filter(|_| births.wants_birth()) {
        asides.push(format!("asks for a birth by {}", command_topic(topic.group, topic.node)));
    }
    asides
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPELINE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: lab}
---
apiVersion: iotpipeline.io/v1alpha1
kind: IoTPipeline
metadata: {name: lab}
spec:
  routes:
  - {name: axes, topic: 'sensor/accelero/{axis}', measurement: mqtt_consumer, payload: {float: {}}}
";

    fn explained(topic: &str, payload: &str) -> Explanation {
        let table = pipeline_table(PIPELINE).expect("a pipeline");
        Explainer::new(&table).explain(&Example::new(topic.into(), payload.into()), 1)
    }

    #[test]
    fn a_message_that_is_stored_shows_its_line() {
        let explanation = explained("sensor/accelero/roll", "360");
        assert!(explanation.is_stored);
        assert!(
            explanation.text.ends_with("    mqtt_consumer,axis=roll value=360 1\n"),
            "{}",
            explanation.text
        );
    }

    #[test]
    fn a_message_that_is_not_stored_shows_why() {
        assert!(!explained("sensor/accelero/roll", "x").is_stored);
        assert!(explained("sensor/gyro", "1").text.contains("no route matches"));
    }

    #[test]
    fn a_line_that_is_no_message_is_named() {
        let error = parse_messages("{\"topic\": \"a\", \"payload\": \"1\"}\n\n{\"topic\": \"a\"}\n")
            .expect_err("refused");
        assert_eq!(error.to_string(), "line 3 of the messages is not one: give payload, or payload_base64");
    }
}
