//! An API that keeps names in a form of its own: a rename takes one call, its event has the API's
//! spelling, and names that differ only in spelling are one name for the order.

use std::time::Duration;

use super::fixture::{Fixture, Form, HEALTHY, PROMPT, Request};
use super::process::WorkerProcess;
use crate::support::lower_case_api::{Call, LowerCaseApi, in_its_form};

async fn start(form: Form, latency: Duration) -> (Fixture, LowerCaseApi, WorkerProcess) {
    let fixture = Fixture::new(form).await;
    let api = LowerCaseApi::start(latency).await;
    let worker = fixture.worker(&[("API__BASE_URL", &api.base_url)]).await;
    (fixture, api, worker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_takes_one_call_and_its_event_has_the_spelling_of_the_api() {
    one_call_each(Form::Short).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; see the module"]
async fn a_thousand_renames_take_a_thousand_calls() {
    one_call_each(Form::Long).await;
}

async fn one_call_each(form: Form) {
    let (fixture, api, worker) = start(form, Duration::ZERO).await;
    let count = form.pick(30, 1_000);
    let requests: Vec<Request> = (0..count)
        .map(|number| {
            let old = format!("Ola.{number}@Example.com");
            api.user(HEALTHY, &old);
            // In turn: other case, decomposed, both.
            let new = match number % 3 {
                0 => format!("KARI.{number}@Example.COM"),
                1 => format!("kare\u{301}.{number}@example.com"),
                _ => format!("A\u{30a}SE.{number}@Example.com"),
            };
            Request::new(HEALTHY, &old, &new)
        })
        .collect();
    fixture.publish(&requests).await;
    let limit = Duration::from_secs(form.pick(20, 60));
    let ended = fixture.outcomes.wait_for(&requests, limit).await;
    let calls = api.calls().len();
    let renamed = fixture.outcomes.renamed(&requests);
    let is_spelt_so = |request: &&Request| {
        let outcome = fixture.outcomes.first(request);
        outcome.is_some_and(|outcome| outcome.username == in_its_form(&request.to))
    };
    let spelt = requests.iter().filter(is_spelt_so).count();
    let figures = format!(
        "{count} renames at an API with a spelling of its own: {renamed} renamed, {calls} calls, {spelt} \
         events with its spelling"
    );
    fixture.finish(worker, &figures).await;
    assert!(ended && renamed == count, "{figures}");
    assert_eq!(calls, count, "{figures}");
    assert_eq!(spelt, count, "{figures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_whose_names_differ_only_in_spelling_are_applied_in_order() {
    let form = Form::Short;
    let (fixture, api, worker) = start(form, Duration::from_millis(100)).await;
    let pairs: Vec<[Request; 2]> = (0..10)
        .map(|number| {
            let old = format!("old{number}");
            api.user(HEALTHY, &old);
            // The same name: in capitals and composed, in lower case and decomposed.
            let first = Request::new(HEALTHY, &old, &format!("\u{c5}SE{number}"));
            let from = format!("a\u{30a}se{number}");
            [first, Request::new(HEALTHY, &from, &format!("new{number}"))]
        })
        .collect();
    let requests = pairs.concat();
    fixture.publish(&requests).await;
    let ended = fixture.outcomes.wait_for(&requests, PROMPT * 10).await;
    let calls = api.calls();
    // The call of the first ends before the first call of the second begins.
    let of = |request: &Request| -> Vec<Call> {
        let of_request = calls
            .iter()
            .filter(|call| (&call.from, &call.to) == (&request.from, &request.to));
        of_request.cloned().collect()
    };
    let in_order = |[first, second]: &&[Request; 2]| {
        let applied = of(first).iter().find(|call| call.status == 200).cloned();
        let begun = of(second).iter().map(|call| call.began).min();
        applied.is_some_and(|applied| begun.is_some_and(|begun| applied.ended <= begun))
    };
    let in_order = pairs.iter().filter(in_order).count();
    let renamed = fixture.outcomes.renamed(&requests);
    let failed = fixture.outcomes.failed(&requests);
    let figures = format!(
        "{} pairs of requests that share a name but for its spelling: {in_order} in order, {renamed} of {} \
         renamed, failed {failed:?}, {} calls",
        pairs.len(),
        requests.len(),
        calls.len()
    );
    fixture.finish(worker, &figures).await;
    assert!(ended && renamed == requests.len(), "{figures}");
    assert_eq!(in_order, pairs.len(), "{figures}");
}
