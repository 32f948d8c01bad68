//! A hundred thousand dead letters, grouped: how long it takes, and how much memory.
//!
//! `cargo bench --bench letters`, or `make bench-letters`. The broker is found as the demo finds
//! it; set `RENAME_WORKER_TEST_AMQP_URL` to use a given one. `LETTERS` changes the number.

#[path = "../cost/process.rs"]
#[expect(dead_code, reason = "the other bench measures CPU time as well")]
mod process;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rename_worker::broker::topology::model::{QueueNames, TopologySettings};
use rename_worker::broker::{declare_topology, remove_topology};
use rename_worker::config::{Secret, Settings};
use rename_worker::demo::broker::BrokerProvisioner;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const LETTERS: usize = 100_000;
const REASONS: [&str; 5] = [
    "username_taken",
    "user_not_found",
    "invalid_request",
    "rejected",
    "retries_exhausted",
];
/// Publishes on their way at once.
const WINDOW: usize = 1000;
/// Between two looks at the other process's memory. Its peak is kept by the kernel.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the issue promises of grouping.
const MOST_TIME: Duration = Duration::from_secs(10);
const MOST_MEMORY_MB: f64 = 200.0;

#[tokio::main]
async fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--bench") {
        eprintln!("this takes minutes and a release build: run it with `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match bench().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the promise is kept.
async fn bench() -> Result<bool> {
    let letters = match std::env::var("LETTERS") {
        Ok(text) => text.parse().context("LETTERS is no number")?,
        Err(_) => LETTERS,
    };
    let broker = BrokerProvisioner::from_env()?.find().await?;
    let mut settings = Settings::default();
    settings.amqp.url = Secret::inline(broker.url());
    settings.amqp.prefix = format!("bench-{}", Uuid::new_v4().simple());
    let topology = TopologySettings::with_delays(&[]);
    declare_topology(&settings.amqp, &topology).await?;
    let names = QueueNames::new(&settings.amqp.prefix);
    fill(broker.url(), &names, letters).await?;

    println!("{letters} letters\n");
    println!("{:<34} {:>8} {:>9}", "", "time", "memory");
    let (grouped, took, memory) = run(broker.url(), &settings, &["list", "--json"]).await?;
    let grouped: Value = serde_json::from_slice(&grouped)?;
    ensure!(grouped["looked_at"] == json!(letters), "not all were seen");
    ensure!(grouped["groups"].as_array().map(Vec::len) == Some(REASONS.len()));
    for args in [
        &["list", "--json", "--account", "T12345678"][..],
        &["list", "--each", "--json"],
        &["replay", "--all", "--dry-run", "--json"],
        &["export", "-"],
    ] {
        run(broker.url(), &settings, args).await?;
    }
    remove_topology(&settings.amqp, &topology).await?;
    let kept = took <= MOST_TIME && memory <= MOST_MEMORY_MB;
    println!(
        "\ngrouped in {:.1} s with {memory:.0} MB; promised: {} s, {MOST_MEMORY_MB:.0} MB: {}",
        took.as_secs_f64(),
        MOST_TIME.as_secs(),
        if kept { "kept" } else { "BROKEN" }
    );
    Ok(kept)
}

/// Puts letters into the queue, as the worker writes them.
async fn fill(url: &str, names: &QueueNames, letters: usize) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let mut under_way = FuturesUnordered::new();
    for nth in 0..letters {
        under_way.push(put(&channel, names, nth));
        if under_way.len() == WINDOW {
            under_way.next().await.transpose()?;
        }
    }
    while under_way.next().await.transpose()?.is_some() {}
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let name = names.dead_letters.as_str().into();
    let queue = channel
        .queue_declare(name, options, FieldTable::default())
        .await?;
    ensure!(
        queue.message_count() as usize == letters,
        "not all are there"
    );
    connection.close(200, "filled".into()).await?;
    Ok(())
}

async fn put(channel: &Channel, names: &QueueNames, nth: usize) -> lapin::Result<()> {
    let id = Uuid::new_v4();
    let body = json!({
        "request_id": id,
        "account_id": "T12345678",
        "username": format!("somebody.{nth}@example.com"),
        "new_username": format!("somebody.else.{nth}@example.com"),
        "user_id": Uuid::new_v4(),
        "requested_at": "2026-11-23T10:00:00Z",
        "requested_by": "crm",
    });
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("x-rename-reason", REASONS[nth % REASONS.len()]),
        ("x-rename-detail", "the API answered so"),
        ("x-rename-failed-at", "2026-11-24T09:00:00.000Z"),
        ("x-rename-first-attempt-at", "2026-11-24T08:00:00.000Z"),
        ("x-rename-request-id", &id.to_string()),
        ("x-rename-original-exchange", &names.requests),
        ("x-rename-original-routing-key", "rename.T12345678"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_message_id(id.to_string().into())
        .with_headers(headers);
    channel
        .basic_publish(
            names.dead_letters.as_str().into(),
            "rename.T12345678".into(),
            BasicPublishOptions::default(),
            body.to_string().as_bytes(),
            properties,
        )
        .await?
        .await?;
    Ok(())
}

/// Runs the command; what it wrote, how long it took, and the most memory it had.
async fn run(url: &str, settings: &Settings, args: &[&str]) -> Result<(Vec<u8>, Duration, f64)> {
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_rename-worker"))
        .arg("dead-letters")
        .args(args)
        .env_clear()
        .env("RENAME_WORKER_AMQP__URL", url)
        .env("RENAME_WORKER_AMQP__PREFIX", &settings.amqp.prefix)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let pid = child.id().context("it has ended at once")?;
    let mut ended = std::pin::pin!(child.wait_with_output());
    let mut memory: f64 = 0.0;
    let output = loop {
        tokio::select! {
            output = &mut ended => break output?,
            () = sleep(LOOK_EVERY) => {
                // It may have ended just now.
                memory = memory.max(process::memory_mb(pid, "VmHWM").unwrap_or(0.0));
            }
        }
    };
    let took = begun.elapsed();
    ensure!(output.status.success(), "{args:?} failed");
    println!(
        "{:<34} {:>6.1} s {memory:>6.0} MB",
        args.join(" "),
        took.as_secs_f64()
    );
    Ok((output.stdout, took, memory))
}
