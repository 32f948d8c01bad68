//! What the worker tells: `user.renamed` and `user.rename-failed`, as CloudEvents 1.0.
//!
//! The fields of `data` are always there, null where nothing is known; the envelope's optional
//! attributes are left out instead, as CloudEvents has it. Publishing is `broker`'s business.

use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::Serialize;
use uuid::Uuid;

use super::request::PartialRequest;
use super::timestamp::Rfc3339Millis;
use crate::core::model::outcome::{Failed, Reason, Renamed};
use crate::core::model::request::RenameRequest;

/// The type of the event that tells a rename; also its routing key.
pub const RENAMED: &str = "user.renamed";
/// The type of the event that tells a failure; also its routing key.
pub const RENAME_FAILED: &str = "user.rename-failed";

/// The `dataschema` of each: what its `data` keeps to, within the schema of the whole event.
pub(super) const RENAMED_DATA_SCHEMA: &str =
    "urn:rename-worker:schema:user-renamed#/$defs/RenamedData";
pub(super) const RENAME_FAILED_DATA_SCHEMA: &str =
    "urn:rename-worker:schema:user-rename-failed#/$defs/FailedData";
/// The content type of both.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Event ids' own namespace, chosen at random. It never changes: ids told before must be told
/// again the same.
const EVENT_IDS: Uuid = Uuid::from_u128(0x9dbb_cf03_849b_4998_9100_e847_31da_fcea);

/// An event, ready to publish.
#[derive(Clone, PartialEq, Eq)]
pub struct EventMessage {
    /// The same for each telling of the same outcome.
    pub id: Uuid,
    pub event_type: &'static str,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for EventMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventMessage")
            .field("id", &self.id)
            .field("event_type", &self.event_type)
            .finish_non_exhaustive()
    }
}

/// Whom a failure is told of: a request, or what could be read of one.
#[derive(Debug, Clone, Copy)]
pub enum FailedSubject<'a> {
    Request(&'a RenameRequest),
    Partial(&'a PartialRequest),
}

impl<'a> From<&'a RenameRequest> for FailedSubject<'a> {
    fn from(request: &'a RenameRequest) -> Self {
        Self::Request(request)
    }
}

impl<'a> From<&'a PartialRequest> for FailedSubject<'a> {
    fn from(partial: &'a PartialRequest) -> Self {
        Self::Partial(partial)
    }
}

/// Tells a rename that took effect; `trace` is the W3C traceparent.
#[must_use]
pub fn renamed(
    source: &str,
    request: &RenameRequest,
    outcome: &Renamed,
    trace: Option<&str>,
) -> EventMessage {
    let user_id = outcome.user_id.or(request.user_id);
    let data = RenamedData {
        request_id: request.request_id,
        account_id: request.account_id.as_str(),
        previous_username: request.username.reveal(),
        username: outcome
            .username
            .as_ref()
            .unwrap_or(&request.new_username)
            .reveal(),
        user_id,
        outcome: outcome.how.as_str(),
        confirmed_by: outcome.confirmed_by.as_str(),
        attempts: outcome.attempts,
        requested_at: request.requested_at.map(Rfc3339Millis),
        completed_at: Rfc3339Millis(outcome.completed_at),
    };
    EventEnvelope {
        specversion: "1.0",
        id: event_id(&request.request_id.to_string(), RENAMED),
        source,
        event_type: RENAMED,
        subject: user_id,
        time: data.completed_at,
        datacontenttype: "application/json",
        dataschema: RENAMED_DATA_SCHEMA,
        traceparent: trace,
        data,
    }
    .into_message()
}

/// Tells a failure; `trace` is the W3C traceparent.
#[must_use]
pub fn failed<'a>(
    source: &str,
    subject: impl Into<FailedSubject<'a>>,
    failed: &Failed,
    trace: Option<&str>,
) -> EventMessage {
    let subject = subject.into();
    let (request_id, user_id) = match subject {
        FailedSubject::Request(request) => (Some(request.request_id), request.user_id),
        FailedSubject::Partial(partial) => (partial.request_uuid(), None),
    };
    let id = match (request_id, subject) {
        (None, FailedSubject::Partial(partial)) => event_id(
            &format!("unreadable:{}", partial.fingerprint),
            RENAME_FAILED,
        ),
        (id, _) => event_id(&id.unwrap_or_default().to_string(), RENAME_FAILED),
    };
    let data = FailedData::new(subject, failed);
    EventEnvelope {
        specversion: "1.0",
        id,
        source,
        event_type: RENAME_FAILED,
        subject: user_id,
        time: data.failed_at,
        datacontenttype: "application/json",
        dataschema: RENAME_FAILED_DATA_SCHEMA,
        traceparent: trace,
        data,
    }
    .into_message()
}

fn event_id(request: &str, event_type: &str) -> Uuid {
    Uuid::new_v5(&EVENT_IDS, format!("{request}/{event_type}").as_bytes())
}

