//! An account with credentials of its own that are refused, beside one whose credentials work.

use std::time::Duration;

use rename_worker::sandbox::{CLIENT_ID, CLIENT_SECRET, OAuthClient};
use serde_json::Value;

use super::fixture::{Fixture, Form, HEALTHY, PROMPT};

const REFUSED: &str = "T40100001";
const OWN_CLIENT: &str = "own-client";

/// Covers the first refusals, and a page of `/status`.
const HOLD_BEGINS: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_of_one_account_hold_that_account_alone_and_visibly() {
    beside_refused_credentials(Form::Short).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; see the module"]
async fn refused_credentials_of_one_account_hold_that_account_alone_with_the_default_delays() {
    beside_refused_credentials(Form::Long).await;
}

fn client(id: &str) -> OAuthClient {
    OAuthClient {
        id: id.to_owned(),
        secret: CLIENT_SECRET.into(),
        account: None,
    }
}

/// The entries of the status that are of the account.
fn entries<'a>(status: &'a Value, account: &str) -> Vec<&'a Value> {
    let held = status["held_accounts"].as_array();
    let held = held.map(Vec::as_slice).unwrap_or_default();
    held.iter()
        .filter(|entry| entry["account"] == account)
        .collect()
}

async fn beside_refused_credentials(form: Form) {
    let fixture = Fixture::new(form).await;
    let id = format!("API__ACCOUNTS__{REFUSED}__CLIENT_ID");
    let secret = format!("API__ACCOUNTS__{REFUSED}__CLIENT_SECRET");
    let worker = fixture
        .worker(&[(&id, OWN_CLIENT), (&secret, CLIENT_SECRET)])
        .await;
    // The other account is known before anything is refused.
    let first = fixture.requests(HEALTHY, "first", 10);
    fixture.publish(&first).await;
    let first_renamed = fixture.outcomes.wait_for(&first, PROMPT * 5).await;

    let refused = fixture.requests(REFUSED, "refused", form.pick(40, 400));
    fixture.publish(&refused).await;
    let healthy = fixture.requests(HEALTHY, "healthy", form.pick(20, 60));
    let published = fixture
        .publish_each(&healthy, Duration::from_millis(form.pick(100, 250)))
        .await;
    fixture.outcomes.wait_for(&healthy, PROMPT * 2).await;
    let latencies = fixture.latencies(&healthy, &published);
    // While a probe is on its way, no time of the next one may be known.
    let is_shown = |status: &Value| {
        let entries = entries(status, REFUSED);
        entries
            .iter()
            .any(|entry| entry["next_probe_at"].is_string())
    };
    let (status, _) = worker.status_until(HOLD_BEGINS, is_shown).await;
    let accounts_held = "rename_worker_accounts_held";
    let held = worker.metric(accounts_held, r#"cause="credentials""#).await;
    let held_of_worker = worker.metric("rename_worker_hold", "").await;
    let refused_early = fixture.outcomes.failed(&refused);

    let sandbox = &fixture.stage.sandbox;
    sandbox.set_clients([CLIENT_ID, OWN_CLIENT].map(client).to_vec());
    let limit = Duration::from_secs(form.pick(20, 180));
    fixture.outcomes.wait_for(&refused, limit).await;
    let renamed = fixture.outcomes.renamed(&refused);
    let (status_after, released) = worker
        .status_until(HOLD_BEGINS, |status| entries(status, REFUSED).is_empty())
        .await;
    let held_after = worker.metric(accounts_held, "").await;
    let figures = format!(
        "beside refused credentials: {latencies}; held_accounts {}, hold {}, accounts_held {held:?}, hold \
         gauge {held_of_worker:?}; after recovery {renamed} of {} renamed, accounts_held {held_after:?}",
        status["held_accounts"],
        status["hold"],
        refused.len()
    );
    let healthy_renamed = fixture.outcomes.renamed(&healthy);
    fixture.finish(worker, &figures).await;

    assert!(first_renamed, "before anything was refused");
    assert_eq!(healthy_renamed, healthy.len(), "{latencies}");
    assert!(latencies.share_within(PROMPT) >= 0.95, "{latencies}");
    let entries = entries(&status, REFUSED);
    let [entry] = entries.as_slice() else {
        panic!("the account is not held: {status}");
    };
    assert_eq!(entry["cause"], "credentials", "{entry}");
    for field in ["since", "next_probe_at", "last_answer", "last_answer_at"] {
        assert!(!entry[field].is_null(), "{field}: {entry}");
    }
    assert_eq!(status["hold"]["held"], false, "{status}");
    assert_eq!(held, Some(1.0), "accounts held for their credentials");
    assert_eq!(held_of_worker, Some(0.0), "the worker is held");
    assert!(refused_early.is_empty(), "{refused_early:?}");
    assert_eq!(renamed, refused.len(), "after the client is known");
    assert!(released, "still held: {status_after}");
    assert_eq!(held_after, Some(0.0), "accounts held after recovery");
}
