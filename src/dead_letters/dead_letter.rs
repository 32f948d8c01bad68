//! One dead letter: what it is called, why it is here, since when, and what it asks for.
//!
//! Most were written by the worker and say all of that in their headers. Others were put here by
//! the broker, at its delivery limit, or by a shovel or a person; they say less, and never lie
//! outside the review for it.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

use crate::messages::headers;
use crate::messages::headers::{HeaderSource as _, MessageOrigin};
use crate::messages::message::{MessageField, MessageView};
use crate::messages::{request, timestamp};

/// A letter's name, the same at each look: made from what a look cannot change, so that the same
/// letter has it also after an export and an import. Letters that are equal in all of that share it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(Uuid);

/// Hexadecimal digits of an id that are shown: of a million letters, the chance that two share them
/// is 1 in 500.
const SHORT: usize = 12;
/// Letters' own namespace of UUIDs; chosen at random.
const LETTERS: Uuid = Uuid::from_u128(0x37c9_01f4_6e7b_4b0a_9d0e_55c1_7a1f_28b3);

/// The reason of a letter that does not say any.
const UNKNOWN: &str = "unknown";
/// What is put before the broker's own reasons, since `rejected` is one of the worker's as well.
const BROKER: &str = "broker_";

/// A letter.
#[derive(Debug)]
pub struct DeadLetter {
    pub id: LetterId,
    pub message: MessageView,
    /// How often the broker says that it was delivered before, looks included.
    pub deliveries: u32,
}

/// What a letter asks for, valid or not, as far as it can be read. `Debug` hides it.
#[derive(Default, PartialEq, Eq)]
pub struct RequestFields {
    pub request_id: Option<String>,
    pub account_id: Option<String>,
    pub username: Option<String>,
    pub new_username: Option<String>,
    /// All that is wrong with it, if it is no valid request.
    pub wrong: Option<Box<str>>,
}

/// Who put a letter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderAuthor {
    Worker,
    /// RabbitMQ itself, dead-lettering it from a queue.
    Broker,
    /// A shovel, a person, anything.
    Unknown,
}

/// One entry of RabbitMQ's own history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XDeathEntry {
    pub queue: String,
    pub reason: String,
    pub count: i64,
    pub at: Option<Timestamp>,
}

impl DeadLetter {
    #[must_use]
    pub fn new(message: MessageView, deliveries: u32) -> Self {
        Self {
            id: LetterId::of(&message),
            message,
            deliveries,
        }
    }

    /// Who put it here. The worker's headers alone prove nothing: a publisher may have sent them with
    /// a request that the broker then moved here. But the broker notes in `x-death` what it moves,
    /// the latest first, whatever a publisher wrote there; and what a publisher wrote there is under
    /// another name in what the worker publishes.
    #[must_use]
    pub fn written_by(&self) -> HeaderAuthor {
        let has_reason = self.message.headers.text(headers::REASON).is_some();
        match self.last_death() {
            Some(death) if !has_reason || is_of_requests(death) => HeaderAuthor::Broker,
            _ if has_reason => HeaderAuthor::Worker,
            _ => HeaderAuthor::Unknown,
        }
    }

    /// A header that the worker adds to a letter; none where the worker did not write the letter.
    fn by_worker(&self, name: &str) -> Option<&str> {
        let is_told = self.written_by() == HeaderAuthor::Worker;
        is_told.then(|| self.text(name)).flatten()
    }

    /// The same, for a whole number.
    fn number_by_worker(&self, name: &str) -> Option<i64> {
        let is_told = self.written_by() == HeaderAuthor::Worker;
        is_told.then(|| self.message.headers.int(name)).flatten()
    }

    /// The status of the answer that decided, if the worker says so.
    #[must_use]
    pub fn http_status(&self) -> Option<i64> {
        self.number_by_worker(headers::HTTP_STATUS)
    }

    /// How many attempts were made, if the worker says so.
    #[must_use]
    pub fn attempts(&self) -> Option<i64> {
        self.number_by_worker(headers::ATTEMPTS)
    }

    /// When the first attempt was made, if the worker says so.
    #[must_use]
    pub fn first_attempt_at(&self) -> Option<Timestamp> {
        let told = self.by_worker(headers::FIRST_ATTEMPT_AT)?;
        timestamp::parse(told)
    }

