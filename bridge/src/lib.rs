//! The bridge: MQTT messages in, InfluxDB points out; acknowledged is what is stored.
//!
//! A message's way, one file a stage:
//!
//! 1. [`source`] dials the broker, by [`tls`] and [`websocket`] where its URL says so, and reads in gulps; [`packet`]
//!    finds the packets, in the [`version`] of the connection, [`session`] answers them.
//! 2. [`intake`] takes a message in: [`route`] finds its routes in the compiled [`table`], [`decode`]
//!    reads the payload (keys and values by [`object`] with `value` and `cbor`, line protocol by [`lines`]) into
//!    [`values`], [`point`] and [`encode`] write them as line protocol into the open [`batch`]; [`properties`] are
//!    read where they lie, and [`series`] are counted where a route bounds them. [`sparkplug`] is the one format
//!    whose messages hang together: what a route has to remember is in its [`memory`], and [`rebirth`] asks for
//!    what was missed.
//! 3. [`sink`] stores batches through [`database`], as [`compress`] makes them small; [`search`] finds out which points
//!    are refused, by what [`refusal`] understands of the database's words.
//! 4. [`ack`] knows what may be acknowledged, [`room`] how much may not be yet; [`dead`] publishes what can't be stored.
//! 5. [`stamps`] gives each message its time of reception, and a message that comes again the one that it
//!    had; [`journal`] keeps them on the volume.
//! 6. [`canary`] is a message of the bridge's own that takes the whole way, to see whether messages can; [`dropped`] hears
//!    of those that the broker drops.
//! 7. [`leave`] tells when one of several bridges has taken all that the broker holds for it.
//!
//! [`pipeline`] is the loop that joins them, [`config`] what they are told, [`identity`] who the bridge is to the
//! broker, [`subscribe`] what the broker is asked for, [`state`] what they remember across restarts, [`health`] and
//! [`metrics`] what they tell, [`watchdog`] who notices a standstill. [`explain`] runs stage 2 alone.
//!
//! Invariants:
//! - A message is acknowledged after each of its points is stored or has become a dead letter that the
//!   broker took (or refused for good, which is counted); in order of receipt; on its own connection.
//! - A message of QoS 1 or 2 that comes again makes the point that it made before, also in another process.
//! - What is not a message's fault is tried again for ever. Nothing of QoS 1 or 2 is dropped.
//! - No stage waits for the other side: pings go out while the database is away.
//! - Between bytes in and bytes out there is no clock and no network, but for the time of reception.

pub mod ack;
pub mod backoff;
pub mod batch;
pub mod canary;
mod cbor;
pub mod compress;
pub mod config;
pub mod database;
pub mod dead;
pub mod decode;
pub mod dropped;
pub mod encode;
pub mod explain;
pub mod health;
pub mod identity;
pub mod intake;
pub mod journal;
pub mod leave;
pub mod lines;
pub mod memory;
pub mod metrics;
pub mod object;
pub mod packet;
pub mod pipeline;
pub mod point;
pub mod properties;
pub mod rebirth;
pub mod refusal;
pub mod room;
pub mod route;
pub mod search;
pub mod series;
pub mod session;
pub mod sink;
pub mod source;
pub mod sparkplug;
pub mod stamps;
pub mod state;
pub mod subscribe;
pub mod table;
pub mod tls;
mod value;
pub mod values;
pub mod version;
pub mod watchdog;
pub mod websocket;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;

/// Why the bridge can't start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
}

/// Runs the bridge by the configuration file `path` until `stop`; keeps what it must remember in the
/// directory `state`, and tells of itself on `listener`. Where several bridges share the load, `member` is
/// its number among them.
///
/// # Errors
/// If the configuration can't be used at the start.
pub async fn run(
    path: &Path,
    member: Option<u32>,
    state: &Path,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    source::install_crypto();
    let identity = identity::Identity { member, directory: state.into() };
    let loaded = config::Loaded::read(path, &identity)?;
    let watch = config::Watch::new(path, identity, &loaded);
    let health = health::Health::new(&loaded.hash);
    tracing::info!(hash = loaded.hash, routes = loaded.config.routes.len(), "the configuration is in effect");
    let server = tokio::spawn(health::serve(listener, Arc::clone(&health)));
    pipeline::Pipeline::new(loaded, watch, state, health).run(stop).await;
    server.abort();
    Ok(())
}
