//! A request as the broker delivered it, and the obligation to settle it.
//!
//! What was received ([`ReceivedMessage`]) can be shared and kept; the right to settle it ([`Delivery`])
//! cannot be copied and is used up by settling. It belongs to the session (epoch) that delivered
//! it: when that has ended, settling does nothing, and the broker delivers the request again.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::FutureExt as _;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel};

use crate::core::policy::consume_plan::SourceQueue;
use crate::core::policy::removal::RemovalCause;
use crate::messages::headers::{
    HeaderSource, MessageOrigin, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY, TRACEPARENT,
    TRUNCATED_BODY, TRUNCATED_HEADERS, X_DEATH,
};

/// The broker's own counts of how often it handed a message out.
pub(super) const DELIVERY_COUNT: &str = "x-delivery-count";
pub(super) const ACQUIRED_COUNT: &str = "x-acquired-count";

/// What ends the name of `rename.due`, whatever the prefix.
const DUE_SUFFIX: &str = ".due";

/// The longest exchange name or routing key, in bytes.
const SHORT_STRING_MAX: usize = 255;

/// A message as it came. `Debug` shows no content, which may name a person.
pub struct ReceivedMessage {
    body: Vec<u8>,
    properties: BasicProperties,
    exchange: ShortString,
    routing_key: ShortString,
    redelivered: bool,
    source: SourceQueue,
    epoch: u64,
}

/// A received message that is not settled yet. Dropped, it stays with the broker, which delivers
/// it again when the session ends.
#[must_use = "an unsettled delivery holds one place of the prefetch until the session ends"]
pub struct Delivery {
    received: Arc<ReceivedMessage>,
    lane: Arc<SessionChannel>,
    tag: u64,
    fetched: bool,
}

impl ReceivedMessage {
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the broker knows that it handed this out before.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// How often the broker counted a failed delivery against its limit; 0 at first.
    ///
    /// A publisher may write the header too, and the broker leaves it as it is until it has something
    /// to count. So it is believed of redelivered messages only; and since RabbitMQ 4.3 does not count
    /// what a consumer requeued, no more than the broker's count of all deliveries, where it has one.
    #[must_use]
    pub fn delivery_count(&self) -> u32 {
        if !self.redelivered {
            return 0;
        }
        let failed = self.count(DELIVERY_COUNT).unwrap_or(0);
        failed.min(self.acquired_count().unwrap_or(failed))
    }

    /// The queue it was delivered from.
    #[must_use]
    pub const fn source(&self) -> SourceQueue {
        self.source
    }

    /// Why RabbitMQ moved it away, if it did. The first entry of `x-death` is always the broker's own,
    /// whatever a publisher wrote.
    #[must_use]
    pub fn removal(&self) -> Option<RemovalCause> {
        (self.source == SourceQueue::Undeliverable)
            .then(|| RemovalCause::from_broker(self.last_death("reason")))
    }

    /// Whether only the worker, the review and RabbitMQ can have written its headers.
    #[must_use]
    pub fn has_trusted_headers(&self) -> bool {
        match self.source {
            SourceQueue::Due => true,
            SourceQueue::Requests => false,
            SourceQueue::Undeliverable => self
                .last_death("queue")
                .is_some_and(|queue| queue.ends_with(DUE_SUFFIX)),
        }
    }

    /// A field of RabbitMQ's newest record of moving the message away; of a list, its first item.
    fn last_death(&self, field: &str) -> Option<&str> {
        if self.source != SourceQueue::Undeliverable {
            return None;
        }
        let AMQPValue::FieldArray(deaths) = self.header(X_DEATH)? else {
            return None;
        };
        let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else {
            return None;
        };
        let value = match last.inner().get(field)? {
            AMQPValue::FieldArray(items) => items.as_slice().first()?,
            value => value,
        };
        text_of(value).filter(|text| text.len() <= SHORT_STRING_MAX)
    }

