//! `topology check --management-url`: policies that change a promise, on a broker of its own.

use std::process::{Output, Stdio};

use rename_worker::demo::broker::DemoBroker;
use serde_json::Value;
use tokio::process::Command;

use super::support::own_broker_or_skip;

async fn check(url: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rename-worker"))
        .args(["topology", "check"])
        .args(args)
        .env_clear()
        .env("RENAME_WORKER_AMQP__URL", url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("the binary runs")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

/// Object and key of each policy that was found.
fn found(report: &Value) -> Vec<String> {
    let differences = report["differences"].as_array().expect("a list");
    let policies = differences.iter().filter(|it| it["what"] == "policy");
    let named = policies.map(|it| {
        let part = |name: &str| it[name].as_str().expect("a text").to_owned();
        format!("{}: {} {}", part("object"), part("key"), part("policies"))
    });
    named.collect()
}

async fn set_policies(broker: &DemoBroker) {
    for (kind, name, pattern, definition) in [
        (
            "set_policy",
            "all",
            "^rename\\.(dead-letters|requests)$",
            "{\"max-length\": 1000}",
        ),
        (
            "set_policy",
            "old",
            "^rename\\.discarded$",
            "{\"message-ttl\": 1000}",
        ),
        (
            "set_policy",
            "fine",
            "^rename\\.wait\\.5s$",
            "{\"message-ttl\": 60000}",
        ),
        (
            "set_policy",
            "aside",
            "^rename\\.internal$",
            "{\"alternate-exchange\": \"x\"}",
        ),
        (
            "set_operator_policy",
            "op",
            "^rename\\.undeliverable$",
            "{\"expires\": 60000000}",
        ),
    ] {
        let set = broker.ctl(&[kind, name, pattern, definition]).await;
        set.expect("rabbitmqctl does it");
    }
}

/// RabbitMQ's statistics follow within seconds.
async fn found_in_the_end(url: &str, asked: &[&str], wanted: &[&str]) {
    let json = [asked, &["--json"]].concat();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let output = check(url, &json).await;
        let report = report(&output);
        let mut found = found(&report);
        found.sort_unstable();
        if found == wanted {
            assert_eq!(report["policies"], "checked");
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            break;
        }
        let late = tokio::time::Instant::now() >= deadline;
        assert!(!late, "{found:?} where {wanted:?} is wanted");
    }
}

#[tokio::test]
async fn policies_that_change_a_promise_are_reported() {
    let Some(broker) = own_broker_or_skip("policies").await else {
        return;
    };
    let (url, management) = (broker.url(), broker.management_url().expect("it is ours"));
    let declared = Command::new(env!("CARGO_BIN_EXE_rename-worker"))
        .args(["topology", "declare"])
        .env_clear()
        .env("RENAME_WORKER_AMQP__URL", url)
        .output()
        .await
        .expect("the binary runs");
    assert!(declared.status.success(), "{declared:?}");

    // Without the option it says that it did not look.
    let output = check(url, &[]).await;
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let not_checked = "policies were not checked: give --management-url";
    assert!(told.contains(not_checked), "{told}");
    assert_eq!(
        report(&check(url, &["--json"]).await)["policies"],
        "not_checked"
    );

    let asked = ["--management-url", management];
    let output = check(url, &asked).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && !told.contains(not_checked),
        "{output:?}"
    );

    set_policies(&broker).await;
    let mut wanted = vec![
        "exchange rename.internal: alternate-exchange policy 'aside'",
        "queue rename.dead-letters: max-length policy 'all'",
        "queue rename.discarded: message-ttl policy 'old'",
        "queue rename.requests: max-length policy 'all'",
        "queue rename.undeliverable: expires operator policy 'op'",
    ];
    wanted.sort_unstable();
    found_in_the_end(url, &asked, &wanted).await;
    let told = check(url, &asked).await;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let line = "queue rename.dead-letters is under policy 'all', which sets max-length to 1000: beyond \
                it no request can fail: it stays without an outcome";
    assert!(told.contains(line), "{told}");
}

#[tokio::test]
async fn an_api_that_cannot_be_asked_is_no_clean_bill() {
    let Some(broker) = own_broker_or_skip("a management API that refuses").await else {
        return;
    };
    let (url, management) = (broker.url(), broker.management_url().expect("it is ours"));
    let amqp_port = url.rsplit([':', '/']).nth(1).expect("a port");
    let wrong = management.replace("http://", "http://guest:hush@");
    let not_http = format!("http://127.0.0.1:{amqp_port}");
    for (at, code, wanted) in [
        (wrong.as_str(), 1, "refuses this user"),
        ("http://127.0.0.1:9", 3, "cannot reach"),
        (&not_http, 3, "cannot reach"),
        (
            "ftp://guest:hush@mq",
            2,
            "--management-url is not of the kind",
        ),
    ] {
        let output = check(url, &["--json", "--management-url", at]).await;
        assert_eq!(output.status.code(), Some(code), "{at}: {output:?}");
        let report = report(&output);
        assert_eq!(report["policies"], "not_checked");
        let told = report["error"].as_str().expect("it says why");
        assert!(told.contains(wanted), "{told}");
        let all = format!("{output:?}");
        assert!(!all.contains("hush"), "{all}");
    }
}