    /// Why it is here, in one word: the worker's reason; `broker_delivery_limit` and its like; or
    /// `unknown`.
    #[must_use]
    pub fn reason(&self) -> Cow<'_, str> {
        if let Some(reason) = self.by_worker(headers::REASON) {
            return reason.into();
        }
        match self.last_death().and_then(|death| death.get("reason")) {
            Some(reason) => format!("{BROKER}{}", reason.as_text().unwrap_or(UNKNOWN)).into(),
            None => UNKNOWN.into(),
        }
    }

    /// What exactly was wrong. It holds no username, unless somebody forged it.
    #[must_use]
    pub fn detail(&self) -> Cow<'_, str> {
        if let Some(detail) = self.by_worker(headers::DETAIL) {
            return detail.into();
        }
        match self.written_by() {
            HeaderAuthor::Worker => "".into(),
            HeaderAuthor::Broker => {
                let queue = self.last_death().and_then(|death| death.get("queue"));
                let queue = queue.and_then(MessageField::as_text).unwrap_or("a queue");
                format!("taken from {queue} by the broker").into()
            }
            HeaderAuthor::Unknown => match self.asked().wrong {
                Some(wrong) => wrong.into_string().into(),
                None => "a valid request that says no reason".into(),
            },
        }
    }

    /// When it failed; for letters that do not say, when the broker took it, else when it was sent.
    #[must_use]
    pub fn failed_at(&self) -> Option<Timestamp> {
        let told = match self.written_by() {
            // The broker's own word comes first, below.
            HeaderAuthor::Broker => None,
            _ => self.text(headers::FAILED_AT).and_then(timestamp::parse),
        };
        let taken = || seconds(self.last_death()?.get("time")?.as_int());
        let sent = || {
            let sent = self.message.properties.timestamp?;
            seconds(i64::try_from(sent).ok())
        };
        told.or_else(taken).or_else(sent)
    }

    /// What it asks for.
    #[must_use]
    pub fn asked(&self) -> RequestFields {
        let message = &self.message;
        let kind = message.properties.content_type.as_deref();
        match request::read(&message.body, kind, &message.headers) {
            Ok(request) => RequestFields {
                request_id: Some(request.request_id.to_string()),
                account_id: Some(request.account_id.as_str().to_owned()),
                username: Some(request.username.reveal().to_owned()),
                new_username: Some(request.new_username.reveal().to_owned()),
                wrong: None,
            },
            Err(unreadable) => {
                let partial = unreadable.partial;
                RequestFields {
                    request_id: partial.request_id.map(Into::into),
                    account_id: partial.account_id.map(Into::into),
                    username: partial.username.map(Into::into),
                    new_username: partial.new_username.map(Into::into),
                    wrong: Some(unreadable.detail),
                }
            }
        }
    }

    /// The request's id, as the headers or else the body has it.
    #[must_use]
    pub fn request_id(&self) -> Option<Cow<'_, str>> {
        match self.by_worker(headers::REQUEST_ID) {
            Some(id) => Some(id.into()),
            None => self.asked().request_id.map(Cow::Owned),
        }
    }

    /// The same, if it is an id. Where fields were mixed up, a name may stand in its place, so only
    /// this one is told unasked.
    #[must_use]
    pub fn request_uuid(&self) -> Option<Uuid> {
        Uuid::try_parse(&self.request_id()?).ok()
    }

    /// Where the request was first published.
    #[must_use]
    pub fn origin(&self) -> MessageOrigin<'_> {
        let delivered = MessageOrigin {
            exchange: &self.message.exchange,
            routing_key: &self.message.routing_key,
        };
        MessageOrigin::of(&self.message.headers, delivered)
    }

    /// RabbitMQ's own history, the latest first; of a letter that the worker wrote, the history that
    /// the request came with.
    #[must_use]
    pub fn deaths(&self) -> Vec<XDeathEntry> {
        let headers = &self.message.headers;
        let history = headers.get(headers::X_DEATH);
        let history = history.or_else(|| headers.get(headers::ORIGINAL_DEATHS));
        let entries = history.and_then(MessageField::as_list).unwrap_or_default();
        let death = |entry: &MessageField| {
            let entry = entry.as_table()?;
            let text = |name: &str| {
                entry
                    .get(name)
                    .and_then(MessageField::as_text)
                    .map(str::to_owned)
            };
            let number = |name: &str| entry.get(name).and_then(MessageField::as_int);
            Some(XDeathEntry {
                queue: text("queue").unwrap_or_default(),
                reason: text("reason").unwrap_or_default(),
                count: number("count").unwrap_or(1),
                at: seconds(number("time")),
            })
        };
        entries.iter().filter_map(death).collect()
    }

    /// A header that is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.message.headers.text(name)
    }

    fn last_death(&self) -> Option<&std::collections::BTreeMap<String, MessageField>> {
        let history = self.message.headers.get(headers::X_DEATH)?;
        history.as_list()?.first()?.as_table()
    }
}

/// What ends the names of the queues that requests are consumed from.
const REQUEST_QUEUES: [&str; 2] = [".requests", ".due"];

