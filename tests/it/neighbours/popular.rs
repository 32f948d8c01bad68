//! Many requests that share one name: they wait for each other, and it costs few deferrals.

use std::collections::BTreeMap;
use std::time::Duration;

use rename_worker::sandbox::{ApiFault, FaultKind};
use tokio::time::Instant;

use super::fixture::{Fixture, Form, HEALTHY, Request, account_id, ratio};
use super::process::{LoggedDeferrals, WorkerProcess};

const POPULAR: &str = "T30000000";

/// Deferrals that a request costs at most.
const DEFERRALS_MOST: f64 = 3.0;

/// What requests of one name showed.
struct Line {
    ended: usize,
    renamed: usize,
    /// Requests of that name that ended, by those that could have in that time.
    pace: f64,
    deferrals: f64,
    /// Deferrals of the name's own requests, by the log, and the most of one.
    own: u32,
    most: u32,
    by_reason: BTreeMap<String, u32>,
}

impl Line {
    async fn measure(
        fixture: &Fixture,
        worker: &WorkerProcess,
        popular: &[Request],
        (began, call): (Instant, Duration),
    ) -> Self {
        let renamed = fixture.outcomes.renamed(popular);
        let failed: usize = fixture.outcomes.failed(popular).values().sum();
        let ended = renamed + failed;
        let last = if ended == popular.len() {
            fixture.outcomes.last(popular)
        } else {
            None
        };
        let took = last.unwrap_or_else(Instant::now) - began;
        let LoggedDeferrals {
            by_request,
            by_reason,
        } = worker.logged_deferrals();
        let of_popular: Vec<u32> = popular
            .iter()
            .filter_map(|request| by_request.get(&request.id).copied())
            .collect();
        Self {
            ended,
            renamed,
            pace: ratio(ended, 1) * call.as_secs_f64() / took.as_secs_f64(),
            deferrals: worker.deferrals().await,
            own: of_popular.iter().sum(),
            most: of_popular.iter().copied().max().unwrap_or(0),
            by_reason,
        }
    }

    fn figures(&self, what: &str) -> String {
        format!(
            "{what}: {} ended, {:.2} of the pace of its calls, {} deferrals {:?}, {} logged of the name, at \
             most {} of one request",
            self.ended, self.pace, self.deferrals, self.by_reason, self.own, self.most
        )
    }
}

/// Each call of the popular name takes `call`.
fn slow(call: Duration) -> ApiFault {
    ApiFault::new(FaultKind::Slow(call)).account(account_id(POPULAR))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_name_cost_few_deferrals_and_keep_their_order() {
    let fixture = Fixture::new(Form::Short).await;
    let call = Duration::from_millis(20);
    fixture.stage.sandbox.set_faults([slow(call)]).await;
    let popular = fixture.chain(POPULAR, "popular", 300);
    // Room for a part of them only, as with more requests and the default concurrency.
    let env = [
        ("CONSUMER__CONCURRENCY", "8"),
        ("RETRY__LADDER", "5s,30s,2m,10m,1h"),
    ];
    let worker = fixture.worker(&env).await;
    let began = Instant::now();
    fixture.publish(&popular).await;
    let limit = Duration::from_secs(30);
    fixture.outcomes.wait_for(&popular, limit).await;
    let line = Line::measure(&fixture, &worker, &popular, (began, call)).await;
    let figures = line.figures("300 requests of one name");
    fixture.finish(worker, &figures).await;
    assert_eq!(line.renamed, popular.len(), "renamed in their order");
    assert!(line.deferrals <= DEFERRALS_MOST * 300.0, "{figures}");
    assert!(f64::from(line.most) <= DEFERRALS_MOST, "{figures}");
    let logged = f64::from(line.own);
    assert!(logged >= line.deferrals, "a line each: {figures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; see the module"]
async fn ten_thousand_requests_of_one_slow_name_cost_few_deferrals() {
    let fixture = Fixture::new(Form::Long).await;
    let (call, time) = (Duration::from_millis(110), Duration::from_secs(30));
    fixture.stage.sandbox.set_faults([slow(call)]).await;
    let popular = fixture.chain(POPULAR, "popular", 10_000);
    fixture.publish(&popular).await;
    let began = Instant::now();
    let worker = fixture.worker(&[]).await;
    fixture.outcomes.wait_for(&popular, time).await;
    let line = Line::measure(&fixture, &worker, &popular, (began, call)).await;
    let figures = line.figures("10,000 requests of one slow name, 30 s");
    fixture.finish(worker, &figures).await;
    assert!(line.deferrals <= DEFERRALS_MOST * 10_000.0, "{figures}");
    assert!(f64::from(line.most) <= DEFERRALS_MOST, "{figures}");
    assert!(line.pace >= 0.75, "{figures}");
    assert_eq!(line.renamed, line.ended, "renamed in their order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; see the module"]
async fn a_popular_name_moves_on_after_an_outage() {
    let fixture = Fixture::new(Form::Long).await;
    let (call, outage) = (Duration::from_millis(110), Duration::from_secs(20));
    let (of_name, of_others) = (1_200, 18_800);
    fixture.stage.sandbox.set_faults([ApiFault::outage()]).await;
    let popular = fixture.chain(POPULAR, "popular", of_name);
    let others = fixture.requests(HEALTHY, "other", of_others);
    let mixed = mix(&popular, &others);
    fixture.publish(&mixed).await;
    let worker = fixture.worker(&[]).await;
    tokio::time::sleep(outage).await;
    fixture.stage.sandbox.set_faults([slow(call)]).await;
    let began = Instant::now();
    fixture
        .outcomes
        .wait_for(&popular, Duration::from_secs(180))
        .await;
    let line = Line::measure(&fixture, &worker, &popular, (began, call)).await;
    let done = fixture.outcomes.renamed(&others);
    let failed = fixture.outcomes.failed(&mixed);
    let figures = line.figures("1,200 of 20,000 requests share a name, after an outage");
    let figures = format!("{figures}; {done} of {of_others} others, failed {failed:?}");
    fixture.finish(worker, &figures).await;
    assert_eq!(done, of_others, "{figures}");
    assert!(failed.is_empty(), "{figures}");
    assert!(
        f64::from(line.own) <= DEFERRALS_MOST * ratio(of_name, 1),
        "{figures}"
    );
    assert!(
        line.deferrals <= DEFERRALS_MOST * ratio(mixed.len(), 1),
        "{figures}"
    );
    assert!(line.pace >= 0.75, "{figures}");
}

/// The few spread evenly among the many.
fn mix(few: &[Request], many: &[Request]) -> Vec<Request> {
    let total = few.len() + many.len();
    let (mut next_few, mut next_many) = (few.iter(), many.iter());
    let mixed = (0..total).filter_map(|at| {
        let is_few = at * few.len() / total != (at + 1) * few.len() / total;
        let next = if is_few {
            next_few.next()
        } else {
            next_many.next()
        };
        next.cloned()
    });
    mixed.collect()
}