    /// How often it was handed out in all, told by RabbitMQ from 4.0 on.
    #[must_use]
    pub fn acquired_count(&self) -> Option<u32> {
        self.count(ACQUIRED_COUNT)
    }

    /// How long the body is in the queue, where only its beginning was taken from the broker: see
    /// [`StreamLimits`](super::StreamLimits).
    #[must_use]
    pub fn cut_from(&self) -> Option<u64> {
        cut_from(self.header_table())
    }

    /// How many of its headers were not taken from the broker, since they did not fit into a frame.
    #[must_use]
    pub fn truncated_headers(&self) -> u64 {
        truncated_headers(self.header_table())
    }

    /// The session that delivered it.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        as_str(self.properties.content_type())
    }

    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        as_str(self.properties.correlation_id())
    }

    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        as_str(self.properties.message_id())
    }

    /// The publisher's clock, in seconds since 1970.
    #[must_use]
    pub fn timestamp(&self) -> Option<u64> {
        *self.properties.timestamp()
    }

    /// The W3C trace context that came with it.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.text(TRACEPARENT)
    }

    /// Where it was first published, before any detour through the ladder.
    #[must_use]
    pub fn origin(&self) -> MessageOrigin<'_> {
        MessageOrigin {
            exchange: self.exchange(),
            routing_key: self.routing_key(),
        }
    }

    /// The exchange it was first published to, before any detour through the ladder.
    #[must_use]
    pub fn exchange(&self) -> &str {
        self.original(ORIGINAL_EXCHANGE)
            .or_else(|| self.last_death("exchange"))
            .unwrap_or(self.exchange.as_str())
    }

    /// The routing key it was first published with.
    #[must_use]
    pub fn routing_key(&self) -> &str {
        self.original(ORIGINAL_ROUTING_KEY)
            .or_else(|| self.last_death("routing-keys"))
            .unwrap_or(self.routing_key.as_str())
    }

    pub(super) const fn properties(&self) -> &BasicProperties {
        &self.properties
    }

    pub(super) fn header_table(&self) -> Option<&FieldTable> {
        self.properties.headers().as_ref()
    }

    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.header_table()?.inner().get(name)
    }

    fn original(&self, name: &str) -> Option<&str> {
        if !self.has_trusted_headers() {
            return None;
        }
        // A header may be longer than what it is to be used as.
        self.text(name)
            .filter(|text| text.len() <= SHORT_STRING_MAX)
    }

    fn count(&self, name: &str) -> Option<u32> {
        let count = self.int(name)?;
        Some(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
    }

    pub(super) fn new(message: lapin::message::Delivery, source: SourceQueue, epoch: u64) -> Self {
        Self {
            body: message.data,
            properties: message.properties,
            exchange: message.exchange,
            routing_key: message.routing_key,
            redelivered: message.redelivered,
            source,
            epoch,
        }
    }
}

impl HeaderSource for ReceivedMessage {
    fn text(&self, name: &str) -> Option<&str> {
        text_of(self.header(name)?)
    }

    fn int(&self, name: &str) -> Option<i64> {
        as_i64(self.header(name)?)
    }

    fn bool(&self, name: &str) -> Option<bool> {
        match self.header(name)? {
            AMQPValue::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }

    fn content_encoding(&self) -> Option<&str> {
        as_str(self.properties.content_encoding())
    }
}

impl Delivery {
    pub(super) fn new(
        message: lapin::message::Delivery,
        lane: &Arc<SessionChannel>,
        source: SourceQueue,
    ) -> Self {
        let tag = message.delivery_tag;
        lane.unsettled.fetch_add(1, Ordering::Relaxed);
        Self {
            received: Arc::new(ReceivedMessage::new(message, source, lane.epoch)),
            lane: Arc::clone(lane),
            tag,
            fetched: false,
        }
    }

    /// It came by [`BrokerHandle::fetch`](super::BrokerHandle::fetch).
    pub(super) const fn fetched(mut self) -> Self {
        self.fetched = true;
        self
    }

