//! At the bound of `consumer.max_deferred` a flood finds no room in the wait queues: fairness gives way
//! to progress, and the bound is kept.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rename_worker::sandbox::{ApiFault, FaultKind};
use tokio::time::{Instant, sleep};

use super::fixture::{Fixture, Form, HEALTHY, PROMPT, account_id};

const FLOODING: &str = "T20000001";

/// Deliveries that a worker has in hand for each call of its concurrency, at most.
const IN_HAND_PER_CALL: u32 = 7;

/// Between two looks at the queues.
const LOOK: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_beyond_the_bound_of_deferrals_makes_progress_within_it() {
    beyond_the_bound(Form::Short).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; see the module"]
async fn a_flood_of_three_thousand_beyond_the_bound_of_deferrals_makes_progress_within_it() {
    beyond_the_bound(Form::Long).await;
}

/// Requests that are ready in the wait queues and in `rename.due`.
async fn deferred(fixture: &Fixture) -> u32 {
    let (names, settings) = (&fixture.stage.names, &fixture.stage.settings);
    let mut deferred = fixture.stage.raw.queue_length(&names.due).await;
    for &delay in settings.retry.ladder.steps() {
        deferred += fixture.stage.raw.queue_length(&names.wait(delay)).await;
    }
    deferred
}

/// Looks again and again, and keeps the most that it saw.
async fn watch(fixture: &Fixture, most: &AtomicU32) {
    loop {
        most.fetch_max(deferred(fixture).await, Ordering::Relaxed);
        sleep(LOOK).await;
    }
}

async fn beyond_the_bound(form: Form) {
    let fixture = Fixture::new(form).await;
    let (bound, concurrency) = (form.pick(200, 500), form.pick(8, 16));
    let slow = ApiFault::new(FaultKind::Slow(Duration::from_millis(form.pick(10, 50))));
    let faults = [slow.account(account_id(FLOODING))];
    fixture.stage.sandbox.set_faults(faults).await;
    let worker = fixture
        .worker(&[
            ("CONSUMER__CONCURRENCY", &concurrency.to_string()),
            ("CONSUMER__MAX_DEFERRED", &bound.to_string()),
        ])
        .await;
    // Nothing is deferred for an account that has not been seen.
    let first = fixture.requests(HEALTHY, "first", 5);
    fixture.publish(&first).await;
    let seen = fixture.outcomes.wait_for(&first, PROMPT * 5).await;

    let began = Instant::now();
    let flooding = fixture.requests(FLOODING, "flood", form.pick(1_000, 3_000));
    let healthy = fixture.requests(HEALTHY, "healthy", 20);
    let most = AtomicU32::new(0);
    let limit = Duration::from_secs(form.pick(40, 120));
    let measured = async {
        fixture.publish(&flooding).await;
        let published = vec![Instant::now(); healthy.len()];
        fixture.publish(&healthy).await;
        let all = [flooding.clone(), healthy.clone()].concat();
        (fixture.outcomes.wait_for(&all, limit).await, published)
    };
    let (ended, published) = tokio::select! {
        measured = measured => measured,
        () = watch(&fixture, &most) => unreachable!("it watches without an end"),
    };
    let latencies = fixture.latencies(&healthy, &published);
    let renamed = fixture.outcomes.renamed(&flooding) + fixture.outcomes.renamed(&healthy);
    let took = fixture.outcomes.last(&flooding).unwrap_or(began) - began;
    let most = most.into_inner();
    let figures = format!(
        "flood of {} with room for {bound} deferrals: {renamed} renamed in all, the flood in {:.1} s, at most \
         {most} deferred at a time, {} deferrals; behind it {latencies}",
        flooding.len(),
        took.as_secs_f64(),
        worker.deferrals().await
    );
    fixture.finish(worker, &figures).await;

    assert!(seen, "before the flood");
    assert!(ended, "{figures}");
    assert_eq!(renamed, flooding.len() + healthy.len(), "{figures}");
    assert!(most <= bound + concurrency * IN_HAND_PER_CALL, "{figures}");
    assert!(most >= bound / 2, "the bound was not reached: {figures}");
}
