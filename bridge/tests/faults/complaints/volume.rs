//! What is kept on the bridge's volume.

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;

use crate::fakes::message;
use crate::{NUMBERS, start};

/// Telegraf's buffer on disk, which grows for ever.
#[tokio::test]
async fn disk_buffer_that_grows_here_the_journal_has_one_size_after_100_000_messages() {
    const ROUND: u16 = 10_000;
    let (broker, influx, bridge) = start(NUMBERS).await;
    let mut peer = broker.accept(false, &["n/+"]).await;
    let mut bytes = BytesMut::new();
    for id in 1..=ROUND {
        message("n/a", &id.to_string(), QoS::AtLeastOnce, id).write(&mut bytes).expect("a message");
    }
    let size = |name| std::fs::metadata(bridge.directory().join(name)).expect("a file").len();
    // As it is before the first message.
    let journal = size("stamps.journal");
    for _ in 0..10 {
        peer.send_raw(&bytes).await;
        assert_eq!(peer.acknowledged(ROUND.into()).await, (1..=ROUND).collect::<Vec<_>>());
        assert_eq!(size("stamps.journal"), journal);
    }
    assert_eq!(influx.stored().len(), 100_000);
    let entries = std::fs::read_dir(bridge.directory()).expect("a directory");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("a file").file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["bridge.yaml", "stamps.journal", "subscriptions.json", "token"],
        "there is another buffer"
    );
    assert!(size("subscriptions.json") < 1_000);
}

/// Buffers on a disk that is full stop what they were to protect.
#[tokio::test]
async fn disk_buffer_on_a_volume_that_takes_nothing_neither_stops_the_bridge_nor_loses() {
    let (broker, influx, mut bridge) = start(NUMBERS).await;
    drop(broker.accept(false, &["n/+"]).await);
    // Neither file can be written from now on.
    for name in ["stamps.journal", "subscriptions.new"] {
        let path = bridge.directory().join(name);
        // The second is there only while it is written.
        drop(std::fs::remove_file(&path));
        std::os::unix::fs::symlink("/dev/full", path).expect("a link");
    }
    bridge.crash_and_start().await;
    let mut peer = broker.accept(true, &["n/+"]).await;
    for id in 1..=100 {
        peer.publish("n/a", &id.to_string(), QoS::AtLeastOnce, id).await;
    }
    assert_eq!(peer.acknowledged(100).await, (1..=100).collect::<Vec<_>>());
    influx.open(false);
    peer.publish("n/a", "101", QoS::AtLeastOnce, 101).await;
    drop(peer);
    let mut peer = broker.accept(true, &["n/+"]).await;
    let mut again = message("n/a", "101", QoS::AtLeastOnce, 101);
    again.dup = true;
    peer.send(Packet::Publish(again)).await;
    influx.open(true);
    assert_eq!(peer.acknowledged(1).await, [101]);
    let lines: Vec<String> = (1..=101).map(|id| format!("numbers,x=a value={id}")).collect();
    assert_eq!(influx.points(), lines, "the process remembers what the volume can't");
    bridge.status("ready", |status| status.ready()).await;
}
