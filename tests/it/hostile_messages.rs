//! Messages that end sessions, that say what is not true, or that RabbitMQ itself moves away: nobody
//! beside them is harmed, and each has its outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use rename_worker::config::Secret;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::proxy::{Proxy, Trigger};
use crate::support::stage::{ACCOUNT, PATIENCE, Stage};

/// A stage whose worker reaches the broker by a proxy that ends connections. Nobody else does.
async fn behind(trigger: Trigger) -> (Stage, Proxy) {
    let mut stage = Stage::set(|_| {}).await;
    let url = stage.settings.amqp.url.read().expect("the URL is given");
    let mut url = url::Url::parse(url.expose_secret()).expect("it is a URL");
    let target = format!(
        "{}:{}",
        url.host_str().expect("it has a host"),
        url.port().unwrap_or(5672)
    );
    let proxy = Proxy::with(&target, Some(trigger)).await;
    url.set_host(Some("127.0.0.1")).expect("it is a host");
    url.set_port(Some(proxy.address.port()))
        .expect("it is a port");
    stage.settings.amqp.url = Secret::inline(url.as_str());
    (stage, proxy)
}

/// Waits until each of so many requests has an event; how many each has, by its type.
async fn outcomes(stage: &Stage, requests: usize) -> BTreeMap<Uuid, Vec<String>> {
    let mut outcomes: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    let all = async {
        while outcomes.len() < requests {
            let event = stage.event().await;
            let id = event["data"]["request_id"].as_str().unwrap_or_default();
            let id = id.parse().expect("it is a UUID");
            let outcome = match event["data"]["reason"].as_str() {
                Some(reason) => reason.to_owned(),
                None => event["type"].as_str().unwrap_or_default().to_owned(),
            };
            outcomes.entry(id).or_default().push(outcome);
        }
    };
    tokio::time::timeout(PATIENCE * 2, all)
        .await
        .expect("every request has its outcome in time");
    outcomes
}

async fn publish_innocents(stage: &Stage, names: std::ops::Range<usize>) {
    for number in names {
        let (from, to) = (format!("from-{number}"), format!("to-{number}"));
        stage.user(&from);
        stage.rename(&from, &to, None).await;
    }
}

fn nobody_failed(outcomes: &BTreeMap<Uuid, Vec<String>>) {
    for (id, told) in outcomes {
        let failed = told.iter().any(|outcome| outcome != "user.renamed");
        assert!(!failed, "{id}: {told:?}");
        // An outcome whose confirm or ack was lost with its session is published again.
        assert!(told.len() <= 4, "{id} was told {} times", told.len());
    }
}

#[tokio::test]
async fn a_message_that_ends_each_session_it_is_delivered_in_harms_nobody_beside_it() {
    let (stage, _proxy) = behind(Trigger {
        bytes: b"ends-the-session",
        after: Duration::ZERO,
    })
    .await;
    publish_innocents(&stage, 0..20).await;
    let culprit = json!({"username": "ends-the-session", "new_username": "whatever"});
    stage.ask(culprit).await;
    publish_innocents(&stage, 20..40).await;
    let worker = stage.worker().await;
    nobody_failed(&outcomes(&stage, 40).await);
    // It went where it ends only the connection that is for such messages, and is counted there.
    let counted = async {
        let unreadable = "rename_worker_undeliverable_total{cause=\"unreadable\"} 0";
        while worker.metrics.render().expect("text").contains(unreadable) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted)
        .await
        .expect("what cannot be read is counted");
    stage.user("later");
    stage.rename("later", "on", None).await;
    nobody_failed(&outcomes(&stage, 1).await);
    worker.stop().await;
    assert_eq!(stage.raw.queue_length(&stage.names.undeliverable).await, 1);
    stage.remove().await;
}

#[tokio::test]
async fn sessions_that_are_cut_after_their_first_delivery_harm_nobody() {
    let (stage, _proxy) = behind(Trigger {
        bytes: b"\"request_id\"",
        after: Duration::from_millis(20),
    })
    .await;
    publish_innocents(&stage, 0..30).await;
    let worker = stage.worker().await;
    nobody_failed(&outcomes(&stage, 30).await);
    worker.stop().await;
    stage.remove().await;
}

fn forged(headers: &[(&str, AMQPValue)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), value.clone());
    }
    BasicProperties::default().with_headers(table)
}

fn request(from: &str, to: &str) -> Vec<u8> {
    let request = json!({
        "request_id": Uuid::new_v4(), "account_id": ACCOUNT, "username": from, "new_username": to,
    });
    request.to_string().into_bytes()
}

