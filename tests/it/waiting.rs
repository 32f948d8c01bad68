//! Contract section 6 and promises 4 to 6 on a real RabbitMQ: the ladder, the hold, the order.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use rename_worker::sandbox::{ApiFault, CallFilter, FaultKind, SandboxCallKind};
use serde_json::json;

use crate::support::stage::{PATIENCE, Stage};

/// Delays that are too long to wait in the worker.
fn long_delays(settings: &mut rename_worker::config::Settings) {
    settings.retry.local_wait = Duration::ZERO;
    settings.retry.jitter = 0.0;
    settings.retry.initial_delay = Duration::from_millis(900);
}

#[tokio::test]
async fn a_long_wait_is_spent_in_the_ladder_and_survives_a_kill() {
    let stage = Stage::set(long_delays).await;
    let id = stage.user("old");
    stage
        .sandbox
        .set_faults([ApiFault::status(503).on(CallFilter::Rename).next(1)])
        .await;
    stage.rename("old", "new", Some(id)).await;
    let mut worker = stage
        .process()
        .env("RENAME_WORKER_RETRY__LOCAL_WAIT", "0s")
        .env("RENAME_WORKER_RETRY__JITTER", "0")
        .env("RENAME_WORKER_RETRY__INITIAL_DELAY", "900ms")
        .spawn()
        .expect("the worker starts");
    let step = stage.names.wait(Duration::from_secs(1));
    while stage.raw.queue_length(&step).await == 0 {
        tokio::task::yield_now().await;
    }
    worker.kill().await.expect("the worker can be killed");
    let worker = stage.worker().await;
    let event = stage.event().await;
    assert_eq!(event["type"], "user.renamed", "{event}");
    // Where the kill came before the ack of the original, that one is tried first, as its own try.
    let attempts = event["data"]["attempts"].as_u64();
    assert!(matches!(attempts, Some(1 | 2)), "{event}");
    assert_eq!(stage.sandbox.ledger().len(), 1);
    stage.settle_twin(&event).await;
    stage.strike(worker).await;
}

#[tokio::test]
async fn forged_headers_neither_crash_nor_loop() {
    let stage = Stage::set(|_| {}).await;
    let worker = stage.worker().await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let forgeries = [
        ("x-rename-attempts", AMQPValue::LongLongInt(i64::MIN)),
        ("x-rename-attempts", AMQPValue::LongLongInt(i64::MAX)),
        ("x-rename-attempts", text("many")),
        ("x-rename-first-attempt-at", text("9999-12-31T23:59:59Z")),
        ("x-rename-first-attempt-at", AMQPValue::Boolean(true)),
        (
            "x-rename-maybe-applied",
            AMQPValue::FieldTable(FieldTable::default()),
        ),
        ("x-delivery-count", AMQPValue::LongLongInt(-1)),
        ("x-death", text("no table")),
    ];
    for (number, (name, value)) in forgeries.into_iter().enumerate() {
        let (old, new) = (format!("old{number}"), format!("new{number}"));
        stage.user(&old);
        let mut headers = FieldTable::default();
        headers.insert(name.into(), value);
        let body = json!({
            "request_id": uuid::Uuid::new_v4(), "account_id": "T12345678",
            "username": old, "new_username": new,
        });
        let properties = BasicProperties::default().with_headers(headers);
        stage.publish(body.to_string().as_bytes(), properties).await;
        let event = stage.event().await;
        assert_eq!(event["type"], "user.renamed", "{name}: {event}");
    }
    stage.strike(worker).await;
}