/// Whether it says that the broker moved a request out of a queue that the worker consumes. Whatever
/// the message was before, it was none of the worker's letters.
fn is_of_requests(death: &std::collections::BTreeMap<String, MessageField>) -> bool {
    let queue = death.get("queue").and_then(MessageField::as_text);
    queue.is_some_and(|queue| REQUEST_QUEUES.iter().any(|end| queue.ends_with(end)))
}

fn seconds(since_1970: Option<i64>) -> Option<Timestamp> {
    Timestamp::from_second(since_1970?).ok()
}

impl LetterId {
    /// The name of the letter that has this message.
    #[must_use]
    pub fn of(message: &MessageView) -> Self {
        let failed_at = message.headers.text(headers::FAILED_AT).unwrap_or_default();
        let message_id = message.properties.message_id.as_deref().unwrap_or_default();
        let length = message.body.len().to_be_bytes();
        // Each part's end is told, so that no two different letters read alike.
        let parts = [
            &length[..],
            &message.body,
            message_id.as_bytes(),
            b"\0",
            failed_at.as_bytes(),
        ];
        Self(Uuid::new_v5(&LETTERS, &parts.concat()))
    }

    /// All 32 hexadecimal digits.
    #[must_use]
    pub fn full(self) -> String {
        self.0.simple().to_string()
    }
}

/// As it is shown, and good enough to name it by.
impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.full()[..SHORT])
    }
}

