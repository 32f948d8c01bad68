//! Promise 7: no username reaches a log line, a metric, a trace or a dead letter's header, and no
//! secret either. Every name and secret used here carries a mark; everything the worker says, at its
//! most talkative, is searched for the marks.

use std::process::Stdio;

use rename_worker::sandbox::{ApiFault, CallFilter, FaultKind, MalformedBody, OAuthClient};
use serde_json::json;

use crate::support::collector::Collector;
use crate::support::stage::{PATIENCE, Stage};

/// Stands in every username, and looks like nothing else.
const NAME: &str = "nAmEmArK";
/// Stands in the client's secret.
const SECRET: &str = "sEcReTmArK";

/// All that anybody could ask for, of the libraries too.
const EVERYTHING: &str = "trace,lapin=trace,amq_protocol=trace,amq_protocol_tcp=trace,\
    amq_protocol_uri=trace,reqwest=trace,hyper=trace,hyper_util=trace,h2=trace,rustls=trace";

/// Whether this build exports any.
const TRACES: bool = cfg!(feature = "otlp");

fn marked(name: &str) -> String {
    format!("{NAME}-{name}@example.com")
}

#[tokio::test]
async fn no_username_and_no_secret_is_told_to_those_who_watch() {
    let stage = Stage::set(|_| {}).await;
    stage.sandbox.set_clients(vec![OAuthClient {
        id: "client".to_owned(),
        secret: SECRET.into(),
        account: None,
    }]);
    set_traps(&stage).await;
    let log = tempfile::NamedTempFile::new().expect("a file");
    let admin = free_port().await;
    let collector = Collector::start().await;
    let mut process = stage.process();
    if TRACES {
        let endpoint = format!("http://{}", collector.address);
        process.env("RENAME_WORKER_OTLP__ENDPOINT", endpoint);
    }
    let mut worker = process
        .env("RENAME_WORKER_API__CLIENT_ID", "client")
        .env("RENAME_WORKER_API__CLIENT_SECRET", SECRET)
        .env("RENAME_WORKER_LOG__LEVEL", EVERYTHING)
        .env("RENAME_WORKER_ADMIN__LISTEN", &admin)
        .stderr(Stdio::from(log.reopen().expect("the file opens again")))
        .spawn()
        .expect("the worker starts");

    let asked = ask(&stage).await;
    let events = stage.events(asked).await;
    let failed = events
        .iter()
        .filter(|event| event["type"] == "user.rename-failed")
        .count();

    let mut told = pages(&admin).await;
    let details: Vec<String> = events
        .iter()
        .map(|event| event["data"]["detail"].to_string())
        .collect();
    told.push(("details", details.join("\n")));
    for letter in stage.letters(failed).await {
        told.push((
            "a dead letter's headers",
            format!("{:?}", letter.properties.headers()),
        ));
    }
    if TRACES {
        // Each has at least a span for its processing and one for its event.
        collector.spans(2 * asked, PATIENCE).await;
        let traces = String::from_utf8_lossy(&collector.bytes()).into_owned();
        told.push(("a trace", traces));
    }
    worker.kill().await.expect("the worker can be killed");
    let log = std::fs::read_to_string(log.path()).expect("the log can be read");
    assert!(
        log.lines().count() >= asked,
        "the worker said something: {log}"
    );
    // The library's words for what it does with each frame: it would show bodies and passwords.
    for lapins in ["io_loop", "will handle frame", "will write to buffer"] {
        assert!(!log.contains(lapins), "lapin speaks in the log");
    }
    told.push(("the log", log));
    for (where_, text) in &told {
        for mark in [NAME, SECRET] {
            // Encoded as in a path, the mark is the same.
            let line = text.lines().find(|line| line.contains(mark));
            assert_eq!(line, None, "{where_} tells a name or a secret");
        }
    }
    let successor = successor(&stage).await;
    stage.strike(successor).await;
}

/// What its admin endpoints say.
async fn pages(admin: &str) -> Vec<(&'static str, String)> {
    // The clients of tests have no TLS set up for them; whoever was first is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut told = Vec::new();
    for page in ["/metrics", "/status", "/readyz"] {
        let answer = reqwest::get(format!("http://{admin}{page}")).await;
        let text = answer.expect("it answers").text().await;
        told.push((page, text.expect("it is text")));
    }
    told
}

/// Users, and what goes wrong with them.
async fn set_traps(stage: &Stage) {
    for name in ["plain", "lost", "garbled", "slow", "taken", "mine"] {
        stage.user(&marked(name));
    }
    stage
        .sandbox
        .set_faults([
            ApiFault::lost()
                .on(CallFilter::Rename)
                .prefix(&marked("lost"))
                .next(1),
            ApiFault::new(FaultKind::Garbage(MalformedBody::OtherName))
                .prefix(&marked("garbled"))
                .next(1),
            ApiFault::status(503).prefix(&marked("slow")).next(2),
            ApiFault::status(422).prefix(&marked("refused")).next(1),
        ])
        .await;
}

/// One request of every kind of end; how many they are.
async fn ask(stage: &Stage) -> usize {
    let mut asked = 0;
    for name in ["plain", "lost", "garbled", "slow", "refused", "nobody"] {
        stage
            .rename(&marked(name), &marked(&format!("{name}-new")), None)
            .await;
        asked += 1;
    }
    stage.rename(&marked("mine"), &marked("taken"), None).await;
    stage
        .rename(
            &marked("taken"),
            &marked("other"),
            Some(uuid::Uuid::new_v4()),
        )
        .await;
    // No request, but full of names all the same.
    stage
        .ask(json!({"username": [marked("wrong")], "new_username": marked(&"x".repeat(300))}))
        .await;
    asked += 3;
    asked
}

/// Whoever takes over has nothing left to do.
async fn successor(stage: &Stage) -> rename_worker::app::App {
    stage.sandbox.set_clients(vec![OAuthClient {
        id: rename_worker::sandbox::CLIENT_ID.to_owned(),
        secret: rename_worker::sandbox::CLIENT_SECRET.into(),
        account: None,
    }]);
    stage.worker().await
}

async fn free_port() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    listener.local_addr().expect("an address").to_string()
}
