//! Contract section 5, row by row, on a real RabbitMQ: what an answer means.

use std::time::Duration;

use rename_worker::sandbox::{
    ApiFault, CallFilter, FaultBody, FaultKind, MalformedBody, RetryAfter, SandboxCallKind,
};
use serde_json::{Value, json};

use crate::support::stage::{PATIENCE, Stage};

/// What is told of one request from `old` to `new` under these faults.
async fn event_of(stage: &Stage, faults: Vec<ApiFault>) -> Value {
    stage.sandbox.set_faults(faults).await;
    stage.rename("old", "new", None).await;
    stage.event().await
}

fn renamed(event: &Value, outcome: &str, confirmed_by: &str, attempts: u64) {
    assert_eq!(event["type"], "user.renamed", "{event}");
    let data = &event["data"];
    assert_eq!(
        (&data["outcome"], &data["confirmed_by"], &data["attempts"]),
        (&json!(outcome), &json!(confirmed_by), &json!(attempts)),
        "{event}"
    );
}

async fn failed(stage: &Stage, event: &Value, reason: &str, http_status: u64) {
    assert_eq!(event["type"], "user.rename-failed", "{event}");
    let data = &event["data"];
    let expected = (&json!(reason), &json!(http_status));
    assert_eq!((&data["reason"], &data["http_status"]), expected, "{event}");
    let letter = stage.letters(1).await.remove(0);
    assert_eq!(
        letter.text_header("x-rename-reason").as_deref(),
        Some(reason)
    );
    assert_eq!(letter.json()["request_id"], data["request_id"]);
}

async fn stage() -> Stage {
    Stage::set(|_| {}).await
}

