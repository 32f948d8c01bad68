//! What the worker publishes, and how each kind looks on the wire.
//!
//! A dead letter and a copy are the request's own bytes and properties, unchanged but for what
//! would hurt when published again:
//!
//! - `expiration`: a dead letter must never expire, a waiting copy not before its delay;
//! - the property `user_id`: the broker closes the channel when it is not our own user;
//! - the property `reply_to` where it asks for a direct reply: the broker closes the channel of
//!   whoever publishes that without consuming from there;
//! - the headers `CC` and `BCC`: they would route further copies to other queues, and the broker
//!   closes the channel where they are no lists, as AMQP 1.0 lets them be;
//! - `x-delivery-count`, `x-acquired-count`: the broker's counts of the message that was;
//! - `x-death` and its kin: the broker's cycle detection reads them, and drops a message that expires
//!   into a queue that it was dead-lettered from before; and in a dead letter they say that the broker
//!   put it there, which a publisher could pretend by sending them;
//! - our own headers, which say what was true of the message that was. What is true now comes with
//!   the order to publish.
//!
//! The first four, and in a dead letter `x-death`, are kept as `x-rename-original-…` headers, for
//! review. And where all of them are too much for one frame, the largest headers are left out: see
//! [`fit`](super::header_budget). What the broker refuses all the same is published with less: see
//! [`EncodedPublish::reduced`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::header_budget::{
    LeftOut, drop_oversized_headers, fit_others, header_budget, shorten, whole_room,
};
use crate::broker::codec::properties_of;
use crate::broker::delivery::{ACQUIRED_COUNT, DELIVERY_COUNT, ReceivedMessage};
use crate::broker::topology::model::QueueNames;
use crate::core::policy::republish::PublishForm;
use crate::messages::event::{CONTENT_TYPE, EventMessage};
use crate::messages::headers;
use crate::messages::headers::{
    HeaderName, HeaderSource as _, HeaderValue, LEFT_OUT_HEADERS, LEFT_OUT_PROPERTIES,
    MAYBE_APPLIED, ORIGINAL_BCC, ORIGINAL_CC, ORIGINAL_DEATHS, ORIGINAL_EXCHANGE,
    ORIGINAL_EXPIRATION, ORIGINAL_REPLY_TO, ORIGINAL_ROUTING_KEY, ORIGINAL_USER_ID, REQUEST_ID,
    TRACEPARENT, X_DEATH, is_x_death_header,
};
use crate::messages::message::MessageView;

