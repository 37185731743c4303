//! A request's body that is made while it is sent, and silence that has an end: a shard may take hours, so what counts
//! is whether something moves.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::future::{Either, select};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Whoever takes no piece, or says nothing, for so long never will: a piece passes at 14 kB/s.
pub(super) const SILENCE: Duration = Duration::from_secs(600);

/// What comes of this, unless that takes too long.
pub(super) async fn within<T>(what: &str, work: impl Future<Output = T>) -> anyhow::Result<T> {
    let done = timeout(SILENCE, work).await;
    done.ok().with_context(|| format!("{what}: nothing came for {} s", SILENCE.as_secs()))
}

/// Where pieces go in, then nothing, which ends the body.
pub(super) type Pieces = mpsc::Sender<Option<Bytes>>;

/// A body. One whose pieces stop without an end is broken off, so that nobody takes a part for the whole.
pub(super) fn body() -> (Pieces, Outgoing) {
    let (pieces, received) = mpsc::channel(1);
    (pieces, Outgoing(received))
}

/// Sends pieces as they are made, and returns the answer to all of them.
pub(super) async fn send<T>(
    pieces: Pieces,
    next: impl AsyncFnMut() -> anyhow::Result<Option<Bytes>>,
    answer: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let (fed, answer) = match select(pin!(feed(pieces, next)), pin!(answer)).await {
        // What can't be made is why, whatever the other side says of it.
        Either::Left((fed, answer)) => (fed?, within("the answer", answer).await??),
        Either::Right((answer, feeding)) => {
            let answer = answer?;
            (feeding.await?, answer)
        }
    };
    ensure!(fed, "there was an answer before all was sent");
    Ok(answer)
}

/// Whether all of it was taken: who has answered already takes no more.
async fn feed(
    pieces: Pieces,
    mut next: impl AsyncFnMut() -> anyhow::Result<Option<Bytes>>,
) -> anyhow::Result<bool> {
    loop {
        let piece = next().await?;
        let is_end = piece.is_none();
        match timeout(SILENCE, pieces.send(piece)).await {
            Err(_) => bail!("nothing was taken for {} s", SILENCE.as_secs()),
            Ok(taken) if is_end || taken.is_err() => return Ok(is_end),
            Ok(_) => {}
        }
    }
}

/// The body, as HTTP takes it.
pub(super) struct Outgoing(mpsc::Receiver<Option<Bytes>>);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(context).map(|piece| match piece {
            Some(piece) => piece.map(|piece| Ok(Frame::data(piece))),
            None => Some(Err(std::io::Error::other("the pieces stopped without an end"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use tokio::time::sleep;

    use super::*;

    /// So many pieces.
    fn pieces(count: u8) -> impl AsyncFnMut() -> anyhow::Result<Option<Bytes>> {
        let mut left = 0..count;
        async move || Ok(left.next().map(|number| Bytes::from(vec![number])))
    }

    /// What comes through, if each piece takes so long.
    async fn taken(mut body: Outgoing, pause: Duration) -> anyhow::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            all.extend(frame?.into_data().expect("it is data"));
            sleep(pause).await;
        }
        Ok(all)
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_may_take_hours_as_long_as_its_pieces_move() {
        let (sender, body) = body();
        let begun = tokio::time::Instant::now();
        let sent = send(sender, pieces(30), taken(body, SILENCE * 9 / 10)).await.expect("it is sent");
        assert_eq!(sent, (0..30).collect::<Vec<u8>>());
        assert!(begun.elapsed() > SILENCE * 20, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_or_never_answers_is_given_up() {
        let (sender, held) = body();
        let error = send(sender, pieces(9), pending::<anyhow::Result<()>>()).await.expect_err("it stalls");
        assert_eq!(error.to_string(), "nothing was taken for 600 s");
        drop(held);
        let (sender, body) = body();
        let silent = async {
            taken(body, Duration::ZERO).await?;
            pending::<anyhow::Result<()>>().await
        };
        let error = send(sender, pieces(9), silent).await.expect_err("there is no answer");
        assert_eq!(error.to_string(), "the answer: nothing came for 600 s");
    }

    #[tokio::test]
    async fn what_stops_without_an_end_is_broken_off() {
        let (sender, body) = body();
        let mut made = pieces(1);
        let broken = async || match made().await? {
            None => bail!("the file f is damaged"),
            piece => Ok(piece),
        };
        let taking = tokio::spawn(taken(body, Duration::ZERO));
        let error = send(sender, broken, pending::<anyhow::Result<()>>()).await.expect_err("it is damaged");
        assert_eq!(error.to_string(), "the file f is damaged");
        assert!(taking.await.expect("it ends").is_err(), "a part was taken for the whole");
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_praise_before_the_end_is_none() {
        let (sender, held) = body();
        let refused = async { anyhow::Result::<()>::Err(anyhow::anyhow!("no room")) };
        assert_eq!(send(sender, pieces(9), refused).await.expect_err("it is refused").to_string(), "no room");
        drop(held);
        let (sender, body) = body();
        let early = async {
            drop(body);
            Ok(())
        };
        assert!(send(sender, pieces(9), early).await.is_err());
    }
}
