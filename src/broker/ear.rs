//! A stream from the broker that is mended on its way to lapin: see [`mend`] for what and why.
//!
//! Frames with a method or with properties are held back until they are whole; the frames between
//! them, which hold the bodies, go through as they come. Beside that it listens for the broker's
//! greeting, see [`super::greeting`], and whether it speaks at all. What is sent to the broker is not
//! touched.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite, IoSlice};

use super::greeting::Greeting;
use super::mend;

/// Frame type (1 byte), channel (2), size of the payload (4).
const FRAME_HEADER: usize = 7;
/// The byte after the payload.
const FRAME_END: usize = 1;
const METHOD: u8 = 1;
const PROPERTIES: u8 = 2;
/// What is read at a time, at most. Half of RabbitMQ's usual longest frame.
const CHUNK: usize = 64 * 1024;
/// RabbitMQ's frames have 128 KiB at most, unless it was told otherwise. A frame that claims more
/// than this goes through unseen, so that nobody can have all memory.
const LONGEST: usize = 4 * 1024 * 1024;

/// Tells that the broker speaks.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// How often something came so far.
    pub(super) fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) struct Ear<S> {
    stream: S,
    greeting: Arc<Greeting>,
    pulse: Pulse,
    /// Up to `ready` it can be handed on, up to `end` it has to wait for more.
    kept: Vec<u8>,
    begin: usize,
    ready: usize,
    end: usize,
    /// So many of the next bytes belong to a frame that is handed on as it comes.
    passing: usize,
    /// So long must `kept` be to hold the frame that is waited for.
    needed: usize,
    ended: bool,
}

impl<S> Ear<S> {
    pub(super) fn new(stream: S, greeting: Arc<Greeting>, pulse: Pulse) -> Self {
        Self {
            stream,
            greeting,
            pulse,
            kept: vec![0; CHUNK],
            begin: 0,
            ready: 0,
            end: 0,
            passing: 0,
            needed: 0,
            ended: false,
        }
    }

    /// Makes room for more. What was ready has been handed on by now.
    fn make_room(&mut self) {
        self.kept.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        (self.begin, self.ready) = (0, 0);
        if self.kept.len() < self.needed {
            self.kept.resize(self.needed, 0);
        }
    }

    /// Looks at what has come.
    fn listen(&mut self) {
        loop {
            let passed = self.passing.min(self.end - self.ready);
            self.ready += passed;
            self.passing -= passed;
            let heard = &mut self.kept[self.ready..self.end];
            let Some(&[kind, _, _, ref size @ ..]) = heard.first_chunk::<FRAME_HEADER>() else {
                return;
            };
            let size = u32::from_be_bytes(*size) as usize;
            let whole = FRAME_HEADER + size + FRAME_END;
            if !matches!(kind, METHOD | PROPERTIES) || whole > LONGEST {
                self.passing = whole;
                continue;
            }
            if heard.len() < whole {
                self.needed = whole;
                return;
            }
            let payload = &mut heard[FRAME_HEADER..FRAME_HEADER + size];
            if kind == METHOD {
                self.greeting.hear(payload);
                mend::method(payload);
            } else {
                mend::properties(payload);
            }
            self.ready += whole;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ear<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while this.begin == this.ready && !this.ended {
            this.make_room();
            let room = &mut this.kept[this.end..];
            let count = ready!(Pin::new(&mut this.stream).poll_read(cx, room))?;
            this.end += count;
            this.pulse.beat();
            this.listen();
            if count == 0 {
                // Whatever was begun comes to no end any more.
                this.ready = this.end;
                this.ended = true;
            }
        }
        let count = buffer.len().min(this.ready - this.begin);
        buffer[..count].copy_from_slice(&this.kept[this.begin..this.begin + count]);
        this.begin += count;
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ear<S> {
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

    use super::*;

    /// Gives its bytes in pieces of one size.
    struct Pieces(Vec<u8>, usize);

    impl AsyncRead for Pieces {
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
        let mut ear = Ear::new(Pieces(sent, piece), Arc::default(), Pulse::default());
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
    fn a_frame_longer_than_all_that_is_kept_is_mended_too() {
        // Many headers, each name of which is bad.
        let headers = b"\x01\xffV".repeat(50_000);
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0x20, 0];
        payload.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
        let start = payload.len();
        payload.extend(headers);
        let sent = frame(PROPERTIES, &payload);
        payload[start..].copy_from_slice(&b"\x01?V".repeat(50_000));
        let expected = frame(PROPERTIES, &payload);
        for piece in [1_000, usize::MAX] {
            assert!(heard(sent.clone(), piece) == expected, "{piece}");
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
