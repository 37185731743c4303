//! What a run stands on: the broker and the database, a bridge of its own between them, a proxy on
//! each of its sides; and what each fault does to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bridge_process::Bridge;
use crate::conditions::{Probe, eventually, eventually_true};
use crate::containers::{Container, Speaks, admits_clients, broker, database};
use crate::fault_proxy::{End, FaultProxy, Flow};
use crate::influx::Influx;
use crate::mqtt::Client;
use crate::soak::audit::{Verdict, audit, poison, read};
use crate::soak::letters::{Letters, Witness};
use crate::soak::load::{Account, Load, NUMBER_FIELDS};
use crate::soak::plan::{Fault, Side};

/// Messages a second of each publisher while faults happen.
const RATE: u64 = 900;
/// How long a run's messages may take to be acknowledged.
const PUBLISHED: Duration = Duration::from_secs(120);
/// How long the last of them may take to be stored when nothing is wrong any more.
const STORED: Duration = Duration::from_secs(60);
/// How long the last dead letter may take to reach its witness after that.
const LETTERS: Duration = Duration::from_secs(15);
/// Seconds between the bridge's pings: short, so that it finds out soon that a connection is half open.
const KEEP_ALIVE: u16 = 5;

/// The broker and the database, which serve many runs.
pub struct Parts {
    /// mosquitto.
    pub broker: Arc<Container>,
    /// influxd.
    pub database: Arc<Container>,
    /// A witness of what it holds.
    pub influx: Influx,
    /// What the broker speaks to the bridges.
    speaks: Speaks,
    /// How often the broker was killed so far.
    broker_deaths: AtomicU32,
}

impl Parts {
    /// Starts both.
    ///
    /// # Errors
    /// If one doesn't start.
    pub async fn start(speaks: Speaks) -> Result<Self> {
        let (broker, (database, influx)) = tokio::try_join!(broker(), database())?;
        let (broker, database) = (Arc::new(broker), Arc::new(database));
        Ok(Self { broker, database, influx, speaks, broker_deaths: AtomicU32::new(0) })
    }

    /// Starts both anew, whatever state a broken run left them in.
    ///
    /// # Errors
    /// If one doesn't start.
    pub async fn revive(&self) -> Result<()> {
        for part in [&self.broker, &self.database] {
            // One that had ended can't be killed.
            part.kill().await.ok();
            part.start().await?;
        }
        admits_clients(&self.broker).await?;
        eventually_true("the database answers", STORED, async || self.influx.is_healthy().await).await
    }
}

/// A run's place at the broker and in the database: its topics and measurements begin with its name.
#[derive(Clone)]
pub struct Site<'a> {
    parts: &'a Parts,
    name: String,
    qos: u8,
    /// Its dead letters.
    letters: Letters,
}

impl Site<'_> {
    /// A load of one of the publishers.
    pub fn load<'b>(&'b self, publisher: u64, count: u64, progress: &'b watch::Sender<u64>) -> Load<'b> {
        Load {
            port: self.parts.broker.port,
            root: &self.name,
            publisher,
            qos: self.qos,
            repeats: false,
            first: 0,
            count,
            rate: RATE,
            broker_deaths: &self.parts.broker_deaths,
            progress,
            deadline: PUBLISHED,
        }
    }

    /// Publishes a last message and waits until it is stored. The broker keeps the order, and the bridge
    /// stores in it: then all that will ever be stored is.
    ///
    /// # Errors
    /// If it isn't in time: the bridge is stuck.
    pub async fn settle(&self, marker: u32) -> Result<()> {
        admits_clients(&self.parts.broker).await?;
        let client_id = format!("marker-{}-{marker}", self.name);
        let mut client = Client::connect(self.parts.broker.port, &client_id, None).await?;
        client.publish(&self.marker_topic(), marker.to_string()).await?;
        eventually_true("the last message is stored", STORED, async || {
            let stored = self.parts.influx.integers(&format!("marker-{}", self.name), "value").await?;
            Ok(stored.contains(&i64::from(marker)))
        })
        .await
    }

    /// Compares what is stored with what the publishers know.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn audit(&self, account: &Account) -> Result<Verdict> {
        let [numbered, repeated] = ["numbered", "repeated"].map(|kind| format!("{kind}-{}", self.name));
        // Those that don't come are missing in the verdict.
        let are_there = eventually_true("the dead letters are there", LETTERS, async || {
            let counts = self.letters.counts();
            Ok(poison(&account.settled).all(|number| counts.contains_key(number)))
        });
        are_there.await.ok();
        let mut stored = read(&self.parts.influx, &numbered, &repeated).await?;
        stored.letters = self.letters.counts();
        Ok(audit(account, &stored))
    }

    /// Where a message goes that only says that it was here.
    pub fn marker_topic(&self) -> String {
        format!("{}/marker", self.name)
    }

    /// The name of the bridge's session.
    pub fn client_id(&self) -> String {
        format!("bridge-{}", self.name)
    }
}

/// A bridge between two proxies, with topics, measurements and a session of its own.
pub struct Rig<'a> {
    /// Where it is.
    pub site: Site<'a>,
    /// The bridge.
    pub bridge: Bridge,
    /// Its way to mosquitto.
    pub to_broker: Arc<FaultProxy>,
    /// Its way to InfluxDB.
    pub to_database: Arc<FaultProxy>,
    /// What will be right again later.
    ailing: JoinSet<()>,
    witness: Witness,
    /// Whether the bridge has the route more that comes and goes.
    has_extra: bool,
}

