//! The headers that travel with a message: their names, what they say, what is believed of them.
//!
//! Anyone who may publish may forge a header, so each is read as a hint within bounds: a wrong
//! type, a time to come or an absurd count can neither crash a worker nor keep a request going.
//! Turning them into the broker's own types is `broker`'s business.

use jiff::Timestamp;
use uuid::Uuid;

use super::timestamp;
use crate::core::model::outcome::{AttemptHistory, Failed};

/// Attempts made so far; on deferred copies and dead letters.
pub const ATTEMPTS: &str = "x-rename-attempts";
/// When the first attempt was made, RFC 3339; on deferred copies and dead letters.
pub const FIRST_ATTEMPT_AT: &str = "x-rename-first-attempt-at";
/// That an earlier try may have been applied; on deferred copies.
pub const MAYBE_APPLIED: &str = "x-rename-maybe-applied";
/// That a rename was sent whose effect is unknown, or that a delivery was lost with a worker: unlike
/// [`MAYBE_APPLIED`], which every copy says; on deferred copies.
pub const UNCLEAR: &str = "x-rename-unclear";
/// Since when the credentials of its account have been refused, RFC 3339; on deferred copies.
pub const REFUSED_SINCE: &str = "x-rename-refused-since";
/// A whole number that the worker gave this copy, to know it again; on deferred copies.
pub const COPY: &str = "x-rename-copy";
/// The exchange the request was first published to; on deferred copies and dead letters.
pub const ORIGINAL_EXCHANGE: &str = "x-rename-original-exchange";
/// The routing key it was first published with; on deferred copies and dead letters.
pub const ORIGINAL_ROUTING_KEY: &str = "x-rename-original-routing-key";
/// Why the request failed; on dead letters.
pub const REASON: &str = "x-rename-reason";
/// What exactly was wrong, for a person; on dead letters.
pub const DETAIL: &str = "x-rename-detail";
/// The status of the answer that decided; on dead letters.
pub const HTTP_STATUS: &str = "x-rename-http-status";
/// When it failed, RFC 3339; on dead letters.
pub const FAILED_AT: &str = "x-rename-failed-at";
/// The request's id, when it has one; on dead letters.
pub const REQUEST_ID: &str = "x-rename-request-id";
/// The replay a message belongs to, a UUID; on replayed dead letters and their copies.
pub const REPLAY: &str = "x-rename-replay";
/// What a replay is a replay of: the request's id, and when it failed. It stays with the message
/// through the ladder and into the next dead letter, so that a reviewer sees it: not in [`ALL`].
pub const REPLAY_OF: &str = "x-rename-replay-of";
/// How many headers were left out of a message, since they did not fit into the broker's frame; on
/// what is received. Only the stream from the broker writes it: a publisher's own is removed.
pub const TRUNCATED_HEADERS: &str = "x-rename-truncated-headers";
/// How long the body was of which only the beginning was taken; likewise.
pub const TRUNCATED_BODY: &str = "x-rename-truncated-body";
/// How many headers of the request are missing, since they did not fit into the broker's frame; on
/// deferred copies and dead letters.
pub const LEFT_OUT_HEADERS: &str = "x-rename-left-out-headers";
/// That the broker refused the message with the request's properties and headers, so that they are
/// missing, and with which code; on deferred copies and dead letters.
pub const LEFT_OUT_PROPERTIES: &str = "x-rename-left-out-properties";
/// What begins each header of ours, those above and those below.
pub const PREFIX: &str = "x-rename-";

/// What begins the names of what a request came with and is not published again.
pub const ORIGINAL_PREFIX: &str = "x-rename-original-";
/// What was the property `expiration`, which would hurt when published again.
pub const ORIGINAL_EXPIRATION: &str = "x-rename-original-expiration";
/// What was the property `user_id`, likewise.
pub const ORIGINAL_USER_ID: &str = "x-rename-original-user-id";
/// What was the property `reply_to`, likewise, where it asks for a direct reply.
pub const ORIGINAL_REPLY_TO: &str = "x-rename-original-reply-to";
/// What was the header `CC`, likewise.
pub const ORIGINAL_CC: &str = "x-rename-original-cc";
/// What was the header `BCC`, likewise.
pub const ORIGINAL_BCC: &str = "x-rename-original-bcc";

