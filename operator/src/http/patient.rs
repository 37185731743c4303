//! Requests that are held back until there is news. A thousand of them wait at any time, so they are written by hand:
//! what an HTTP client keeps for each while it waits is 26 KB.

use std::future::Future;

use axum::http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::{BoxError, ServiceExt};

use super::{CONNECT, HttpError, KEEPALIVE, PROBE, PROBES, PROXY, UNACKNOWLEDGED, USER_AGENT};
use crate::leader::fence::Fence;

/// Asks and waits. It asks nobody anything once the fence is closed.
#[derive(Clone)]
pub struct Patient {
    connector: HttpConnector,
    proxy: Option<Uri>,
    fence: Fence,
}

impl Patient {
    /// Behind this fence, and through the proxy of the environment, if it names one.
    ///
    /// # Errors
    /// If the proxy's address is none.
    pub fn new(fence: &Fence) -> Result<Self, HttpError> {
        let proxy = std::env::var(PROXY).ok().map(|proxy| proxy.parse()).transpose();
        Ok(Self::through(proxy.map_err(HttpError::ProxyAddress)?, fence))
    }

    fn through(proxy: Option<Uri>, fence: &Fence) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        // Silence is what is waited for: the kernel asks whether the other side is there.
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(PROBE));
        connector.set_keepalive_retries(Some(PROBES));
        connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        Self { connector, proxy, fence: fence.clone() }
    }

    /// Asks for what is there unless it is what this word stands for, and returns whether it still is: at once if
    /// not, otherwise after as long as the other side holds its answer back.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn is_unchanged(
        &self,
        url: &Uri,
        word: &str,
    ) -> impl Future<Output = Result<bool, BoxError>> + use<> {
        let (to, target) = match &self.proxy {
            Some(proxy) => (proxy.clone(), url.to_string()),
            None => (url.clone(), url.path().to_owned()),
        };
        let host = url.authority().map_or("", |authority| authority.as_str());
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nIf-None-Match: {word}\r\n\
             Connection: close\r\n\r\n"
        );
        let (connector, fence) = (self.connector.clone(), self.fence.clone());
        // The word is of the other side's making.
        let word = HeaderValue::from_str(word);
        async move {
            word?;
            let mut stream = Box::pin(sent(connector, fence, to, request)).await?;
            let mut status = [0; "HTTP/1.1 304".len()];
            stream.read_exact(&mut status).await?;
            Ok(status.ends_with(b" 304"))
        }
    }
}

async fn sent(
    connector: HttpConnector,
    fence: Fence,
    to: Uri,
    request: String,
) -> Result<TcpStream, BoxError> {
    fence.check()?;
    let mut stream = connector.oneshot(to).await?.into_inner();
    fence.check()?;
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What is asked of a server that answers so, and what comes of it.
    async fn asked(through_proxy: bool, answer: &str) -> (String, Option<bool>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("it has one"));
        let (proxy, url) = match through_proxy {
            true => (Some(address.parse().expect("an address")), "http://10.0.0.1:9090/status".to_owned()),
            false => (None, format!("{address}/status")),
        };
        let patient = Patient::through(proxy, &Fence::open());
        let asking = tokio::spawn(patient.is_unchanged(&url.parse().expect("an address"), "known"));
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a byte"));
        }
        stream.write_all(answer.as_bytes()).await.expect("it listens");
        drop(stream);
        let request =
            String::from_utf8(request).expect("text").replace(&address["http://".len()..], "BRIDGE");
        (request, asking.await.expect("it ends").ok())
    }

    #[tokio::test]
    async fn an_answer_of_304_says_that_nothing_has_changed_and_every_other_that_something_has() {
        let (request, unchanged) = asked(false, "HTTP/1.1 304 Not Modified\r\n\r\n").await;
        assert!(request.starts_with("GET /status HTTP/1.1\r\nHost: BRIDGE\r\n"), "{request}");
        assert!(request.contains("\r\nIf-None-Match: known\r\n"), "{request}");
        assert_eq!(unchanged, Some(true));
        assert_eq!(asked(false, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.1, Some(false));
        assert_eq!(asked(false, "HTTP").await.1, None);
    }

    #[tokio::test]
    async fn a_proxy_is_told_the_whole_address() {
        let (request, unchanged) = asked(true, "HTTP/1.1 304 Not Modified\r\n\r\n").await;
        assert!(request.starts_with("GET http://10.0.0.1:9090/status HTTP/1.1\r\nHost: 10.0.0.1:9090\r\n"));
        assert_eq!(unchanged, Some(true));
    }

    #[tokio::test]
    async fn a_word_that_would_be_more_than_one_header_is_not_sent() {
        let url = "http://127.0.0.1:1/status".parse().expect("an address");
        let asked = Patient::through(None, &Fence::open()).is_unchanged(&url, "a\r\nX: b").await;
        assert!(asked.is_err_and(|error| error.is::<axum::http::header::InvalidHeaderValue>()));
    }

    #[tokio::test]
    async fn behind_a_closed_fence_nobody_is_asked() {
        let fence = Fence::open();
        fence.close();
        let url = "http://127.0.0.1:1/status".parse().expect("an address");
        let asked = Patient::through(None, &fence).is_unchanged(&url, "known").await;
        assert!(asked.is_err_and(|error| error.is::<crate::leader::fence::Closed>()));
    }
}