/// AMQP's mark of a message that survives the broker's restart.
const PERSISTENT: u8 = 2;
/// What a `reply_to` is that asks for a direct reply. Delivered, it has the name of a queue behind it,
/// and that may be published again.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// One message to publish.
#[derive(Debug)]
pub enum OutboundMessage {
    Event {
        message: EventMessage,
        correlation_id: Option<String>,
        traceparent: Option<String>,
    },
    /// The request as it came, into the dead letters.
    DeadLetter {
        of: Arc<ReceivedMessage>,
        /// Each replaces one of the same name.
        headers: Vec<HeaderName>,
    },
    /// The request as it came, to wait. It is lost at once when the session that delivered the
    /// request has ended, since the broker then delivers the request itself again.
    Copy {
        of: Arc<ReceivedMessage>,
        to: CopyTo,
        headers: Vec<HeaderName>,
    },
    /// A new request, as `rename-worker publish` makes them.
    Request(RequestMessage),
    /// A message that says all of itself, as reviews send them.
    Message(MessageView),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyTo {
    /// The wait queue of this step of the ladder, by its place in it. A wait that is shorter than the
    /// step ends earlier, once those before it in the queue have left.
    Wait { step: usize, wait: Duration },
    /// The tail of `rename.due`.
    Due,
}

/// A request that did not come from the queue.
pub struct RequestMessage {
    /// `None` is `<prefix>.requests`.
    pub exchange: Option<String>,
    pub routing_key: String,
    pub body: Vec<u8>,
    pub content_type: Option<String>,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    pub headers: Vec<HeaderName>,
}

/// A message, its address, and whether a queue has to take it.
pub(in crate::broker) struct EncodedPublish {
    pub(in crate::broker) exchange: ShortString,
    pub(in crate::broker) routing_key: ShortString,
    pub(in crate::broker) properties: BasicProperties,
    pub(in crate::broker) body: MessageBody,
    /// Whether it is an error if no queue takes it.
    pub(in crate::broker) must_route: bool,
    /// Whether we want to know it if no queue takes it.
    pub(in crate::broker) mandatory: bool,
    pub(in crate::broker) reduction: MessageReduction,
}

/// Whether a message may be published with less than all of its properties, if the broker refuses
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum MessageReduction {
    Never,
    Possible,
    Done,
}

/// The bytes, shared with the delivery where they are its own.
pub(in crate::broker) enum MessageBody {
    Own(Vec<u8>),
    Of(Arc<ReceivedMessage>),
    As(Arc<EncodedPublish>),
}

/// The addresses, as the wire wants them.
pub(in crate::broker) struct PublishRouting {
    events: ShortString,
    dead_letters: ShortString,
    requests: ShortString,
    internal: ShortString,
    due: ShortString,
    wait: Vec<ShortString>,
}

impl EncodedPublish {
    /// An empty message that no queue will take.
    pub(in crate::broker) fn canary(addresses: &PublishRouting) -> Self {
        Self {
            exchange: addresses.internal.clone(),
            routing_key: "rename-worker.nowhere".into(),
            properties: BasicProperties::default(),
            body: MessageBody::Own(Vec::new()),
            must_route: false,
            mandatory: false,
            reduction: MessageReduction::Never,
        }
    }

    /// The same message, with less of its properties and headers. That the broker refused them, and
    /// with which code, is said by a header.
    pub(in crate::broker) fn reduced(self: &Arc<Self>, form: PublishForm, code: &str) -> Self {
        let mut headers = FieldTable::default();
        for (name, value) in self.headers() {
            // What keeps a value of the request may be what is refused.
            let plain = matches!(
                value,
                AMQPValue::LongString(_) | AMQPValue::LongLongInt(_) | AMQPValue::Boolean(_)
            );
            if plain && name.as_str().starts_with(headers::PREFIX) {
                headers.insert(name.clone(), value.clone());
            }
        }
        headers.insert(
            LEFT_OUT_PROPERTIES.into(),
            AMQPValue::LongString(code.into()),
        );
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        if form == PublishForm::Essential {
            let from = &self.properties;
            if let Some(text) = from.content_type() {
                properties = properties.with_content_type(text.clone());
            }
            if let Some(text) = from.correlation_id() {
                properties = properties.with_correlation_id(text.clone());
            }
            if let Some(text) = from.message_id() {
                properties = properties.with_message_id(text.clone());
            }
        }
        Self {
            exchange: self.exchange.clone(),
            routing_key: self.routing_key.clone(),
            properties,
            body: MessageBody::As(Arc::clone(self)),
            reduction: MessageReduction::Done,
            ..*self.as_ref()
        }
    }

    /// The request's id, where a header of ours says it.
    pub(in crate::broker) fn request_id(&self) -> Option<&str> {
        let mut headers = self.headers();
        match headers.find(|(name, _)| name.as_str() == REQUEST_ID)?.1 {
            AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
            _ => None,
        }
    }

    fn headers(&self) -> impl Iterator<Item = (&ShortString, &AMQPValue)> {
        let table = self.properties.headers().iter();
        table.flat_map(FieldTable::inner)
    }
}

impl MessageBody {
    pub(in crate::broker) fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Of(received) => received.body(),
            Self::As(parcel) => parcel.body.bytes(),
        }
    }
}