/// What was the header `x-death`: RabbitMQ's history, or what its publisher made up of one. Under its
/// own name it would be taken for the history of the letter, see `dead_letters`.
pub const ORIGINAL_DEATHS: &str = "x-rename-original-deaths";

/// Every header of ours. A replay leaves them all out, so that the request starts anew.
pub const ALL: [&str; 18] = [
    ATTEMPTS,
    FIRST_ATTEMPT_AT,
    MAYBE_APPLIED,
    UNCLEAR,
    REFUSED_SINCE,
    COPY,
    ORIGINAL_EXCHANGE,
    ORIGINAL_ROUTING_KEY,
    REASON,
    DETAIL,
    HTTP_STATUS,
    FAILED_AT,
    REQUEST_ID,
    REPLAY,
    TRUNCATED_HEADERS,
    TRUNCATED_BODY,
    LEFT_OUT_HEADERS,
    LEFT_OUT_PROPERTIES,
];

/// RabbitMQ's own history of dead-lettering, a list of tables.
pub const X_DEATH: &str = "x-death";

/// Whether the header is part of RabbitMQ's history of dead-lettering.
#[must_use]
pub fn is_x_death_header(name: &str) -> bool {
    name == X_DEATH || name.starts_with("x-first-death-") || name.starts_with("x-last-death-")
}

/// W3C Trace Context, as OpenTelemetry carries it over AMQP.
pub const TRACEPARENT: &str = "traceparent";

/// What begins the attributes of a binary CloudEvent: the AMQP binding's own mark, and the one
/// for clients that cannot write a colon.
pub(super) const CLOUD_EVENT_PREFIXES: [&str; 2] = ["cloudEvents:", "cloudEvents_"];

/// More attempts than any policy allows; a count beyond is taken for this.
const ATTEMPTS_MAX: i64 = 10_000;

/// The headers of a message, whatever holds them. A header of another type is none.
pub trait HeaderSource {
    fn text(&self, name: &str) -> Option<&str>;
    /// Any whole number, however wide it was sent.
    fn int(&self, name: &str) -> Option<i64>;
    fn bool(&self, name: &str) -> Option<bool>;
    /// The message's property `content_encoding`, where the headers come with a message.
    fn content_encoding(&self) -> Option<&str> {
        None
    }
}

/// No headers at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHeaders;

impl HeaderSource for NoHeaders {
    fn text(&self, _: &str) -> Option<&str> {
        None
    }
    fn int(&self, _: &str) -> Option<i64> {
        None
    }
    fn bool(&self, _: &str) -> Option<bool> {
        None
    }
}

/// A header to be sent. Times travel as RFC 3339 text: AMQP's own have whole seconds only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    Text(String),
    Int(i64),
    Bool(bool),
}

pub type HeaderName = (&'static str, HeaderValue);

impl HeaderSource for [HeaderName] {
    fn text(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|header| match header {
            (key, HeaderValue::Text(text)) if *key == name => Some(text.as_str()),
            _ => None,
        })
    }
    fn int(&self, name: &str) -> Option<i64> {
        self.iter().find_map(|header| match header {
            (key, HeaderValue::Int(number)) if *key == name => Some(*number),
            _ => None,
        })
    }
    fn bool(&self, name: &str) -> Option<bool> {
        self.iter().find_map(|header| match header {
            (key, HeaderValue::Bool(flag)) if *key == name => Some(*flag),
            _ => None,
        })
    }
}

/// Where a request was first published, kept across the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageOrigin<'a> {
    pub exchange: &'a str,
    pub routing_key: &'a str,
}

impl<'a> MessageOrigin<'a> {
    /// As the headers tell, else as it was delivered.
    pub fn of(headers: &'a (impl HeaderSource + ?Sized), delivered: Self) -> Self {
        let exchange = headers.text(ORIGINAL_EXCHANGE);
        let routing_key = headers.text(ORIGINAL_ROUTING_KEY);
        match (exchange, routing_key) {
            (Some(exchange), Some(routing_key)) => Self {
                exchange,
                routing_key,
            },
            _ => delivered,
        }
    }
}

