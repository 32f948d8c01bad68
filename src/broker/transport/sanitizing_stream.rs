//! A stream from the broker, of which lapin gets what it can read: see [`frame_filter`] and [`mend`].
//!
//! [`frame_filter`]: super::frame_filter
//! [`mend`]: super::frame_sanitizer
//!
//! Beside that it notes whether the broker speaks at all. What is sent to the broker is not touched.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite, IoSlice};

use super::frame_filter::FrameFilter;

/// What is read at a time, at most. Half of RabbitMQ's usual longest frame.
const CHUNK: usize = 64 * 1024;
/// Tells that the broker speaks.
#[derive(Debug, Clone, Default)]
pub(in crate::broker) struct ReadActivity(Arc<AtomicU64>);

impl ReadActivity {
    /// How often something came so far.
    pub(in crate::broker) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn record(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

pub(in crate::broker) struct SanitizingStream<S> {
    stream: S,
    filter: FrameFilter,
    pulse: ReadActivity,
    chunk: Box<[u8]>,
    /// What may be handed on, from `begin` on.
    ready: Vec<u8>,
    begin: usize,
    ended: bool,
}

impl<S> SanitizingStream<S> {
    pub(in crate::broker) fn new(stream: S, filter: FrameFilter, pulse: ReadActivity) -> Self {
        Self {
            stream,
            filter,
            pulse,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            ready: Vec::new(),
            begin: 0,
            ended: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SanitizingStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while this.begin == this.ready.len() && !this.ended {
            this.ready.clear();
            this.begin = 0;
            let count = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut this.chunk))?;
            this.pulse.record();
            this.filter.push(&this.chunk[..count], &mut this.ready);
            if count == 0 {
                // Whatever was begun comes to no end any more.
                this.filter.rest(&mut this.ready);
                this.ended = true;
            }
        }
        let count = buffer.len().min(this.ready.len() - this.begin);
        buffer[..count].copy_from_slice(&this.ready[this.begin..this.begin + count]);
        this.begin += count;
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SanitizingStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::io::AsyncReadExt as _;

    use super::super::frame_filter::{FRAME_MAX, StreamLimits};
    use super::*;

    const METHOD: u8 = 1;
    const PROPERTIES: u8 = 2;

    /// Gives its bytes in pieces of one size.
    struct FrameChunks(Vec<u8>, usize);

    impl AsyncRead for FrameChunks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            for (into, from) in buffer.iter_mut().zip(self.0.drain(..count)) {
                *into = from;
            }
            Poll::Ready(Ok(count))
        }
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap();
        [&[kind, 0, 1][..], &size.to_be_bytes(), payload, &[0xce]].concat()
    }

    fn heard(sent: Vec<u8>, piece: usize) -> Vec<u8> {
        let filter = FrameFilter::new(StreamLimits::NONE, FRAME_MAX, Arc::default());
        let mut ear =
            SanitizingStream::new(FrameChunks(sent, piece), filter, ReadActivity::default());
        let mut heard = Vec::new();
        ear.read_to_end(&mut heard).now_or_never().unwrap().unwrap();
        heard
    }

    /// Channel closed, with this text.
    fn close(text: &[u8]) -> Vec<u8> {
        let length = u8::try_from(text.len()).unwrap();
        frame(
            METHOD,
            &[b"\x00\x14\x00\x28\x01\x94", &[length][..], text, &[0; 4]].concat(),
        )
    }

    /// Properties with a content type alone.
    fn typed(text: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0x80, 0];
        payload.push(u8::try_from(text.len()).unwrap());
        payload.extend(text);
        frame(PROPERTIES, &payload)
    }

    #[test]
    fn whatever_the_pieces_the_texts_are_mended_and_the_bodies_are_not() {
        let body = frame(3, &b"\xff\x01\x00\x01\x00\x00\x00\x05\xff".repeat(20_000));
        let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xce];
        let stream = |bad: &[u8]| {
            [
                &close(bad)[..],
                &typed(bad),
                &body,
                &heartbeat,
                &typed(bad),
                &frame(3, b""),
            ]
            .concat()
        };
        let sent = stream(b"caf\xc3");
        for piece in [1, 2, 7, 8, 9, 1_000, CHUNK, sent.len()] {
            assert!(heard(sent.clone(), piece) == stream(b"caf?"), "{piece}");
        }
    }

    #[test]
    fn what_ends_in_the_middle_is_handed_on_to_its_end() {
        let whole = [typed(b"a"), close(b"bc"), frame(3, b"def")].concat();
        for end in 0..whole.len() {
            assert_eq!(heard(whole[..end].to_vec(), 5), &whole[..end]);
        }
        // Another protocol, and a frame that claims to have no end.
        for strange in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[1; 100]] {
            assert_eq!(heard(strange.to_vec(), 5), strange);
        }
    }
}
