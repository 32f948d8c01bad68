//! `publish` against a real broker: what arrives, in which order, and what is told when it cannot.

use std::process::{Output, Stdio};

use rename_worker::broker::declare_topology;
use rename_worker::broker::topology::model::{QueueNames, TopologySettings};
use rename_worker::config::{AmqpSection, Secret};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use uuid::Uuid;

use super::support::amqp::{Raw, SOON};
use super::support::{broker, unique_prefix};

/// A name that no message of ours may tell.
const NAME: &str = "hush.hush@example.com";

/// A topology of its own on the shared broker.
struct Stage {
    url: &'static str,
    prefix: String,
    raw: Raw,
}

impl Stage {
    async fn bare() -> Self {
        let url = broker().await;
        Self {
            url,
            prefix: unique_prefix(),
            raw: Raw::connect(url).await,
        }
    }

    async fn declared() -> Self {
        let stage = Self::bare().await;
        let amqp = AmqpSection {
            url: Secret::inline(stage.url),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            prefix: stage.prefix.clone(),
            declare_topology: true,
        };
        declare_topology(&amqp, &TopologySettings::with_delays(&[]))
            .await
            .expect("it can be declared");
        stage
    }

    fn requests(&self) -> String {
        format!("{}.requests", self.prefix)
    }

    async fn publish(&self, args: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rename-worker"))
            .arg("publish")
            .args(args)
            .env_clear()
            .env("RENAME_WORKER_AMQP__URL", self.url)
            .env("RENAME_WORKER_AMQP__PREFIX", &self.prefix)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut stdin = child.stdin.take().expect("it was piped");
        stdin.write_all(input.as_bytes()).await.expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().await.expect("it ends");
        for told in [&output.stdout, &output.stderr] {
            assert!(!text(told).contains(NAME), "{}", text(told));
        }
        output
    }

    async fn remove(self) {
        self.raw
            .remove_topology(&QueueNames::new(&self.prefix), &[])
            .await;
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn summary(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("a JSON summary")
}

fn line(to: &str) -> String {
    json!({ "account_id": "T12345678", "username": NAME, "new_username": to }).to_string()
}

#[tokio::test]
async fn one_request_from_flags_arrives_as_the_contract_has_it() {
    let stage = Stage::declared().await;
    let flags = [
        "--account",
        "P00000001",
        "--username",
        NAME,
        "--new-username",
        "new",
    ];
    let output = stage.publish(&[&flags[..], &["--json"]].concat(), "").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let id = summary(&output)["request_id"].as_str().unwrap().to_owned();
    let message = stage.raw.drain(&stage.requests(), 1, SOON).await.remove(0);
    assert_eq!(message.exchange, stage.requests());
    assert_eq!(message.routing_key, "rename.P00000001");
    let properties = &message.properties;
    assert_eq!(
        properties.content_type().as_ref().unwrap().as_str(),
        "application/json"
    );
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), id);
    assert!(properties.timestamp().is_some());
    let body = message.json();
    assert_eq!(body["request_id"], json!(id));
    assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    assert_eq!(
        (&body["username"], &body["new_username"]),
        (&json!(NAME), &json!("new"))
    );
    body["requested_at"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap();
    stage.remove().await;
}

#[tokio::test]
async fn many_lines_arrive_in_their_order() {
    let stage = Stage::declared().await;
    let count = 2000;
    let lines: Vec<String> = (0..count).map(|n| line(&n.to_string())).collect();
    let output = stage.publish(&["-"], &lines.join("\n")).await;
    assert_eq!(
        text(&output.stdout),
        "2000 requests were published and confirmed\n"
    );
    let messages = stage.raw.drain(&stage.requests(), count, SOON).await;
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(message.json()["new_username"], json!(n.to_string()));
    }
    stage.remove().await;
}

#[tokio::test]
async fn nothing_is_sent_when_a_line_is_not_valid_unless_it_is_to_be_skipped() {
    let stage = Stage::declared().await;
    let lines = format!(
        "{}\n{{\"account_id\":\"T1\"}}\n\n{}\n",
        line("a"),
        line("b")
    );
    let refused = stage.publish(&[], &lines).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stdout.is_empty());
    insta::assert_snapshot!(text(&refused.stderr));
    assert_eq!(stage.raw.queue_length(&stage.requests()).await, 0);
    let dry = stage
        .publish(&["--skip-invalid", "--dry-run"], &lines)
        .await;
    let told = "2 requests are valid, 1 not valid and left out; nothing was sent\n";
    assert_eq!(text(&dry.stdout), told);
    assert_eq!(stage.raw.queue_length(&stage.requests()).await, 0);
    let sent = stage.publish(&["--skip-invalid", "--json"], &lines).await;
    assert_eq!(sent.status.code(), Some(0));
    assert_eq!(
        summary(&sent),
        json!({
            "dry_run": false, "valid": 2, "invalid": 1, "published": 2, "unconfirmed": 0,
            "mistakes": [{
                "line": 2,
                "detail": "/account_id: is not P or T and eight digits; /username: is missing; \
                    /new_username: is missing",
            }],
        })
    );
    assert_eq!(stage.raw.drain(&stage.requests(), 2, SOON).await.len(), 2);
    stage.remove().await;
}

#[tokio::test]
async fn a_missing_topology_is_told_with_its_remedy() {
    let stage = Stage::bare().await;
    let missing = stage.publish(&["--json"], &line("a")).await;
    assert_eq!(missing.status.code(), Some(1));
    let told = text(&missing.stderr);
    assert!(
        told.contains(&format!("no exchange '{}'", stage.requests())),
        "{told}"
    );
    assert!(told.contains("`rename-worker topology declare`"), "{told}");
    assert_eq!(summary(&missing)["published"], json!(0));
    assert_eq!(summary(&missing)["next_line"], json!(1));

    let stage = Stage::declared().await;
    let requests = stage.requests();
    stage.raw.remove(&[&requests], &[]).await;
    let unbound = stage.publish(&[], &line("a")).await;
    assert_eq!(unbound.status.code(), Some(1));
    let told = text(&unbound.stderr);
    assert!(
        told.contains(&format!("no queue is bound to the exchange {requests}")),
        "{told}"
    );
    assert!(told.contains("`rename-worker topology declare`"), "{told}");
}

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_exit_code_3() {
    let mut stage = Stage::bare().await;
    // The port of Discard, on which nothing listens.
    stage.url = "amqp://guest:hush@127.0.0.1:9/%2f";
    let output = stage.publish(&[], &line("a")).await;
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(
        told.starts_with("nothing was sent: cannot reach the broker"),
        "{told}"
    );
    assert!(!told.contains("hush"), "{told}");
}
