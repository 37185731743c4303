//! One measurement: a subject under a row's load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::bench::generator::{Generator, Published};
use crate::bench::packets::payload;
use crate::bench::relay::Relay;
use crate::bench::report::{Latency, Sample};
use crate::bench::rows::{Pace, Payload, Row};
use crate::bench::subjects::{Floor, Place, Storing, Subject};
use crate::bench::usage::{memory, peak_memory, processor_time};
use crate::conditions::eventually_true;
use crate::containers::Speaks;
use crate::influx::{Influx, Value};
use crate::mqtt::Client;
use crate::soak::rig::Parts;

/// How long a subject may take until a first message has passed through it.
const STARTS: Duration = Duration::from_secs(30);
/// How long a row may take beyond the time that its pace asks for.
const DEADLINE: Duration = Duration::from_secs(150);
/// When nothing was stored for so long, it is time to count. More than any subject's batches wait.
const QUIET: Duration = Duration::from_secs(1);
/// How often a subject is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Where measurements take place: the parts that all subjects share.
pub struct Bench {
    parts: Parts,
    relay: Relay,
    /// Runs so far: they give each its name.
    runs: u32,
}

impl Bench {
    /// Starts the parts.
    ///
    /// # Errors
    /// If one doesn't start.
    pub async fn start() -> Result<Self> {
        let parts = Parts::start(Speaks::Mqtt5).await?;
        let relay = Relay::start(parts.database.port).await?;
        Ok(Self { parts, relay, runs: 0 })
    }

    /// Measures a subject under a row's load.
    ///
    /// # Errors
    /// If it doesn't start, or doesn't store everything of QoS 1 in time: with the end of its log.
    pub async fn measure(&mut self, subject: Subject, row: &Row) -> Result<Sample> {
        self.runs += 1;
        let run = format!("run{}", self.runs);
        let place = Place { broker: self.parts.broker.port, database: self.relay.port, run: &run };
        let sample = match subject {
            Subject::Floor => self.measure_floor(place, row).await,
            Subject::Bridge => self.measure_storing(Storing::bridge(place, row).await?, place, row).await,
            Subject::Telegraf => self.measure_storing(Storing::telegraf(place, row).await?, place, row).await,
        };
        // Its session must not gather anything any more: a clean one of the same name ends it.
        Client::connect(place.broker, &place.client_id(), None).await?;
        sample.with_context(|| format!("{} under {}", subject.name(), row.name))
    }

    async fn measure_floor(&self, place: Place<'_>, row: &Row) -> Result<Sample> {
        let generator = Generator::new(row, place.run);
        let floor = Floor::start(place, row)?;
        say_ready(place, row).await?;
        let publish = publish(generator, place.broker);
        let counted = floor.counted().await?;
        let took = publish.await??.since.elapsed() - Duration::from_nanos(counted.silent_nanoseconds);
        let cost = Duration::from_nanos(counted.processor_nanoseconds);
        Ok(Sample::new(row.messages, counted.received, took, cost, counted.peak_memory_kib, None))
    }

    async fn measure_storing(&self, subject: Storing, place: Place<'_>, row: &Row) -> Result<Sample> {
        let measured = self.measure_process(&subject, place, row).await;
        measured.with_context(|| format!("its log ends so:\n{}", subject.log()))
    }

    async fn measure_process(&self, subject: &Storing, place: Place<'_>, row: &Row) -> Result<Sample> {
        let generator = Generator::new(row, place.run);
        let good = generator.good();
        self.relay.start_over(false);
        say_ready(place, row).await?;
        // That one is not counted: connections are made for it.
        eventually_true("a first message is stored", STARTS, async || Ok(self.relay.last().is_some()))
            .await?;
        self.relay.start_over(row.pace != Pace::Full);
        let process = subject.process_id().await?;
        let before = processor_time(process)?;
        let mut publish = publish(generator, place.broker);
        let mut backlog = None;
        if row.outage {
            let broker = self.parts.broker.process_id().await?;
            let empty = memory(broker)?;
            self.relay.is_away(true);
            (&mut publish).await??;
            let bytes = memory(broker)?.saturating_sub(empty) * 1_024;
            backlog = Some((Instant::now(), bytes as f64 / row.messages as f64));
            self.relay.is_away(false);
            publish = tokio::spawn(async { Ok(Published { since: Instant::now(), times: Vec::new() }) });
        }
        let end = self.follow(&mut publish, process, place, row, good).await?;
        let published = publish.await??;
        let latency = match row.pace {
            Pace::Full => None,
            Pace::Rate(_) => Some(self.latency(&published)?),
        };
        let since = backlog.map_or(published.since, |(back, _)| back);
        let (took, cost) = (end.stored - since, end.processor_time - before);
        let sample = Sample::new(good, end.count, took, cost, peak_memory(process)?, latency);
        Ok(Sample { broker_bytes: backlog.map(|(_, bytes)| bytes), ..sample })
    }

