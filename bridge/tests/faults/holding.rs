//! What is not the messages' fault: they are held, and written when it is over. Until then the bridge says within
//! 5 s what is the matter, in each place where somebody may look.

use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;

use crate::NUMBERS;
use crate::fakes::{Bridge, FakeBroker, FakeInflux, Peer};

/// Told within this.
const TOLD: Duration = Duration::from_secs(5);

/// How a database fails.
enum How {
    /// With this answer to every write: status, body and Retry-After.
    Answers(u16, &'static str, Option<&'static str>),
    /// With this one to writes of points only.
    AnswersPoints(u16, &'static str),
    /// Without an answer.
    Hangs,
}

use How::{Answers, AnswersPoints, Hangs};

/// The failures, and what they are told as.
const FAILURES: [(How, &str); 11] = [
    (Answers(400, r#"{"code": "invalid", "message": "org name or id required"}"#, None), "BadRequest"),
    (Answers(400, r#"{"code": "invalid", "message": "please provide a bucket"}"#, None), "BadRequest"),
    (Answers(401, r#"{"code": "unauthorized", "message": "unauthorized access"}"#, None), "NotAuthorized"),
    (Answers(403, r#"{"code": "forbidden", "message": "insufficient permissions"}"#, None), "NotAuthorized"),
    (Answers(404, r#"{"code": "not found", "message": "bucket \"mesure\" not found"}"#, None), "NotFound"),
    (Answers(429, r#"{"code": "too many requests", "message": "slow"}"#, Some("1")), "TooManyRequests"),
    (Answers(500, r#"{"code": "internal error", "message": "engine is closed"}"#, None), "ServerError"),
    (Answers(503, "unavailable", Some("1")), "Unavailable"),
    (Answers(502, "<html>Bad Gateway</html>", None), "ServerError"),
    (AnswersPoints(500, r#"{"message": "write /wal/1: no space left on device"}"#), "ServerError"),
    (Hangs, "Unresponsive"),
];

impl How {
    fn begin(&self, influx: &FakeInflux) {
        match *self {
            Answers(status, body, retry_after) => {
                influx.treat_all_alike();
                influx.script(move |_| (status, body, retry_after));
            }
            AnswersPoints(status, body) => influx.script(move |_| (status, body, None)),
            Hangs => {
                influx.treat_all_alike();
                influx.open(false);
            }
        }
    }

    fn end(influx: &FakeInflux) {
        influx.script(|_| (204, "", None));
        influx.open(true);
    }

    /// Whether it is seen where no messages come.
    fn is_seen_by_probes(&self) -> bool {
        !matches!(self, AnswersPoints(..))
    }
}

#[test]
fn whatever_fails_is_told_within_five_seconds_and_nothing_is_dropped() {
    let fail = |how: &How, reason| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(fails_and_recovers(how, reason, true));
        if how.is_seen_by_probes() {
            runtime.block_on(fails_and_recovers(how, reason, false));
        }
    };
    // A thread for each, as a bridge has: it sleeps while input gathers.
    std::thread::scope(|scope| {
        for (how, reason) in &FAILURES {
            scope.spawn(move || fail(how, reason));
        }
    });
}

/// A bridge that a slow test doesn't make lose its connection.
async fn patient(broker: &FakeBroker, influx: &FakeInflux) -> Bridge {
    let mqtt = format!("url: 'mqtt://{}', keepAliveSeconds: 60", broker.address());
    Bridge::connect(&mqtt, influx, NUMBERS).await
}

async fn fails_and_recovers(how: &How, reason: &str, has_traffic: bool) {
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let bridge = patient(&broker, &influx).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    meanwhile(&mut peer, bridge.status("ready", |status| status.ready())).await;
    how.begin(&influx);
    let since = Instant::now();
    if has_traffic {
        publish(&mut peer).await;
    }
    meanwhile(&mut peer, told(&bridge, reason, since)).await;
    if !has_traffic {
        publish(&mut peer).await;
    }
    meanwhile(&mut peer, influx.asked(1)).await;
    peer.quiet().await;
    How::end(&influx);
    stored_once(&mut peer, &influx, &bridge).await;
}

/// Waits for something; pings are answered meanwhile, and nothing else comes.
async fn meanwhile<T>(peer: &mut Peer, something: impl Future<Output = T>) -> T {
    let mut something = std::pin::pin!(something);
    loop {
        tokio::select! {
            done = &mut something => return done,
            () = peer.quiet() => {}
        }
    }
}

/// Each of the places says what is the matter.
async fn told(bridge: &Bridge, reason: &str, since: Instant) {
    let status = bridge.status(reason, |status| status.database.reason == reason).await;
    let count = format!("writes_total{{reason=\"{reason}\"}} ");
    let metrics = bridge.get("/metrics").await.1;
    assert!(metrics.contains(&count), "{count} in {metrics}");
    assert!(metrics.contains("ready{side=\"database\"} 0"), "{metrics}");
    let (code, line) = bridge.get("/readyz").await;
    assert!(code == 503 && line.contains(reason), "{code} {line}");
    assert!(!status.ready() && !status.database.message.is_empty(), "{status:?}");
    assert!(since.elapsed() < TOLD, "{reason} was told after {:?}", since.elapsed());
}

async fn publish(peer: &mut Peer) {
    for id in 1..=3 {
        peer.publish("n/a", &id.to_string(), QoS::AtLeastOnce, id).await;
    }
}

async fn stored_once(peer: &mut Peer, influx: &FakeInflux, bridge: &Bridge) {
    assert_eq!(peer.acknowledged(3).await, [1, 2, 3]);
    assert_eq!(influx.points(), [1, 2, 3].map(|value| format!("numbers,x=a value={value}")));
    meanwhile(peer, bridge.status("ready", |status| status.ready())).await;
    let metrics = bridge.get("/metrics").await.1;
    assert!(!metrics.contains("dead_letters_total{"), "{metrics}");
    peer.quiet().await;
}

#[tokio::test]
async fn a_database_that_does_not_listen_is_told_within_five_seconds_and_found_when_it_does() {
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::absent().await);
    let since = Instant::now();
    let bridge = Bridge::start(&broker, &influx, NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    publish(&mut peer).await;
    meanwhile(&mut peer, told(&bridge, "Unreachable", since)).await;
    peer.quiet().await;
    influx.listen().await;
    stored_once(&mut peer, &influx, &bridge).await;
}

/// Takes as long as a request may: half a minute.
#[tokio::test]
async fn a_request_that_is_never_answered_is_given_up_and_made_again() {
    const GIVEN_UP: Duration = Duration::from_secs(40);
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let bridge = patient(&broker, &influx).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    bridge.status("ready", |status| status.ready()).await;
    influx.open(false);
    publish(&mut peer).await;
    let since = Instant::now();
    while !bridge.get("/metrics").await.1.contains("writes_total{reason=\"Timeout\"} 1") {
        assert!(since.elapsed() < GIVEN_UP, "it still waits");
        // Pings are answered meanwhile.
        peer.quiet().await;
    }
    influx.open(true);
    stored_once(&mut peer, &influx, &bridge).await;
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_told_within_five_seconds_whatever_the_keep_alive() {
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let bridge = patient(&broker, &influx).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    bridge.status("ready", |status| status.ready()).await;
    peer.answers_pings = false;
    let since = Instant::now();
    let is_told = bridge.status("a report", |status| status.broker.reason == "Unresponsive");
    meanwhile(&mut peer, is_told).await;
    assert!(since.elapsed() < TOLD, "after {:?}", since.elapsed());
    assert!(bridge.get("/readyz").await.1.contains("Unresponsive"));
    peer.answers_pings = true;
    let is_ready = bridge.status("ready", |status| status.ready());
    meanwhile(&mut peer, is_ready).await;
}
