//! What the fuzz targets (`fuzz/`) reach of this room, under the feature `fuzzing` only: thin ways
//! to functions that nobody else may call. It is no part of the program.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::io::{AsyncRead, AsyncReadExt as _};
use lapin::BasicProperties;

use super::codec::message_of;
use super::delivery::ReceivedMessage;
use super::publish::message::{CopyTo, EncodedPublish, OutboundMessage, PublishRouting};
use super::topology::model::QueueNames;
use super::transport::frame_filter::{FRAME_MIN, FrameFilter, StreamLimits};
use super::transport::sanitizing_stream::{ReadActivity, SanitizingStream};
use crate::core::policy::consume_plan::SourceQueue;
use crate::messages::headers::HeaderName;
use crate::messages::message::MessageView;

/// The frame size that [`sanitized`] fits content headers into.
pub const FRAME_MAX: Option<usize> = Some(FRAME_MIN as usize);

/// How long a copy of [`published_again`] waits.
const WAIT: Duration = Duration::from_secs(5);

/// [`WAIT`] as a copy's property `expiration` says it.
pub const WAIT_MILLISECONDS: &str = "5000";

/// What lapin gets of a broker's stream that comes in pieces of one size.
#[must_use]
pub fn sanitized(stream: &[u8], piece: usize) -> Vec<u8> {
    let pieces = FuzzChunks(stream, piece.max(1));
    let filter = FrameFilter::new(StreamLimits::NONE, FRAME_MIN, Arc::default());
    let mut filtered = SanitizingStream::new(pieces, filter, ReadActivity::default());
    let mut out = Vec::new();
    let read = filtered.read_to_end(&mut out).now_or_never();
    read.expect("nothing is waited for")
        .expect("bytes in memory can be read");
    out
}

struct FuzzChunks<'a>(&'a [u8], usize);

impl AsyncRead for FuzzChunks<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        let count = self.1.min(self.0.len()).min(buffer.len());
        let (now, later) = self.0.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.0 = later;
        Poll::Ready(Ok(count))
    }
}

/// A message as lapin delivers it.
#[derive(Debug, Clone)]
pub struct FuzzedDelivery {
    /// At most 255 bytes.
    pub exchange: String,
    /// At most 255 bytes.
    pub routing_key: String,
    pub redelivered: bool,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl From<FuzzedDelivery> for lapin::message::Delivery {
    fn from(from: FuzzedDelivery) -> Self {
        let (exchange, key) = (from.exchange.into(), from.routing_key.into());
        let mut delivery = Self::mock(1, exchange, key, from.redelivered, from.body);
        delivery.properties = from.properties;
        delivery
    }
}

/// The message as the worker publishes it again: as a dead letter, or else as a copy that waits.
/// `None` where it has no address.
#[must_use]
pub fn published_again(
    from: FuzzedDelivery,
    as_dead_letter: bool,
    headers: Vec<HeaderName>,
    frame_max: u32,
) -> Option<FuzzedDelivery> {
    let of = Arc::new(ReceivedMessage::new(from.into(), SourceQueue::Due, 1));
    let outgoing = if as_dead_letter {
        OutboundMessage::DeadLetter { of, headers }
    } else {
        let to = CopyTo::Wait {
            step: 0,
            wait: WAIT,
        };
        OutboundMessage::Copy { of, to, headers }
    };
    publish(outgoing, frame_max)
}

/// The message as the review reads it.
#[must_use]
pub fn reviewed(from: FuzzedDelivery) -> MessageView {
    message_of(from.into())
}

/// The message as the review publishes it. `None` where a text is longer than AMQP can carry.
#[must_use]
pub fn sent(message: MessageView, frame_max: u32) -> Option<FuzzedDelivery> {
    publish(OutboundMessage::Message(message), frame_max)
}

fn publish(outgoing: OutboundMessage, frame_max: u32) -> Option<FuzzedDelivery> {
    let addresses = PublishRouting::new(&QueueNames::new("rename"), &[WAIT]);
    let parcel: EncodedPublish = addresses.parcel(outgoing, frame_max)?;
    Some(FuzzedDelivery {
        exchange: parcel.exchange.to_string(),
        routing_key: parcel.routing_key.to_string(),
        redelivered: false,
        body: parcel.body.bytes().to_vec(),
        properties: parcel.properties,
    })
}
