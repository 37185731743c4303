//! Numbered messages at QoS 1, each accounted for: which of them has the broker acknowledged?
//!
//! rumqttc keeps its packet ids to itself but reports them in the order of its requests, so the
//! n-th `Outgoing::Publish` of a connection is its n-th message. Nothing is carried over from a
//! broken connection: what was not acknowledged is published again on the next, by a new client.
//!
//! mosquitto commits to its database at the end of each pass of its main loop, and acknowledges
//! within the pass. So a broker that is killed may lose what its last pass acknowledged, and no
//! setting prevents it. Such messages are accounted for apart, as unsettled.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::mqtt::{Login, options};

/// How long a connection with something to say may be silent before it is given up.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

/// How long before a connection's end an acknowledgement may have come from the broker's last pass.
pub(crate) const UNSETTLED: Duration = Duration::from_millis(250);

/// A load of numbered messages.
pub struct Load<'a> {
    /// Where the broker is, on 127.0.0.1.
    pub port: u16,
    /// Who publishes.
    pub login: Login<'a>,
    /// The topic.
    pub topic: &'a str,
    /// The numbers.
    pub numbers: Range<u64>,
    /// A number's payload.
    pub payload: fn(u64) -> String,
    /// Messages in a second.
    pub rate: u32,
    /// When to give up.
    pub deadline: Duration,
}

/// What became of a load.
#[derive(Debug, Default)]
pub struct Account {
    /// Acknowledged messages.
    pub acknowledged: u64,
    /// Those among them of which the broker said that nobody subscribes.
    pub without_subscriber: u64,
    /// How many connections it took.
    pub connections: u32,
    /// Messages that were acknowledged just before a connection broke.
    pub unsettled: BTreeSet<u64>,
    /// Messages that were published again, since their acknowledgement had not come when a connection broke: nobody
    /// behind the broker can know that they are the same.
    pub repeated: BTreeSet<u64>,
}

impl Account {
    /// The numbers that must not be lost: all but the unsettled.
    pub fn settled(&self, numbers: Range<u64>) -> BTreeSet<u64> {
        numbers.filter(|number| !self.unsettled.contains(number)).collect()
    }
}

impl Load<'_> {
    /// Publishes until every message is acknowledged. `progress` gets the number of those that are.
    ///
    /// # Errors
    /// If the broker refuses a message, or the deadline passes.
    pub async fn publish(&self, progress: &watch::Sender<u64>) -> Result<Account> {
        let start = Instant::now();
        let mut account = Account::default();
        let mut left: Vec<u64> = self.numbers.clone().collect();
        while !left.is_empty() {
            if start.elapsed() > self.deadline {
                bail!("{} of {:?} not acknowledged in time; {account:?}", left.len(), self.numbers);
            }
            account.connections += 1;
            let client_id = format!("e2e-publisher-{}", account.connections);
            let (requests, events) = AsyncClient::new(options(self.port, &client_id, self.login), 16);
            let (mut acknowledged, mut flying) = (HashMap::new(), HashMap::new());
            let mut connection = Connection { left: &left, account: &mut account, progress };
            tokio::select! {
                outcome = connection.follow(events, &mut acknowledged, &mut flying) => outcome?,
                () = self.feed(&requests, &left) => {}
            }
            left.retain(|number| !acknowledged.contains_key(number));
            if !left.is_empty() {
                let late = acknowledged.iter().filter(|(_, when)| when.elapsed() < UNSETTLED);
                account.unsettled.extend(late.map(|(number, _)| *number));
                account.repeated.extend(flying.into_values());
            }
            // The broker may be starting: don't ask it a thousand times a second.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(account)
    }

    /// Gives rumqttc the messages in order, at the load's rate, and then never ends.
    async fn feed(&self, requests: &AsyncClient, left: &[u64]) {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for numbers in left.chunks((self.rate / 100).max(1) as usize) {
            pace.tick().await;
            for number in numbers {
                let payload = (self.payload)(*number);
                requests.publish(self.topic, QoS::AtLeastOnce, false, payload).await.ok();
            }
        }
        std::future::pending().await
    }
}

/// One connection's view of a load.
struct Connection<'a> {
    left: &'a [u64],
    account: &'a mut Account,
    progress: &'a watch::Sender<u64>,
}

impl Connection<'_> {
    /// Follows what happens, until all is acknowledged or the connection can't be used any further.
    async fn follow(
        &mut self,
        mut events: EventLoop,
        acknowledged: &mut HashMap<u64, Instant>,
        flying: &mut HashMap<u16, u64>,
    ) -> Result<()> {
        let mut unsent = self.left.iter().copied();
        while acknowledged.len() < self.left.len() {
            let Ok(Ok(event)) = tokio::time::timeout(SILENCE, events.poll()).await else { return Ok(()) };
            match event {
                Event::Outgoing(Outgoing::Publish(packet_id)) => {
                    let number = unsent.next().context("rumqttc sent more than it was given")?;
                    flying.insert(packet_id, number);
                }
                // The packet id is still taken. This broker acknowledges in order: that can't be.
                Event::Outgoing(Outgoing::AwaitAck(_)) => return Ok(()),
                Event::Incoming(Packet::PubAck(answer)) => {
                    let number = flying.remove(&answer.pkid).context("an acknowledgement of nothing")?;
                    match answer.reason {
                        PubAckReason::Success => {}
                        PubAckReason::NoMatchingSubscribers => self.account.without_subscriber += 1,
                        refused => bail!("message {number} was refused: {refused:?}"),
                    }
                    acknowledged.insert(number, Instant::now());
                    self.account.acknowledged += 1;
                    self.progress.send_replace(self.account.acknowledged);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Waits until so many messages are acknowledged.
///
/// # Errors
/// If the publisher ends before.
pub async fn acknowledged(progress: &mut watch::Receiver<u64>, count: u64) -> Result<()> {
    progress.wait_for(|acknowledged| *acknowledged >= count).await.context("the publisher has ended")?;
    Ok(())
}
