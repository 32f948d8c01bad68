//! The connection is cut while requests are in hand that share names: each gets its outcome soon after
//! the reconnect.

use std::time::Duration;

use rename_worker::sandbox::{ApiFault, FaultKind};
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, timeout};
use url::Url;

use super::fixture::{Fixture, Form, HEALTHY, Request, account_id};
use super::process::WorkerProcess;
use crate::support::proxy::Proxy;

/// Requests of one round: lines of requests that share a name, and others that share none.
const LINES: usize = 20;
const LINE_LENGTH: usize = 5;
const OTHERS: usize = 100;

/// Outcomes of a round after which the connection is cut: all requests are in hand and many on their way.
const CUT_AFTER: usize = 40;

/// From the reconnect until all have their outcome.
const LIMIT: Duration = Duration::from_secs(20);

const RECONNECT: Duration = Duration::from_secs(20);

/// `basic.qos-ok`, with the length of its frame and the end: RabbitMQ has processed an ack, and the
/// worker, which asked for that since another request waits for it, does not learn it.
const ACK_PROCESSED: &[u8] = b"\0\0\0\x04\0\x3c\0\x0b\xce";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_share_a_name_end_soon_after_a_cut() {
    cuts(Form::Short, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; see the module"]
async fn requests_that_share_a_name_end_soon_after_each_of_ten_cuts() {
    cuts(Form::Long, 10).await;
}

/// One round: publish, cut, wait.
struct Round {
    requests: Vec<Request>,
    reconnected: bool,
    /// From the reconnect to the last outcome, if all have one in time.
    took: Option<Duration>,
}

async fn cuts(form: Form, rounds: usize) {
    let fixture = Fixture::new(form).await;
    let slow = ApiFault::new(FaultKind::Slow(Duration::from_millis(50)));
    let faults = [slow.account(account_id(HEALTHY))];
    fixture.stage.sandbox.set_faults(faults).await;
    let url = fixture.stage.settings.amqp.url.read();
    let mut url = Url::parse(url.expect("the URL is given").expose_secret()).expect("a URL");
    let host = url.host_str().expect("a host");
    let proxy = Proxy::to(&format!("{host}:{}", url.port().unwrap_or(5672))).await;
    url.set_ip_host(proxy.address.ip()).expect("it has a host");
    url.set_port(Some(proxy.address.port()))
        .expect("it has a port");
    // All of a round fit in hand.
    let worker = fixture
        .worker(&[("AMQP__URL", url.as_str()), ("CONSUMER__CONCURRENCY", "32")])
        .await;
    let mut done = Vec::new();
    while done.len() < rounds && done.iter().all(|round: &Round| round.took.is_some()) {
        done.push(round(&fixture, &worker, &proxy, done.len()).await);
    }
    conclude(fixture, worker, &done, rounds).await;
}

async fn round(fixture: &Fixture, worker: &WorkerProcess, proxy: &Proxy, number: usize) -> Round {
    let others = fixture.requests(HEALTHY, &format!("other{number}-"), OTHERS);
    let lines = (0..LINES).map(|line| format!("line{number}-{line}"));
    let lines: Vec<_> = lines
        .map(|name| fixture.chain(HEALTHY, &name, LINE_LENGTH))
        .collect();
    let mut requests = Vec::new();
    for (place, others) in others.chunks(OTHERS / LINE_LENGTH).enumerate() {
        requests.extend(lines.iter().map(|line| line[place].clone()));
        requests.extend_from_slice(others);
    }
    let outcomes = &fixture.outcomes;
    fixture.publish(&requests).await;
    let per_round = requests.len();
    let enough = outcomes.wait_for_count(per_round * number + CUT_AFTER, RECONNECT);
    assert!(enough.await, "no outcomes before the cut");
    let sessions = worker.status().await["broker"]["sessions"].as_u64();
    // In turn: in the middle of anything, and where the worker cannot know what became of a request.
    if number.is_multiple_of(2) {
        proxy.cut();
    } else {
        let cut = timeout(RECONNECT, proxy.cut_at(ACK_PROCESSED));
        cut.await.expect("the worker waits for an ack");
    }
    let (_, reconnected) = worker
        .status_until(RECONNECT, |status| {
            let broker = &status["broker"];
            broker["connected"] == true && broker["sessions"].as_u64() > sessions
        })
        .await;
    let reconnected_at = Instant::now();
    let all = outcomes.wait_for(&requests, LIMIT).await;
    let last = outcomes.last(&requests).filter(|_| all);
    Round {
        took: last.map(|last| last.saturating_duration_since(reconnected_at)),
        reconnected,
        requests,
    }
}

async fn conclude(fixture: Fixture, worker: WorkerProcess, done: &[Round], rounds: usize) {
    let outcomes = &fixture.outcomes;
    let requests = || done.iter().flat_map(|round| &round.requests);
    let missing: usize = requests()
        .filter(|one| outcomes.first(one).is_none())
        .count();
    let (mut failed, mut repeated, mut contradicting) = (0, 0, 0);
    for events in requests().map(|request| outcomes.of(request)) {
        failed += usize::from(events.iter().any(|event| event.failed.is_some()));
        repeated += events.len().saturating_sub(1);
        let first = events.first().map(|event| &event.event_id);
        let differs = events.iter().any(|event| Some(&event.event_id) != first);
        contradicting += usize::from(differs);
    }
    let applied = fixture.stage.sandbox.ledger().len();
    let took: Vec<_> = done.iter().map(|round| round.took).collect();
    let figures = format!(
        "{} cuts with {} requests each, {LINES} names shared: from reconnect to the last outcome {took:.1?}; \
         {missing} without outcome, {applied} renames applied, {failed} failed, {repeated} events repeated",
        done.len(),
        LINES * LINE_LENGTH + OTHERS,
    );
    fixture.finish(worker, &figures).await;
    assert!(done.iter().all(|round| round.reconnected), "{figures}");
    assert!(took.iter().all(Option::is_some), "{figures}");
    assert_eq!(done.len(), rounds);
    assert_eq!((failed, contradicting), (0, 0), "{figures}");
    assert_eq!(applied, requests().count(), "{figures}");
}
