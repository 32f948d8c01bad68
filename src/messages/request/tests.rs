use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::messages::headers::{HeaderName, HeaderValue, NoHeaders};
use crate::messages::schema::MessageSchema;

const MINIMAL: &str = include_str!("../../../examples/rename-request.minimal.json");
const FULL: &str = include_str!("../../../examples/rename-request.full.json");
const CLOUD_EVENT: &str = include_str!("../../../examples/rename-request.cloudevent.json");
const STRUCTURED: Option<&str> = Some("application/cloudevents+json; charset=utf-8");

fn read_plain(body: impl AsRef<[u8]>) -> Result<RenameRequest, InvalidRequest> {
    read(body.as_ref(), None, &NoHeaders)
}

fn detail(body: impl AsRef<[u8]>) -> String {
    read_plain(body).unwrap_err().detail.into()
}

/// The full example with one field as given.
fn with(name: &str, value: Value) -> String {
    let mut body: Value = serde_json::from_str(FULL).unwrap();
    body[name] = value;
    body.to_string()
}

#[test]
fn a_full_request_is_read_and_written_again() {
    let request = read_plain(FULL).unwrap();
    assert_eq!(request.account_id.as_str(), "T12345678");
    assert_eq!(request.username.reveal(), "ola@example.com");
    assert_eq!(request.requested_by.as_deref(), Some("crm"));
    assert!(request.user_id.is_some() && request.not_after.is_some());
    assert_eq!(read_plain(encode(&request)).unwrap(), request);
    let minimal = read_plain(MINIMAL).unwrap();
    assert!(minimal.user_id.is_none() && minimal.requested_at.is_none());
    assert_eq!(read_plain(encode(&minimal)).unwrap(), minimal);
}

#[test]
fn null_is_absent_and_unknown_fields_are_ignored() {
    let body = json!({
        "request_id": "018F2E3C-7A1B-7C3D-9E4F-5A6B7C8D9E0F", "account_id": "P00000000",
        "username": "a/b?c", "new_username": "\u{0}", "user_id": null, "requested_at": null,
        "requested_by": null, "not_after": null, "unknown": {"username": [1, null, {"a": 1.5}]},
    });
    assert_eq!(read_plain(body.to_string()).unwrap().requested_by, None);
}

#[test]
fn a_name_may_be_renamed_to_itself() {
    assert!(read_plain(with("new_username", "ola@example.com".into())).is_ok());
}

