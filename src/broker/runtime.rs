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

use super::ear::{Ear, Pulse};
use super::flow::{Flow, Throttled};
use super::frame_filter::{FRAME_MAX, FrameFilter, StreamLimits};

/// What tokio connects by TCP.
pub(super) type Tcp = <Tokio as Reactor>::TcpStream;
/// What lapin reads and writes: TCP, perhaps TLS over it, and over that an ear.
pub(super) type Heard = Ear<Throttled<AsyncTcpStream<Tcp>>>;
pub(super) type Listening = RuntimeParts<Tokio, Streams>;

/// On the tokio runtime that it is called in.
pub(super) fn listening() -> Runtime<Listening> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Streams(tokio)))
}

#[derive(Debug, Clone)]
pub(super) struct Streams(Tokio);

impl Reactor for Streams {
    type TcpStream = Heard;
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
    ) -> impl Future<Output = io::Result<Heard>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        connecting.map(|tcp| {
            let filter = FrameFilter::new(StreamLimits::NONE, FRAME_MAX, Arc::default());
            let stream = Throttled::new(AsyncTcpStream::Plain(tcp?), Flow::default());
            Ok(Ear::new(stream, filter, Pulse::default()))
        })
    }
}