/// What earlier deliveries left, as far as it can be believed.
pub fn attempt_history(headers: &(impl HeaderSource + ?Sized), now: Timestamp) -> AttemptHistory {
    let maybe_applied = headers.bool(MAYBE_APPLIED).unwrap_or_else(|| {
        // Some tools turn every header into text. Wrongly believed, it costs one call.
        headers.text(MAYBE_APPLIED) == Some("true")
    });
    let replay = headers.text(REPLAY).and_then(|id| Uuid::try_parse(id).ok());
    // A dead letter that a shovel brought back starts anew, else it would fail at once again.
    if headers.text(FAILED_AT).is_some() {
        return AttemptHistory {
            maybe_applied,
            replay,
            ..AttemptHistory::default()
        };
    }
    let attempts = headers.int(ATTEMPTS).unwrap_or(0).clamp(0, ATTEMPTS_MAX);
    // Another worker's clock may be ahead; a time to come would never run out.
    let past = |name| {
        let at = headers.text(name).and_then(timestamp::parse);
        at.map(|at| at.min(now))
    };
    AttemptHistory {
        attempts: u32::try_from(attempts).unwrap_or(0),
        first_attempt_at: past(FIRST_ATTEMPT_AT),
        maybe_applied,
        unclear: headers.bool(UNCLEAR).unwrap_or(false),
        refused_since: past(REFUSED_SINCE),
        copy: headers.int(COPY).and_then(|copy| u64::try_from(copy).ok()),
        replay,
    }
}

/// What a deferred copy carries beside the message's own headers.
#[must_use]
pub fn copy_headers(carried: &AttemptHistory, origin: MessageOrigin<'_>) -> Vec<HeaderName> {
    let mut headers = origin_headers(origin);
    headers.push((ATTEMPTS, HeaderValue::Int(carried.attempts.into())));
    if let Some(first) = carried.first_attempt_at {
        headers.push((FIRST_ATTEMPT_AT, time(first)));
    }
    // Said even when false, so that it overwrites what the message brought.
    headers.push((MAYBE_APPLIED, HeaderValue::Bool(carried.maybe_applied)));
    headers.push((UNCLEAR, HeaderValue::Bool(carried.unclear)));
    if let Some(since) = carried.refused_since {
        headers.push((REFUSED_SINCE, time(since)));
    }
    if let Some(copy) = carried.copy.and_then(|copy| i64::try_from(copy).ok()) {
        headers.push((COPY, HeaderValue::Int(copy)));
    }
    if let Some(id) = carried.replay {
        headers.push((REPLAY, HeaderValue::Text(id.to_string())));
    }
    headers
}

/// What a dead letter carries beside the message's own headers.
#[must_use]
pub fn dead_letter_headers(
    failed: &Failed,
    request_id: Option<Uuid>,
    origin: MessageOrigin<'_>,
) -> Vec<HeaderName> {
    let text = |text: &str| HeaderValue::Text(text.into());
    let mut headers = origin_headers(origin);
    headers.push((REASON, text(failed.reason.as_str())));
    headers.push((DETAIL, text(&failed.detail)));
    headers.push((ATTEMPTS, HeaderValue::Int(failed.attempts.into())));
    headers.push((FAILED_AT, time(failed.failed_at)));
    if let Some(status) = failed.http_status {
        headers.push((HTTP_STATUS, HeaderValue::Int(status.into())));
    }
    if let Some(first) = failed.first_attempt_at {
        headers.push((FIRST_ATTEMPT_AT, time(first)));
    }
    if let Some(id) = request_id {
        headers.push((REQUEST_ID, HeaderValue::Text(id.to_string())));
    }
    headers
}

fn origin_headers(origin: MessageOrigin<'_>) -> Vec<HeaderName> {
    let MessageOrigin {
        exchange,
        routing_key,
    } = origin;
    vec![
        (ORIGINAL_EXCHANGE, HeaderValue::Text(exchange.into())),
        (ORIGINAL_ROUTING_KEY, HeaderValue::Text(routing_key.into())),
    ]
}

