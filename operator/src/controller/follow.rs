//! Follows what no watch tells of: bridges that stay ready and say something else, and Grafanas outside
//! the cluster. All that follows from news is a pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use api::bridge_status::{BridgeStatus, LONGEST_HOLD};
use api::iotpipeline::IoTPipeline;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::{BoxFuture, select_all};
use kube::runtime::reflector::ObjectRef;
use tokio::task::AbortHandle;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use super::refresh::status_of;
use super::{Context, parts};
use crate::grafana::Grafana;
use crate::http::Patient;
use crate::plan::Plan;

/// The shortest time from a pass to the next that a bridge's words bring about.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a Grafana outside the cluster is asked.
const PERIOD: Duration = Duration::from_secs(3);

/// From one such question to the next: with more than 300 pipelines that have one, each is asked less often.
const PACE: Duration = Duration::from_millis(10);

/// What a bridge has said.
pub(super) struct Heard {
    /// Where it says it.
    pub(super) url: String,
    /// Its words.
    pub(super) status: BridgeStatus,
}

/// A task for each pipeline, from the end of a pass to the next.
pub(super) struct Followed {
    tasks: Mutex<HashMap<String, AbortHandle>>,
    controllers: Mutex<Vec<UnboundedSender<ObjectRef<IoTPipeline>>>>,
    pace: tokio::sync::Mutex<Interval>,
}

impl Followed {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tasks: Mutex::default(), controllers: Mutex::default(), pace: pace.into() }
    }

    /// The pipelines of which there is news. A controller that doesn't know one leaves it.
    pub(super) fn news(&self) -> UnboundedReceiver<ObjectRef<IoTPipeline>> {
        let (sender, receiver) = unbounded();
        lock(&self.controllers).push(sender);
        receiver
    }

    /// What comes now, the pass sees itself.
    pub(super) fn pause(&self, key: &str) {
        if let Some(task) = lock(&self.tasks).remove(key) {
            task.abort();
        }
    }

    fn tell(&self, pipeline: &ObjectRef<IoTPipeline>) {
        lock(&self.controllers).retain(|controller| controller.unbounded_send(pipeline.clone()).is_ok());
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        lock(&self.tasks).values().for_each(AbortHandle::abort);
    }
}

/// Waits for news until the next pass.
pub(super) fn follow(context: &Arc<Context>, pipeline: &IoTPipeline, plan: &Plan, heard: Vec<Heard>) {
    let bridges =
        heard.into_iter().map(|heard| says_else(context.http.clone(), context.patient.clone(), heard));
    let mut news: Vec<BoxFuture<'static, ()>> = bridges.map(|news| Box::pin(news) as _).collect();
    // An external broker and database are asked by the bridge.
    if let Some(Ok((grafana, uid))) = parts::grafana(context, plan) {
        news.push(Box::pin(loses_dashboard(Arc::downgrade(context), grafana, uid)));
    }
    if news.is_empty() {
        return;
    }
    let (reference, weak) = (ObjectRef::from_obj(pipeline), Arc::downgrade(context));
    let task = tokio::spawn(async move {
        sleep(PAUSE).await;
        select_all(news).await;
        if let Some(context) = weak.upgrade() {
            context.followed.tell(&reference);
        }
    });
    let mut tasks = lock(&context.followed.tasks);
    tasks.retain(|_, task| !task.is_finished());
    tasks.insert(super::key(pipeline), task.abort_handle());
}

/// Ends when a bridge says something else, or nothing. It holds its answer back until then, so what is settled
/// costs a request a minute.
async fn says_else(http: reqwest::Client, patient: Patient, heard: Heard) {
    // Nothing else is kept while it waits, and that is most of the time.
    let Heard { url, status } = heard;
    let word = status.word();
    drop(status);
    let Ok(address) = url.parse() else { return };
    loop {
        let asked = patient.is_unchanged(&address, &word);
        let answer = timeout(LONGEST_HOLD + Duration::from_secs(10), asked).await;
        let Ok(Ok(is_unchanged)) = answer else { return };
        if !is_unchanged {
            // It may be as before again; and a bridge of an earlier version holds nothing back.
            let status = Box::pin(status_of(&http, &url)).await;
            if status.is_none_or(|status| status.word() != word) {
                return;
            }
            sleep(PERIOD).await;
        }
    }
}

/// Ends when somebody else's Grafana doesn't show the dashboard.
async fn loses_dashboard(context: Weak<Context>, grafana: Grafana, uid: String) {
    loop {
        sleep(PERIOD).await;
        let Some(context) = context.upgrade() else { return };
        context.followed.pace.lock().await.tick().await;
        drop(context);
        if !grafana.has_dashboard(&uid).await.is_ok_and(|has| has) {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
