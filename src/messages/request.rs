//! A request from its bytes: plain JSON, or inside a CloudEvent, structured or binary.
//!
//! A valid request is read in one pass without building a tree. Only when that fails is there a
//! second look, which says everything that is wrong and saves what can be read ([`partial`]).
//! A request from a name to itself is valid: the API answers it like any other.

mod encoded;
mod envelope;
mod violations;
mod partial;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::headers::HeaderSource;
use super::strict_object;
use super::strict_object::BoundedText;
use super::timestamp::{self, Rfc3339Millis};
use crate::core::model::request::{AccountId, RenameRequest, Username};

pub use partial::PartialRequest;

/// The names of a request's fields.
pub const FIELDS: [&str; 8] = NAMES;

/// The longest body that is taken for a request, in bytes: some hundred times a usual one.
pub const BODY_MAX: usize = 64 * 1024;

/// A body that is no valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRequest {
    /// Everything that is wrong, each with its JSON pointer, never with a value.
    pub detail: Box<str>,
    /// What could be read all the same.
    pub partial: PartialRequest,
}

/// Reads a request.
pub fn read(
    body: &[u8],
    content_type: Option<&str>,
    headers: &(impl HeaderSource + ?Sized),
) -> Result<RenameRequest, InvalidRequest> {
    let mode = envelope::mode(content_type, headers);
    let request = if body.len() > BODY_MAX {
        Err(vec!["the body is larger than 64 KiB".into()])
    } else {
        match &mode {
            Ok(mode) => text_of(body).and_then(|text| envelope::open(text, *mode)),
            Err(what) => Err(vec![what.clone()]),
        }
        .map_err(
            |violations| match encoded::named(body, headers.content_encoding()) {
                // What is wrong with the bytes as JSON is no news then.
                Some(what) => vec![what],
                None => violations,
            },
        )
    };
    request.map_err(|violations| InvalidRequest {
        detail: violations::join(&violations),
        partial: PartialRequest::gather(body, mode == Ok(envelope::CloudEventMode::Structured)),
    })
}

/// Whether such a message carries its request as the `data` of a CloudEvent rather than as its body.
#[must_use]
pub fn is_enveloped(content_type: Option<&str>, headers: &(impl HeaderSource + ?Sized)) -> bool {
    envelope::mode(content_type, headers) == Ok(envelope::CloudEventMode::Structured)
}

/// The request as plain JSON, ready to publish.
#[must_use]
pub fn encode(request: &RenameRequest) -> Vec<u8> {
    let body = RequestBody {
        request_id: request.request_id,
        account_id: request.account_id.as_str().into(),
        username: request.username.reveal().into(),
        new_username: request.new_username.reveal().into(),
        user_id: request.user_id,
        requested_at: request.requested_at.map(Rfc3339Millis),
        requested_by: request.requested_by.as_deref().map(Into::into),
        not_after: request.not_after.map(Rfc3339Millis),
    };
    serde_json::to_vec(&body).expect("text, ids and times are always JSON")
}

/// One user of one account is to bear another name.
///
/// Published to the exchange `rename.requests` as JSON of at most 64 KiB, or as the `data` of a
/// CloudEvent. Fields that are not listed are ignored. An optional field that is null counts as
/// absent. A listed field may be given only once.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Rename request", rename = "RenameRequest")]
pub(super) struct RequestBody<'a> {
    /// Identifies the request: a repeat with the same id is told with the same event id.
    request_id: Uuid,
    /// The account the user belongs to: P (production) or T (test) and eight digits.
    #[schemars(regex(pattern = "^[PT][0-9]{8}$"))]
    account_id: Cow<'a, str>,
    /// The current username. `.` and `..` cannot be carried in a URL path.
    #[schemars(length(min = 1, max = 255), extend("not" = {"enum": [".", ".."]}))]
    username: Cow<'a, str>,
    /// The username to be. `.` and `..` cannot be carried in a URL path.
    #[schemars(length(min = 1, max = 255), extend("not" = {"enum": [".", ".."]}))]
    new_username: Cow<'a, str>,
    /// Only the user with this id may be renamed. It also makes unclear outcomes certain: send it
    /// where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Uuid>,
    /// When the rename was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = timestamp::PATTERN))]
    requested_at: Option<Rfc3339Millis>,
    /// Who asked for it, for people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_by: Option<Cow<'a, str>>,
    /// Past this the request fails as `deadline_exceeded` instead of being tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = timestamp::PATTERN))]
    not_after: Option<Rfc3339Millis>,
}

/// The names of [`RequestBody`]'s fields, in the order [`parse`] takes them.
const NAMES: [&str; 8] = [
    "request_id",
    "account_id",
    "username",
    "new_username",
    "user_id",
    "requested_at",
    "requested_by",
    "not_after",
];

/// The fast way: a valid request, or nothing at all said of why not.
fn parse(text: &str) -> Option<RenameRequest> {
    let values = strict_object::read::<BoundedText<'_>, 8>(text, NAMES).ok()?;
    let [id, account, name, new_name, user_id, at, by, not_after] = &values;
    Some(RenameRequest {
        request_id: uuid(&id.as_ref()?.0)?,
        account_id: AccountId::parse(&account.as_ref()?.0).ok()?,
        username: Username::parse_for_path(&name.as_ref()?.0).ok()?,
        new_username: Username::parse_for_path(&new_name.as_ref()?.0).ok()?,
        user_id: optional(user_id.as_ref(), uuid)?,
        requested_at: optional(at.as_ref(), timestamp::parse)?,
        requested_by: by.as_ref().map(|text| (&*text.0).into()),
        not_after: optional(not_after.as_ref(), timestamp::parse)?,
    })
}

/// None when it is there and bad; `Some(None)` when it is not there.
#[expect(
    clippy::option_option,
    reason = "inside one function's `?`, told in its comment"
)]
fn optional<T>(text: Option<&BoundedText<'_>>, parse: fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        Some(text) => parse(&text.0).map(Some),
        None => Some(None),
    }
}

/// A UUID in its usual form, as the schema's format has it; the parser takes others too.
fn uuid(text: &str) -> Option<Uuid> {
    /// Thirty-two digits and four hyphens.
    const HYPHENATED_LEN: usize = 36;
    let hyphenated = text.len() == HYPHENATED_LEN;
    hyphenated.then(|| Uuid::try_parse(text).ok()).flatten()
}

fn text_of(body: &[u8]) -> Result<&str, Vec<String>> {
    if body.is_empty() {
        return Err(vec!["the body is empty".into()]);
    }
    std::str::from_utf8(without_mark(body)).map_err(|_| vec!["the body is not UTF-8".into()])
}

/// Without the byte order mark that some writers put before their JSON; RFC 8259 lets readers ignore it.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

#[cfg(test)]
mod tests;
