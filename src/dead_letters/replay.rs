//! Letters sent again, as new requests: each published, confirmed, and only then taken.
//!
//! Killed at any point, a letter is still in its queue or its replay is confirmed, or both: then it
//! is replayed twice. That is why a replay says that it may have been applied: the worker then
//! confirms by itself before it tells a failure, so a second replay changes nothing.

mod work;

use std::num::NonZeroU32;

use uuid::Uuid;

use super::dead_letter::{DeadLetter, LetterId};
use super::edits::LetterEdits;
use super::review_session::{AbortReason, ReviewProgress, ReviewSession};
use super::selection::LetterSelection;
use crate::broker::DeadLetterQueue;
use crate::messages::headers;
use crate::messages::message::{MessageField, MessageView};
use crate::messages::request;

/// How letters are sent again.
#[derive(Debug)]
pub struct ReplayOptions {
    /// What all replays of one run have in common.
    pub run: Uuid,
    pub amendments: LetterEdits,
}

/// A letter that is no valid request, or is none any more; it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLetter {
    pub letter: LetterId,
    pub why: Box<str>,
}

/// What came of a replay.
#[derive(Debug, Default)]
pub struct ReplayResult {
    /// Confirmed, and taken.
    pub replayed: u64,
    /// Of those, how many the broker refused with their properties and headers, so that they were
    /// sent without them.
    pub without_properties: u64,
    /// Not sent, since no valid request; they stay. The first [`REFUSALS_LISTED`] of them.
    pub refused: Vec<RefusedLetter>,
    pub refused_count: u64,
    /// Not found any more: something else took or holds them.
    pub gone: u64,
    /// Not sent or not confirmed when it stopped; they stay.
    pub left: u64,
    /// Those of them that were sent and not confirmed: the broker may have them or not.
    pub unconfirmed: u64,
    pub stop: Option<AbortReason>,
}

/// Refusals that are kept in full.
pub const REFUSALS_LISTED: usize = 1000;
/// AMQP's routing keys have so many bytes at most.
const ROUTING_KEY_MAX: usize = 255;
/// AMQP's mark of a message that survives the broker's restart.
const PERSISTENT: u8 = 2;

impl ReplayOptions {
    /// The request as it is sent again to that exchange, or all that is wrong with it.
    pub fn prepare(&self, letter: &DeadLetter, exchange: &str) -> Result<MessageView, Box<str>> {
        let body = self.amendments.body(letter)?;
        let mut properties = letter.message.properties.clone();
        if let Some(kind) = self.amendments.content_type() {
            properties.content_type = Some(kind.to_owned());
        }
        // The first would drop it after a while, the second end our channel unless it is us.
        properties.expiration = None;
        properties.user_id = None;
        properties.delivery_mode = Some(PERSISTENT);
        let mut kept = letter.message.headers.clone();
        kept.retain(|name, _| !is_of_the_letter(name));
        let kind = properties.content_type.as_deref();
        request::read(&body, kind, &kept).map_err(|unreadable| unreadable.detail)?;
        for (name, value) in self.marks(letter) {
            kept.insert(name.to_owned(), value);
        }
        let origin = letter.origin().routing_key;
        let routing_key = if origin.len() <= ROUTING_KEY_MAX {
            origin
        } else {
            &letter.message.routing_key
        };
        Ok(MessageView {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            properties,
            headers: kept,
            body,
        })
    }

