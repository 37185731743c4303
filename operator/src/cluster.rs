//! The client of the API server. It is kube's but for four things: a [`Fence`] below it, a limit on every write, one
//! on how many requests wait at once, and no silent retries, which could bring a write after the fence, and would keep
//! a pass waiting for minutes.

use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Uri};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::api::ListParams;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tokio::time::timeout;
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Service, ServiceBuilder};

use crate::leader::fence::{Fence, Fenced};
use crate::leader::{UNACKNOWLEDGED, WRITE_LIMIT};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// kube sets no limit for an answer. This one is for a connection that died without a word; a watch that
/// is alive ends more often.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A write whose answer is not there then has failed: the API server has given it up, or is gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// A read whose answer has not begun then has failed: one API server that hangs must not hold up what goes to others.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// For how many answers is waited at once. Each takes a connection with its buffers, and more don't make an API server
/// faster. What has begun to come is none of them: watches, lists that are being read.
const AT_ONCE: usize = 16;

/// A client whose every byte passes this fence.
///
/// # Errors
/// If the configuration has no usable certificates or credentials.
pub fn client(config: &Config, fence: &Fence) -> kube::Result<Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let below = fence.clone();
    let fenced =
        ServiceBuilder::new().map_response(move |stream| Fenced::new(stream, below.clone())).service(tcp);
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(fenced)?);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_read_timeout(Some(READ_TIMEOUT));
    connector.set_reset_reader_on_write(true);
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    let writes = Writes { inner: service, fence: fence.clone() };
    let few = ConcurrencyLimit::new(writes, AT_ONCE);
    Ok(ClientBuilder::new(few, config.default_namespace.clone()).build())
}

/// A list of what has this name: one object, or none. Who may list needs no right to get.
pub(crate) fn by_name(name: &str) -> ListParams {
    ListParams::default().fields(&format!("metadata.name={name}"))
}

/// Follows every write to its end, also when the pass that asked for it is dropped: who gives the Lease
/// up must know that nothing is under way.
struct Writes<S> {
    inner: S,
    fence: Fence,
}

impl<S> Service<Request<Body>> for Writes<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if request.method().is_safe() {
            let answer = timeout(BEGIN_TIMEOUT, self.inner.call(request));
            return async move { answer.await? }.boxed();
        }
        if let Err(closed) = self.fence.check() {
            return futures::future::err(closed.into()).boxed();
        }
        if let Some(limited) = limited(request.uri()) {
            *request.uri_mut() = limited;
        }
        let writing = self.fence.write();
        let answer = timeout(ANSWER_TIMEOUT, self.inner.call(request));
        let task = tokio::spawn(async move {
            let answer = answer.await;
            drop(writing);
            answer
        });
        async move { task.await?? }.boxed()
    }
}

/// With the parameter by which the API server gives a request up after a time.
fn limited(uri: &Uri) -> Option<Uri> {
    let separator = if uri.query().is_some() { '&' } else { '?' };
    format!("{uri}{separator}timeout={}ms", WRITE_LIMIT.as_millis()).parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::Response;
    use tokio::sync::watch;
    use tower::service_fn;

    use super::*;

    fn request(method: &str) -> Request<Body> {
        Request::builder().method(method).uri("/a").body(Body::empty()).expect("a request")
    }

    #[tokio::test]
    async fn behind_a_closed_fence_reads_are_asked_and_writes_are_not() {
        let fence = Fence::open();
        let inner = service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(())));
        let mut writes = Writes { inner, fence: fence.clone() };
        assert!(writes.call(request("PATCH")).await.is_ok());
        fence.close();
        assert!(writes.call(request("PATCH")).await.is_err());
        assert!(writes.call(request("GET")).await.is_ok());
    }

    #[tokio::test]
    async fn a_write_whose_pass_is_dropped_is_followed_to_its_answer() {
        let (fence, answers) = (Fence::open(), watch::Sender::new(false));
        let inner = service_fn(|_: Request<Body>| {
            let mut answered = answers.subscribe();
            async move {
                answered.wait_for(|answered| *answered).await?;
                Ok::<_, BoxError>(Response::new(()))
            }
        });
        let mut writes = Writes { inner, fence: fence.clone() };
        drop(writes.call(request("PATCH")));
        assert!(timeout(Duration::from_millis(20), fence.drained()).await.is_err());
        answers.send_replace(true);
        fence.drained().await;
    }

    #[test]
    fn a_write_tells_the_api_server_how_long_it_may_take() {
        for (path, expected) in [
            ("/api/v1/namespaces/n/pods/p", "/api/v1/namespaces/n/pods/p?timeout=2500ms"),
            ("/a?force=true&fieldManager=x", "/a?force=true&fieldManager=x&timeout=2500ms"),
        ] {
            let limited = limited(&path.parse().expect("a path"));
            assert_eq!(limited.map(|uri| uri.to_string()), Some(expected.into()));
        }
    }
}
