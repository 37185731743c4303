//! The fault proxy does what it is told: a harness is as good as its faults.

#![allow(missing_docs)]

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use iotpipeline_e2e::fault_proxy::{End, FaultProxy, Flow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
/// What must not come has not come within this.
const QUIET: Duration = Duration::from_millis(100);

/// A client's and a server's end of a connection through a proxy.
async fn connection() -> (FaultProxy, TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = FaultProxy::start(listener.local_addr().expect("an address").port()).await.expect("a proxy");
    let client = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("a connection");
    let (server, _) = timeout(SOON, listener.accept()).await.expect("in time").expect("a connection");
    (proxy, listener, client, server)
}

async fn arrives(text: &str, at: &mut TcpStream) {
    let mut read = vec![0; text.len()];
    timeout(SOON, at.read_exact(&mut read)).await.expect("in time").expect("it is carried");
    assert_eq!(read, text.as_bytes());
}

async fn stays_away(at: &mut TcpStream) {
    assert!(timeout(QUIET, at.read_u8()).await.is_err(), "something came");
}

#[tokio::test]
async fn what_passes_is_carried_both_ways_to_the_end() {
    let (proxy, _listener, mut client, mut server) = connection().await;
    client.write_all(b"question").await.expect("it is open");
    arrives("question", &mut server).await;
    server.write_all(b"answer").await.expect("it is open");
    drop(server);
    arrives("answer", &mut client).await;
    assert_eq!(client.read(&mut [0]).await.expect("an orderly end"), 0);
    assert_eq!(proxy.carried(), 8);
}

#[tokio::test]
async fn a_half_open_connection_carries_one_way_and_loses_nothing_when_healed() {
    let (proxy, _listener, mut client, mut server) = connection().await;
    proxy.carry(Flow::Passes, Flow::Stops);
    server.write_all(b"answer").await.expect("it looks open");
    stays_away(&mut client).await;
    client.write_all(b"question").await.expect("it is open");
    arrives("question", &mut server).await;
    proxy.heal();
    arrives("answer", &mut client).await;
}

#[tokio::test]
async fn a_half_open_connection_hides_the_other_end_s_death() {
    let (proxy, _listener, mut client, server) = connection().await;
    proxy.carry(Flow::Stops, Flow::Stops);
    drop(server);
    stays_away(&mut client).await;
    proxy.heal();
    assert_eq!(timeout(SOON, client.read(&mut [0])).await.expect("in time").expect("an orderly end"), 0);
}

#[tokio::test]
async fn a_cut_resets_or_closes_what_is_open_and_admits_the_next() {
    for (end, expected) in [(End::Reset, Err(ErrorKind::ConnectionReset)), (End::Fin, Ok(0))] {
        let (proxy, listener, mut client, mut server) = connection().await;
        proxy.cut(end);
        for side in [&mut client, &mut server] {
            let seen = timeout(SOON, side.read(&mut [0])).await.expect("in time");
            assert_eq!(seen.map_err(|error| error.kind()), expected, "{end:?}");
        }
        let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("a connection");
        let (mut server, _) = timeout(SOON, listener.accept()).await.expect("in time").expect("another");
        client.write_all(b"again").await.expect("it is open");
        arrives("again", &mut server).await;
    }
}

#[tokio::test]
async fn a_refused_connection_is_reset_until_it_is_healed() {
    let (proxy, listener, _client, _server) = connection().await;
    proxy.admit(false);
    let mut refused = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("the listener's backlog");
    let seen = timeout(SOON, refused.read(&mut [0])).await.expect("in time");
    assert_eq!(seen.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    proxy.heal();
    let _admitted = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("a connection");
    timeout(SOON, listener.accept()).await.expect("in time").expect("a connection");
}

#[tokio::test]
async fn a_trickle_takes_its_time_and_brings_everything() {
    let (proxy, _listener, mut client, mut server) = connection().await;
    proxy.carry(Flow::Trickles(20_000), Flow::Passes);
    let text = "a line of text\n".repeat(200);
    let begin = Instant::now();
    client.write_all(text.as_bytes()).await.expect("it is open");
    arrives(&text, &mut server).await;
    assert!(begin.elapsed() >= Duration::from_millis(120), "3,000 bytes in {:?}", begin.elapsed());
}
