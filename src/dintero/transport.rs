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
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
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
    client: Client<WithTimeout<HttpsConnector<Route>>, Full<Bytes>>,
}

/// A proxy on the way. It is asked for a tunnel (CONNECT), so it sees the API's name and port and
/// nothing else.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    /// `http://host:port`.
    pub(super) uri: Uri,
    /// `Proxy-Authorization`.
    pub(super) authorization: Option<HeaderValue>,
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
    pub(super) fn new(tls: ClientConfig, limits: Limits, proxy: Option<Proxy>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        tcp.set_connect_timeout(Some(limits.connect_timeout));
        let connector = WithTimeout {
            inner: HttpsConnector::from((Route::new(BoundedConnector { tcp }, proxy), tls)),
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

/// To the API, straight or by a proxy's tunnel.
#[derive(Debug, Clone)]
enum Route {
    Direct(BoundedConnector),
    Tunnel(Tunnel<BoundedConnector>),
}

impl Route {
    fn new(connector: BoundedConnector, proxy: Option<Proxy>) -> Self {
        let Some(Proxy { uri, authorization }) = proxy else {
            return Self::Direct(connector);
        };
        let tunnel = Tunnel::new(uri, connector);
        Self::Tunnel(match authorization {
            Some(authorization) => tunnel.with_auth(authorization),
            None => tunnel,
        })
    }
}

impl Service<Uri> for Route {
    type Response = TokioIo<Bounded<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(connector) => connector.poll_ready(cx),
            Self::Tunnel(tunnel) => tunnel.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match self {
            Self::Direct(connector) => connector.call(to),
            Self::Tunnel(tunnel) => {
                let connecting = tunnel.call(with_port(to));
                Box::pin(async move { connecting.await.map_err(Into::into) })
            }
        }
    }
}

/// With its port said where it is plain http: a tunnel leads to 443 otherwise.
fn with_port(to: Uri) -> Uri {
    if to.port().is_some() || to.scheme() != Some(&Scheme::HTTP) {
        return to;
    }
    let Some(authority) = to.host().and_then(|host| format!("{host}:80").parse().ok()) else {
        return to;
    };
    let mut parts = to.into_parts();
    parts.authority = Some(authority);
    Uri::from_parts(parts).expect("only the authority is another")
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::dintero::tests::server::read_request;

    /// A transport by this proxy, and an answer to a request by it.
    async fn ask_by(proxy: String) -> Result<Bytes, Error> {
        let tls = crate::dintero::tls::config(false, None).expect("TLS is not used");
        let limits = Limits {
            connect_timeout: Duration::from_secs(10),
            idle_max: 1,
            idle_timeout: Duration::from_secs(10),
        };
        let proxy = Proxy {
            uri: proxy.parse().expect("a URI"),
            authorization: Some(HeaderValue::from_static("Basic c2VjcmV0")),
        };
        let transport = Transport::new(tls, limits, Some(proxy));
        let request = Request::post("http://api.example.com/v1/x");
        let request = request.body(Full::from("hello")).expect("a request");
        let response = transport.execute(request).await?;
        let body = response.into_body().collect().await;
        Ok(body.expect("a body").to_bytes())
    }

    /// A proxy that answers the wish for a tunnel so, and is the API as well.
    async fn proxy(says: &'static str) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            for answer in [says, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"] {
                let Some(request) = read_request(&mut stream).await else {
                    return heard;
                };
                heard.push(request.head);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            heard
        });
        (uri, heard)
    }

    #[tokio::test]
    async fn by_a_proxy_the_api_is_reached_in_a_tunnel() {
        let (uri, heard) = proxy("HTTP/1.1 200 OK\r\n\r\n").await;
        assert_eq!(ask_by(uri).await.unwrap(), "hi");
        let heard = heard.await.unwrap();
        assert!(
            heard[0].starts_with("CONNECT api.example.com:80 HTTP/1.1\r\n"),
            "{heard:?}"
        );
        let authorization = "proxy-authorization: basic c2vjcmv0";
        assert!(heard[0].to_lowercase().contains(authorization), "{heard:?}");
        assert!(heard[1].starts_with("POST /v1/x HTTP/1.1\r\n"), "{heard:?}");
        let leaked = heard[1].to_lowercase().contains("proxy-authorization");
        assert!(!leaked, "{heard:?}");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_no_connection() {
        let (uri, _) = proxy("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
        assert!(ask_by(uri).await.unwrap_err().is_connect());
    }
}