    /// Waits until everything is stored that can be, or at QoS 0 nothing more is.
    async fn follow(
        &self,
        publish: &mut JoinHandle<Result<Published>>,
        process: u32,
        place: Place<'_>,
        row: &Row,
        good: u64,
    ) -> Result<End> {
        let paced = match row.pace {
            Pace::Full => Duration::ZERO,
            Pace::Rate(rate) => Duration::from_secs(row.messages / rate),
        };
        let deadline = Instant::now() + paced + DEADLINE;
        let (mut last, mut cost) = (None, Duration::ZERO);
        loop {
            sleep(LOOK).await;
            let now = self.relay.last();
            if now != last {
                // With what followed the last write: the acknowledgements.
                (last, cost) = (now, processor_time(process)?);
            }
            if let Some(stored) = last.filter(|last| last.elapsed() > QUIET)
                && publish.is_finished()
            {
                // Without the first one, which only said that all was ready.
                let count = count(&self.parts.influx, place.run, row).await?.saturating_sub(1);
                if count >= good || row.qos == 0 {
                    return Ok(End { count, stored, processor_time: cost });
                }
                ensure!(Instant::now() < deadline, "{count} of {good} messages are stored");
            }
            if Instant::now() > deadline {
                bail!("not within {DEADLINE:?}: still publishing: {}", !publish.is_finished());
            }
        }
    }

    fn latency(&self, published: &Published) -> Result<Latency> {
        let mut times = Vec::new();
        for write in self.relay.take() {
            for number in write.numbers()? {
                let published = published.times.get(number as usize).context("a number of nobody")?;
                times.push(write.at.saturating_duration_since(*published));
            }
        }
        ensure!(times.len() >= published.times.len(), "the relay has not seen every message");
        Ok(Latency::of(times))
    }
}

/// When everything was stored, and what it had cost.
struct End {
    count: u64,
    stored: Instant,
    processor_time: Duration,
}

fn publish(generator: Generator, port: u16) -> JoinHandle<Result<Published>> {
    spawn_blocking(move || generator.publish(port))
}

/// Publishes a message that is not counted as soon as somebody has subscribed to it.
async fn say_ready(place: Place<'_>, row: &Row) -> Result<()> {
    let mut client = Client::connect(place.broker, &format!("{}-ready", place.run), None).await?;
    let payload = match (row.pace, row.payload) {
        // No message's number.
        (Pace::Rate(_), Payload::Number) => "-1".to_owned(),
        _ => payload(row, place.run, 0, 0),
    };
    let topic = row.topic(place.run, 0);
    let start = Instant::now();
    while client.publish(&topic, payload.clone()).await? != PubAckReason::Success {
        ensure!(start.elapsed() < STARTS, "nobody has subscribed within {STARTS:?}");
        sleep(LOOK).await;
    }
    Ok(())
}

/// How many points of a run the database has: its own word.
async fn count(influx: &Influx, run: &str, row: &Row) -> Result<u64> {
    let field = if row.payload == Payload::Number { "value" } else { "temperature" };
    let records = influx
        .query(&format!(
            "from(bucket: {:?}) |> range(start: -1h, stop: 1h) \
             |> filter(fn: (r) => r._measurement == {run:?} and r._field == {field:?}) \
             |> count() |> group() |> sum()",
            influx.bucket()
        ))
        .await?;
    match records.first().and_then(|record| record.values.get("_value")) {
        Some(Value::Long(count)) => Ok(count.unsigned_abs()),
        other => bail!("not a count: {other:?}"),
    }
}
