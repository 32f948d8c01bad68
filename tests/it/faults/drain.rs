//! SIGTERM and SIGHUP: what was begun is finished and told, the rest is given back, and a second
//! SIGTERM ends it.

use std::time::Duration;

use rename_worker::sandbox::{ApiFault, CallOutcome, FaultKind, SandboxCallKind};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::process::{Process, Settings};
use crate::support::stage::{PATIENCE, Stage};

/// More than the worker takes at once (concurrency 16, and as many as wait in it).
const REQUESTS: usize = 300;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_stop_under_full_load_cuts_no_call_short_and_loses_nothing() {
    let stage = Stage::set(|_| {}).await;
    let slow = ApiFault::new(FaultKind::Slow(Duration::from_millis(500)));
    stage.sandbox.set_faults([slow]).await;
    for number in 0..REQUESTS {
        stage.user(&format!("old{number}"));
        stage
            .rename(&format!("old{number}"), &format!("new{number}"), None)
            .await;
    }
    let log = std::env::temp_dir().join(format!("drain-{}.log", stage.settings.amqp.prefix));
    let mut worker = Process::start(&settings(&stage), &log);
    let busy = stage
        .sandbox
        .calls_until(|calls| calls.of(SandboxCallKind::Rename) >= 32 && calls.in_flight >= 16);
    let busy = tokio::time::timeout(PATIENCE, busy).await;
    busy.expect("the worker is at full load");
    worker.terminate().await;
    let asked = Instant::now();
    let status = tokio::time::timeout(PATIENCE, worker.wait()).await;
    let status = status.expect("the worker ends");
    let took = asked.elapsed();
    assert!(status.success(), "{status}; log: {}", log.display());
    assert!(took <= DRAIN_TIMEOUT, "it took {took:?}");

    let calls = stage.sandbox.calls();
    assert_eq!(calls.in_flight, 0);
    assert_eq!(
        calls.count_of(SandboxCallKind::Rename, CallOutcome::Abandoned),
        0
    );
    let applied = stage.sandbox.ledger().len();
    let told = stage.raw.queue_length(&stage.events).await;
    assert_eq!(usize::try_from(told), Ok(applied), "every rename was told");
    let left = stage.raw.queue_length(&stage.names.requests).await;
    assert_eq!(
        usize::try_from(left),
        Ok(REQUESTS - applied),
        "the rest waits"
    );

    stage.sandbox.set_faults([]).await;
    let next = stage.worker().await;
    for event in stage.events(REQUESTS).await {
        assert_eq!(event["type"], "user.renamed", "{event}");
    }
    assert_eq!(stage.sandbox.ledger().len(), REQUESTS);
    stage.strike(next).await;
    let _ = std::fs::remove_file(&log);
}

#[tokio::test]
async fn a_second_signal_ends_the_worker_at_once() {
    let stage = Stage::set(|_| {}).await;
    stage
        .sandbox
        .set_faults([ApiFault::new(FaultKind::Gate)])
        .await;
    stage.user("old");
    stage.rename("old", "new", None).await;
    let log = std::env::temp_dir().join(format!("second-{}.log", stage.settings.amqp.prefix));
    let mut settings = settings(&stage);
    // Neither may be what ends it.
    settings.more.push(("API__TIMEOUT", "300s".to_owned()));
    settings
        .more
        .retain(|(key, _)| *key != "CONSUMER__DRAIN_TIMEOUT");
    settings
        .more
        .push(("CONSUMER__DRAIN_TIMEOUT", "600s".to_owned()));
    let mut worker = Process::start(&settings, &log);
    let called = stage.sandbox.calls_until(|calls| calls.in_flight == 1);
    let called = tokio::time::timeout(PATIENCE, called).await;
    called.expect("the call is under way");
    worker.terminate().await;
    until_draining(&worker).await;
    assert!(worker.ended().is_none(), "it waits for the call");
    worker.terminate().await;
    let status = tokio::time::timeout(PATIENCE, worker.wait()).await;
    let status = status.expect("the second signal ends it");
    assert_eq!(status.code(), Some(1));

    stage.sandbox.set_faults([]).await;
    let next = stage.worker().await;
    assert_eq!(stage.event().await["type"], "user.renamed");
    assert_eq!(stage.sandbox.ledger().len(), 1);
    stage.strike(next).await;
    let _ = std::fs::remove_file(&log);
}

#[tokio::test]
async fn a_terminal_that_closes_drains_the_worker_as_a_stop_does() {
    let stage = Stage::set(|_| {}).await;
    stage
        .sandbox
        .set_faults([ApiFault::new(FaultKind::Gate)])
        .await;
    stage.user("old");
    stage.rename("old", "new", None).await;
    let log = std::env::temp_dir().join(format!("hangup-{}.log", stage.settings.amqp.prefix));
    let mut worker = Process::start(&settings(&stage), &log);
    let called = stage.sandbox.calls_until(|calls| calls.in_flight == 1);
    let called = tokio::time::timeout(PATIENCE, called).await;
    called.expect("the call is under way");
    worker.hang_up().await;
    until_draining(&worker).await;
    // A shell sends it beside the kernel: a second one is no second wish.
    worker.hang_up().await;
    assert!(
        worker.status().await.is_some(),
        "it is there to answer after the second one"
    );
    stage.sandbox.set_faults([]).await;
    let status = tokio::time::timeout(PATIENCE, worker.wait()).await;
    let status = status.expect("the worker ends");
    assert!(status.success(), "{status}; log: {}", log.display());
    assert_eq!(stage.event().await["type"], "user.renamed");
    let _ = std::fs::remove_file(&log);
}

#[tokio::test]
async fn a_worker_under_nohup_outlives_its_terminal() {
    let stage = Stage::set(|_| {}).await;
    let log = std::env::temp_dir().join(format!("nohup-{}.log", stage.settings.amqp.prefix));
    let command = ["nohup", env!("CARGO_BIN_EXE_rename-worker")];
    let mut worker = Process::start_under(&command, &settings(&stage), &log);
    stage.user("old");
    stage.rename("old", "new", None).await;
    assert_eq!(stage.event().await["type"], "user.renamed");
    worker.hang_up().await;
    stage.rename("new", "newer", None).await;
    assert_eq!(stage.event().await["type"], "user.renamed");
    worker.terminate().await;
    let status = tokio::time::timeout(PATIENCE, worker.wait()).await;
    assert!(status.expect("the worker ends").success());
    let _ = std::fs::remove_file(&log);
}

async fn until_draining(worker: &Process) {
    let draining = async {
        while !worker
            .status()
            .await
            .is_some_and(|status| status["draining"] == true)
        {
            tokio::task::yield_now().await;
        }
    };
    let draining = tokio::time::timeout(PATIENCE, draining).await;
    draining.expect("the first signal is heard");
}

fn settings(stage: &Stage) -> Settings {
    let url = stage.settings.amqp.url.read().expect("an inline secret");
    Settings {
        amqp_url: url.expose_secret().to_owned(),
        prefix: stage.settings.amqp.prefix.clone(),
        base_url: stage.sandbox.base_url().to_owned(),
        more: vec![
            ("CONSUMER__CONCURRENCY", "16".to_owned()),
            (
                "CONSUMER__DRAIN_TIMEOUT",
                format!("{}s", DRAIN_TIMEOUT.as_secs()),
            ),
            ("RETRY__LADDER", "300ms,1s,5s".to_owned()),
        ],
    }
}
