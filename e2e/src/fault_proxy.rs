//! A TCP proxy on loopback that does on command what a network does now and then: it cuts
//! connections, stops carrying in one direction or both while they stay open, or carries slowly.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What is read and written at once, in bytes.
const GULP: usize = 16 << 10;
/// The same when it trickles.
const SIP: usize = 256;
/// How long a connection that was closed in order may take to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// How one direction carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flow {
    /// As fast as it can.
    Passes,
    /// Not at all: nothing is read, and nobody is told. With the other direction passing, the
    /// connection is half open.
    Stops,
    /// In small pieces, at most so many bytes a second.
    Trickles(u32),
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// By a reset on both sides; what is on its way is lost.
    Reset,
    /// In order, as by a proxy that is shut down; what is on its way is lost too.
    Fin,
}

#[derive(Clone, Copy, Debug)]
struct Conditions {
    to_server: Flow,
    to_client: Flow,
    admits: bool,
    /// Counts the cuts, so that a connection knows those that came after it.
    cuts: u64,
    end: End,
}

/// A proxy before one server. Ends with all its connections when dropped.
pub struct FaultProxy {
    port: u16,
    conditions: watch::Sender<Conditions>,
    carried: Arc<AtomicU64>,
    accept: JoinHandle<()>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl FaultProxy {
    /// Listens on a port of 127.0.0.1 for a server on another.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start(server_port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let conditions = watch::Sender::new(Conditions {
            to_server: Flow::Passes,
            to_client: Flow::Passes,
            admits: true,
            cuts: 0,
            end: End::Reset,
        });
        let carried = Arc::new(AtomicU64::new(0));
        let accept =
            tokio::spawn(accept(listener, server_port, conditions.subscribe(), Arc::clone(&carried)));
        Ok(Self { port, conditions, carried, accept })
    }

    /// Where clients connect to, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes were carried to the server since the start.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Ends every connection there is. New ones are admitted, unless they are refused.
    pub fn cut(&self, end: End) {
        self.conditions.send_modify(|now| {
            now.cuts += 1;
            now.end = end;
        });
    }

    /// How both directions carry from now on, on all connections.
    pub fn carry(&self, to_server: Flow, to_client: Flow) {
        self.conditions.send_modify(|now| {
            now.to_server = to_server;
            now.to_client = to_client;
        });
    }

    /// Whether new connections are admitted; otherwise they are reset at once.
    pub fn admit(&self, admits: bool) {
        self.conditions.send_modify(|now| now.admits = admits);
    }

    /// Nothing is wrong any more: what was stopped goes on.
    pub fn heal(&self) {
        self.carry(Flow::Passes, Flow::Passes);
        self.admit(true);
    }
}

type Watch = watch::Receiver<Conditions>;

async fn accept(listener: TcpListener, server_port: u16, conditions: Watch, carried: Arc<AtomicU64>) {
    while let Ok((client, _)) = listener.accept().await {
        if conditions.borrow().admits {
            tokio::spawn(join(client, server_port, conditions.clone(), Arc::clone(&carried)));
        } else {
            // What can't be reset is closed, by being dropped.
            client.set_zero_linger().ok();
        }
    }
}

/// One connection, from its beginning to its end.
async fn join(mut client: TcpStream, server_port: u16, mut conditions: Watch, carried: Arc<AtomicU64>) {
    let before = conditions.borrow_and_update().cuts;
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server_port)).await else {
        client.set_zero_linger().ok();
        return;
    };
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_client, to_server, conditions.clone(), |now| now.to_server, Some(&carried));
        let down = pump(from_server, to_client, conditions.clone(), |now| now.to_client, None);
        tokio::select! {
            both = async { tokio::try_join!(up, down) } => match both {
                Ok(_) => return,
                Err(_) => End::Reset,
            },
            cut = conditions.wait_for(|now| now.cuts != before) => cut.map_or(End::Reset, |now| now.end),
        }
    };
    match ended {
        End::Reset => {
            client.set_zero_linger().ok();
            server.set_zero_linger().ok();
        }
        End::Fin => {
            timeout(FAREWELL, async { tokio::join!(close(&mut client), close(&mut server)) }).await.ok();
        }
    }
}

/// Closing with something unread would reset: so it is read, and lost.
async fn close(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(stream, &mut tokio::io::sink()).await.map(drop)
}

/// Carries one direction to its end.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut conditions: Watch,
    flow: fn(&Conditions) -> Flow,
    carried: Option<&AtomicU64>,
) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
    let mut buffer = vec![0; GULP];
    loop {
        let now = flow(&*conditions.wait_for(|now| flow(now) != Flow::Stops).await.map_err(gone)?);
        let most = if matches!(now, Flow::Trickles(_)) { SIP } else { GULP };
        let read = tokio::select! {
            read = from.read(&mut buffer[..most]) => read?,
            // It may have stopped, or slowed down.
            changed = conditions.changed() => {
                changed.map_err(gone)?;
                continue;
            }
        };
        if let Flow::Trickles(rate) = now {
            sleep(Duration::from_secs_f64(read as f64 / f64::from(rate))).await;
        }
        conditions.wait_for(|now| flow(now) != Flow::Stops).await.map_err(gone)?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        if let Some(carried) = carried {
            carried.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}
