//! `dead-letters …` on a real RabbitMQ: what a reviewer sees and does, and that no letter is ever
//! lost, whatever is killed when.

mod asking;
mod carrying;
mod files;
mod hostile;
mod killing;
mod looking;
mod replaying;
mod story;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use rename_worker::config::Settings;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::support::amqp::Message;
use crate::support::broker;
use crate::support::stage::{ACCOUNT, Stage};

/// A name that no message of ours may tell unasked.
const NAME: &str = "hush.hush@example.com";

async fn stage() -> Stage {
    Stage::set(|_| {}).await
}

/// The command, ready to run.
async fn command(settings: &Settings, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rename-worker"));
    command
        .arg("dead-letters")
        .args(args)
        .env_clear()
        .env("RENAME_WORKER_AMQP__URL", broker().await)
        .env("RENAME_WORKER_AMQP__PREFIX", &settings.amqp.prefix)
        .env("USER", "kari")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(stage: &Stage, args: &[&str]) -> Output {
    let mut command = command(&stage.settings, args).await;
    command.output().await.expect("the binary runs")
}

/// Runs it and expects that it is done.
async fn done(stage: &Stage, args: &[&str]) -> String {
    let output = run(stage, args).await;
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    text(&output.stdout).to_owned()
}

/// Runs it and expects that it is done and tells JSON.
async fn told(stage: &Stage, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    serde_json::from_str(&done(stage, &args).await).expect("it is JSON")
}

async fn start(stage: &Stage, args: &[&str]) -> Child {
    let mut command = command(&stage.settings, args).await;
    command.spawn().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it is text")
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

fn lines_of(path: &Path) -> Vec<Value> {
    lines(&std::fs::read_to_string(path).expect("it can be read"))
}

/// A request's body.
fn body(id: Uuid, from: &str, to: &str) -> String {
    json!({"request_id": id, "account_id": ACCOUNT, "username": from, "new_username": to})
        .to_string()
}

/// Puts a letter into the queue as the worker would.
async fn put(stage: &Stage, reason: &str, body: &str, headers: &[(&str, &str)]) {
    let known = [
        ("x-rename-reason", reason),
        ("x-rename-detail", "the API answered so"),
        ("x-rename-failed-at", "2026-11-24T09:00:00.000Z"),
        ("x-rename-original-exchange", &stage.names.requests),
        ("x-rename-original-routing-key", "rename.T12345678"),
    ];
    let mut table = FieldTable::default();
    for (name, value) in known.iter().chain(headers) {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_headers(table);
    stage
        .raw
        .publish(
            &stage.names.dead_letters,
            "rename.T12345678",
            body.as_bytes(),
            properties,
        )
        .await;
}

/// Puts many letters into the queue; their requests' ids.
async fn put_many(stage: &Stage, count: usize) -> Vec<Uuid> {
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::new_v4()).collect();
    let bodies: Vec<_> = ids.iter().map(|id| body(*id, NAME, "new")).collect();
    let mut putting: FuturesUnordered<_> = bodies
        .iter()
        .map(|body| put(stage, "username_taken", body, &[]))
        .collect();
    while putting.next().await.is_some() {}
    ids
}

/// Takes all there is in a queue; how often each request is in it.
async fn requests_in(stage: &Stage, queue: &str) -> BTreeMap<Uuid, usize> {
    let count = stage.raw.queue_length(queue).await as usize;
    let messages = stage
        .raw
        .drain(queue, count, crate::support::stage::PATIENCE)
        .await;
    count_requests(messages.iter().map(Message::json))
}

fn count_requests(bodies: impl Iterator<Item = Value>) -> BTreeMap<Uuid, usize> {
    let mut counts = BTreeMap::new();
    for body in bodies {
        let id = body["request_id"].as_str().expect("it has an id");
        *counts.entry(id.parse().expect("a UUID")).or_default() += 1;
    }
    counts
}

/// Ends a test that had no worker.
async fn strike(stage: Stage) {
    stage.remove().await;
}
