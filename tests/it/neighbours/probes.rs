//! The worker is held with nothing but sick accounts' requests at the head of the queue: its probes go
//! to different accounts, and reach a healthy one behind them within seconds.

use std::time::Duration;

use tokio::time::Instant;

use super::fixture::{Fixture, Form, HEALTHY, fault};

const SICK: [&str; 2] = ["T50300001", "T50300002"];

/// Schedules of probes: the worker's, and one of each sick account.
const SCHEDULES: f64 = 3.0;

/// Covers the failures that begin the hold.
const HOLD_BEGINS: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_find_the_healthy_account_behind_sick_ones() {
    behind_sick_requests(Form::Short).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; see the module"]
async fn probes_find_the_healthy_account_behind_ten_thousand_sick_requests() {
    behind_sick_requests(Form::Long).await;
}

async fn behind_sick_requests(form: Form) {
    let fixture = Fixture::new(form).await;
    let faults = SICK.map(|account| fault(account, 503));
    fixture.stage.sandbox.set_faults(faults).await;
    let of_each = form.pick(300, 5_000);
    let by_account = SICK.map(|account| fixture.requests(account, "sick", of_each));
    let sick: Vec<_> = (0..of_each)
        .flat_map(|number| by_account.iter().map(move |of| of[number].clone()))
        .collect();
    fixture.publish(&sick).await;
    let healthy = fixture.requests(HEALTHY, "healthy", 1);
    fixture.publish(&healthy).await;
    let sick_calls = || SICK.map(|account| fixture.faulty_calls(account));

    // Long enough apart that a page of the status falls between the hold's begin and its probes.
    let first_probe = Duration::from_millis(form.pick(500, 1_000));
    let probe = format!("{}ms", first_probe.as_millis());
    let worker = fixture
        .worker(&[
            ("HOLD__FIRST_PROBE", &probe),
            ("HOLD__MAX_PROBE", form.pick("1s", "60s")),
        ])
        .await;
    let began = Instant::now();
    let is_held = |status: &serde_json::Value| {
        let account_is_held = status["held_accounts"]
            .as_array()
            .is_some_and(|held| !held.is_empty());
        (status["hold"]["held"] == true || account_is_held) && status["in_flight"] == 0
    };
    let (status, held) = worker.status_until(HOLD_BEGINS, is_held).await;
    let (held_at, before) = (Instant::now(), sick_calls());
    let limit = form.pick(Duration::from_secs(5), Duration::from_secs(10));
    let reached = fixture.outcomes.wait_for(&healthy, limit).await;
    let (after, since) = (sick_calls(), held_at.elapsed());
    let took = began.elapsed();
    let failed = fixture.outcomes.failed(&sick);

    fixture.stage.sandbox.set_faults([]).await;
    let patience = Duration::from_secs(form.pick(30, 300));
    fixture.outcomes.wait_for(&sick, patience).await;
    let renamed = fixture.outcomes.renamed(&sick);
    let figures = format!(
        "healthy behind {} sick requests: reached: {reached}, {:.1} s after the start; calls of the sick \
         accounts before the hold {before:?}, after {:.1} s of it {after:?}; {renamed} renamed after recovery",
        sick.len(),
        took.as_secs_f64(),
        since.as_secs_f64()
    );
    fixture.finish(worker, &figures).await;

    assert!(held, "no hold began: {status}");
    assert!(reached, "{figures}");
    let probes: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    let probes = f64::from(u32::try_from(probes).expect("a count of a test"));
    // They come further and further apart, so this is generous.
    let most = SCHEDULES * (since.as_secs_f64() / first_probe.as_secs_f64() + 2.0);
    assert!(probes <= most, "at most {most:.0} probes: {figures}");
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(renamed, sick.len(), "{figures}");
}
