//! The demo as whoever tries the program out meets it.

use std::process::Output;

use lapin::{options::QueueDeclareOptions, types::FieldTable};
use tokio::process::Command;

use crate::support::{self, amqp::Raw};

async fn demo(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rename-worker"))
        .arg("demo")
        .args(flags)
        .env_remove("RABBITMQ")
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn the_demo_ends_as_it_must_and_leaves_nothing_on_a_given_broker() {
    let url = support::broker().await;
    let output = demo(&["--amqp-url", url, "--json"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["requests"], 1000);
    assert_eq!(report["wrong"], 0);
    assert_eq!(report["took_effect"], 862);
    assert_eq!(report["dead_letters"]["letters"], 138);
    assert!(report["outcomes"]["already_applied"].as_u64() > Some(0));

    let queue = report["dead_letters"]["queue"].as_str().unwrap();
    let looked_for = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let raw = Raw::connect(url).await;
    let found = raw
        .channel()
        .queue_declare(queue.into(), looked_for, FieldTable::default())
        .await;
    assert!(found.is_err(), "{queue} is still there");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_told_as_unreachable() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let output = demo(&["--amqp-url", &format!("amqp://ola:hush@{address}")]).await;
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&address.to_string()) && !said.contains("hush"),
        "{said}"
    );
}
