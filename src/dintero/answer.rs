//! From an HTTP reply to the core's facts. Nothing in a reply is trusted: a proxy may answer
//! anything, with any content type.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::encoding::BodyError;
use super::http::HttpReply;
use crate::core::model::api_response::{ApiResponse, ErrorResponse, TransportError, UserRecord};
use crate::core::model::request::Username;

/// The longest wait that `Retry-After` can ask for, as the contract says.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// The longest `error.code` that is taken for one, in bytes.
const CODE_MAX: usize = 64;

/// What a `change_username` came to. `now` is what an absolute `Retry-After` is measured from.
pub(super) fn to_change_username(
    reply: Result<HttpReply, TransportError>,
    now: Timestamp,
) -> ApiResponse {
    let reply = match reply {
        Ok(reply) => reply,
        Err(silence) => return ApiResponse::Silence(silence),
    };
    if !reply.is_success() {
        return ApiResponse::Refused(refusal(&reply, now));
    }
    match &reply.body {
        Ok(body) => match user(body) {
            Some(user) => ApiResponse::User(user),
            None => garbled(&reply),
        },
        Err(BodyError::TooLong | BodyError::Encoded) => garbled(&reply),
        Err(BodyError::Lost(silence)) => ApiResponse::Silence(*silence),
    }
}

fn garbled(reply: &HttpReply) -> ApiResponse {
    ApiResponse::Malformed {
        status: reply.status,
    }
}

fn refusal(reply: &HttpReply, now: Timestamp) -> ErrorResponse {
    ErrorResponse {
        status: reply.status,
        code: reply.body.as_ref().ok().and_then(|body| code(body)),
        retry_after: reply
            .retry_after
            .as_ref()
            .and_then(|header| retry_after(header, now)),
    }
}

/// The user, if the body is one: its name is required, all else may be absent, odd or unknown.
fn user(body: &[u8]) -> Option<UserRecord> {
    #[derive(Deserialize)]
    struct UserFields<'a> {
        #[serde(borrow)]
        username: Cow<'a, str>,
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let UserFields { username, id } = serde_json::from_slice(body).ok()?;
    Username::parse(&username).ok()?;
    Some(UserRecord {
        username: username.into(),
        id: id.and_then(|raw| serde_json::from_str::<Uuid>(raw.get()).ok()),
    })
}

/// `error.code`, if it is a plain word: free text may carry a username and is dropped.
fn code(body: &[u8]) -> Option<Box<str>> {
    #[derive(Deserialize)]
    struct ErrorFields<'a> {
        #[serde(borrow)]
        error: ErrorCode<'a>,
    }
    #[derive(Deserialize)]
    struct ErrorCode<'a> {
        #[serde(borrow)]
        code: Cow<'a, str>,
    }
    let ErrorFields { error } = serde_json::from_slice(body).ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let fits = (1..=CODE_MAX).contains(&error.code.len()) && error.code.bytes().all(plain);
    fits.then(|| error.code.into())
}