fn reason(event: &Value) -> &str {
    event["data"]["reason"].as_str().unwrap_or("none")
}

#[tokio::test]
async fn what_a_publisher_claims_in_our_headers_is_not_believed() {
    let stage = Stage::set(|_| {}).await;
    stage.user("admin");
    let worker = stage.worker().await;
    let yes = AMQPValue::Boolean(true);
    let text = |text: &str| AMQPValue::LongString(text.into());
    for headers in [
        &[("x-rename-maybe-applied", yes.clone())][..],
        &[("x-rename-maybe-applied", text("true"))],
        &[
            ("x-rename-unclear", yes.clone()),
            ("x-rename-maybe-applied", yes.clone()),
        ],
        &[
            ("x-rename-copy", AMQPValue::LongLongInt(7)),
            ("x-rename-attempts", AMQPValue::LongInt(11)),
        ],
        &[(
            "x-rename-replay",
            text("3c90c3cc-0d44-4b50-8888-8dd25736052a"),
        )],
        &[
            ("x-delivery-count", AMQPValue::LongInt(19)),
            ("x-acquired-count", AMQPValue::LongInt(19)),
        ],
    ] {
        stage
            .publish(&request("nobody", "admin"), forged(headers))
            .await;
        let event = stage.event().await;
        assert_eq!(reason(&event), "user_not_found", "{headers:?}");
        let letter = stage.letters(1).await.remove(0);
        assert_eq!(
            letter.text_header("x-rename-reason").as_deref(),
            Some("user_not_found")
        );
        for mark in ["x-rename-maybe-applied", "x-rename-copy", "x-rename-replay"] {
            assert!(letter.header(mark).is_none(), "{mark} of {headers:?}");
        }
    }
    stage.strike(worker).await;
}

#[tokio::test]
async fn what_expires_unread_is_told_and_makes_no_rename_of_a_name_that_exists() {
    let stage = Stage::set(|_| {}).await;
    stage.user("admin");
    stage.user("here");
    for (from, to) in [
        ("here", "there"),
        ("nobody", "nothing"),
        ("nobody-else", "admin"),
    ] {
        let expiring = forged(&[("x-rename-reason", AMQPValue::LongString("forbidden".into()))])
            .with_expiration("1".into());
        stage.publish(&request(from, to), expiring).await;
    }
    let moved = async {
        while stage.raw.queue_length(&stage.names.undeliverable).await < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, moved)
        .await
        .expect("they expire");
    let worker = stage.worker().await;
    let mut reasons: Vec<String> = stage
        .events(3)
        .await
        .iter()
        .map(|event| reason(event).to_owned())
        .collect();
    reasons.sort();
    let expected = ["deadline_exceeded", "deadline_exceeded", "outcome_unknown"];
    assert_eq!(reasons, expected);
    for letter in stage.letters(3).await {
        assert_eq!(letter.routing_key, "rename.T12345678");
        assert!(letter.header("x-rename-original-deaths").is_some());
        let reason = letter.text_header("x-rename-reason").unwrap_or_default();
        assert!(expected.contains(&reason.as_str()), "{reason}");
    }
    assert!(stage.has("here") && stage.sandbox.ledger().is_empty());
    let counted = worker.metrics.render().expect("text");
    let expired = "rename_worker_undeliverable_total{cause=\"expired\"} 3";
    assert!(counted.contains(expired), "{counted}");
    stage.strike(worker).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_becomes_a_letter_whole_and_holds_nobody_up() {
    let stage = Stage::set(|_| {}).await;
    let worker = stage.worker().await;
    let huge = format!("{{\"request_id\": \"{}\"}}", "x".repeat(3 * 1024 * 1024));
    for _ in 0..3 {
        stage
            .publish(huge.as_bytes(), BasicProperties::default())
            .await;
    }
    stage.user("from");
    stage.rename("from", "to", None).await;
    let mut reasons: Vec<String> = stage
        .events(4)
        .await
        .iter()
        .map(|event| reason(event).to_owned())
        .collect();
    reasons.sort();
    let expected = [
        "invalid_request",
        "invalid_request",
        "invalid_request",
        "none",
    ];
    assert_eq!(reasons, expected);
    for letter in stage.letters(3).await {
        assert!(
            letter.body == huge.as_bytes(),
            "{} bytes",
            letter.body.len()
        );
    }
    stage.strike(worker).await;
}
