//! Tokio as lapin's runtime, but for streams of our own: lapin offers no other way to get between
//! it and a connection.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::{FutureExt as _, Stream};
use lapin::tcp::AsyncTcpStream;

use super::flow::{ReadFlow, ThrottledStream};
use super::frame_filter::{FRAME_MAX, FrameFilter, StreamLimits};
use super::sanitizing_stream::{ReadActivity, SanitizingStream};

/// What tokio connects by TCP.
pub(in crate::broker) type TcpConnect = <Tokio as Reactor>::TcpStream;
/// What lapin reads and writes: TCP, perhaps TLS over it, and over that an ear.
pub(in crate::broker) type ObservedStream =
    SanitizingStream<ThrottledStream<AsyncTcpStream<TcpConnect>>>;
pub(in crate::broker) type ObservingRuntime = RuntimeParts<Tokio, TcpRuntime>;

/// On the tokio runtime that it is called in.
pub(in crate::broker) fn listening() -> Runtime<ObservingRuntime> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), TcpRuntime(tokio)))
}

#[derive(Debug, Clone)]
pub(in crate::broker) struct TcpRuntime(Tokio);

impl Reactor for TcpRuntime {
    type TcpStream = ObservedStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    /// lapin connects by what it is handed instead, see `connection`.
    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<ObservedStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        connecting.map(|tcp| {
            let filter = FrameFilter::new(StreamLimits::NONE, FRAME_MAX, Arc::default());
            let stream = ThrottledStream::new(AsyncTcpStream::Plain(tcp?), ReadFlow::default());
            Ok(SanitizingStream::new(
                stream,
                filter,
                ReadActivity::default(),
            ))
        })
    }
}
