//! The bridge between a real mosquitto and a real influxd, on loopback: `cargo xtask test`.
//!
//! Both run in Docker, the bridge as a process. Witnesses are never our own code: clients are
//! rumqttc's, points are read back by the influxdb2 crate.

mod aliases;
mod backup;
mod best_effort;
mod boundary;
mod broker;
mod canary;
mod dashboard;
mod dead_letters;
mod doors;
mod encoding;
mod faults;
mod formats;
mod kills;
mod matching;
mod outages;
mod reload;
mod replicas;
mod shutdown;
mod takeover;
mod version;

use std::time::Duration;

use anyhow::Result;
use iotpipeline_e2e::bridge_process::Bridge;
use iotpipeline_e2e::containers::{Container, broker, database};
use iotpipeline_e2e::influx::Influx;
use iotpipeline_e2e::publisher::Load;

/// How long a single thing may take that should take a second or two.
const SOON: Duration = Duration::from_secs(60);

/// What the tests draw at random follows from this, unless `IOTPIPELINE_E2E_SEED` has another number.
const SEED: u64 = 20_261_126;

/// A route that stores numbered messages.
const NUMBERS: &str = "
- name: numbers
  topic: load/numbers
  payload: {json: {fields: [{path: 'n', type: integer}], timestamp: {path: ts, unit: ms}}}
";

/// A broker, a database, and a bridge between them.
struct Chain {
    bridge: Bridge,
    broker: Container,
    database: Container,
    influx: Influx,
}

impl Chain {
    async fn start(routes: &str) -> Result<Self> {
        let (broker, (database, influx)) = tokio::try_join!(broker(), database())?;
        let bridge = Bridge::start(&broker, &database, routes).await?;
        Ok(Self { bridge, broker, database, influx })
    }

    /// Numbered messages for the route of [`NUMBERS`].
    fn load(&self, count: u64, rate: u32) -> Load<'static> {
        Load {
            port: self.broker.port,
            login: None,
            topic: "load/numbers",
            numbers: 0..count,
            payload: numbered,
            rate,
            deadline: Duration::from_secs(120),
        }
    }
}

/// Runs a test with a chain of its own. If it fails, the ends of the logs are printed.
async fn with_chain(routes: &str, test: impl AsyncFnOnce(&mut Chain) -> Result<()>) {
    let mut chain = Chain::start(routes).await.expect("broker, database and bridge start");
    if let Err(error) = test(&mut chain).await {
        panic!("{error:#}");
    }
}

/// A numbered message's payload: each number has a time of its own, so no two points merge.
fn numbered(number: u64) -> String {
    format!(r#"{{"n":{number},"ts":{}}}"#, 1_795_000_000_000 + number)
}

/// Draws the same in every run, and says by which number.
fn seeded() -> fastrand::Rng {
    let seed = std::env::var("IOTPIPELINE_E2E_SEED").map_or(SEED, |text| text.parse().expect("a number"));
    println!("IOTPIPELINE_E2E_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
