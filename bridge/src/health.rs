//! What the bridge says of itself: /livez, /readyz, /status and /metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::bridge_status::{BridgeStatus, LONGEST_HOLD, Side};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::metrics::{Metrics, SideLabel, SideName};

/// The loop looks in four times a second; silent for this long, it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// The reason of a broker's side that is connected and not subscribed yet.
pub const SUBSCRIBING: &str = "Subscribing";

/// What the stages report, and the server tells.
#[derive(Debug)]
pub struct Health {
    /// What is counted.
    pub metrics: Metrics,
    status: Mutex<BridgeStatus>,
    /// The status has become another.
    changed: Notify,
    alive: Mutex<Instant>,
    /// Writes of points that it has answered, a refusal's halves included.
    writes: AtomicU64,
    /// For how long messages have waited without a reason.
    stuck: Mutex<Option<Duration>>,
}

impl Health {
    /// Nothing is known yet.
    pub fn new(config_hash: &str) -> Arc<Self> {
        let side = |what: &str| Side { ready: false, reason: "Starting".into(), message: what.into() };
        let status = BridgeStatus {
            config_hash: config_hash.into(),
            config_error: None,
            login_revision: None,
            left: false,
            broker: side("the connection to the broker has not been made yet"),
            database: side("the database has not answered yet"),
            crossing: None,
        };
        Arc::new(Self {
            metrics: Metrics::new(),
            status: status.into(),
            changed: Notify::new(),
            alive: Instant::now().into(),
            writes: 0.into(),
            stuck: None.into(),
        })
    }

    /// The whole status.
    pub fn status(&self) -> BridgeStatus {
        self.lock().clone()
    }

    /// A side is ready.
    pub fn ready(&self, side: SideName, message: impl Into<String>) {
        self.set(side, Side { ready: true, reason: "Connected".into(), message: message.into() });
    }

    /// Connected to the broker, to leave it.
    pub fn leaving(&self, message: &str) {
        let (reason, message) = ("Leaving".to_owned(), message.to_owned());
        self.set(SideName::Broker, Side { ready: true, reason, message });
    }

    /// Whether the bridge has left. One that has is ready: it does all that it is told to.
    pub fn left(&self, left: bool) {
        self.change(|status| std::mem::replace(&mut status.left, left) != left);
        if left {
            let message = "left: the broker holds nothing for this bridge".to_owned();
            self.set(SideName::Broker, Side { ready: true, reason: "Left".into(), message });
        }
    }

    /// A side is not ready, and why.
    pub fn not_ready(&self, side: SideName, reason: &str, message: impl Into<String>) {
        self.set(side, Side { ready: false, reason: reason.into(), message: message.into() });
    }

    /// Whether messages cross, if the bridge tries.
    pub fn crossing(&self, side: Option<Side>) {
        self.change(|status| {
            let before = status.crossing.as_ref().map(|side| side.reason.as_str());
            if let Some(side) = &side
                && before != Some(&side.reason)
            {
                match side.reason.as_str() {
                    "Starting" => {}
                    "Crossed" => tracing::info!("{}", side.message),
                    reason => tracing::warn!(reason, "{}", side.message),
                }
            }
            let is_news = side.as_ref().map(Side::word) != status.crossing.as_ref().map(Side::word);
            status.crossing = side;
            is_news
        });
    }