impl PublishRouting {
    pub(in crate::broker) fn new(names: &QueueNames, ladder: &[Duration]) -> Self {
        Self {
            events: names.events.as_str().into(),
            dead_letters: names.dead_letters.as_str().into(),
            requests: names.requests.as_str().into(),
            internal: names.internal.as_str().into(),
            due: names.due.as_str().into(),
            wait: ladder.iter().map(|step| names.wait(*step).into()).collect(),
        }
    }

    /// `None` if there is no such step in the ladder, or an address is longer than AMQP's 255 bytes.
    /// `frame_max` is what the connection agreed on.
    pub(in crate::broker) fn parcel(
        &self,
        outgoing: OutboundMessage,
        frame_max: u32,
    ) -> Option<EncodedPublish> {
        Some(match outgoing {
            OutboundMessage::Event {
                message,
                correlation_id,
                traceparent,
            } => self.event(message, correlation_id, traceparent),
            OutboundMessage::DeadLetter { of, headers } => EncodedPublish {
                exchange: self.dead_letters.clone(),
                routing_key: of.routing_key().into(),
                properties: republished(&of, CopiedHeaders::DeadLetter, headers, frame_max),
                body: MessageBody::Of(of),
                must_route: true,
                mandatory: true,
                reduction: MessageReduction::Possible,
            },
            OutboundMessage::Copy { of, to, headers } => {
                let (routing_key, copied) = match to {
                    CopyTo::Wait { step, wait } => {
                        (self.wait.get(step)?.clone(), CopiedHeaders::Waiting(wait))
                    }
                    CopyTo::Due => (self.due.clone(), CopiedHeaders::Due),
                };
                EncodedPublish {
                    exchange: self.internal.clone(),
                    routing_key,
                    properties: republished(&of, copied, headers, frame_max),
                    body: MessageBody::Of(of),
                    must_route: true,
                    mandatory: true,
                    reduction: MessageReduction::Possible,
                }
            }
            OutboundMessage::Request(request) => self.request(request)?,
            OutboundMessage::Message(message) => set_exact_header(message, frame_max)?,
        })
    }

    fn event(
        &self,
        event: EventMessage,
        correlation_id: Option<String>,
        traceparent: Option<String>,
    ) -> EncodedPublish {
        let mut properties = BasicProperties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(event.id.to_string().into());
        if let Some(id) = correlation_id.and_then(short) {
            properties = properties.with_correlation_id(id);
        }
        if let Some(traceparent) = traceparent {
            let mut headers = FieldTable::default();
            headers.insert(
                TRACEPARENT.into(),
                AMQPValue::LongString(traceparent.into()),
            );
            properties = properties.with_headers(headers);
        }
        EncodedPublish {
            exchange: self.events.clone(),
            routing_key: event.event_type.into(),
            properties,
            body: MessageBody::Own(event.body),
            must_route: false,
            mandatory: true,
            reduction: MessageReduction::Never,
        }
    }

    fn request(&self, request: RequestMessage) -> Option<EncodedPublish> {
        let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        if let Some(value) = request.content_type.and_then(short) {
            properties = properties.with_content_type(value);
        }
        if let Some(value) = request.message_id.and_then(short) {
            properties = properties.with_message_id(value);
        }
        if let Some(value) = request.correlation_id.and_then(short) {
            properties = properties.with_correlation_id(value);
        }
        if let Some(value) = request.timestamp {
            properties = properties.with_timestamp(value);
        }
        if !request.headers.is_empty() {
            let mut headers = FieldTable::default();
            add(&mut headers, request.headers);
            properties = properties.with_headers(headers);
        }
        Some(EncodedPublish {
            exchange: match request.exchange {
                Some(exchange) => short(exchange)?,
                None => self.requests.clone(),
            },
            routing_key: short(request.routing_key)?,
            properties,
            body: MessageBody::Own(request.body),
            must_route: true,
            mandatory: true,
            // Whoever makes it can put it right.
            reduction: MessageReduction::Never,
        })
    }
}

