//! One request from one line: what it does not say is filled in, then it is checked as the worker
//! would check it. The rest of the line's bytes stay as they are, unknown fields included.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use uuid::Uuid;

use crate::core::model::request::RenameRequest;
use crate::messages::headers::NoHeaders;
use crate::messages::request;
use crate::messages::request::BODY_MAX;
use crate::messages::timestamp;

/// For requests that do not say it themselves.
#[derive(Debug, Clone, Default)]
pub struct RequestDefaults {
    pub requested_by: Option<String>,
    pub not_after: Option<String>,
}

/// A request that may be sent.
#[derive(Debug)]
pub struct PreparedRequest {
    pub request: RenameRequest,
    pub body: Vec<u8>,
}

/// The request, or everything that is wrong with it, with JSON pointers and without names.
pub fn prepare(
    line: &[u8],
    defaults: &RequestDefaults,
    now: Timestamp,
) -> Result<PreparedRequest, Box<str>> {
    // What is too long already is told so by the check.
    let body = if line.len() > BODY_MAX {
        line.to_vec()
    } else {
        apply_defaults(line.trim_ascii(), defaults, now)
    };
    match request::read(&body, None, &NoHeaders) {
        Ok(request) => Ok(PreparedRequest { request, body }),
        Err(unreadable) => Err(unreadable.detail),
    }
}

/// The object with what it lacks put before its first field; anything else as it is.
fn apply_defaults(line: &[u8], defaults: &RequestDefaults, now: Timestamp) -> Vec<u8> {
    let Some((b'{', rest)) = line.split_first() else {
        return line.to_vec();
    };
    let Ok(given) = serde_json::from_slice::<PresentFields>(line) else {
        return line.to_vec();
    };
    let mut body = Vec::with_capacity(line.len() + 128);
    let mut put = |name: &str, given: PresentMember, value: Option<String>| {
        if let (PresentMember(false), Some(value)) = (given, value) {
            body.push(if body.is_empty() { b'{' } else { b',' });
            // Text is always JSON, and writing to memory does not fail.
            let _ = serde_json::to_writer(&mut body, name);
            body.push(b':');
            let _ = serde_json::to_writer(&mut body, &value);
        }
    };
    put(
        "request_id",
        given.request_id,
        Some(Uuid::now_v7().to_string()),
    );
    put(
        "requested_at",
        given.requested_at,
        Some(timestamp::format(now)),
    );
    put(
        "requested_by",
        given.requested_by,
        defaults.requested_by.clone(),
    );
    put("not_after", given.not_after, defaults.not_after.clone());
    if body.is_empty() {
        return line.to_vec();
    }
    if rest.trim_ascii_start().first() != Some(&b'}') {
        body.push(b',');
    }
    body.extend_from_slice(rest);
    body
}

/// Which of the fields that can be filled in are there.
#[derive(Deserialize)]
struct PresentFields {
    #[serde(default)]
    request_id: PresentMember,
    #[serde(default)]
    requested_at: PresentMember,
    #[serde(default)]
    requested_by: PresentMember,
    #[serde(default)]
    not_after: PresentMember,
}

/// True for any value, null as well.
#[derive(Clone, Copy, Default)]
struct PresentMember(bool);

impl<'de> Deserialize<'de> for PresentMember {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(from).map(|_| Self(true))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
    const LINE: &str = r#"{"account_id":"T12345678","username":"ola","new_username":"nils"}"#;

    fn defaults() -> RequestDefaults {
        RequestDefaults {
            requested_by: Some("crm \"7\"".to_owned()),
            not_after: Some("2027-01-16T08:00:00Z".to_owned()),
        }
    }

    fn prepared(line: &str) -> Result<PreparedRequest, Box<str>> {
        prepare(line.as_bytes(), &defaults(), NOW)
    }

    fn body(line: &str) -> Value {
        serde_json::from_slice(&prepared(line).unwrap().body).unwrap()
    }

    #[test]
    fn what_a_request_does_not_say_is_filled_in() {
        let prepared = prepared(LINE).unwrap();
        assert_eq!(prepared.request.request_id.get_version_num(), 7);
        assert_eq!(prepared.request.requested_at, Some(NOW));
        assert_eq!(prepared.request.requested_by.as_deref(), Some("crm \"7\""));
        assert!(prepared.request.not_after.is_some());
        let body: Value = serde_json::from_slice(&prepared.body).unwrap();
        assert_eq!(body["username"], json!("ola"));
    }

    #[test]
    fn what_a_request_says_is_kept_as_it_is() {
        let line = r#" { "request_id": "018f2e3c-7a1b-7c3d-9e4f-5a6b7c8d9e0f", "extra": 1.10,
            "account_id": "T12345678", "username": "ola", "new_username": "nils",
            "requested_at": null, "requested_by": "erp", "not_after": "2027-01-01T00:00:00Z" } "#;
        let prepared = prepared(line).unwrap();
        assert_eq!(prepared.body, line.trim().as_bytes());
    }

    #[test]
    fn an_escaped_or_nested_name_is_told_from_a_missing_one() {
        let line = r#"{"\u0072equest_id":"018f2e3c-7a1b-7c3d-9e4f-5a6b7c8d9e0f",
            "x":{"requested_at":1},"account_id":"T12345678","username":"o","new_username":"n"}"#;
        let body = body(&line.replace('\n', ""));
        assert_eq!(
            body["request_id"],
            json!("018f2e3c-7a1b-7c3d-9e4f-5a6b7c8d9e0f")
        );
        assert_eq!(body["requested_at"], json!("2027-01-15T08:00:00.000Z"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_pointer_and_without_names() {
        let told: Vec<String> = [
            "{}",
            "{ }",
            "[]",
            "7",
            "nonsense",
            r#"{"account_id":"X1","username":"","new_username":"secret"}"#,
            r#"{"account_id":"T12345678","username":"..","new_username":7}"#,
            r#"{"request_id":"7","account_id":"T12345678","username":"a","new_username":"b"}"#,
            r#"{"request_id":null,"account_id":"T12345678","username":"a","new_username":"b"}"#,
            r#"{"username":"secret","account_id":"T12345678","username":"a","new_username":"b"}"#,
            r#"{"request_id":"7","request_id":"8"}"#,
        ]
        .into_iter()
        .map(|line| format!("{line}\n    {}", prepared(line).unwrap_err()))
        .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn a_line_that_is_too_long_is_told_so() {
        let line = LINE.replace("ola", &"x".repeat(BODY_MAX));
        assert_eq!(
            &*prepared(&line).unwrap_err(),
            "the body is larger than 64 KiB"
        );
    }

    proptest! {
        #[test]
        fn whatever_the_names_the_request_says_them(
            from in "[^.].{0,40}", to in "[^.].{0,40}", extra in any::<String>(),
        ) {
            let line = json!({
                "account_id": "T12345678", "username": from, "new_username": to, "extra": extra,
            });
            let prepared = prepared(&line.to_string()).unwrap();
            prop_assert_eq!(prepared.request.username.reveal(), from);
            prop_assert_eq!(prepared.request.new_username.reveal(), to);
            let body: Value = serde_json::from_slice(&prepared.body).unwrap();
            prop_assert_eq!(&body["extra"], &json!(extra));
        }

        #[test]
        fn no_line_makes_it_panic(line: Vec<u8>) {
            let _ = prepare(&line, &defaults(), NOW);
        }
    }
}