    /// The status, as soon as it is another than this.
    async fn unlike(&self, word: &str) -> BridgeStatus {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let status = self.status();
            if status.word() != word {
                return status;
            }
            changed.await;
        }
    }

    /// The database has answered a write of points.
    pub fn write_answered(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that grows whenever the database has answered a write, or a message was acknowledged.
    pub fn done(&self) -> u64 {
        self.writes.load(Ordering::Relaxed) + self.metrics.messages_acknowledged.get()
    }

    /// Whether the database takes points.
    pub fn database_answers(&self) -> bool {
        self.lock().database.ready
    }

    fn set(&self, name: SideName, new: Side) {
        self.metrics.ready.get_or_create(&SideLabel { side: name }).set(new.ready.into());
        self.change(|status| {
            let side = match name {
                SideName::Broker => &mut status.broker,
                SideName::Database => &mut status.database,
            };
            // Logged once per change, not once per attempt.
            if side.reason != new.reason {
                match new.ready {
                    true => tracing::info!(side = %name, "{}", new.message),
                    // On the way to being ready, which is no news.
                    false if new.reason == SUBSCRIBING => {}
                    false => tracing::warn!(side = %name, reason = new.reason, "{}", new.message),
                }
            }
            let is_news = side.word() != new.word();
            *side = new;
            is_news
        });
    }

    /// Changes the status, and tells who waits, if it is news.
    fn change(&self, change: impl FnOnce(&mut BridgeStatus) -> bool) {
        if change(&mut self.lock()) {
            self.changed.notify_waiters();
        }
    }

    /// A configuration was taken.
    pub fn config_taken(&self, hash: &str) {
        self.change(|status| {
            status.config_hash = hash.into();
            status.config_error = None;
            true
        });
    }

    /// From now on the bridge connects by these credentials.
    pub fn login_taken(&self, revision: Option<&str>) {
        self.change(|status| {
            status.login_revision = revision.map(Into::into);
            true
        });
    }

    /// A configuration was refused, or the one in effect has come back.
    pub fn config_error(&self, error: Option<String>) {
        self.change(|status| {
            status.config_error = error;
            true
        });
    }

    /// The loop is at work.
    pub fn beat(&self) {
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// For how long messages have waited without a reason, if they have.
    pub fn stuck(&self, stuck: Option<Duration>) {
        let mut before = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        if before.is_none()
            && let Some(stuck) = stuck
        {
            tracing::error!(
                seconds = stuck.as_secs(),
                "messages wait and nothing gets done: a fault of the bridge"
            );
        }
        *before = stuck;
    }

    /// What is the matter with the process itself.
    fn fault(&self) -> Option<String> {
        let silent = self.alive.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if silent >= HANGS_AFTER {
            return Some("the bridge's loop does not move".into());
        }
        let stuck = *self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.map(|stuck| {
            format!(
                "messages have waited for {} s, and nothing gets done though both sides answer",
                stuck.as_secs()
            )
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BridgeStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the listener fails.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, health: Arc<Health>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, router).await
}

async fn livez(State(health): State<Arc<Health>>) -> Response {
    match health.fault() {
        None => "ok\n".into_response(),
        Some(fault) => (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")).into_response(),
    }
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let status = health.status();
    let sides = [("broker", &status.broker), ("database", &status.database)].into_iter();
    let mut sides = sides.chain(status.crossing.iter().map(|side| ("crossing", side)));
    match sides.find(|(_, side)| !side.ready) {
        None => "ok\n".into_response(),
        Some((name, side)) => {
            let line = format!("{name}: {}: {}\n", side.reason, side.message);
            (StatusCode::SERVICE_UNAVAILABLE, line).into_response()
        }
    }
}

/// At once, or to somebody who knows a status already, as soon as it is another.
async fn status(State(health): State<Arc<Health>>, headers: HeaderMap) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|word| word.to_str().ok());
    let Some(word) = known else { return Json(health.status()).into_response() };
    match timeout(LONGEST_HOLD, health.unlike(word)).await {
        Ok(status) => Json(status).into_response(),
        Err(_) => StatusCode::NOT_MODIFIED.into_response(),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, TEXT)], health.metrics.text()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_knows_the_status_is_answered_when_it_is_another() {
        let health = Health::new("hash");
        let ask = |word: &str| {
            let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, word.parse().expect("a header"))]);
            status(State(health.clone()), known)
        };
        let word = health.status().word();
        let start = tokio::time::Instant::now();
        let change = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            health.not_ready(SideName::Database, "Starting", "the same reason, in other words");
            tokio::time::sleep(Duration::from_secs(1)).await;
            health.ready(SideName::Database, "it answers");
        };
        let (answer, ()) = tokio::join!(ask(&word), change);
        assert_eq!((answer.status(), start.elapsed().as_secs()), (StatusCode::OK, 4));
        let answer = ask(&word).await;
        assert_eq!(
            (answer.status(), start.elapsed().as_secs()),
            (StatusCode::OK, 4),
            "it was another already"
        );
        let answer = ask(&health.status().word()).await;
        assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(start.elapsed(), LONGEST_HOLD + Duration::from_secs(4));
    }
}