#[tokio::test]
async fn while_the_api_is_down_requests_wait_unharmed_and_it_sees_probes_only() {
    let stage = Stage::set(|settings| {
        settings.retry.max_attempts = 2;
        settings.consumer.concurrency = 8.try_into().unwrap();
    })
    .await;
    stage.sandbox.set_faults([ApiFault::outage()]).await;
    for number in 0..60 {
        stage.user(&format!("old{number}"));
        stage
            .rename(&format!("old{number}"), &format!("new{number}"), None)
            .await;
    }
    let worker = stage.worker().await;
    let mut state = worker.state.clone();
    let held = state.wait_for(|state| state.held.is_some());
    let held = tokio::time::timeout(PATIENCE, held)
        .await
        .expect("a hold")
        .unwrap()
        .clone();
    assert_eq!(
        held.held
            .map(rename_worker::core::policy::hold::HoldCause::as_str),
        Some("api")
    );
    let idle = state.wait_for(|state| state.counts.in_hand == 0);
    tokio::time::timeout(PATIENCE, idle)
        .await
        .expect("everything is given back")
        .unwrap();
    let before = stage.sandbox.calls().total();
    // Ten probes fail, each with one call and each with another request.
    stage
        .sandbox
        .calls_until(|calls| calls.total() >= before + 10)
        .await;
    assert!(
        stage.raw.queue_length(&stage.events).await == 0,
        "none is failed"
    );
    stage.sandbox.set_faults([]).await;
    for event in stage.events(60).await {
        assert_eq!(event["type"], "user.renamed", "{event}");
    }
    assert_eq!(stage.sandbox.ledger().len(), 60);
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_refused_connection_is_not_an_attempt_gone_wrong_for_the_user() {
    let stage = Stage::set(|_| {}).await;
    stage.user("old");
    stage
        .sandbox
        .set_faults([ApiFault::new(FaultKind::Refuse)])
        .await;
    stage.rename("old", "new", None).await;
    let worker = stage.worker().await;
    let mut state = worker.state.clone();
    let held = state.wait_for(|state| state.held.is_some());
    tokio::time::timeout(PATIENCE, held)
        .await
        .expect("a hold")
        .unwrap();
    stage.sandbox.set_faults([]).await;
    let event = stage.event().await;
    assert_eq!(event["type"], "user.renamed", "{event}");
    stage.strike(worker).await;
}

#[tokio::test]
async fn requests_that_share_a_name_run_in_the_order_they_came() {
    let stage = Stage::set(long_delays).await;
    for name in ["a", "c", "x"] {
        stage.user(name);
    }
    // A chain and a swap by way of a third name. The first one is deferred; those behind it wait.
    stage
        .sandbox
        .set_faults([ApiFault::status(503)
            .on(CallFilter::Rename)
            .prefix("a")
            .next(1)])
        .await;
    let chain = [("a", "b"), ("b", "d"), ("c", "a"), ("d", "c"), ("x", "y")];
    for (from, to) in chain {
        stage.rename(from, to, None).await;
    }
    let worker = stage.worker().await;
    let events = stage.events(chain.len()).await;
    assert!(
        events.iter().all(|event| event["type"] == "user.renamed"),
        "{events:?}"
    );
    let applied: Vec<(String, String)> = stage
        .sandbox
        .ledger()
        .into_iter()
        .map(|entry| (entry.from.into(), entry.to.into()))
        .collect();
    let place = |from: &str, to: &str| {
        let renamed = (from.to_owned(), to.to_owned());
        applied
            .iter()
            .position(|entry| *entry == renamed)
            .expect("it was applied")
    };
    // The independent one did not wait; the two in the middle share no name with each other.
    assert_eq!(place("x", "y"), 0);
    assert_eq!(place("a", "b"), 1);
    assert_eq!(place("d", "c"), 4);
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_request_published_twice_is_renamed_once_and_told_twice_with_one_id() {
    let stage = Stage::set(|_| {}).await;
    stage.user("old");
    let body = json!({
        "request_id": uuid::Uuid::new_v4(), "account_id": "T12345678",
        "username": "old", "new_username": "new",
    })
    .to_string();
    stage
        .publish(body.as_bytes(), BasicProperties::default())
        .await;
    stage
        .publish(body.as_bytes(), BasicProperties::default())
        .await;
    let worker = stage.worker().await;
    let events = stage.events(2).await;
    assert_eq!(events[0]["type"], "user.renamed");
    assert_eq!(events[0]["id"], events[1]["id"]);
    assert_eq!(stage.sandbox.ledger().len(), 1);
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_request_that_is_delivered_again_and_again_ends_as_poison() {
    // Near the limit it is asked about, and nearer to it not even that.
    for (deaths, reason) in [(15, "poison"), (19, "outcome_unknown")] {
        ends_after(deaths, reason).await;
    }
}

async fn ends_after(deaths: u32, reason: &str) {
    let stage = Stage::set(|_| {}).await;
    stage.user("old");
    stage.rename("old", "new", None).await;
    // Something takes it and dies, up to shortly before the broker's limit.
    let requests = stage.names.requests.clone();
    for _ in 0..deaths {
        let raw = crate::support::amqp::Raw::connect(crate::support::broker().await).await;
        let options = lapin::options::BasicGetOptions::default();
        let got = raw
            .channel()
            .basic_get(requests.as_str().into(), options)
            .await
            .unwrap();
        let got = got.expect("the request is still there");
        let requeue = lapin::options::BasicRejectOptions { requeue: true };
        got.delivery.acker.reject(requeue).await.unwrap();
        let _ = raw.channel().close(200, "enough".into()).await;
    }
    let worker = stage.worker().await;
    let event = stage.event().await;
    assert_eq!(event["data"]["reason"], reason, "{event}");
    let letter = stage.letters(1).await.remove(0);
    assert_eq!(
        letter.text_header("x-rename-reason").as_deref(),
        Some(reason)
    );
    assert_eq!(stage.sandbox.calls().of(SandboxCallKind::Rename), 0);
    stage.strike(worker).await;
}
