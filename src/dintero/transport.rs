//! The way to the API below HTTP: name, TCP, TLS, the pool of connections, and a bound on what an
//! exchange may receive.
//!
//! It is the pool that reqwest's client is made of. That client shows nobody its connections' bytes,
//! and under it an API that sends informational heads (1xx) without end keeps a core busy until the
//! timeout: they are read and dropped one by one, and no setting counts them.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

/// What may be received after a request until the next one, in bytes, TLS and all: heads of every
/// kind, the body, trailers. A user takes well under one KiB; this is four times the longest body
/// that is read, so a body that is too long is seen as such before.
pub(super) const RECEIVED_MAX: usize = 256 * 1024;

/// Bytes written at once that are taken for a request: the shortest is twice as long, and what TLS
/// writes of its own accord in between (an answered key update) is a third of it.
const REQUEST_MIN: usize = 100;

/// How often an unused connection is probed, and how many probes without an answer end it: one that
/// a firewall has forgotten is not used for the next call.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connections to the API, kept for the next call.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: Client<WithTimeout<HttpsConnector<BoundedConnector>>, Full<Bytes>>,
}

/// What the pool goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For name, TCP and TLS together.
    pub(super) connect_timeout: Duration,
    /// Unused connections at most.
    pub(super) idle_max: usize,
    pub(super) idle_timeout: Duration,
}

impl Transport {
    pub(super) fn new(tls: ClientConfig, limits: Limits) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        tcp.set_connect_timeout(Some(limits.connect_timeout));
        let connector = WithTimeout {
            inner: HttpsConnector::from((BoundedConnector { tcp }, tls)),
            timeout: limits.connect_timeout,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.idle_timeout)
            .pool_max_idle_per_host(limits.idle_max)
            .build(connector);
        Self { client }
    }

    /// Sends a request and returns the final head that comes back; the body is read from it.
    pub(super) async fn execute(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        self.client.request(request).await
    }
}

/// Makes connections that receive a bounded number of bytes for each request.
#[derive(Debug, Clone)]
struct BoundedConnector {
    tcp: HttpConnector,
}

impl Service<Uri> for BoundedConnector {
    type Response = TokioIo<Bounded<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.tcp.call(to);
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            Ok(TokioIo::new(Bounded::new(stream)))
        })
    }
}

/// Gives up connecting after a while, TLS included.
#[derive(Debug, Clone)]
struct WithTimeout<C> {
    inner: C,
    timeout: Duration,
}

impl<C> Service<Uri> for WithTimeout<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.inner.call(to));
        Box::pin(async move { connecting.await? })
    }
}

/// A stream that ends in an error once it has received too much since the last request.
#[derive(Debug)]
struct Bounded<S> {
    stream: S,
    received: usize,
}

impl<S> Bounded<S> {
    const fn new(stream: S) -> Self {
        Self {
            stream,
            received: 0,
        }
    }

    fn wrote(&mut self, bytes: usize) {
        if bytes >= REQUEST_MIN {
            self.received = 0;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.received > RECEIVED_MAX {
            let why = "the API sends too much for one answer";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.received += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.wrote(wrote);
        Poll::Ready(Ok(wrote))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bytes))?;
        this.wrote(wrote);
        Poll::Ready(Ok(wrote))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S: Connection> Connection for Bounded<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}