#[test]
fn escaped_keys_and_values_are_read() {
    let body = MINIMAL.replace("\"username\"", "\"\\u0075sername\"");
    let body = body.replace("ola@example.com", "ol\\u00e5\\ud83d\\ude00");
    assert_eq!(read_plain(body).unwrap().username.reveal(), "olå😀");
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn what_is_wrong_is_told_with_its_pointer() {
    let deep = "[".repeat(20_000);
    for (body, told) in [
        (String::new(), "the body is empty"),
        ("nonsense".into(), "the body: is no JSON: expected ident"),
        (
            FULL[..90].into(),
            "the body: is no JSON: EOF while parsing a string",
        ),
        (
            format!("{FULL} x"),
            "the body: is no JSON: trailing characters",
        ),
        ("[]".into(), "the body: is no object"),
        ("null".into(), "the body: is no object"),
        (
            "{}".into(),
            "/request_id: is missing; /account_id: is missing; /username: is missing; \
             /new_username: is missing",
        ),
        (with("request_id", "42".into()), "/request_id: is no UUID"),
        (with("request_id", 42.into()), "/request_id: is no text"),
        (with("request_id", Value::Null), "/request_id: is no text"),
        (
            with("request_id", "018f2e3c7a1b7c3d9e4f5a6b7c8d9e0f".into()),
            "/request_id: is no UUID",
        ),
        (
            with("account_id", "X12345678".into()),
            "/account_id: is not P or T and eight digits",
        ),
        (
            with("username", "..".into()),
            "/username: is . or .., which cannot be carried in a URL path",
        ),
        (
            with("new_username", ".".into()),
            "/new_username: is . or .., which cannot be carried in a URL path",
        ),
        (with("username", "".into()), "/username: is empty"),
        (
            with("new_username", "å".repeat(256).into()),
            "/new_username: has more than 255 characters",
        ),
        (with("username", json!(["secret"])), "/username: is no text"),
        (with("user_id", "me".into()), "/user_id: is no UUID"),
        (
            with("not_after", "2026-11-24 10:00".into()),
            "/not_after: is no RFC 3339 time such as 2026-11-24T10:00:00Z",
        ),
        (
            with("requested_at", 1_764_000_000.into()),
            "/requested_at: is no text",
        ),
        (
            with("requested_by", true.into()),
            "/requested_by: is no text",
        ),
        (
            FULL.replacen('{', "{\"username\": \"secret\",", 1),
            "/username: is given more than once",
        ),
        (
            MINIMAL.replace("\"T12345678\"", "-1e999"),
            "/account_id: is no text",
        ),
        (
            MINIMAL.replace("\"T12345678\"", &nested(200)),
            "/account_id: is no text",
        ),
        (deep, "the body: is no JSON: EOF while parsing a list"),
        (
            MINIMAL.replace("ola@example.com", "\\ud800"),
            "/username: holds half a character (a surrogate without its other half)",
        ),
        (
            " ".repeat(BODY_MAX) + MINIMAL,
            "the body is larger than 64 KiB",
        ),
        (
            CLOUD_EVENT.into(),
            "/request_id: is missing; /account_id: is missing; /username: is missing; \
             /new_username: is missing; it looks like a CloudEvent; its content type is \
             application/cloudevents+json",
        ),
    ] {
        assert_eq!(detail(&body), told, "{}", &body[..body.len().min(200)]);
    }
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn whatever_is_in_fields_that_are_not_listed_does_not_matter() {
    let deep = nested(20_000);
    let objects = "{\"a\":".repeat(5_000) + "1" + &"}".repeat(5_000);
    for value in [
        "1e999",
        "-1e999",
        &("9".repeat(400)),
        "\"\\ud83d\"",
        "\"\\ude00 \\ud83d\"",
        "{\"\\ud800\": [\"\\udfff\", 1e999]}",
        &nested(130),
        &deep,
        &objects,
    ] {
        let fields = [
            format!("\"note\": {value}"),
            format!("\"\\ud83d\": {value}"),
            format!("\"\": {value}"),
        ];
        for field in fields {
            let plain = MINIMAL.replacen('{', &format!("{{{field},"), 1);
            assert!(
                read_plain(&plain).is_ok(),
                "{}",
                &field[..field.len().min(80)]
            );
            let event = CLOUD_EVENT.replacen('{', &format!("{{{field},"), 1);
            let within = CLOUD_EVENT.replacen("\"data\": {", &format!("\"data\": {{{field},"), 1);
            for event in [event, within] {
                let read = read(event.as_bytes(), STRUCTURED, &NoHeaders);
                assert!(read.is_ok(), "{}", &field[..field.len().min(80)]);
            }
            // Beside them, what is wrong with those that are listed is told as ever.
            let broken = plain.replace("T12345678", "X12345678");
            assert_eq!(
                detail(&broken),
                "/account_id: is not P or T and eight digits"
            );
            let partial = read_plain(&broken).unwrap_err().partial;
            assert_eq!(partial.username.as_deref(), Some("ola@example.com"));
        }
    }
    // It is JSON all the same.
    for value in ["1e", "\"\\ud8\"", "[1", "01", "nul"] {
        let plain = MINIMAL.replacen('{', &format!("{{\"note\": {value},"), 1);
        assert!(
            detail(&plain).starts_with("the body: is no JSON"),
            "{value}"
        );
    }
}

#[test]
fn a_byte_order_mark_does_not_matter() {
    let marked = |body: &str| format!("\u{feff}{body}");
    assert_eq!(read_plain(marked(FULL)), read_plain(FULL));
    let event = read(marked(CLOUD_EVENT).as_bytes(), STRUCTURED, &NoHeaders);
    assert!(event.is_ok());
    let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, marked(FULL));
    let encoded = json!({"specversion": "1.0", "data_base64": base64}).to_string();
    assert!(read(encoded.as_bytes(), STRUCTURED, &NoHeaders).is_ok());
    let broken = read_plain(marked(FULL).replace("T12345678", "X1")).unwrap_err();
    assert_eq!(
        &*broken.detail,
        "/account_id: is not P or T and eight digits"
    );
    assert_eq!(broken.partial.username.as_deref(), Some("ola@example.com"));
    // One is a mark; more are no JSON.
    assert!(read_plain(marked(&marked(FULL))).is_err());
}

#[test]
fn what_was_done_to_a_body_is_told_instead_of_which_byte_is_no_json() {
    struct EncodedRequest(&'static str);
    impl HeaderSource for EncodedRequest {
        fn text(&self, _: &str) -> Option<&str> {
            None
        }
        fn int(&self, _: &str) -> Option<i64> {
            None
        }
        fn bool(&self, _: &str) -> Option<bool> {
            None
        }
        fn content_encoding(&self) -> Option<&str> {
            Some(self.0)
        }
    }
    let told = |body: &[u8], encoding| {
        let unreadable = read(body, Some("application/json"), &EncodedRequest(encoding));
        String::from(unreadable.unwrap_err().detail)
    };
    let gzip = "the body is gzip-compressed; publish it uncompressed";
    assert_eq!(told(b"\x1f\x8b\x08\x00", "gzip"), gzip);
    assert_eq!(told(b"\x1f\x8b\x08\x00", "identity"), gzip);
    assert_eq!(told(b"?", "gzip"), gzip);
    // What is plain all the same is read.
    assert!(read(FULL.as_bytes(), None, &EncodedRequest("gzip")).is_ok());
    assert!(read(FULL.as_bytes(), None, &EncodedRequest("utf-8")).is_ok());
    let value = b"\x00\x53\x77\xa1\x02{}";
    assert!(detail(value).starts_with("the body is an AMQP 1.0 value"));
}

#[test]
fn what_is_not_utf_8_is_told_wherever_it_stands() {
    for body in [
        &b"\xff"[..],
        b"{\"username\": \"\xc3\"}",
        b"{\"unknown\xff\": 1}",
        b"\xff\xfe{\x00}\x00",
    ] {
        assert_eq!(detail(body), "the body is not UTF-8");
    }
}

#[test]
fn every_mistake_is_told_at_once_and_no_value() {
    let body = json!({
        "request_id": "hush-1", "account_id": "hush-2", "username": "hush-3".repeat(50),
        "new_username": {"hush-4": "hush-5"}, "user_id": "hush-6", "not_after": "hush-7",
    });
    let told = detail(body.to_string());
    assert_eq!(told.matches(';').count(), 5, "{told}");
    assert!(!told.contains("hush"), "{told}");
}

#[test]
fn a_detail_is_bounded() {
    let many: Vec<String> = (0..100)
        .map(|n| format!("/{n}: {}", "x".repeat(50)))
        .collect();
    let joined = violations::join(&many);
    assert!(joined.len() <= 1000, "{}", joined.len());
    assert!(joined.ends_with("; and 83 more"), "{joined}");
}

#[test]
fn json_in_its_many_types_is_taken_and_nothing_else() {
    for kind in [
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        "text/json",
        "application/vnd.crm.rename+json",
    ] {
        assert!(
            read(FULL.as_bytes(), Some(kind), &NoHeaders).is_ok(),
            "{kind}"
        );
    }
    for (kind, named) in [
        ("text/plain", " \"text/plain\""),
        ("application/xml; charset=utf-8", " \"application/xml\""),
        (
            "application/cloudevents-batch+json",
            " \"application/cloudevents-batch+json\"",
        ),
        ("json", " \"json\""),
        ("application/+json", " \"application/+json\""),
        ("ola@example.com", ""),
    ] {
        let unreadable = read(FULL.as_bytes(), Some(kind), &NoHeaders).unwrap_err();
        let expected = format!("the content type{named} is not taken: ");
        assert!(
            unreadable.detail.starts_with(&expected),
            "{}",
            unreadable.detail
        );
        assert!(unreadable.partial.username.is_some(), "what can be read is");
    }
}

#[test]
fn a_structured_cloud_event_is_opened() {
    let read = |body: &str| read(body.as_bytes(), STRUCTURED, &NoHeaders);
    assert_eq!(read(CLOUD_EVENT).unwrap().account_id.as_str(), "T12345678");
    let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, FULL);
    let encoded = json!({"specversion": "1.0", "data_base64": base64}).to_string();
    assert_eq!(read(&encoded).unwrap(), read_plain(FULL).unwrap());
    let data: Value = serde_json::from_str(FULL).unwrap();
    let bad = with("username", "..".into());
    let bad: Value = serde_json::from_str(&bad).unwrap();
    for (body, told) in [
        (json!([]), "the body: is no object"),
        (json!({}), "/specversion: is missing; /data: is missing"),
        (
            json!({"specversion": "0.3", "data": data}),
            "/specversion: is not \"1.0\"",
        ),
        (
            json!({"specversion": 1.0, "data": data}),
            "/specversion: is not \"1.0\"",
        ),
        (
            json!({"specversion": "1.0", "data": null}),
            "/data: is missing",
        ),
        (
            json!({"specversion": "1.0", "data": "hush"}),
            "/data: is no object",
        ),
        (
            json!({"specversion": "1.0", "data": data, "data_base64": ""}),
            "/data_base64: is given beside /data",
        ),
        (
            json!({"specversion": "1.0", "data_base64": "hush!"}),
            "/data_base64: is no base64",
        ),
        (
            json!({"specversion": "1.0", "data_base64": "/w=="}),
            "/data_base64: holds no UTF-8 text",
        ),
        (
            json!({"specversion": "1.0", "data_base64": "e30="}),
            "/data_base64/request_id: is missing; /data_base64/account_id: is missing; \
             /data_base64/username: is missing; /data_base64/new_username: is missing",
        ),
        (
            json!({"specversion": "1.0", "datacontenttype": "text/xml", "data": data}),
            "/datacontenttype: is not application/json",
        ),
        (
            json!({"specversion": "2.0", "data": bad}),
            "/specversion: is not \"1.0\"; \
             /data/username: is . or .., which cannot be carried in a URL path",
        ),
    ] {
        assert_eq!(
            &*read(&body.to_string()).unwrap_err().detail,
            told,
            "{body}"
        );
    }
    let twice = CLOUD_EVENT.replacen('{', "{\"data\": {},", 1);
    assert_eq!(
        &*read(&twice).unwrap_err().detail,
        "/data: is given more than once"
    );
    let partial = read(&CLOUD_EVENT.replace("T1", "X1")).unwrap_err().partial;
    assert_eq!(partial.username.as_deref(), Some("ola@example.com"));
}

#[test]
fn a_binary_cloud_event_is_its_body() {
    let text = |text: &str| HeaderValue::Text(text.into());
    for name in ["cloudEvents:specversion", "cloudEvents_specversion"] {
        let headers: &[HeaderName] = &[(name, text("1.0")), ("cloudEvents:type", text("x"))];
        assert!(read(FULL.as_bytes(), Some("application/json"), headers).is_ok());
        let headers: &[HeaderName] = &[(name, text("0.3"))];
        let unreadable = read(FULL.as_bytes(), None, headers).unwrap_err();
        assert_eq!(
            &*unreadable.detail,
            "the header cloudEvents:specversion is not 1.0"
        );
    }
}

#[test]
fn what_can_be_read_of_a_broken_request_is_kept() {
    let partial = |body: &str| read_plain(body).unwrap_err().partial;
    let id = "018f2e3c-7a1b-7c3d-9e4f-5a6b7c8d9e0f";
    // Cut off in the middle of the new name.
    let cut = &FULL[..FULL.find("ola.nord").unwrap() + 4];
    let read = partial(cut);
    assert_eq!(read.request_uuid().unwrap().to_string(), id);
    assert_eq!(read.account().unwrap().as_str(), "T12345678");
    assert_eq!(read.username.as_deref(), Some("ola@example.com"));
    assert_eq!(read.new_username, None);
    // The first of two; text of any form, but not without end; nothing that is no text.
    let long = "x".repeat(2000);
    let read = partial(&format!(
        r#"{{"request_id": "7", "request_id": "8", "account_id": 9, "username": "{long}"}}"#
    ));
    assert_eq!(read.request_id.as_deref(), Some("7"));
    assert_eq!(
        (read.request_uuid(), read.account_id, read.username),
        (None, None, None)
    );
    // Too large to be taken, and still told by its name.
    let read = partial(
        &(MINIMAL.trim_end().trim_end_matches('}').to_owned()
            + &format!(r#", "x": "{}"}}"#, "x".repeat(BODY_MAX))),
    );
    assert_eq!(
        read.new_username.as_deref(),
        Some("ola.nordmann@example.com")
    );
}

#[test]
fn debug_shows_no_name() {
    let broken = read_plain(with("account_id", "ola@example.com".into())).unwrap_err();
    let shown = format!("{broken:?} {:?}", read_plain(FULL).unwrap());
    assert!(!shown.contains("ola"), "{shown}");
}

/// Values near the edge of each rule.
fn candidate() -> impl Strategy<Value = Value> {
    let fit = prop_oneof![
        Just("018f2e3c-7a1b-7c3d-9e4f-5a6b7c8d9e0f"),
        Just("T12345678"),
        Just("2026-11-24T10:00:00Z"),
        Just("9999-12-31T23:59:59.5-23:59"),
        Just("2026-02-29T10:00:00Z"),
        Just("2026-11-24t23:59:60z"),
        Just("P1234567"),
        Just("."),
        Just(".."),
        Just("{018f2e3c-7a1b-7c3d-9e4f-5a6b7c8d9e0f}"),
        Just("018f2e3c7a1b7c3d9e4f5a6b7c8d9e0f"),
    ];
    let time = "[0-9]{4}-(0[0-9]|1[0-3])-[0-3][0-9][Tt ][0-2][0-9]:[0-5][0-9]:[0-6][0-9]\
        (\\.[0-9]{0,10})?([Zz]|[+-][0-2][0-9]:?[0-6][0-9])";
    prop_oneof![
        4 => fit.prop_map(Value::from),
        2 => time.prop_map(Value::from),
        1 => "[PTX][0-9٣]{7,9}".prop_map(Value::from),
        1 => "[0-9a-fA-F]{8}(-[0-9a-f]{4}){3}-[0-9a-g]{12}".prop_map(Value::from),
        1 => ".{0,4}".prop_map(Value::from),
        1 => (253_usize..258, "[a-é😀]").prop_map(|(n, c)| Value::from(c.repeat(n))),
        1 => Just(Value::Null),
        1 => Just(json!(["T12345678"])),
        1 => Just(json!(1.5)),
    ]
}

fn body() -> impl Strategy<Value = Value> {
    let field = proptest::option::weighted(0.3, candidate());
    let absent = proptest::collection::vec(proptest::bool::weighted(0.03), NAMES.len());
    (proptest::collection::vec(field, NAMES.len()), absent).prop_map(|(fields, absent)| {
        let mut body: Value = serde_json::from_str(FULL).unwrap();
        let object = body.as_object_mut().unwrap();
        for ((name, field), absent) in NAMES.iter().zip(fields).zip(absent) {
            if let Some(value) = field {
                object.insert((*name).into(), value);
            }
            if absent {
                object.remove(*name);
            }
        }
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Duplicate keys are the one exception: no schema can see them.
    #[test]
    fn the_fast_way_takes_what_the_schema_takes(body in body()) {
        prop_assert_eq!(read_plain(body.to_string()).is_ok(), SCHEMA.is_valid(&body));
    }

    #[test]
    fn whatever_is_refused_is_told_without_its_values(body in body()) {
        if let Err(unreadable) = read_plain(body.to_string()) {
            prop_assert!(!unreadable.detail.contains("is no request"), "{}", unreadable.detail);
            for value in body.as_object().unwrap().values().filter_map(Value::as_str) {
                let hidden = !unreadable.detail.contains(value);
                prop_assert!(hidden || value.len() < 9 || value == "2026-11-24T10:00:00Z");
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, kind in 0..3_usize) {
        let kind = [None, STRUCTURED, Some("application/json")][kind];
        prop_assert!(read(&bytes, kind, &NoHeaders).is_err());
    }

    #[test]
    fn no_cut_or_flip_makes_it_panic(at in 0..FULL.len(), byte: u8, cut: bool) {
        for (text, kind) in [(FULL, None), (CLOUD_EVENT, STRUCTURED)] {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = byte;
            if cut {
                bytes.truncate(at);
            }
            let _ = read(&bytes, kind, &NoHeaders);
        }
    }
}

static SCHEMA: std::sync::LazyLock<jsonschema::Validator> = std::sync::LazyLock::new(|| {
    let options = jsonschema::options().should_validate_formats(true);
    options
        .build(&MessageSchema::RenameRequest.value())
        .unwrap()
});