fn time(instant: Timestamp) -> HeaderValue {
    HeaderValue::Text(timestamp::format(instant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::outcome::Reason;

    const ORIGIN: MessageOrigin<'_> = MessageOrigin {
        exchange: "rename.requests",
        routing_key: "rename.T12345678",
    };

    fn at(text: &str) -> Timestamp {
        timestamp::parse(text).unwrap()
    }

    fn now() -> Timestamp {
        at("2026-11-24T10:00:00Z")
    }

    #[test]
    fn what_a_deferred_copy_carries_is_read_back() {
        let carried_out = AttemptHistory {
            attempts: 3,
            first_attempt_at: Some(at("2026-11-24T09:00:00.125Z")),
            maybe_applied: true,
            unclear: true,
            refused_since: Some(at("2026-11-24T09:30:00Z")),
            copy: Some(7 << 40),
            replay: Some(Uuid::max()),
        };
        let headers = copy_headers(&carried_out, ORIGIN);
        assert_eq!(attempt_history(&headers[..], now()), carried_out);
        let ladder = MessageOrigin {
            exchange: "",
            routing_key: "rename.requests",
        };
        assert_eq!(MessageOrigin::of(&headers[..], ladder), ORIGIN);
        assert_eq!(MessageOrigin::of(&NoHeaders, ladder), ladder);
    }

    #[test]
    fn forged_headers_are_bounded_or_ignored() {
        let text = |text: &str| HeaderValue::Text(text.into());
        let anew = AttemptHistory::default();
        for (header, believed) in [
            ((ATTEMPTS, HeaderValue::Int(i64::MIN)), anew.clone()),
            ((COPY, HeaderValue::Int(-1)), anew.clone()),
            ((COPY, text("7")), anew.clone()),
            ((REPLAY, text("again")), anew.clone()),
            ((ATTEMPTS, text("7")), anew.clone()),
            (
                (ATTEMPTS, HeaderValue::Int(i64::MAX)),
                AttemptHistory {
                    attempts: 10_000,
                    ..anew.clone()
                },
            ),
            ((FIRST_ATTEMPT_AT, text("yesterday")), anew.clone()),
            ((FIRST_ATTEMPT_AT, HeaderValue::Int(0)), anew.clone()),
            (
                (FIRST_ATTEMPT_AT, text("9999-12-31T23:59:59Z")),
                AttemptHistory {
                    first_attempt_at: Some(now()),
                    ..anew.clone()
                },
            ),
            ((REFUSED_SINCE, text("yesterday")), anew.clone()),
            (
                (REFUSED_SINCE, text("9999-12-31T23:59:59Z")),
                AttemptHistory {
                    refused_since: Some(now()),
                    ..anew.clone()
                },
            ),
            ((UNCLEAR, text("yes")), anew.clone()),
            ((MAYBE_APPLIED, HeaderValue::Int(1)), anew.clone()),
            (
                (MAYBE_APPLIED, text("true")),
                AttemptHistory {
                    maybe_applied: true,
                    ..anew.clone()
                },
            ),
        ] {
            assert_eq!(
                attempt_history(&[header.clone()][..], now()),
                believed,
                "{header:?}"
            );
        }
    }

    #[test]
    fn every_header_and_every_reason_is_in_the_document() {
        // Read, not included: the image is compiled without the documents.
        let document = std::fs::read_to_string("docs/messages.md").unwrap();
        let beside = [
            REPLAY_OF,
            ORIGINAL_EXPIRATION,
            ORIGINAL_USER_ID,
            ORIGINAL_REPLY_TO,
            ORIGINAL_CC,
            ORIGINAL_BCC,
            ORIGINAL_DEATHS,
        ];
        let reasons = Reason::ALL.map(Reason::as_str);
        for name in ALL.into_iter().chain(beside).chain(reasons) {
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_dead_letter_that_comes_back_starts_anew() {
        let failed = Failed {
            reason: Reason::RetriesExhausted,
            detail: "12 attempts, the last answered 503".into(),
            http_status: Some(503),
            attempts: 12,
            first_attempt_at: Some(at("2026-11-23T10:00:00Z")),
            failed_at: now(),
        };
        let mut headers = dead_letter_headers(&failed, Some(Uuid::nil()), ORIGIN);
        assert_eq!(headers.len(), 9, "as many as the contract lists");
        headers.push((MAYBE_APPLIED, HeaderValue::Bool(true)));
        let anew = AttemptHistory {
            maybe_applied: true,
            ..AttemptHistory::default()
        };
        assert_eq!(attempt_history(&headers[..], now()), anew);
    }
}