    fn marks(&self, letter: &DeadLetter) -> [(&'static str, MessageField); 3] {
        let request = letter.request_uuid().map(|id| id.to_string());
        let failed_at = letter.text(headers::FAILED_AT);
        let of = format!(
            "{} failed at {}",
            request.as_deref().unwrap_or("?"),
            failed_at.unwrap_or("?")
        );
        [
            (headers::REPLAY, self.run.to_string().into()),
            (headers::REPLAY_OF, of.into()),
            (headers::MAYBE_APPLIED, MessageField::Bool(true)),
        ]
    }
}

/// The prepared request, on its way to the queue that upstream cannot write: there the worker
/// believes what a replay says of itself. Where it was to go is kept in its headers.
fn via_due(mut message: MessageView, review: &DeadLetterQueue) -> MessageView {
    let exchange = std::mem::replace(&mut message.exchange, review.internal().to_owned());
    let routing_key = std::mem::replace(&mut message.routing_key, review.due().to_owned());
    let origin = [
        (headers::ORIGINAL_EXCHANGE, exchange),
        (headers::ORIGINAL_ROUTING_KEY, routing_key),
    ];
    for (name, value) in origin {
        message.headers.insert(name.to_owned(), value.into());
    }
    message
}

/// Headers that say what was true of the letter, or would send copies elsewhere.
fn is_of_the_letter(name: &str) -> bool {
    name.starts_with(headers::PREFIX)
        || headers::is_x_death_header(name)
        || matches!(name, "CC" | "BCC")
}

impl ReviewSession {
    /// Sends the selected letters again, at most `rate` a second. When `interrupt` comes nothing
    /// more is begun.
    pub async fn replay(
        &self,
        replay: &ReplayOptions,
        selection: LetterSelection,
        rate: Option<NonZeroU32>,
        progress: impl Fn(ReviewProgress),
        interrupt: impl Future<Output = ()>,
    ) -> ReplayResult {
        let work = work::ReplayRun::new(&self.review, replay, selection, rate, progress);
        work.run(std::pin::pin!(interrupt)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::dead_letter::tests::{BODY, headers_of, letter};
    use crate::dead_letters::edits::FieldEdit;
    use crate::messages::headers::{ALL, HeaderSource as _};

    const AT: &str = "2026-11-24T09:00:00.000Z";

    fn replay(sets: &[&str]) -> ReplayOptions {
        let sets: Vec<FieldEdit> = sets.iter().map(|set| set.parse().unwrap()).collect();
        ReplayOptions {
            run: Uuid::max(),
            amendments: LetterEdits::new(sets, None),
        }
    }

    #[test]
    fn a_replay_starts_anew_and_says_what_it_is() {
        let mut message = letter("username_taken", AT).message;
        for name in ALL {
            message
                .headers
                .entry(name.to_owned())
                .or_insert(MessageField::Void);
        }
        message.headers.extend(headers_of(&[
            ("x-rename-original-expiration", "1000"),
            ("x-first-death-queue", "q"),
            ("CC", "elsewhere"),
            ("traceparent", "00-a-b-01"),
            ("mine", "kept"),
        ]));
        message.properties.expiration = Some("1000".into());
        message.properties.user_id = Some("upstream".into());
        message.properties.correlation_id = Some("c".into());
        let sent = replay(&[])
            .prepare(&DeadLetter::new(message, 7), "rename.requests")
            .unwrap();
        assert_eq!(sent.exchange, "rename.requests");
        assert_eq!(sent.routing_key, "rename.T12345678");
        assert_eq!(sent.body, BODY.as_bytes());
        assert_eq!(sent.properties.expiration, None);
        assert_eq!(sent.properties.user_id, None);
        assert_eq!(sent.properties.delivery_mode, Some(2));
        assert_eq!(sent.properties.correlation_id.as_deref(), Some("c"));
        let names: Vec<_> = sent.headers.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "mine",
                "traceparent",
                "x-rename-maybe-applied",
                "x-rename-replay",
                "x-rename-replay-of"
            ]
        );
        assert_eq!(
            sent.headers.text(headers::REPLAY_OF),
            Some("3c90c3cc-0d44-4b50-8888-8dd25736052a failed at 2026-11-24T09:00:00.000Z")
        );
        let carried = headers::attempt_history(&sent.headers, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(carried.replay, Some(Uuid::max()));
        assert!(carried.maybe_applied && carried.attempts == 0 && carried.copy.is_none());
    }

    #[test]
    fn what_is_no_valid_request_is_refused_before_and_after_a_change() {
        let mut message = letter("invalid_request", AT).message;
        message.body = BODY.replace("kari", "").into();
        let letter = DeadLetter::new(message, 0);
        let prepare = |sets: &[&str]| replay(sets).prepare(&letter, "e").map(|_| ());
        assert_eq!(prepare(&[]).unwrap_err(), "/new_username: is empty".into());
        prepare(&["new_username=kari"]).unwrap();
        let told = prepare(&["new_username=kari", "account_id=x"]).unwrap_err();
        assert!(told.starts_with("/account_id"), "{told}");
    }

    #[test]
    fn a_content_type_that_was_wrong_can_be_set() {
        let mut message = letter("invalid_request", AT).message;
        message.properties.content_type = Some("text/plain".into());
        let letter = DeadLetter::new(message, 0);
        replay(&[]).prepare(&letter, "e").unwrap_err();
        let replay = ReplayOptions {
            run: Uuid::nil(),
            amendments: LetterEdits::new(Vec::new(), Some("application/json".into())),
        };
        let sent = replay.prepare(&letter, "e").unwrap();
        let kind = sent.properties.content_type;
        assert_eq!(kind.as_deref(), Some("application/json"));
    }

    #[test]
    fn a_letter_that_says_nothing_can_be_replayed() {
        let message = MessageView {
            routing_key: "any".into(),
            body: BODY.into(),
            ..MessageView::default()
        };
        let sent = replay(&[])
            .prepare(&DeadLetter::new(message, 0), "e")
            .unwrap();
        assert_eq!(sent.routing_key, "any");
        let of = sent.headers.text(headers::REPLAY_OF).unwrap();
        assert_eq!(of, "3c90c3cc-0d44-4b50-8888-8dd25736052a failed at ?");
    }

    #[test]
    fn what_it_is_a_replay_of_never_names_a_person() {
        let mut message = letter("invalid_request", AT).message;
        let uuid = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
        message.body = BODY.replace(uuid, "ola@example.com").into();
        message.headers.remove(headers::REQUEST_ID);
        let sets = [format!("request_id={uuid}")];
        let sent = replay(&[&sets[0]])
            .prepare(&DeadLetter::new(message, 0), "e")
            .unwrap();
        let of = sent.headers.text(headers::REPLAY_OF);
        assert_eq!(of, Some("? failed at 2026-11-24T09:00:00.000Z"));
    }

    #[test]
    fn a_forged_routing_key_is_not_believed_beyond_its_length() {
        let mut message = letter("poison", AT).message;
        let long = "x".repeat(256);
        let key = headers::ORIGINAL_ROUTING_KEY.to_owned();
        message.headers.insert(key, long.into());
        let sent = replay(&[])
            .prepare(&DeadLetter::new(message, 0), "e")
            .unwrap();
        assert_eq!(sent.routing_key, "rename.T12345678");
    }
}