/// The wait that `Retry-After` asks for, in seconds or until a date: none in the past, an hour at
/// most. What is neither is no wish at all.
fn retry_after(header: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = header.to_str().ok()?.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let wait = if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if text.starts_with('-') {
            Duration::ZERO
        } else {
            // Only too large a number fails to parse.
            digits.parse().map_or(Duration::MAX, Duration::from_secs)
        }
    } else {
        let date = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
        Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

    fn reply(status: u16, body: &str) -> ApiResponse {
        let reply = HttpReply {
            status,
            retry_after: None,
            body: Ok(body.to_owned().into()),
        };
        to_change_username(Ok(reply), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_user_needs_a_name_and_nothing_else() {
        let long = format!(r#"{{"username":"{}"}}"#, "é".repeat(255));
        for (body, name, id) in [
            (r#"{"username":"a"}"#, "a", None),
            (
                &format!(r#"{{"id":"{ID}","username":"a","new":{{}}}}"#),
                "a",
                Some(ID),
            ),
            (r#"{"username":"a","id":null}"#, "a", None),
            (r#"{"username":"a","id":7}"#, "a", None),
            (r#"{"username":"a","id":"no uuid"}"#, "a", None),
            (
                r#"{"username":"\u00e5\"b","deleted_at":[1,{"a":null}]}"#,
                "å\"b",
                None,
            ),
            (&long, &"é".repeat(255), None),
        ] {
            for status in [200, 201] {
                let expected = ApiResponse::User(UserRecord {
                    username: name.into(),
                    id: id.map(|id| id.parse().unwrap()),
                });
                assert_eq!(reply(status, body), expected, "{body}");
            }
        }
    }

    #[test]
    fn a_2xx_without_a_user_is_garbled() {
        for body in [
            "",
            "<html>ok</html>",
            r#"{"username":"a""#,
            r#"{"username":""}"#,
            r#"{"username":7}"#,
            r#"{"username":"a","username":"b"}"#,
            r#"{"id":"3c90c3cc-0d44-4b50-8888-8dd25736052a"}"#,
            r#"{"username":"a"} trailing"#,
            r#"[{"username":"a"}]"#,
            "null",
            &format!(r#"{{"username":"{}"}}"#, "a".repeat(256)),
        ] {
            for status in [200, 204, 299] {
                assert_eq!(
                    reply(status, body),
                    ApiResponse::Malformed { status },
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn an_error_code_is_told_only_if_it_is_a_plain_word() {
        for (body, code) in [
            (
                r#"{"error":{"code":"USER_NOT_FOUND","message":"ola","errors":[]}}"#,
                Some("USER_NOT_FOUND"),
            ),
            (r#"{"error":{"code":"a.b-c_9"}}"#, Some("a.b-c_9")),
            (r#"{"error":{"code":"no user ola@example.com"}}"#, None),
            (r#"{"error":{"code":""}}"#, None),
            (r#"{"error":{"code":42}}"#, None),
            (
                &format!(r#"{{"error":{{"code":"{}"}}}}"#, "a".repeat(64)),
                Some(&*"a".repeat(64)),
            ),
            (
                &format!(r#"{{"error":{{"code":"{}"}}}}"#, "a".repeat(65)),
                None,
            ),
            (r#"{"error":"boom"}"#, None),
            ("<html>", None),
            ("", None),
        ] {
            for status in [301, 404, 503] {
                let expected = ApiResponse::Refused(ErrorResponse {
                    status,
                    code: code.map(Into::into),
                    retry_after: None,
                });
                assert_eq!(reply(status, body), expected, "{body}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_never_past_and_an_hour_at_most() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        for (header, seconds) in [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("+7", Some(7)),
            ("-7", Some(0)),
            ("3600", Some(3600)),
            ("3601", Some(3600)),
            ("99999999999999999999999", Some(3600)),
            ("Tue, 24 Nov 2026 10:00:30 GMT", Some(30)),
            ("Tuesday, 24-Nov-26 10:00:30 GMT", Some(30)),
            ("Tue Nov 24 10:00:30 2026", Some(30)),
            ("Tue, 24 Nov 2026 09:59:59 GMT", Some(0)),
            ("Wed, 25 Nov 2026 10:00:00 GMT", Some(3600)),
            ("", None),
            ("-", None),
            ("1.5", None),
            ("soon", None),
            ("2026-11-24T10:00:30Z", None),
        ] {
            let header = HeaderValue::from_static(header);
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&header, now), expected, "{header:?}");
        }
        let not_text = HeaderValue::from_bytes(b"\xff").unwrap();
        assert_eq!(retry_after(&not_text, now), None);
    }

    #[test]
    fn what_is_lost_on_the_way_decides_only_when_the_status_does_not() {
        let lost = |status, unread| {
            let reply = HttpReply {
                status,
                retry_after: Some(HeaderValue::from_static("5")),
                body: Err(unread),
            };
            to_change_username(Ok(reply), Timestamp::UNIX_EPOCH)
        };
        let refused = ApiResponse::Refused(ErrorResponse {
            status: 429,
            code: None,
            retry_after: Some(Duration::from_secs(5)),
        });
        for silence in [TransportError::Timeout, TransportError::Reset] {
            assert_eq!(
                lost(200, BodyError::Lost(silence)),
                ApiResponse::Silence(silence)
            );
            assert_eq!(lost(429, BodyError::Lost(silence)), refused);
        }
        for unread in [BodyError::TooLong, BodyError::Encoded] {
            assert_eq!(lost(200, unread), ApiResponse::Malformed { status: 200 });
            assert_eq!(lost(429, unread), refused);
        }
        let silent = Err(TransportError::Connect);
        assert_eq!(
            to_change_username(silent, Timestamp::UNIX_EPOCH),
            ApiResponse::Silence(TransportError::Connect)
        );
    }
}