/// As it says, but for what the broker is known to refuse or cannot take in one frame.
fn set_exact_header(mut message: MessageView, frame_max: u32) -> Option<EncodedPublish> {
    let reply_to = message
        .properties
        .reply_to
        .take_if(|to| to == DIRECT_REPLY_TO);
    if let Some(reply_to) = reply_to {
        let name = ORIGINAL_REPLY_TO.to_owned();
        message.headers.insert(name, reply_to.into());
    }
    for (name, original) in [("CC", ORIGINAL_CC), ("BCC", ORIGINAL_BCC)] {
        if let Some(value) = message.headers.remove(name) {
            message.headers.insert(original.to_owned(), value);
        }
    }
    let mut properties = properties_of(&message)?;
    if let Some(headers) = properties.headers() {
        let mut headers = headers.inner().clone();
        let room = whole_room(frame_max, &properties).saturating_sub(COUNT_OF_LEFT_OUT);
        let is_ours = |name: &str| name.starts_with(headers::PREFIX);
        let left_out = fit_others(&mut headers, room, is_ours);
        if left_out.count > 0 {
            note_left_out(left_out, message.headers.text(REQUEST_ID));
            let before = message.headers.int(LEFT_OUT_HEADERS).unwrap_or(0);
            let count = count_of(before, left_out);
            headers.insert(LEFT_OUT_HEADERS.into(), AMQPValue::LongLongInt(count));
            properties = properties.with_headers(headers.into());
        }
    }
    Some(EncodedPublish {
        exchange: short(message.exchange)?,
        routing_key: short(message.routing_key)?,
        properties,
        body: MessageBody::Own(message.body),
        must_route: true,
        mandatory: true,
        reduction: MessageReduction::Possible,
    })
}

/// Room for [`LEFT_OUT_HEADERS`]: its name and its length, a type, a number.
const COUNT_OF_LEFT_OUT: usize = 1 + LEFT_OUT_HEADERS.len() + 1 + 8;

fn note_left_out(left_out: LeftOut, request_id: Option<&str>) {
    tracing::warn!(
        request_id,
        headers = left_out.count,
        bytes = left_out.bytes,
        "headers of a request are left out of what is published again: they do not fit into the \
         broker's frames beside what is added"
    );
}

fn count_of(before: i64, left_out: LeftOut) -> i64 {
    let now = i64::try_from(left_out.count).unwrap_or(i64::MAX);
    before.max(0).saturating_add(now)
}

/// What a request is published again as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopiedHeaders {
    /// It keeps its history of deaths for the reviewer; harmless, since nothing is dead-lettered
    /// from the dead letters.
    DeadLetter,
    /// It leaves its wait queue after this time.
    Waiting(Duration),
    Due,
}

