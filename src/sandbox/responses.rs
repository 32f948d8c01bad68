//! What answers look like: users and errors in Dintero's shapes, and the bodies that are neither.

use axum::body::Body as HttpBody;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::fault::{FaultBody, MalformedBody, RetryAfter};
use super::users::SandboxUser;
use crate::core::model::request::AccountId;

pub(super) type SandboxResponse = Response<HttpBody>;

/// Who created the sandbox's users.
const CREATED_BY: Uuid = Uuid::from_u128(0x5a0d_b0c5_0000_4000_8000_0000_0000_0001);

/// How long a flood is: far more than a caller should be willing to read.
const FLOOD: usize = 1024 * 1024;

const HTML: &str = "<!doctype html><title>Sandbox</title><h1>The gateway has something to say</h1>";

/// The documented user, but for the fields of deleted ones.
#[derive(Serialize)]
struct UserBody<'a> {
    username: &'a str,
    id: Uuid,
    created_at: Timestamp,
    created_by: Uuid,
    updated_at: Timestamp,
    links: [UserLink<'a>; 2],
    mfa: MfaFields<'a>,
}

#[derive(Serialize)]
struct UserLink<'a> {
    rel: &'a str,
    href: String,
}

#[derive(Serialize)]
struct MfaFields<'a> {
    challenge_type: &'a str,
    oob_channels: [&'a str; 1],
}

#[derive(Serialize)]
struct UserResponse<'a> {
    username: &'a str,
}

#[derive(Serialize)]
struct ErrorEnvelope<'a> {
    error: ErrorDetails<'a>,
}

#[derive(Serialize)]
struct ErrorDetails<'a> {
    code: &'a str,
    message: &'a str,
    errors: &'a [String],
}

pub(super) fn user(account: &AccountId, user: &SandboxUser, bare: bool) -> SandboxResponse {
    if bare {
        return bare_user(&user.username);
    }
    let id = user.id;
    json(
        StatusCode::OK,
        &UserBody {
            username: &user.username,
            id,
            created_at: user.created_at,
            created_by: CREATED_BY,
            updated_at: user.updated_at,
            links: [
                UserLink {
                    rel: "customers_user",
                    href: format!("https://api.dintero.com/v1/accounts/{account}/users/{id}"),
                },
                UserLink {
                    rel: "phone_number",
                    href: "tel:+4799999999".to_owned(),
                },
            ],
            mfa: MfaFields {
                challenge_type: "oob",
                oob_channels: ["sms"],
            },
        },
    )
}

fn bare_user(username: &str) -> SandboxResponse {
    json(StatusCode::OK, &UserResponse { username })
}

/// An error in Dintero's shape.
pub(super) fn error(
    status: StatusCode,
    code: &str,
    message: &str,
    errors: &[String],
) -> SandboxResponse {
    let error = ErrorDetails {
        code,
        message,
        errors,
    };
    json(status, &ErrorEnvelope { error })
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> SandboxResponse {
    // Of ours, nothing can fail to be JSON.
    let body = serde_json::to_vec(value).unwrap_or_default();
    answer(status, "application/json", body)
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> SandboxResponse {
    let mut answer = Response::new(HttpBody::from(body.into()));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    answer
}

/// A fault's status.
pub(super) fn fault(
    status: u16,
    body: FaultBody,
    retry_after: Option<RetryAfter>,
) -> SandboxResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = match body {
        FaultBody::Json => error(status, "sandbox_fault", "a fault that was asked for", &[]),
        FaultBody::Html => answer(status, "text/html", HTML),
        FaultBody::Empty => answer(status, "text/plain", Bytes::new()),
    };
    if let Some(retry_after) = retry_after {
        let value = match retry_after {
            RetryAfter::Seconds(seconds) => Some(HeaderValue::from(seconds)),
            RetryAfter::Date(seconds) => http_date(seconds),
        };
        if let Some(value) = value {
            answer.headers_mut().insert(header::RETRY_AFTER, value);
        }
    }
    answer
}

/// None for a time so far ahead that it has no date.
fn http_date(seconds: u32) -> Option<HeaderValue> {
    let ahead = jiff::SignedDuration::from_secs(seconds.into());
    let at = crate::clock::now().checked_add(ahead).ok()?;
    HeaderValue::try_from(httpdate::fmt_http_date(at.into())).ok()
}

/// A 200 that is no user of the wanted name.
pub(super) fn garbage(garbage: MalformedBody, wanted: &str) -> SandboxResponse {
    match garbage {
        MalformedBody::Html => answer(StatusCode::OK, "text/html", HTML),
        MalformedBody::Truncated => answer(StatusCode::OK, "application/json", half_user(wanted)),
        MalformedBody::OtherName => bare_user("somebody.else@example.com"),
        MalformedBody::Flood => answer(StatusCode::OK, "application/json", vec![b' '; FLOOD]),
    }
}

/// A 200 whose connection breaks in the middle of the body.
pub(super) fn cut(wanted: &str) -> SandboxResponse {
    let half = half_user(wanted);
    let promised = HeaderValue::from(half.len() * 2);
    let broken = Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let parts = futures_util::stream::iter([Ok(Bytes::from(half)), broken]);
    let mut answer = Response::new(HttpBody::from_stream(parts));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, promised);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

/// The beginning of a user, past its name.
fn half_user(username: &str) -> Vec<u8> {
    let mut json = serde_json::to_vec(&UserResponse { username }).unwrap_or_default();
    json.pop();
    json.extend_from_slice(br#","created_at":"2023-11"#);
    json
}
