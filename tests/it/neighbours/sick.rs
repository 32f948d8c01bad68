//! Accounts whose calls fail beside one whose calls succeed.

use std::time::Duration;

use rename_worker::sandbox::{ApiFault, FaultKind};

use super::fixture::{Fixture, Form, HEALTHY, PROMPT, Request, account_id, fault};

/// What each sick account answers.
const SICK: [(&str, u16); 4] = [
    ("T50300000", 503),
    ("T42900000", 429),
    ("T40100000", 401),
    ("T40300000", 403),
];
const FORBIDDEN: &str = "T40300000";

/// Failures in a row that begin a hold (`hold.failures`).
const FAILURES: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sick_accounts_delay_no_request_of_a_healthy_one() {
    beside_sick_accounts(Form::Short).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; see the module"]
async fn four_hundred_requests_of_each_sick_account_delay_no_request_of_a_healthy_one() {
    beside_sick_accounts(Form::Long).await;
}

async fn beside_sick_accounts(form: Form) {
    let fixture = Fixture::new(form).await;
    let concurrency = form.pick(8, 64);
    let faults = SICK.map(|(account, status)| fault(account, status));
    fixture.stage.sandbox.set_faults(faults).await;
    // They take turns in the queue, and are there before the worker starts.
    let of_each = form.pick(60, 400);
    let by_account =
        SICK.map(|(account, _)| fixture.requests(account, &account.to_lowercase(), of_each));
    let sick: Vec<Request> = (0..of_each)
        .flat_map(|number| by_account.iter().map(move |of| of[number].clone()))
        .collect();
    fixture.publish(&sick).await;
    let worker = fixture
        .worker(&[("CONSUMER__CONCURRENCY", &concurrency.to_string())])
        .await;

    let healthy = fixture.requests(HEALTHY, "healthy", form.pick(20, 60));
    let published = fixture
        .publish_each(&healthy, Duration::from_millis(250))
        .await;
    fixture.outcomes.wait_for(&healthy, PROMPT * 2).await;
    let latencies = fixture.latencies(&healthy, &published);
    let held = worker.status().await["held_accounts"].clone();
    let held = held.as_array().map_or(0, Vec::len);
    let failed_by_account = by_account.each_ref().map(|of| fixture.outcomes.failed(of));

    fixture.stage.sandbox.set_faults([]).await;
    let limit = Duration::from_secs(form.pick(30, 300));
    let recovered = fixture.outcomes.wait_for(&sick, limit).await;
    let renamed = fixture.outcomes.renamed(&sick);
    let failed = fixture.outcomes.failed(&sick);
    let deferrals = worker.deferrals().await;
    let figures = format!(
        "healthy beside four sick accounts: {latencies}; {held} accounts held, failed by account \
         {failed_by_account:?}; after recovery: {renamed} of {} renamed, failed {failed:?}, {deferrals} \
         deferrals",
        sick.len()
    );
    let healthy_renamed = fixture.outcomes.renamed(&healthy);
    fixture.finish(worker, &figures).await;

    assert!(
        latencies.share_within(PROMPT) >= 0.95,
        "the healthy account: {latencies}"
    );
    assert_eq!(healthy_renamed, healthy.len(), "{latencies}");
    for ((account, status), failed) in SICK.iter().zip(&failed_by_account) {
        if *account == FORBIDDEN {
            let forbidden = failed.get("forbidden").copied().unwrap_or_default();
            let most = FAILURES + concurrency;
            assert!(forbidden <= most, "{forbidden} of at most {most} forbidden");
            assert!(failed.len() <= 1, "other failures than 403: {failed:?}");
        } else {
            assert!(failed.is_empty(), "requests answered {status}: {failed:?}");
        }
    }
    assert!(recovered, "{renamed} of {} renamed", sick.len());
    let forbidden = failed_by_account[3].values().sum::<usize>();
    assert_eq!(renamed + forbidden, sick.len(), "failed: {failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_whose_calls_hang_delays_another_by_a_call_at_most() {
    let form = Form::Short;
    let fixture = Fixture::new(form).await;
    let (account, timeout) = ("T50400000", Duration::from_secs(1));
    let hang =
        ApiFault::new(FaultKind::Timeout(Duration::from_secs(60))).account(account_id(account));
    fixture.stage.sandbox.set_faults([hang]).await;
    let hanging = fixture.requests(account, "hanging", 200);
    fixture.publish(&hanging).await;
    let worker = fixture
        .worker(&[("API__TIMEOUT", "1s"), ("API__CONNECT_TIMEOUT", "1s")])
        .await;
    let healthy = fixture.requests(HEALTHY, "healthy", 12);
    let published = fixture
        .publish_each(&healthy, Duration::from_millis(250))
        .await;
    fixture.outcomes.wait_for(&healthy, PROMPT * 2).await;
    let latencies = fixture.latencies(&healthy, &published);
    let failed = fixture.outcomes.failed(&hanging);
    fixture.stage.sandbox.set_faults([]).await;
    let recovered = fixture
        .outcomes
        .wait_for(&hanging, Duration::from_secs(30))
        .await;
    let renamed = fixture.outcomes.renamed(&hanging);
    let figures = format!(
        "healthy beside an account whose calls hang: {latencies}; {renamed} of {} renamed after recovery",
        hanging.len()
    );
    let healthy_renamed = fixture.outcomes.renamed(&healthy);
    fixture.finish(worker, &figures).await;
    assert_eq!(healthy_renamed, healthy.len(), "{latencies}");
    assert!(latencies.longest() <= timeout + PROMPT, "{latencies}");
    assert!(failed.is_empty(), "{failed:?}");
    assert!(recovered && renamed == hanging.len(), "{renamed} renamed");
}
