//! What is measured, as processes between the same broker and the same database.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use crate::bench::floor::{Counted, Task};
use crate::bench::rows::{Payload, Row};
use crate::bridge_process::Bridge;
use crate::containers::{BUCKET, ORGANIZATION, TOKEN};
use crate::environment::{repository, telegraf};
use crate::programs::Program;
use crate::scratch::Directory;

/// As the operator writes it into the bridge's configuration.
const RECEIVE_MAXIMUM: u16 = 10_000;

/// Who is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Ours.
    Bridge,
    /// Telegraf.
    Telegraf,
    /// A reader that stores nothing.
    Floor,
}

impl Subject {
    /// Its name in tables and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Telegraf => "telegraf",
            Self::Floor => "floor",
        }
    }
}

/// Where a subject works: the ports of the broker and of the way to the database, on 127.0.0.1, and a name
/// that no other run has. Topics and measurement are called by it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The broker's port.
    pub broker: u16,
    /// The relay's port.
    pub database: u16,
    /// The run's name.
    pub run: &'a str,
}

impl Place<'_> {
    /// The name of the subject's session.
    pub fn client_id(&self) -> String {
        format!("{}-subject", self.run)
    }

    fn filter(&self) -> String {
        format!("bench/{}/#", self.run)
    }
}

/// A subject that stores. Killed when dropped.
pub enum Storing {
    /// The bridge.
    Bridge(Box<Bridge>),
    /// Telegraf.
    Telegraf(Box<Program>),
}

impl Storing {
    /// Starts the bridge, and waits until it is ready.
    ///
    /// # Errors
    /// If it doesn't become ready.
    pub async fn bridge(place: Place<'_>, row: &Row) -> Result<Self> {
        let routes = row.routes_yaml(place.run);
        let mut bridge = Bridge::between(place.broker, place.database, &place.client_id(), &routes)?;
        bridge.set_receive_maximum(RECEIVE_MAXIMUM)?;
        bridge.restart().await?;
        Ok(Self::Bridge(Box::new(bridge)))
    }

    /// Starts Telegraf, and doesn't wait for it.
    ///
    /// # Errors
    /// If its configuration can't be read, or it can't be started.
    pub async fn telegraf(place: Place<'_>, row: &Row) -> Result<Self> {
        let directory = Directory::new("telegraf")?;
        let file = directory.write("telegraf.conf", &telegraf_conf(place, row)?)?;
        let arguments = vec![file.display().to_string()];
        let program = Program::start_new(telegraf()?, arguments, directory).await?;
        Ok(Self::Telegraf(Box::new(program)))
    }

    /// The process' id.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn process_id(&self) -> Result<u32> {
        let id = match self {
            Self::Bridge(bridge) => bridge.process_id(),
            Self::Telegraf(program) => program.process_id().await,
        };
        id.with_context(|| format!("it has ended; its log ends so:\n{}", self.log()))
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        const LINES: usize = 20;
        match self {
            Self::Bridge(bridge) => bridge.log(LINES),
            Self::Telegraf(program) => program.log(LINES),
        }
    }
}

/// The configuration in the repository, with what differs from run to run.
fn telegraf_conf(place: Place<'_>, row: &Row) -> Result<String> {
    let format = match row.payload {
        Payload::Number => "number.conf",
        Payload::Json => "json.conf",
        Payload::Line => "line.conf",
    };
    let read = |name: &str| {
        let path = repository("e2e/bench/telegraf").join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let values = [
        ("BROKER", format!("tcp://127.0.0.1:{}", place.broker)),
        ("DATABASE", format!("http://127.0.0.1:{}", place.database)),
        ("TOKEN", TOKEN.into()),
        ("ORGANIZATION", ORGANIZATION.into()),
        ("BUCKET", BUCKET.into()),
        ("FILTER", place.filter()),
        ("CLIENT", place.client_id()),
        ("QOS", row.qos.to_string()),
        ("PERSISTENT", (row.qos > 0).to_string()),
        ("MEASUREMENT", place.run.into()),
    ];
    let text = read("telegraf.conf")? + &read(format)?;
    let text = values.iter().fold(text, |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
    ensure!(!text.contains("${"), "telegraf.conf asks for what the bench doesn't know");
    Ok(text)
}

/// The floor, until it has read everything.
pub struct Floor {
    child: Child,
}

impl Floor {
    /// Starts it, as another process of this program.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(place: Place<'_>, row: &Row) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([FLOOR, &place.broker.to_string(), &place.client_id(), &place.filter()])
            .args([row.qos.to_string(), row.messages.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it fails.
    pub async fn counted(self) -> Result<Counted> {
        let output = self.child.wait_with_output().await?;
        ensure!(output.status.success(), "the floor has failed");
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// The first argument of a process that is the floor.
pub const FLOOR: &str = "floor";

/// Reads the other arguments of such a process.
pub fn floor_task(arguments: &[String]) -> Option<Task> {
    let [port, client_id, filter, qos, messages] = arguments else { return None };
    Some(Task {
        port: port.parse().ok()?,
        client_id: client_id.clone(),
        filter: filter.clone(),
        qos: qos.parse().ok()?,
        messages: messages.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::ROWS;

    #[test]
    fn telegraf_is_told_everything_that_its_configuration_asks_for() {
        for row in ROWS {
            let conf = telegraf_conf(Place { broker: 1, database: 2, run: "run" }, &row).expect(row.name);
            assert!(conf.contains(r#"topics = ["bench/run/#"]"#), "{conf}");
        }
    }
}