impl fmt::Debug for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for RequestFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub const BODY: &str = r#"{"request_id":"3c90c3cc-0d44-4b50-8888-8dd25736052a","account_id":"T12345678","username":"ola","new_username":"kari"}"#;

    /// A letter as the worker writes it.
    pub fn letter(reason: &str, failed_at: &str) -> DeadLetter {
        let message = MessageView {
            exchange: "rename.dead-letters".into(),
            routing_key: "rename.T12345678".into(),
            body: BODY.into(),
            headers: headers_of(&[
                (headers::REASON, reason),
                (headers::DETAIL, "the API answered 409"),
                (headers::FAILED_AT, failed_at),
                (headers::REQUEST_ID, "3c90c3cc-0d44-4b50-8888-8dd25736052a"),
                (headers::ORIGINAL_EXCHANGE, "rename.requests"),
                (headers::ORIGINAL_ROUTING_KEY, "rename.T12345678"),
            ]),
            ..MessageView::default()
        };
        DeadLetter::new(message, 0)
    }

    pub fn headers_of(texts: &[(&str, &str)]) -> BTreeMap<String, MessageField> {
        let header = |(name, text): &(&str, &str)| ((*name).to_owned(), MessageField::from(*text));
        texts.iter().map(header).collect()
    }

    fn taken_by_the_broker(reason: &str) -> DeadLetter {
        let death = [
            ("queue".to_owned(), MessageField::from("rename.requests")),
            ("reason".to_owned(), MessageField::from(reason)),
            ("count".to_owned(), MessageField::Int64(1)),
            ("time".to_owned(), MessageField::Timestamp(1_763_978_400)),
        ];
        let deaths = MessageField::List(vec![MessageField::Table(death.into())]);
        let message = MessageView {
            body: BODY.into(),
            headers: [(headers::X_DEATH.to_owned(), deaths)].into(),
            ..MessageView::default()
        };
        DeadLetter::new(message, 0)
    }

    #[test]
    fn the_worker_s_letters_tell_all_in_their_headers() {
        let letter = letter("username_taken", "2026-11-24T09:00:00.000Z");
        assert_eq!(letter.written_by(), HeaderAuthor::Worker);
        assert_eq!(letter.reason(), "username_taken");
        assert_eq!(letter.detail(), "the API answered 409");
        let failed_at = timestamp::parse("2026-11-24T09:00:00Z");
        assert_eq!(letter.failed_at(), failed_at);
        assert_eq!(letter.origin().exchange, "rename.requests");
    }

    #[test]
    fn the_broker_s_letters_tell_by_its_history() {
        let letter = taken_by_the_broker("delivery_limit");
        assert_eq!(letter.written_by(), HeaderAuthor::Broker);
        assert_eq!(letter.reason(), "broker_delivery_limit");
        assert_eq!(letter.detail(), "taken from rename.requests by the broker");
        assert_eq!(letter.failed_at().unwrap().as_second(), 1_763_978_400);
        let id = letter.request_id();
        assert_eq!(id.as_deref(), Some("3c90c3cc-0d44-4b50-8888-8dd25736052a"));
        assert_eq!(letter.deaths().len(), 1);
        // The worker's own word of that name means something else.
        assert_ne!(taken_by_the_broker("rejected").reason(), "rejected");
    }

    /// Such headers as the worker writes, sent by a publisher.
    const FORGED: [(&str, &str); 6] = [
        (headers::REASON, "username_taken"),
        (headers::DETAIL, "ask the administrator"),
        (headers::FAILED_AT, "2026-11-24T09:00:00.000Z"),
        (headers::REQUEST_ID, "00000000-0000-4000-8000-000000000000"),
        (headers::ATTEMPTS, "3"),
        (headers::FIRST_ATTEMPT_AT, "2026-11-24T08:00:00.000Z"),
    ];

    #[test]
    fn what_the_broker_moved_here_is_its_own_whatever_its_publisher_wrote() {
        for reason in ["expired", "delivery_limit", "maxlen", "rejected"] {
            let plain = taken_by_the_broker(reason);
            let mut message = taken_by_the_broker(reason).message;
            message.headers.extend(headers_of(&FORGED));
            for name in [headers::HTTP_STATUS, headers::ATTEMPTS] {
                message
                    .headers
                    .insert(name.to_owned(), MessageField::Int64(409));
            }
            let letter = DeadLetter::new(message, 0);
            assert_eq!(letter.written_by(), HeaderAuthor::Broker);
            assert_eq!(letter.reason(), plain.reason());
            assert_eq!(letter.detail(), plain.detail());
            assert_eq!(letter.failed_at(), plain.failed_at());
            assert_eq!(letter.request_id(), plain.request_id());
            assert_eq!((letter.http_status(), letter.attempts()), (None, None));
            assert_eq!(letter.first_attempt_at(), None);
        }
    }

    #[test]
    fn a_letter_of_the_worker_s_stays_so_whatever_history_it_has() {
        let at = "2026-11-24T09:00:00.000Z";
        let mut message = letter("username_taken", at).message;
        let forged = taken_by_the_broker("expired").message.headers;
        let forged = forged[headers::X_DEATH].clone();
        // As the worker keeps what a publisher sent.
        message
            .headers
            .insert(headers::ORIGINAL_DEATHS.to_owned(), forged);
        let kept = DeadLetter::new(message, 0);
        assert_eq!(kept.written_by(), HeaderAuthor::Worker);
        assert_eq!(kept.reason(), "username_taken");
        assert_eq!(kept.deaths().len(), 1, "it is shown as history");
        // As 0.1.0 left what had waited in its ladder; or moved from another queue of letters.
        for queue in ["rename.retry.5s", "rename.dead-letters", "elsewhere"] {
            let mut message = letter("username_taken", at).message;
            let death = [("queue".to_owned(), MessageField::from(queue))];
            let deaths = MessageField::List(vec![MessageField::Table(death.into())]);
            message.headers.insert(headers::X_DEATH.to_owned(), deaths);
            let letter = DeadLetter::new(message, 0);
            assert_eq!(letter.written_by(), HeaderAuthor::Worker, "{queue}");
        }
    }

    #[test]
    fn letters_from_anywhere_are_told_by_what_is_wrong_with_them() {
        let mut message = MessageView {
            body: BODY.into(),
            ..MessageView::default()
        };
        message.properties.timestamp = Some(1_763_978_400);
        let letter = DeadLetter::new(message, 0);
        assert_eq!(letter.written_by(), HeaderAuthor::Unknown);
        assert_eq!(letter.reason(), "unknown");
        assert_eq!(letter.detail(), "a valid request that says no reason");
        assert!(letter.failed_at().is_some());
        let letter = DeadLetter::new(MessageView::default(), 0);
        assert_eq!(letter.detail(), "the body is empty");
        assert_eq!(letter.failed_at(), None);
    }

    #[test]
    fn a_letter_keeps_its_name_and_shares_it_with_its_equals_only() {
        let one = letter("username_taken", "2026-11-24T09:00:00.000Z");
        let mut seen_again = letter("username_taken", "2026-11-24T09:00:00.000Z").message;
        seen_again.exchange = "elsewhere".into();
        assert_eq!(LetterId::of(&seen_again), one.id);
        let later = letter("username_taken", "2026-11-24T09:00:00.001Z");
        assert_ne!(later.id, one.id);
        seen_again.properties.message_id = Some("m".into());
        assert_ne!(LetterId::of(&seen_again), one.id);
        assert_eq!(one.id.to_string().len(), SHORT);
        assert!(one.id.full().starts_with(&one.id.to_string()));
    }

    #[test]
    fn forged_headers_do_no_harm() {
        let mut message = letter("username_taken", "soon").message;
        let wild = MessageField::List(vec![
            MessageField::Void,
            MessageField::Table(BTreeMap::new()),
        ]);
        message.headers.insert(headers::X_DEATH.to_owned(), wild);
        message.headers.remove(headers::REASON);
        message.properties.timestamp = Some(u64::MAX);
        let letter = DeadLetter::new(message, 0);
        assert_eq!(letter.failed_at(), None);
        assert_eq!(letter.reason(), "unknown");
        assert_eq!(letter.deaths().len(), 1);
    }
}
