//! A bound on what comes from the broker faster than it is read.
//!
//! lapin reads all that the socket has and keeps each delivery until its consumer asks for it. The
//! prefetch bounds how many those are, but not their size: one letter has 1 KB, the next 16 MiB. So
//! whoever reads says when they have nothing left to read, and until then no more than a limit is
//! taken from the socket; the rest waits there, and the broker with it.
//!
//! A reader who stops for long must not rely on this: RabbitMQ ends a connection that takes nothing
//! for 15 s. It is for bursts; the prefetch does the rest.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncWrite, IoSlice};

/// A message may be larger than the limit. So whoever waits allows another limit's worth this often.
const MORE_AFTER: Duration = Duration::from_millis(20);

/// The reader's side: how much may come.
#[derive(Debug, Clone, Default)]
pub(in crate::broker) struct ReadFlow(Arc<Mutex<ReadAllowance>>);

#[derive(Debug, Default)]
struct ReadAllowance {
    /// Bytes that may come each time; as many as there are, unless set.
    limit: Option<usize>,
    left: usize,
    held_back: Option<Waker>,
}

impl ReadFlow {
    /// From now on no more than `limit` bytes come before the reader waits again.
    pub(in crate::broker) fn limit(&self, limit: usize) {
        let mut allowance = self.lock();
        allowance.limit = Some(limit);
        allowance.refill();
    }

    /// Whatever comes may come.
    pub(in crate::broker) fn unlimit(&self) {
        let mut allowance = self.lock();
        allowance.limit = None;
        allowance.refill();
    }

    /// Waits for something from the broker: all that has come was read.
    pub(in crate::broker) async fn wait_for<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                biased;
                came = &mut what => return came,
                () = self.allow_more() => {}
            }
        }
    }

    async fn allow_more(&self) {
        self.lock().refill();
        tokio::time::sleep(MORE_AFTER).await;
    }

    fn lock(&self) -> MutexGuard<'_, ReadAllowance> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadAllowance {
    fn refill(&mut self) {
        self.left = self.limit.unwrap_or(0);
        if let Some(waker) = self.held_back.take() {
            waker.wake();
        }
    }
}

/// The stream's side.
pub(in crate::broker) struct ThrottledStream<S> {
    stream: S,
    flow: ReadFlow,
}

impl<S> ThrottledStream<S> {
    pub(in crate::broker) const fn new(stream: S, flow: ReadFlow) -> Self {
        Self { stream, flow }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ThrottledStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        {
            let mut allowance = this.flow.lock();
            if allowance.limit.is_some() && allowance.left == 0 {
                allowance.held_back = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        if let Ok(count) = &read {
            let mut allowance = this.flow.lock();
            allowance.left = allowance.left.saturating_sub(*count);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ThrottledStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::io::{AsyncReadExt as _, Cursor};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_comes_before_the_reader_waits() {
        let flow = ReadFlow::default();
        let mut stream = ThrottledStream::new(Cursor::new(vec![7; 1000]), flow.clone());
        let mut buffer = [0; 10];
        // Unlimited at first.
        stream.read_exact(&mut buffer).await.unwrap();
        flow.limit(25);
        for _ in 0..3 {
            assert_eq!(
                stream.read(&mut buffer).now_or_never().unwrap().unwrap(),
                10
            );
        }
        assert!(stream.read(&mut buffer).now_or_never().is_none());
        // One who waits gets all of a thing that is larger than the limit.
        let mut large = vec![0; 500];
        flow.wait_for(stream.read_exact(&mut large)).await.unwrap();
        while stream.read(&mut buffer).now_or_never().is_some() {}
        flow.unlimit();
        let mut rest = Vec::new();
        let reading = stream.read_to_end(&mut rest);
        assert!(reading.now_or_never().unwrap().is_ok());
    }
}