#[tokio::test]
async fn a_200_with_the_new_name_is_renamed() {
    let stage = stage().await;
    let id = stage.user("old");
    let worker = stage.worker().await;
    let event = event_of(&stage, vec![]).await;
    renamed(&event, "applied", "answer", 1);
    assert_eq!(event["data"]["user_id"], json!(id));
    assert_eq!(event["subject"], json!(id));
    assert!(stage.has("new") && !stage.has("old"));
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_200_that_is_no_user_is_unclear_and_found_out() {
    for garbage in [
        MalformedBody::Html,
        MalformedBody::Truncated,
        MalformedBody::OtherName,
        MalformedBody::Flood,
    ] {
        let stage = stage().await;
        stage.user("old");
        let worker = stage.worker().await;
        let fault = ApiFault::new(FaultKind::Garbage(garbage))
            .on(CallFilter::Rename)
            .next(1);
        renamed(
            &event_of(&stage, vec![fault.clone()]).await,
            "applied",
            "answer",
            2,
        );
        stage.user("old2");
        stage.sandbox.set_faults([fault.applied()]).await;
        stage.rename("old2", "new2", None).await;
        renamed(&stage.event().await, "already_applied", "name", 2);
        stage.strike(worker).await;
    }
}

#[tokio::test]
async fn a_4xx_is_rejected_at_once() {
    let stage = stage().await;
    stage.user("old");
    let worker = stage.worker().await;
    for status in [400, 422, 410] {
        let event = event_of(
            &stage,
            vec![ApiFault::status(status).on(CallFilter::Rename).next(1)],
        )
        .await;
        failed(&stage, &event, "rejected", u64::from(status)).await;
        assert_eq!(event["data"]["attempts"], 1);
    }
    assert!(stage.has("old"));
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_401_gets_a_new_token_and_spends_no_attempt() {
    let stage = stage().await;
    stage.user("old");
    let worker = stage.worker().await;
    let event = event_of(&stage, vec![ApiFault::new(FaultKind::Expired).next(1)]).await;
    renamed(&event, "applied", "answer", 1);
    assert_eq!(stage.sandbox.calls().status(SandboxCallKind::Token, 200), 2);
    stage.strike(worker).await;
}

#[tokio::test]
async fn refused_credentials_hold_and_harm_nothing() {
    let stage = stage().await;
    let clients = std::mem::take(&mut Vec::new());
    stage.sandbox.set_clients(clients);
    for number in 0..20 {
        stage.user(&format!("old{number}"));
        stage
            .rename(&format!("old{number}"), &format!("new{number}"), None)
            .await;
    }
    let worker = stage.worker().await;
    let mut state = worker.state.clone();
    let held = state.wait_for(|state| state.held.is_some());
    let cause = tokio::time::timeout(PATIENCE, held)
        .await
        .expect("a hold")
        .unwrap()
        .held;
    assert_eq!(
        cause.map(rename_worker::core::policy::hold::HoldCause::as_str),
        Some("credentials")
    );
    stage
        .sandbox
        .set_clients(vec![rename_worker::sandbox::OAuthClient {
            id: rename_worker::sandbox::CLIENT_ID.to_owned(),
            secret: rename_worker::sandbox::CLIENT_SECRET.into(),
            account: None,
        }]);
    for event in stage.events(20).await {
        assert_eq!(event["type"], "user.renamed", "{event}");
    }
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_403_is_forbidden() {
    let stage = stage().await;
    stage.user("old");
    let worker = stage.worker().await;
    let event = event_of(&stage, vec![ApiFault::status(403).next(1)]).await;
    failed(&stage, &event, "forbidden", 403).await;
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_404_is_user_not_found_unless_an_earlier_try_was_applied() {
    let stage = stage().await;
    let worker = stage.worker().await;
    let event = event_of(&stage, vec![]).await;
    failed(&stage, &event, "user_not_found", 404).await;
    assert_eq!(
        stage.sandbox.calls().of(SandboxCallKind::Confirm),
        0,
        "nothing was unclear"
    );

    // The answer is lost, the rename is not: the second try finds the old name gone.
    stage.user("old");
    let event = event_of(
        &stage,
        vec![ApiFault::lost().on(CallFilter::Rename).next(1)],
    )
    .await;
    renamed(&event, "already_applied", "name", 2);
    assert_eq!(stage.sandbox.ledger().len(), 1);

    // Nothing was applied, though it might have been: there never was such a user.
    stage
        .sandbox
        .set_faults([ApiFault::status(502).on(CallFilter::Rename).next(1)])
        .await;
    stage.rename("nobody", "somebody", None).await;
    let event = stage.event().await;
    failed(&stage, &event, "user_not_found", 404).await;
    stage.strike(worker).await;
}

#[tokio::test]
async fn with_a_user_id_an_unclear_outcome_is_certain() {
    let stage = stage().await;
    let worker = stage.worker().await;
    let id = stage.user("old");
    stage
        .sandbox
        .set_faults([ApiFault::lost().on(CallFilter::Rename).next(1)])
        .await;
    stage.rename("old", "new", Some(id)).await;
    renamed(&stage.event().await, "already_applied", "user_id", 2);

    // The old name is gone and the new one another's: it is not told as renamed.
    stage.user("taken");
    stage
        .sandbox
        .set_faults([ApiFault::status(502).next(1)])
        .await;
    stage.rename("gone", "taken", Some(id)).await;
    let event = stage.event().await;
    failed(&stage, &event, "user_not_found", 404).await;
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_409_is_username_taken_also_when_an_earlier_try_was_unclear() {
    let stage = stage().await;
    stage.user("old");
    stage.user("new");
    let worker = stage.worker().await;
    let event = event_of(&stage, vec![]).await;
    failed(&stage, &event, "username_taken", 409).await;
    // A name that was taken all along must not be told as renamed.
    let event = event_of(
        &stage,
        vec![ApiFault::status(502).on(CallFilter::Rename).next(1)],
    )
    .await;
    failed(&stage, &event, "username_taken", 409).await;
    assert!(stage.has("old"));
    stage.strike(worker).await;
}

#[tokio::test]
async fn another_user_is_never_renamed() {
    let stage = stage().await;
    stage.user("old");
    let worker = stage.worker().await;
    stage.rename("old", "new", Some(uuid::Uuid::new_v4())).await;
    let event = stage.event().await;
    failed(&stage, &event, "user_mismatch", 200).await;
    assert!(stage.has("old") && stage.sandbox.ledger().is_empty());
    stage.strike(worker).await;
}

#[tokio::test]
async fn checked_after_a_mismatch_says_that_it_took_effect() {
    let stage = Stage::set(|settings| {
        settings.api.verify_user = rename_worker::config::VerifyUser::After;
    })
    .await;
    stage.user("old");
    let worker = stage.worker().await;
    stage.rename("old", "new", Some(uuid::Uuid::new_v4())).await;
    let event = stage.event().await;
    failed(&stage, &event, "user_mismatch", 200).await;
    let detail = event["data"]["detail"].as_str().unwrap();
    assert!(detail.contains("took effect"), "{detail}");
    assert_eq!(stage.sandbox.calls().of(SandboxCallKind::Confirm), 0);
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_408_a_425_and_a_429_are_tried_again() {
    let stage = stage().await;
    let worker = stage.worker().await;
    for status in [408, 425, 429] {
        stage.user("old");
        let event = event_of(&stage, vec![ApiFault::status(status).next(1)]).await;
        renamed(&event, "applied", "answer", 2);
        let account = rename_worker::core::model::request::AccountId::parse("T12345678").unwrap();
        stage.sandbox.remove(&account, "new");
    }
    stage.strike(worker).await;
}

#[tokio::test]
async fn retry_after_is_waited_for_by_the_whole_account() {
    for retry_after in [RetryAfter::Seconds(2), RetryAfter::Date(3)] {
        let stage = stage().await;
        stage.user("old");
        stage.user("other");
        let worker = stage.worker().await;
        let kind = FaultKind::Status {
            status: 429,
            body: FaultBody::Json,
            retry_after: Some(retry_after),
        };
        stage
            .sandbox
            .set_faults([ApiFault::new(kind).next(1)])
            .await;
        let begun = rename_worker::clock::now();
        stage.rename("old", "new", None).await;
        stage
            .sandbox
            .calls_until(|calls| calls.status(SandboxCallKind::Rename, 429) == 1)
            .await;
        stage.rename("other", "another", None).await;
        for event in stage.events(2).await {
            assert_eq!(event["type"], "user.renamed", "{event}");
            let told: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
            // A date has whole seconds only, so up to one of them may have passed already.
            let waited = Duration::try_from(told.duration_since(begun)).unwrap();
            assert!(
                waited >= Duration::from_millis(1_950),
                "only {waited:?} passed"
            );
        }
        stage.strike(worker).await;
    }
}

#[tokio::test]
async fn a_5xx_a_timeout_and_a_reset_are_tried_again() {
    let stage = Stage::set(|settings| settings.api.timeout = Duration::from_millis(500)).await;
    let worker = stage.worker().await;
    let account = rename_worker::core::model::request::AccountId::parse("T12345678").unwrap();
    for fault in [
        ApiFault::status(500),
        ApiFault::new(FaultKind::Status {
            status: 503,
            body: FaultBody::Html,
            retry_after: None,
        }),
        ApiFault::new(FaultKind::Timeout(Duration::from_secs(20))),
        ApiFault::new(FaultKind::Reset),
        ApiFault::new(FaultKind::Cut),
    ] {
        stage.user("old");
        let event = event_of(&stage, vec![fault.clone().on(CallFilter::Rename).next(1)]).await;
        renamed(&event, "applied", "answer", 2);
        stage.sandbox.remove(&account, "new");

        stage.user("old");
        let event = event_of(&stage, vec![fault.on(CallFilter::Rename).next(1).applied()]).await;
        renamed(&event, "already_applied", "name", 2);
        stage.sandbox.remove(&account, "new");
    }
    stage.strike(worker).await;
}

#[tokio::test]
async fn tries_end_with_retries_exhausted_once_it_is_sure_that_none_took_effect() {
    let stage = Stage::set(|settings| settings.retry.max_attempts = 3).await;
    stage.user("old");
    let worker = stage.worker().await;
    let event = event_of(&stage, vec![ApiFault::status(503).on(CallFilter::Rename)]).await;
    failed(&stage, &event, "retries_exhausted", 503).await;
    assert_eq!(event["data"]["attempts"], 3);
    assert_eq!(
        stage.sandbox.calls().status(SandboxCallKind::Confirm, 200),
        1
    );
    // The third try took effect without a word: it is not told as failed.
    let faults = vec![
        ApiFault::status(503).on(CallFilter::Rename).next(2),
        ApiFault::status(503).on(CallFilter::Rename).applied(),
    ];
    renamed(
        &event_of(&stage, faults).await,
        "already_applied",
        "name",
        3,
    );
    stage.strike(worker).await;
}

#[tokio::test]
async fn past_not_after_a_request_fails_instead_of_being_tried() {
    let stage = stage().await;
    stage.user("old");
    let worker = stage.worker().await;
    stage
        .ask(json!({"username": "old", "new_username": "new", "not_after": "2026-01-01T00:00:00Z"}))
        .await;
    let event = stage.event().await;
    assert_eq!(event["data"]["reason"], "deadline_exceeded", "{event}");
    assert_eq!(event["data"]["attempts"], 0);
    stage.letters(1).await;
    assert_eq!(stage.sandbox.calls().total(), 0);
    stage.strike(worker).await;
}
