//! One account floods the queue while another sends a request now and then.

use std::time::Duration;

use rename_worker::sandbox::{ApiFault, FaultKind};
use tokio::time::Instant;

use super::fixture::{Fixture, Form, HEALTHY, Latencies, PROMPT, account_id, ratio};

const FLOODING: &str = "T20000000";

/// The share of its throughput that the flood keeps with the rule.
const THROUGHPUT_KEPT: f64 = 0.95;

/// Copies that a request of the flood costs at most.
const COPIES_MOST: u32 = 3;

/// What one flood showed.
struct Flood {
    /// Requests of the flood that ended in a second.
    throughput: f64,
    all_ended: bool,
    renamed: usize,
    latencies: Latencies,
    deferrals: f64,
    /// By the log: the deferrals of all requests, and the most of one.
    logged: u32,
    most: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_account_leaves_another_its_latency() {
    let form = Form::Short;
    let flood = flood(form, &[("CONSUMER__CONCURRENCY", "8")], 10).await;
    check(form, &flood);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; see the module"]
async fn a_flood_of_twenty_thousand_leaves_another_its_latency_and_keeps_its_throughput() {
    let form = Form::Long;
    let without = flood(form, &[("CONSUMER__ACCOUNT_SHARE", "1.0")], 0).await;
    let with = flood(form, &[], 10).await;
    let kept = with.throughput / without.throughput;
    crate::support::say(&format!(
        "neighbours, {form:?}: throughput of the flood with the rule {:.0}/s, without {:.0}/s: {kept:.3}",
        with.throughput, without.throughput
    ));
    check(form, &with);
    assert!(without.all_ended, "the flood without the rule");
    assert!(kept >= THROUGHPUT_KEPT, "the flood keeps {kept:.3}");
}

fn check(form: Form, flood: &Flood) {
    let requests = requests_of(form);
    assert!(
        flood.all_ended && flood.renamed == requests,
        "{} renamed",
        flood.renamed
    );
    assert_eq!(flood.latencies.without_outcome(), 0);
    assert!(flood.latencies.longest() <= PROMPT, "{}", flood.latencies);
    let copies = flood.deferrals / f64::from(u32::try_from(requests).expect("a count"));
    assert!(copies <= f64::from(COPIES_MOST), "{copies:.1} copies each");
    // Without lines there is no most; a few may be dropped, since the log waits for no reader.
    assert!(
        f64::from(flood.logged) >= flood.deferrals * 0.99,
        "{} of {} deferrals logged",
        flood.logged,
        flood.deferrals
    );
    assert!(flood.most <= COPIES_MOST, "{} copies of one", flood.most);
}

fn requests_of(form: Form) -> usize {
    form.pick(2_000, 20_000)
}

/// A flood beside `others` requests of another account.
async fn flood(form: Form, env: &[(&str, &str)], others: usize) -> Flood {
    let fixture = Fixture::new(form).await;
    let call = Duration::from_millis(form.pick(20, 100));
    let slow = ApiFault::new(FaultKind::Slow(call));
    let faults = [slow.account(account_id(FLOODING))];
    fixture.stage.sandbox.set_faults(faults).await;
    let flooding = fixture.requests(FLOODING, "flood", requests_of(form));
    let healthy = fixture.requests(HEALTHY, "healthy", others);
    let worker = fixture.worker(env).await;
    let began = Instant::now();
    let every = Duration::from_millis(form.pick(200, 1_000));
    let ((), published) = tokio::join!(
        fixture.publish(&flooding),
        fixture.publish_each(&healthy, every)
    );
    let outcomes = &fixture.outcomes;
    let limit = Duration::from_secs(form.pick(40, 300));
    let all_ended = outcomes.wait_for(&flooding, limit).await;
    outcomes.wait_for(&healthy, PROMPT).await;
    let took = outcomes.last(&flooding).unwrap_or(began) - began;
    let by_request = worker.logged_deferrals().by_request;
    let of_flood = flooding
        .iter()
        .filter_map(|request| by_request.get(&request.id));
    let flood = Flood {
        throughput: ratio(flooding.len(), 1) / took.as_secs_f64(),
        all_ended,
        renamed: outcomes.renamed(&flooding),
        latencies: fixture.latencies(&healthy, &published),
        deferrals: worker.deferrals().await,
        logged: by_request.values().sum(),
        most: of_flood.copied().max().unwrap_or(0),
    };
    let figures = format!(
        "flood of {}, {env:?}: {:.0}/s, {} renamed; another account: {}; {} deferrals, {} logged, at most \
         {} of one request",
        flooding.len(),
        flood.throughput,
        flood.renamed,
        flood.latencies,
        flood.deferrals,
        flood.logged,
        flood.most
    );
    fixture.finish(worker, &figures).await;
    flood
}
