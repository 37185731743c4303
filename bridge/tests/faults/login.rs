//! Credentials for the broker that change while the bridge runs.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;

use crate::NUMBERS;
use crate::fakes::{Bridge, FakeBroker, FakeInflux, LOGIN};

const FILES: &str = "usernameFile: 'DIRECTORY/username', passwordFile: 'DIRECTORY/password', \
    loginRevisionFile: 'DIRECTORY/login-revision'";

/// What is replaced in one step where it is mounted is written here with the revision last.
fn log_in(bridge: &Bridge, login: &str) {
    LOGIN.iter().for_each(|file| bridge.set_credential(file, login));
}

fn shown(login: &str) -> Option<(String, String)> {
    Some((login.to_owned(), login.to_owned()))
}

#[tokio::test]
async fn other_credentials_are_used_at_once_and_what_waits_is_stored_once() {
    let (broker, influx) = (FakeBroker::start().await, FakeInflux::start().await);
    let settings = format!("url: 'mqtt://{}', {FILES}", broker.address());
    let bridge = Bridge::connect(&settings, &influx, NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    assert_eq!(peer.login, shown("one"));
    let told = |revision: &'static str| {
        bridge.status(revision, move |status| status.login_revision.as_deref() == Some(revision))
    };
    told("one").await;
    influx.open(false);
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    influx.asked(1).await;
    log_in(&bridge, "two");
    assert!(matches!(peer.packet().await, Packet::Disconnect(_)));
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    assert_eq!(peer.login, shown("two"));
    told("two").await;
    peer.publish("n/a", "1", QoS::AtLeastOnce, 1).await;
    peer.quiet().await;
    influx.open(true);
    assert_eq!(peer.acknowledged(1).await, [1]);
    assert_eq!(influx.points(), ["numbers,x=a value=1"]);
}