/// The properties of a request that is published again, see the head of this file.
fn republished(
    of: &ReceivedMessage,
    copied: CopiedHeaders,
    added: Vec<HeaderName>,
    frame_max: u32,
) -> BasicProperties {
    let mut kept = kept_headers(of, copied);
    let mut ours = FieldTable::default();
    let mut note = |name: &str, value: &str| {
        ours.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    note(ORIGINAL_EXCHANGE, of.exchange());
    note(ORIGINAL_ROUTING_KEY, of.routing_key());
    let original = of.properties();
    if let Some(expiration) = original.expiration() {
        note(ORIGINAL_EXPIRATION, expiration.as_str());
    }
    if let Some(user) = original.user_id() {
        note(ORIGINAL_USER_ID, user.as_str());
    }
    if let Some(reply_to) = original.reply_to()
        && reply_to.as_str() == DIRECT_REPLY_TO
    {
        note(ORIGINAL_REPLY_TO, DIRECT_REPLY_TO);
    }
    if let Some(code) = of
        .text(LEFT_OUT_PROPERTIES)
        .filter(|_| of.has_trusted_headers())
    {
        note(LEFT_OUT_PROPERTIES, code);
    }
    add(&mut ours, added);
    let mut properties = strip_reserved_properties(original);
    if let CopiedHeaders::Waiting(wait) = copied {
        properties = properties.with_expiration(wait.as_millis().to_string().into());
    }
    shorten(&mut ours, frame_max, &properties);
    let room = header_budget(frame_max, &properties, &ours).saturating_sub(COUNT_OF_LEFT_OUT);
    let left_out = drop_oversized_headers(&mut kept, room);
    if left_out.count > 0 {
        let request_id = match ours.inner().get(REQUEST_ID) {
            Some(AMQPValue::LongString(id)) => std::str::from_utf8(id.as_bytes()).ok(),
            _ => None,
        };
        note_left_out(left_out, request_id);
    }
    let before = of
        .int(LEFT_OUT_HEADERS)
        .filter(|_| of.has_trusted_headers());
    let before = before.unwrap_or(0).max(0);
    let before = before.saturating_add_unsigned(of.truncated_headers());
    let missing = count_of(before, left_out);
    if missing > 0 {
        ours.insert(LEFT_OUT_HEADERS.into(), AMQPValue::LongLongInt(missing));
    }
    for (name, value) in &ours {
        kept.insert(name.clone(), value.clone());
    }
    properties.with_headers(kept.into())
}

/// The request's own.
fn kept_headers(of: &ReceivedMessage, copied: CopiedHeaders) -> BTreeMap<ShortString, AMQPValue> {
    let mut kept = BTreeMap::new();
    let Some(table) = of.header_table() else {
        return kept;
    };
    for (name, value) in table.inner() {
        let name = match name.as_str() {
            DELIVERY_COUNT | ACQUIRED_COUNT => None,
            "CC" => Some(ORIGINAL_CC),
            "BCC" => Some(ORIGINAL_BCC),
            // Only what the broker itself moves into the dead letters has the first of these.
            X_DEATH if copied == CopiedHeaders::DeadLetter => Some(ORIGINAL_DEATHS),
            ORIGINAL_DEATHS => None,
            name if is_x_death_header(name) => None,
            // Somebody else's, dressed up as the worker's.
            name if name.starts_with(headers::PREFIX) && !of.has_trusted_headers() => None,
            // A replay of the letter has to know it.
            MAYBE_APPLIED if copied == CopiedHeaders::DeadLetter => Some(MAYBE_APPLIED),
            name if headers::ALL.contains(&name) => None,
            name => Some(name),
        };
        if let Some(name) = name {
            kept.insert(name.into(), value.clone());
        }
    }
    kept
}

/// All properties but those that may be refused, which have no way of being unset; persistent.
fn strip_reserved_properties(original: &BasicProperties) -> BasicProperties {
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    macro_rules! keep {
        ($($get:ident => $with:ident),+ $(,)?) => {$(
            if let Some(value) = original.$get() {
                properties = properties.$with(value.clone());
            }
        )+};
    }
    keep!(
        content_type => with_content_type,
        content_encoding => with_content_encoding,
        priority => with_priority,
        correlation_id => with_correlation_id,
        message_id => with_message_id,
        timestamp => with_timestamp,
        kind => with_type,
        app_id => with_app_id,
        cluster_id => with_cluster_id,
    );
    match original.reply_to() {
        Some(to) if to.as_str() != DIRECT_REPLY_TO => properties.with_reply_to(to.clone()),
        _ => properties,
    }
}

fn add(table: &mut FieldTable, headers: Vec<HeaderName>) {
    for (name, value) in headers {
        let value = match value {
            HeaderValue::Text(text) => AMQPValue::LongString(text.into()),
            HeaderValue::Int(number) => AMQPValue::LongLongInt(number),
            HeaderValue::Bool(flag) => AMQPValue::Boolean(flag),
        };
        table.insert(name.into(), value);
    }
}

/// AMQP's short strings hold 255 bytes.
fn short(text: String) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

impl std::fmt::Debug for RequestMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