#[derive(Serialize, JsonSchema)]
pub(super) struct EventEnvelope<'a, D> {
    #[schemars(extend("const" = "1.0"))]
    specversion: &'static str,
    /// A version 5 UUID of request id and type: a repeat has the same id.
    id: Uuid,
    /// The worker that tells it; `events.source` in its settings.
    #[schemars(extend("format" = "uri-reference"))]
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'static str,
    /// The user's id, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "uuid")]
    subject: Option<Uuid>,
    /// When the outcome came about.
    time: Rfc3339Millis,
    #[schemars(extend("const" = "application/json"))]
    datacontenttype: &'static str,
    /// The part of this schema that describes `data`.
    #[schemars(extend("format" = "uri"))]
    dataschema: &'static str,
    /// W3C Trace Context (the CloudEvents extension for distributed tracing), if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text")]
    traceparent: Option<&'a str>,
    data: D,
}

impl<D: Serialize> EventEnvelope<'_, D> {
    fn into_message(self) -> EventMessage {
        /// Above a usual event's size, in bytes, so that its buffer is got once.
        const DEFAULT_PROPERTIES: usize = 1024;
        let mut body = Vec::with_capacity(DEFAULT_PROPERTIES);
        serde_json::to_writer(&mut body, &self).expect("text, ids and times are always JSON");
        EventMessage {
            id: self.id,
            event_type: self.event_type,
            body,
        }
    }
}

/// What came of a request that was carried out.
#[derive(Serialize, JsonSchema)]
pub(super) struct RenamedData<'a> {
    /// The request's.
    request_id: Uuid,
    /// The request's.
    account_id: &'a str,
    /// The name the user bore before: the request's `username`.
    previous_username: &'a str,
    /// The name the user bears now: the request's `new_username`, as the API spells it.
    username: &'a str,
    /// The user's id, as the API told it, else as the request did.
    user_id: Option<Uuid>,
    /// `applied` by this try, or `already_applied`: by an earlier one whose answer was lost.
    #[schemars(extend("enum" = ["applied", "already_applied"]))]
    outcome: &'static str,
    /// What this rests on: the API's `answer` to the rename; the `user_id` that now bears the new
    /// name; or only that the new `name` exists, whose it is being unknown.
    #[schemars(extend("enum" = ["answer", "user_id", "name"]))]
    confirmed_by: &'static str,
    /// The attempts it took.
    attempts: u32,
    /// The request's.
    requested_at: Option<Rfc3339Millis>,
    completed_at: Rfc3339Millis,
}

/// What came of a request that failed. A body that was no valid request is told as far as it
/// could be read; parts may then be missing or not in their form.
#[derive(Serialize, JsonSchema)]
pub(super) struct FailedData<'a> {
    /// The request's.
    request_id: Option<EventId<'a>>,
    /// The request's.
    account_id: Option<&'a str>,
    /// The request's.
    username: Option<&'a str>,
    /// The request's.
    new_username: Option<&'a str>,
    /// Why, for programs.
    #[schemars(schema_with = "reason")]
    reason: &'static str,
    /// What exactly was wrong, for people. It holds no usernames.
    detail: &'a str,
    /// The status of the answer that decided, if one did.
    #[schemars(range(min = 100, max = 599))]
    http_status: Option<u16>,
    /// The attempts that were made.
    attempts: u32,
    first_attempt_at: Option<Rfc3339Millis>,
    failed_at: Rfc3339Millis,
}

/// A request's id, or what was given for one.
#[derive(Serialize)]
#[serde(untagged)]
enum EventId<'a> {
    Valid(Uuid),
    AsGiven(&'a str),
}

impl JsonSchema for EventId<'_> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        text(generator)
    }
}

impl<'a> FailedData<'a> {
    fn new(subject: FailedSubject<'a>, failed: &'a Failed) -> Self {
        let (request_id, account_id, username, new_username) = match subject {
            FailedSubject::Request(request) => (
                Some(EventId::Valid(request.request_id)),
                Some(request.account_id.as_str()),
                Some(request.username.reveal()),
                Some(request.new_username.reveal()),
            ),
            FailedSubject::Partial(partial) => (
                partial.request_id.as_deref().map(EventId::AsGiven),
                partial.account_id.as_deref(),
                partial.username.as_deref(),
                partial.new_username.as_deref(),
            ),
        };
        Self {
            request_id,
            account_id,
            username,
            new_username,
            reason: failed.reason.as_str(),
            detail: &failed.detail,
            http_status: failed.http_status,
            attempts: failed.attempts,
            first_attempt_at: failed.first_attempt_at.map(Rfc3339Millis),
            failed_at: Rfc3339Millis(failed.failed_at),
        }
    }
}

fn uuid(_: &mut SchemaGenerator) -> schemars::Schema {
    json_schema!({"type": "string", "format": "uuid"})
}

fn text(_: &mut SchemaGenerator) -> schemars::Schema {
    json_schema!({"type": "string"})
}

fn reason(_: &mut SchemaGenerator) -> schemars::Schema {
    json_schema!({"type": "string", "enum": Reason::ALL.map(Reason::as_str)})
}

#[cfg(test)]
mod tests;
