//! What stops the writes of an operator that has lost its Lease.
//!
//! A check before a request would not do: between the check and the system call the process can be
//! stopped for any time. So each piece of each write is checked where it is handed to the kernel, below
//! HTTP and TLS. What remains are the nanoseconds between reading the clock and the system call.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower::{BoxError, Layer, Service};

/// The fence is closed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this operator does not hold the lease any more")]
pub struct Closed;

/// Open until a deadline, which renewals postpone. Once closed it stays so: each term has its own.
#[derive(Clone)]
pub struct Fence(Arc<State>);

struct State {
    origin: Instant,
    /// In nanoseconds since the origin; 0 is closed.
    deadline: AtomicU64,
    /// How many requests that write have no answer yet.
    writes: watch::Sender<usize>,
}

impl Fence {
    /// Open until then.
    pub fn until(deadline: Instant) -> Self {
        let fence = Self::open();
        fence.extend(deadline);
        fence
    }

    /// Open for ever: for the client that writes the Lease itself.
    pub fn open() -> Self {
        let (origin, deadline) = (Instant::now(), AtomicU64::new(u64::MAX));
        Self(Arc::new(State { origin, deadline, writes: watch::Sender::new(0) }))
    }

    /// Open until then, unless it is closed.
    pub fn extend(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.0.origin).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        let open = |now| (now != 0).then_some(nanos);
        // An error says that it is closed, and so it stays.
        let _ = self.0.deadline.fetch_update(Ordering::SeqCst, Ordering::SeqCst, open);
    }

    /// Closes it for good.
    pub fn close(&self) {
        self.0.deadline.store(0, Ordering::SeqCst);
    }

    /// Whether one may write.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self) -> Result<(), Closed> {
        let now = self.0.origin.elapsed().as_nanos();
        if now < u128::from(self.0.deadline.load(Ordering::SeqCst)) { Ok(()) } else { Err(Closed) }
    }

    /// Returns when the deadline has passed.
    pub async fn closed(&self) {
        while self.check().is_ok() {
            let nanos = self.0.deadline.load(Ordering::SeqCst);
            sleep_until(self.0.origin + std::time::Duration::from_nanos(nanos)).await;
        }
    }

    /// Counts a write until the guard is dropped.
    pub(crate) fn write(&self) -> Writing {
        self.0.writes.send_modify(|count| *count += 1);
        Writing(self.clone())
    }

    /// Returns when no write is without its answer.
    pub async fn drained(&self) {
        // The sender is ours, so it isn't gone.
        let _ = self.0.writes.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// A write that has no answer yet.
pub(crate) struct Writing(Fence);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.0.writes.send_modify(|count| *count -= 1);
    }
}

/// A connection that carries nothing to the other side once the fence is closed.
pub struct Fenced<S> {
    stream: S,
    fence: Fence,
}

impl<S> Fenced<S> {
    /// This connection, behind this fence.
    pub fn new(stream: S, fence: Fence) -> Self {
        Self { stream, fence }
    }

    fn check(&self) -> io::Result<()> {
        self.fence.check().map_err(io::Error::other)
    }
}

impl<S: Read + Unpin> Read for Fenced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Write + Unpin> Write for Fenced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connection> Connection for Fenced<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

/// Refuses new connections once the fence is closed: for a client that keeps none.
impl<S> Layer<S> for Fence {
    type Service = Refusing<S>;

    fn layer(&self, inner: S) -> Refusing<S> {
        Refusing { inner, fence: self.clone() }
    }
}

/// A service behind a fence.
#[derive(Clone)]
pub struct Refusing<S> {
    inner: S,
    fence: Fence,
}

impl<S, R> Service<R> for Refusing<S>
where
    S: Service<R, Error = BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Either<S::Future, Ready<Result<S::Response, BoxError>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        match self.fence.check() {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(closed) => Either::Right(ready(Err(closed.into()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_closes_by_itself_unless_it_is_extended() {
        let fence = Fence::until(Instant::now() + 2 * SECOND);
        advance(SECOND).await;
        fence.extend(Instant::now() + 2 * SECOND);
        advance(SECOND + SECOND / 2).await;
        assert!(fence.check().is_ok());
        advance(SECOND / 2).await;
        assert!(fence.check().is_err());
        fence.closed().await;
    }

    #[tokio::test]
    async fn once_closed_it_stays_so() {
        let fence = Fence::open();
        fence.close();
        fence.extend(Instant::now() + SECOND);
        assert!(fence.check().is_err());
    }

    #[tokio::test]
    async fn no_byte_leaves_a_connection_that_was_made_before() {
        let (near, mut far) = tokio::io::duplex(16);
        let fence = Fence::open();
        let mut connection = Fenced::new(TokioIo::new(near), fence.clone());
        let mut send = async |bytes: &[u8]| {
            poll_fn(|context| Pin::new(&mut connection).poll_write(context, bytes)).await
        };
        send(b"a").await.expect("the fence is open");
        fence.close();
        let refused = send(b"b").await.expect_err("the fence is closed");
        assert!(refused.get_ref().is_some_and(|source| source.is::<Closed>()));
        drop(connection);
        let mut received = String::new();
        far.read_to_string(&mut received).await.expect("it can be read");
        assert_eq!(received, "a");
    }

    #[tokio::test]
    async fn it_is_drained_when_every_write_has_its_answer() {
        let fence = Fence::open();
        fence.drained().await;
        let (one, two) = (fence.write(), fence.write());
        drop(one);
        assert!(tokio::time::timeout(SECOND / 100, fence.drained()).await.is_err());
        drop(two);
        fence.drained().await;
    }
}
