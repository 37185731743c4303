//! Points that the database refuses, and how many writes it takes to find them.

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;

use crate::complaints::bury;
use crate::fakes::message;
use crate::start;

/// Both write one field.
const ROUTES: &str = "- {name: floats, topic: 'f/{x}', measurement: m, qos: 1, payload: {float: {}}}\n\
                      - {name: integers, topic: 'i/{x}', measurement: m, qos: 1, payload: {integer: {}}}\n";

fn is_integer(line: &str) -> bool {
    line.rsplit_once(' ').is_some_and(|(rest, _)| rest.ends_with('i'))
}

#[tokio::test]
async fn one_point_in_a_hundred_of_a_wrong_type_takes_few_writes_more() {
    const MESSAGES: u16 = 20_000;
    let (broker, influx, bridge) = start(ROUTES).await;
    let mut peer = broker.accept(false, &["f/+", "i/+"]).await;
    influx.script(|lines| match lines.lines().filter(|line| is_integer(line)).count() {
        0 => (204, String::new(), None),
        dropped => {
            let words = format!(
                "failure writing points to database: partial write: field type conflict: input field \\\"value\\\" on \
                 measurement \\\"m\\\" is type integer, already exists as type float dropped={dropped}"
            );
            (422, format!(r#"{{"code": "unprocessable entity", "message": "{words}"}}"#), None)
        }
    });
    influx.open(false);
    let mut bytes = BytesMut::new();
    for id in 1..=MESSAGES {
        let topic = if id % 100 == 37 { "i/a" } else { "f/a" };
        message(topic, &id.to_string(), QoS::AtLeastOnce, id).write(&mut bytes).expect("a message");
    }
    peer.send_raw(&bytes).await;
    influx.asked(1).await;
    // The others gather meanwhile, in batches of 5,000.
    peer.quiet().await;
    influx.open(true);
    assert_eq!(bury(&mut peer, MESSAGES).await, (1..=MESSAGES).collect::<Vec<_>>());
    let (good, bad) = (usize::from(MESSAGES) / 100 * 99, usize::from(MESSAGES) / 100);
    assert_eq!(influx.stored().len(), good);
    let metrics = bridge.get("/metrics").await.1;
    assert!(metrics.contains(&format!("dead_letters_total{{route=\"integers\"}} {bad}")), "{metrics}");
    // Three for the first that has one, and two for each of those that follow: there are at most six.
    assert!(influx.writes() <= 1 + 3 + 2 * 5, "{} writes", influx.writes());
}

#[tokio::test]
async fn a_refusal_in_unknown_words_convicts_only_if_the_database_accepts_a_write_without_points() {
    let (broker, influx, _bridge) = start(ROUTES).await;
    let mut peer = broker.accept(false, &["f/+", "i/+"]).await;
    influx.script(|lines| match lines.lines().any(is_integer) {
        true => {
            (400, r#"{"code": "invalid", "message": "2 of 3 points were rejected: m.value is f64"}"#, None)
        }
        false => (204, "", None),
    });
    for (id, topic) in [(1, "f/a"), (2, "i/a"), (3, "f/b")] {
        peer.publish(topic, "1", QoS::AtLeastOnce, id).await;
    }
    assert_eq!(bury(&mut peer, 3).await, [1, 2, 3]);
    assert_eq!(influx.points(), ["m,x=a value=1", "m,x=b value=1"]);
}