impl<'a> Rig<'a> {
    /// Starts a bridge and waits until it is ready. The name must be new to these parts.
    ///
    /// # Errors
    /// If it doesn't become ready.
    pub async fn start(parts: &'a Parts, name: &str, qos: u8) -> Result<Self> {
        let to_broker = Arc::new(FaultProxy::start(parts.broker.port_for(parts.speaks)).await?);
        let to_database = Arc::new(FaultProxy::start(parts.database.port).await?);
        let letters = Letters::default();
        let refusing = ["undecodable", "typed"].map(|kind| format!("{kind}-{name}"));
        let witness = letters.follow(parts.broker.port, name, &refusing).await?;
        // So that the database refuses integers in this field. It may be busy with the run before.
        let text = format!("typed-{name} value=\"text\"");
        eventually("the database takes a point", STORED, async || {
            Ok(match parts.influx.write(&text).await {
                Ok(()) => Probe::Found(()),
                Err(error) => Probe::NotYet(format!("{error:#}")),
            })
        })
        .await?;
        let site = Site { parts, name: name.to_owned(), qos, letters };
        let routes = routes(name, qos);
        let mut bridge = Bridge::between(to_broker.port(), to_database.port(), &site.client_id(), &routes)?;
        bridge.set_keep_alive(KEEP_ALIVE)?;
        // As the operator lets it.
        bridge.send_canaries()?;
        bridge.restart().await?;
        Ok(Self { site, bridge, to_broker, to_database, ailing: JoinSet::new(), witness, has_extra: false })
    }

    fn proxy(&self, side: Side) -> &Arc<FaultProxy> {
        match side {
            Side::Broker => &self.to_broker,
            Side::Database => &self.to_database,
        }
    }

    /// Lets something go wrong. What lasts goes on after this returns.
    ///
    /// # Errors
    /// If it can't be done, or the struck doesn't start again.
    pub async fn strike(&mut self, fault: Fault) -> Result<()> {
        let parts = self.site.parts;
        match fault {
            Fault::BridgeKilled => {
                self.bridge.kill().await?;
                self.bridge.spawn()?;
            }
            Fault::BridgeTerminated => {
                self.bridge.terminate().await?;
                self.bridge.spawn()?;
            }
            Fault::Cut(side, end) => self.proxy(side).cut(end),
            Fault::Ailing { side, out, back, span, cut } => {
                let proxy = Arc::clone(self.proxy(side));
                proxy.carry(out, back);
                self.ailing.spawn(async move {
                    sleep(span).await;
                    if cut {
                        proxy.cut(End::Reset);
                    }
                    proxy.carry(Flow::Passes, Flow::Passes);
                });
            }
            Fault::Refused(side, span) => {
                let proxy = Arc::clone(self.proxy(side));
                proxy.admit(false);
                proxy.cut(End::Reset);
                self.ailing.spawn(async move {
                    sleep(span).await;
                    proxy.admit(true);
                });
            }
            Fault::DatabaseFrozen(span) => {
                parts.database.freeze().await?;
                let database = Arc::clone(&parts.database);
                self.ailing.spawn(async move {
                    sleep(span).await;
                    // One that was killed meanwhile can't go on.
                    database.thaw().await.ok();
                });
            }
            Fault::DatabaseKilled(span) => {
                parts.database.kill().await?;
                sleep(span).await;
                parts.database.start().await?;
            }
            Fault::BrokerRestarted => {
                parts.broker.terminate().await?;
                parts.broker.start().await?;
            }
            Fault::BrokerKilled => {
                parts.broker_deaths.fetch_add(1, Ordering::SeqCst);
                parts.broker.kill().await?;
                parts.broker.start().await?;
            }
            Fault::RouteChanged => self.change_route()?,
        }
        Ok(())
    }

    /// Adds a route to the bridge's configuration, or removes it again.
    fn change_route(&mut self) -> Result<()> {
        self.has_extra = !self.has_extra;
        let extra = if self.has_extra { extra(&self.site.name) } else { String::new() };
        self.bridge.set_routes(&(routes(&self.site.name, self.site.qos) + &extra))
    }

    /// Waits until all is right again that was to be so after a while, and heals the rest.
    pub async fn heal(&mut self) {
        while self.ailing.join_next().await.is_some() {}
        self.to_broker.heal();
        self.to_database.heal();
    }

    /// Ends the bridge and its session, so that the next run finds the broker as this one did.
    ///
    /// # Errors
    /// If the broker doesn't answer.
    pub async fn end(mut self) -> Result<()> {
        self.bridge.kill().await?;
        self.witness.end().await?;
        Client::connect(self.site.parts.broker.port, &self.site.client_id(), None).await.map(drop)
    }
}

fn routes(name: &str, qos: u8) -> String {
    let fields: String = (0..NUMBER_FIELDS)
        .map(|field| format!("{{path: n{field}, type: integer, optional: true}}, "))
        .collect();
    format!(
        "
- {{name: numbered, topic: '{name}/numbered/{{series}}', qos: {qos}, measurement: numbered-{name},
   payload: {{json: {{fields: [{fields}]}}}}}}
- {{name: repeated, topic: '{name}/repeated/{{series}}', qos: {qos}, measurement: repeated-{name},
   payload: {{float: {{}}}}}}
- {{name: undecodable-{name}, topic: '{name}/undecodable', qos: {qos}, payload: {{integer: {{}}}}}}
- {{name: typed-{name}, topic: '{name}/typed', qos: {qos}, payload: {{integer: {{}}}}}}
- {{name: marker, topic: '{name}/marker', qos: {qos}, measurement: marker-{name}, payload: {{integer: {{}}}}}}
"
    )
}

/// A route more, which nothing is published to.
fn extra(name: &str) -> String {
    format!("- {{name: extra, topic: '{name}/extra/{{x}}', payload: {{float: {{}}}}}}\n")
}