    /// Whether it was fetched, and not consumed.
    #[must_use]
    pub const fn is_fetched(&self) -> bool {
        self.fetched
    }

    /// The message, to keep or to publish again while the delivery is still held.
    #[must_use]
    pub const fn received(&self) -> &Arc<ReceivedMessage> {
        &self.received
    }

    pub(super) fn ack(self) {
        self.lane.settled();
        if self.lane.is_open() {
            let acking = self
                .lane
                .channel
                .basic_ack(self.tag, BasicAckOptions::default());
            // The first poll hands the frame over; what is left is to wait until it is written.
            // An error means that the channel has just ended, which the session tells.
            acking.now_or_never();
        }
    }

    pub(super) fn requeue(self) {
        self.nack(true);
    }

    /// Lets the broker move it to `rename.undeliverable`.
    pub(super) fn reject(self) {
        self.nack(false);
    }

    fn nack(self, requeue: bool) {
        self.lane.settled();
        if self.lane.is_open() {
            let options = BasicNackOptions {
                requeue,
                multiple: false,
            };
            self.lane
                .channel
                .basic_nack(self.tag, options)
                .now_or_never();
        }
    }
}

impl Deref for Delivery {
    type Target = ReceivedMessage;

    fn deref(&self) -> &ReceivedMessage {
        &self.received
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("epoch", &self.lane.epoch)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ReceivedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received")
            .field("epoch", &self.epoch)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The consuming channel of one session. Deliveries hold on to it, so a delivery can be settled on
/// the channel it came by and on no other.
pub(super) struct SessionChannel {
    pub(super) epoch: u64,
    pub(super) channel: Channel,
    void: AtomicBool,
    unsettled: AtomicU32,
}

impl SessionChannel {
    pub(super) const fn new(epoch: u64, channel: Channel) -> Self {
        Self {
            epoch,
            channel,
            void: AtomicBool::new(false),
            unsettled: AtomicU32::new(0),
        }
    }

    /// Deliveries that came by it and are not settled yet.
    pub(super) fn unsettled(&self) -> u32 {
        self.unsettled.load(Ordering::Relaxed)
    }

    fn settled(&self) {
        self.unsettled.fetch_sub(1, Ordering::Relaxed);
    }

    /// From now on its deliveries can be settled no more.
    pub(super) fn close(&self) {
        self.void.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        !self.void.load(Ordering::Acquire)
    }
}

/// How long the body was, where it was cut.
pub(super) fn cut_from(headers: Option<&FieldTable>) -> Option<u64> {
    mark(headers, TRUNCATED_BODY)
}

/// How many headers are missing.
pub(super) fn truncated_headers(headers: Option<&FieldTable>) -> u64 {
    mark(headers, TRUNCATED_HEADERS).unwrap_or(0)
}

/// What the stream from the broker says of a message; it lets no publisher write that.
fn mark(headers: Option<&FieldTable>, name: &str) -> Option<u64> {
    u64::try_from(as_i64(headers?.inner().get(name)?)?).ok()
}

#[expect(clippy::ref_option, reason = "it is what lapin's properties give")]
fn as_str(property: &Option<ShortString>) -> Option<&str> {
    property.as_ref().map(ShortString::as_str)
}

fn text_of(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

/// A whole number, in whichever of AMQP's types it came.
pub(super) fn as_i64(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(n) => i64::from(*n),
        AMQPValue::ShortShortUInt(n) => i64::from(*n),
        AMQPValue::ShortInt(n) => i64::from(*n),
        AMQPValue::ShortUInt(n) => i64::from(*n),
        AMQPValue::LongInt(n) => i64::from(*n),
        AMQPValue::LongUInt(n) => i64::from(*n),
        AMQPValue::LongLongInt(n) => *n,
        AMQPValue::Timestamp(n) => i64::try_from(*n).ok()?,
        _ => return None,
    })
}
