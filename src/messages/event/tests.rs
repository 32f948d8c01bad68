use serde_json::Value;

use super::*;
use crate::core::model::outcome::{AppliedBy, ConfirmedBy};
use crate::core::model::request::Username;
use crate::messages::headers::NoHeaders;
use crate::messages::request::read;
use crate::messages::timestamp::parse;

const FULL: &[u8] = include_bytes!("../../../examples/rename-request.full.json");
const SOURCE: &str = "/rename-worker";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn request() -> RenameRequest {
    read(FULL, None, &NoHeaders).unwrap()
}

fn applied() -> Renamed {
    Renamed {
        how: AppliedBy::Applied,
        confirmed_by: ConfirmedBy::Answer,
        user_id: None,
        username: None,
        attempts: 1,
        completed_at: parse("2026-11-23T10:00:00.184Z").unwrap(),
    }
}

fn failure(reason: Reason, detail: &str) -> Failed {
    Failed {
        reason,
        detail: detail.into(),
        http_status: None,
        attempts: 0,
        first_attempt_at: None,
        failed_at: parse("2026-11-23T10:00:00.184Z").unwrap(),
    }
}

fn json(message: &EventMessage) -> Value {
    serde_json::from_slice(&message.body).unwrap()
}

/// The example is what the code tells, field by field; its file is written for people.
fn assert_example(name: &str, message: &EventMessage) {
    let path = format!("{}/examples/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let example: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(
        example,
        json(message),
        "\n{}",
        String::from_utf8_lossy(&message.body)
    );
}

#[test]
fn a_rename_is_told_as_its_example_is() {
    let message = renamed(SOURCE, &request(), &applied(), Some(TRACE));
    assert_eq!(message.event_type, "user.renamed");
    assert_example("user-renamed", &message);
}

#[test]
fn a_failure_is_told_as_its_example_is() {
    let failed_outcome = Failed {
        http_status: Some(404),
        attempts: 1,
        first_attempt_at: parse("2026-11-23T10:00:00.012Z"),
        ..failure(Reason::UserNotFound, "the API answered 404")
    };
    let message = failed(SOURCE, &request(), &failed_outcome, Some(TRACE));
    assert_eq!(message.event_type, "user.rename-failed");
    assert_example("user-rename-failed", &message);
}

#[test]
fn an_unreadable_request_is_told_as_far_as_it_could_be_read() {
    let body = br#"{"request_id": "42", "account_id": "T12345678", "username": ".."}"#;
    let unreadable = read(body, None, &NoHeaders).unwrap_err();
    let outcome = failure(Reason::InvalidRequest, &unreadable.detail);
    let message = failed(SOURCE, &unreadable.partial, &outcome, None);
    assert_example("user-rename-failed.unreadable", &message);
}

#[test]
fn a_name_that_the_api_keeps_in_its_own_form_is_told_in_that_form() {
    let kept = Renamed {
        username: Some(Username::parse("OLA.NORDMANN@EXAMPLE.COM").unwrap()),
        ..applied()
    };
    let data = |outcome: &Renamed| {
        let message = json(&renamed(SOURCE, &request(), outcome, None));
        message["data"]["username"].clone()
    };
    assert_eq!(data(&applied()), "ola.nordmann@example.com");
    assert_eq!(data(&kept), "OLA.NORDMANN@EXAMPLE.COM");
}

#[test]
fn a_repeat_has_the_same_id_and_no_other_event_has() {
    let mut other = request();
    other.request_id = Uuid::nil();
    let later = Renamed {
        how: AppliedBy::AlreadyApplied,
        attempts: 2,
        ..applied()
    };
    let outcome = failure(Reason::Poison, "");
    let id = |request: &RenameRequest| renamed(SOURCE, request, &applied(), None).id;
    assert_eq!(
        id(&request()),
        renamed("/other", &request(), &later, Some(TRACE)).id
    );
    assert_ne!(id(&request()), id(&other));
    assert_ne!(
        id(&request()),
        failed(SOURCE, &request(), &outcome, None).id
    );
    assert_eq!(id(&request()).get_version_num(), 5);
}

#[test]
fn the_id_of_an_unreadable_request_is_its_request_id_s_or_its_bytes_s() {
    let id = |body: &str| {
        let unreadable = read(body.as_bytes(), None, &NoHeaders).unwrap_err();
        failed(
            SOURCE,
            &unreadable.partial,
            &failure(Reason::InvalidRequest, ""),
            None,
        )
        .id
    };
    let with_id = format!(r#"{{"request_id": "{}"}}"#, request().request_id);
    let told = failed(SOURCE, &request(), &failure(Reason::Rejected, ""), None);
    assert_eq!(id(&with_id), told.id);
    assert_eq!(id("garbage"), id("garbage"));
    assert_ne!(id("garbage"), id("other garbage"));
    // An id that is no UUID may be anyone's: two bodies with "1" are two requests.
    assert_ne!(
        id(r#"{"request_id": "1"}"#),
        id(r#"{"request_id": "1", "x": 0}"#)
    );
}

#[test]
fn the_answer_s_user_id_wins_over_the_request_s() {
    let mut outcome = applied();
    outcome.user_id = Some(Uuid::max());
    let told = json(&renamed(SOURCE, &request(), &outcome, None));
    assert_eq!(told["subject"], Uuid::max().to_string());
    assert_eq!(told["data"]["user_id"], Uuid::max().to_string());
    assert!(told.get("traceparent").is_none());
}
