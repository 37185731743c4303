//! MQTT over WebSocket: makes a stream of bytes of binary messages, and the other way round.
//!
//! Packets and messages have nothing to do with each other: a message may hold several packets, or a part of
//! one. <https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html#_Toc3901280>

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::error::{ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Error, Message, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// The name that MQTT of any version has as a subprotocol [MQTT-6.0.0-3].
const SUBPROTOCOL: &str = "mqtt";
/// A message of the bridge's has at most this much: who limits what they take, limits it to more.
const MESSAGE_BYTES: usize = 32 << 10;
/// A broker may put many packets into a message: so much beyond the largest packet.
const GATHERED_BYTES: usize = 16 << 20;

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// The connection failed.
    #[error(transparent)]
    Io(io::Error),
    /// Another answer than the upgrade.
    #[error("it answered the request for a WebSocket with {0}: check the path, port and scheme of its URL")]
    Status(http::StatusCode),
    /// A WebSocket for something else.
    #[error("it has a WebSocket there, but not for MQTT: check the path and port of its URL")]
    NotMqtt,
    /// Not an answer that HTTP or WebSocket know.
    #[error("it doesn't answer as a WebSocket's server does ({0}): check the port and scheme of its URL")]
    Answer(Box<Error>),
}

impl From<Error> for WebSocketError {
    fn from(error: Error) -> Self {
        use SubProtocolError::{InvalidSubProtocol, NoSubProtocol};
        match error {
            Error::Io(error) => Self::Io(error),
            Error::Http(response) => Self::Status(response.status()),
            Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(
                NoSubProtocol | InvalidSubProtocol,
            )) => Self::NotMqtt,
            error => Self::Answer(Box::new(error)),
        }
    }
}

/// A WebSocket, read and written as a stream of bytes.
pub struct ByteStream<S> {
    messages: WebSocketStream<S>,
    /// What was received and not read yet.
    rest: Bytes,
    /// How it ended, if what came before is still to be read.
    end: Option<io::Result<()>>,
}

/// Asks the server at the other end of a connection for a WebSocket at this URL.
///
/// # Errors
/// If it doesn't give one that is for MQTT.
pub async fn open<S>(url: &str, stream: S, max_packet_size: usize) -> Result<ByteStream<S>, WebSocketError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let url = url.parse().map_err(|error: http::uri::InvalidUri| Error::from(error))?;
    let request = ClientRequestBuilder::new(url).with_sub_protocol(SUBPROTOCOL);
    let most = Some(max_packet_size.saturating_add(GATHERED_BYTES));
    // Nothing is held back: the bridge gathers what it writes itself.
    let config = WebSocketConfig::default().max_message_size(most).max_frame_size(most).write_buffer_size(0);
    let (messages, _) = client_async_with_config(request, stream, Some(config)).await?;
    Ok(ByteStream { messages, rest: Bytes::new(), end: None })
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream<S> {
    /// The next bytes, or none at the end.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.messages).poll_next(context)) {
                // An empty one is not the end.
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => continue,
                Some(Ok(Message::Binary(bytes))) => Ok(bytes),
                // Pings are answered by the next call, which also waits for what is to come.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Text(_))) => {
                    let what = "the broker sent text by WebSocket: MQTT is binary [MQTT-6.0.0-1]";
                    Err(io::Error::new(io::ErrorKind::InvalidData, what))
                }
                // As with TCP, what matters is that it has ended.
                Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Ok(Bytes::new()),
                Some(Ok(Message::Close(_))) | None => Ok(Bytes::new()),
                Some(Err(error)) => Err(io_error(error)),
            });
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<S> {
    /// Takes all the messages that are there and have room: the bridge pauses between two reads, and brokers
    /// send a message a packet.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        while buffer.remaining() > 0 && self.end.is_none() {
            if self.rest.is_empty() {
                match self.poll_message(context) {
                    Poll::Pending if buffer.filled().len() > before => break,
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(bytes)) if bytes.is_empty() => self.end = Some(Ok(())),
                    Poll::Ready(Ok(bytes)) => self.rest = bytes,
                    Poll::Ready(Err(error)) => self.end = Some(Err(error)),
                }
            }
            let size = self.rest.len().min(buffer.remaining());
            buffer.put_slice(&self.rest[..size]);
            self.rest.advance(size);
        }
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // Told once; after it, there is just nothing.
        Poll::Ready(self.end.replace(Ok(())).unwrap_or(Ok(())))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Not before the last message has left: else memory would hold what the broker doesn't take.
        ready!(Pin::new(&mut self.messages).poll_ready(context)).map_err(io_error)?;
        let bytes = &bytes[..bytes.len().min(MESSAGE_BYTES)];
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.messages).start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_flush(context).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_close(context).map_err(io_error)
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    const ROOM: usize = 1 << 20;

    /// Both ends of a WebSocket that is open.
    async fn pair(room: usize) -> (ByteStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = duplex(room);
        let config = WebSocketConfig::default().write_buffer_size(0);
        let messages = WebSocketStream::from_raw_socket(ours, Role::Client, Some(config)).await;
        let server = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        (ByteStream { messages, rest: Bytes::new(), end: None }, server)
    }

    #[tokio::test]
    async fn one_read_takes_all_the_messages_that_are_there() {
        let (mut client, mut server) = pair(ROOM).await;
        for byte in 0..100 {
            server.send(Message::binary(vec![byte; 3])).await.expect("it is open");
        }
        server.send(Message::Ping(Bytes::new())).await.expect("it is open");
        server.send(Message::binary(vec![])).await.expect("it is open");
        server.send(Message::binary(vec![100])).await.expect("it is open");
        let mut input = vec![0; 301];
        assert_eq!(client.read(&mut input[..5]).await.expect("bytes"), 5, "a part of a message");
        assert_eq!(client.read(&mut input[5..]).await.expect("bytes"), 296);
        let expected: Vec<u8> = (0..100).flat_map(|byte| [byte; 3]).chain([100]).collect();
        assert_eq!(input, expected);
    }

    #[tokio::test]
    async fn what_came_before_the_end_is_read_before_it() {
        for (last, is_error) in [(Message::Close(None), false), (Message::text("no"), true)] {
            let (mut client, mut server) = pair(ROOM).await;
            server.send(Message::binary(vec![1, 2])).await.expect("it is open");
            server.send(last).await.expect("it is open");
            let mut input = [0; 8];
            assert_eq!(client.read(&mut input).await.expect("bytes"), 2);
            assert_eq!(client.read(&mut input).await.is_err(), is_error);
            assert_eq!(client.read(&mut input).await.expect("the end"), 0);
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_is_at_its_end() {
        let (mut client, server) = pair(ROOM).await;
        drop(server);
        assert_eq!(client.read(&mut [0; 8]).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn all_that_is_written_arrives_through_a_narrow_connection() {
        let (mut client, mut server) = pair(16).await;
        let sent: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            client.write_all(&sent).await.expect("it is open");
            client.flush().await.expect("it is open");
            client
        });
        let mut received = Vec::new();
        while received.len() < expected.len() {
            let message = server.next().await.expect("a message").expect("a message");
            assert!(message.is_binary() && message.len() <= MESSAGE_BYTES);
            received.extend_from_slice(&message.into_data());
        }
        assert_eq!(received, expected);
        writing.await.expect("all was written");
    }
}
