//! Letters that a publisher made to do harm: what they could do to a terminal, and what they weigh.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use rename_worker::messages::visible::is_hidden;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{command, done, lines, lines_of, put, run, stage, start, strike, text};
use crate::support::stage::{PATIENCE, Stage};

/// What acts on a terminal or is not seen on it: some of each kind. All of them: `messages::visible`.
const HOSTILE: &str = "A\u{1b}[2J\u{1b}]0;title\u{7}\u{8}\r\u{7f}\u{9b}2J\u{9d}0;title\u{9c}\
    \u{61c}\u{ad}\u{180e}\u{200b}\u{200d}\u{202e}\u{2028}\u{2029}\u{2060}\u{2067}\u{3164}\
    \u{e000}\u{fe0f}\u{feff}\u{fff9}\u{e0041}\u{10ffff}\u{378}Z";
/// Short enough for AMQP's short strings with something beside it.
const HOSTILE_SHORT: &str = "A\u{1b}[2J\u{9b}2J\u{202e}\u{200b}\u{e0041}Z";

/// Memory that a command may take at its peak: half of what the chart gives the container that it may
/// be run in beside the worker.
const PEAK_MIB: u64 = 96;
/// Letters of 1 KB, of 170 KB and of 8 MiB: about 100 MiB together.
const SMALL: usize = 300;
const MEDIUM: usize = 200;
const LARGE: usize = 8;
/// Longer than a command takes for all of them, not optimized and beside a build.
const COMMAND_MAX: Duration = Duration::from_mins(4);

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn hostile_headers() -> FieldTable {
    let mut list = FieldArray::default();
    list.push(long(HOSTILE));
    let mut table = FieldTable::default();
    table.insert(HOSTILE_SHORT.into(), long(HOSTILE));
    let mut headers = FieldTable::default();
    headers.insert(format!("h {HOSTILE_SHORT}").into(), long(HOSTILE));
    headers.insert("list".into(), AMQPValue::FieldArray(list));
    headers.insert("table".into(), AMQPValue::FieldTable(table));
    for name in [
        "reason",
        "detail",
        "replay-of",
        "original-exchange",
        "original-routing-key",
    ] {
        headers.insert(format!("x-rename-{name}").into(), long(HOSTILE));
    }
    headers
}

async fn put_hostile(stage: &Stage) {
    let body = json!({
        "request_id": HOSTILE, "account_id": HOSTILE, "username": HOSTILE,
        "new_username": HOSTILE, HOSTILE: [HOSTILE],
    });
    let properties = BasicProperties::default()
        .with_content_type(format!("application/json; {HOSTILE_SHORT}").into())
        .with_correlation_id(HOSTILE_SHORT.into())
        .with_message_id(HOSTILE_SHORT.into())
        .with_type(HOSTILE_SHORT.into())
        .with_app_id(HOSTILE_SHORT.into())
        .with_headers(hostile_headers());
    let to = &stage.names.dead_letters;
    let raw = &stage.raw;
    for body in [body.to_string(), format!("{{ no JSON {HOSTILE}")] {
        raw.publish(to, HOSTILE_SHORT, body.as_bytes(), properties.clone())
            .await;
    }
}

/// Fails where a terminal would be shown a character that it takes for more than text.
fn assert_harmless(what: &str, bytes: &[u8]) {
    let shown = text(bytes);
    let raw: Vec<_> = shown
        .chars()
        .filter(|&c| c != '\n' && is_hidden(c))
        .collect();
    assert!(raw.is_empty(), "{what} has {raw:?}");
}

#[tokio::test]
async fn nothing_of_a_letter_acts_on_the_terminal_in_any_command_or_format() {
    let stage = stage().await;
    put_hostile(&stage).await;
    let folder = tempfile::tempdir().unwrap();
    let listed = done(&stage, &["list", "--each", "--json"]).await;
    let ids: Vec<String> = lines(&listed)
        .iter()
        .map(|line| line["letter"].as_str().unwrap().to_owned())
        .collect();
    let show = [&["show"][..], &[&*ids[0], &*ids[1]]].concat();
    let unknown = format!("no such file {HOSTILE_SHORT}");
    let commands: [&[&str]; 12] = [
        &["list"],
        &["list", "--each", "--show-usernames"],
        &["list", "--reason", HOSTILE_SHORT],
        &show,
        &["replay", "--all"],
        &["replay", "--all", "--edit"],
        &["replay", "--all", "--dry-run"],
        &["discard", "--all", "--because", "x", "--dry-run"],
        &["export"],
        &["import", &unknown],
        &["replay", "--set", HOSTILE_SHORT],
        &["show", HOSTILE_SHORT],
    ];
    for args in commands {
        for json in [&[][..], &["--json"]] {
            let args = [args, json].concat();
            let mut command = command(&stage.settings, &args).await;
            // An editor that shows the file, and changes it to what is no request either.
            let editor = "sh -c 'cat \"$1\"; echo >> \"$1\"; echo x >> \"$1\"' editor";
            command.env("EDITOR", editor).env("TMPDIR", folder.path());
            let output = command.output().await.expect("the binary runs");
            assert_harmless(&format!("{args:?} on standard output"), &output.stdout);
            assert_harmless(&format!("{args:?} on standard error"), &output.stderr);
        }
    }
    // And yet nothing is lost: an escape is the character, for whoever reads JSON.
    let file = folder.path().join("letters.jsonl");
    done(&stage, &["export", file.to_str().unwrap()]).await;
    assert_harmless("the export", &std::fs::read(&file).unwrap());
    let exported = lines_of(&file);
    let headers = &exported[0]["message"]["headers"];
    assert_eq!(headers["x-rename-detail"]["text"], HOSTILE);
    let shown: Value =
        serde_json::from_str(&done(&stage, &["show", &ids[0], "--json"]).await).unwrap();
    assert_eq!(shown[0]["message"], exported[0]["message"]);
    stage
        .raw
        .drain(&stage.names.dead_letters, 2, PATIENCE)
        .await;
    done(&stage, &["import", file.to_str().unwrap()]).await;
    let again = done(&stage, &["export"]).await;
    assert_eq!(
        lines(&again)[0]["message"]["headers"],
        exported[0]["message"]["headers"]
    );
    strike(stage).await;
}

/// RabbitMQ's history of dead-lettering, as a publisher may make one up.
fn history(queue: &str, reason: &str) -> FieldArray {
    let mut keys = FieldArray::default();
    keys.push(long("any"));
    let mut death = FieldTable::default();
    death.insert("queue".into(), long(queue));
    death.insert("reason".into(), long(reason));
    death.insert("exchange".into(), long("any"));
    death.insert("count".into(), AMQPValue::LongLongInt(1));
    death.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
    death.insert("routing-keys".into(), AMQPValue::FieldArray(keys));
    let mut deaths = FieldArray::default();
    deaths.push(AMQPValue::FieldTable(death));
    deaths
}

#[tokio::test]
async fn a_letter_that_the_broker_moved_is_never_shown_as_the_worker_s() {
    let stage = stage().await;
    let dead_letters = &stage.names.dead_letters;
    // A queue such as 0.1.0 had, of which RabbitMQ moves what expires to the dead letters.
    let queue = format!("{}.old.requests", stage.settings.amqp.prefix);
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), long(dead_letters));
    let options = lapin::options::QueueDeclareOptions {
        durable: true,
        ..lapin::options::QueueDeclareOptions::default()
    };
    let channel = stage.raw.another_channel().await;
    channel
        .queue_declare(queue.as_str().into(), options, arguments)
        .await
        .unwrap();
    let mut forged = FieldTable::default();
    for (name, value) in [
        ("x-rename-reason", "username_taken"),
        ("x-rename-detail", "ask the administrator"),
        ("x-rename-failed-at", "2026-11-24T09:00:00.000Z"),
        (
            "x-rename-request-id",
            "00000000-0000-4000-8000-000000000000",
        ),
    ] {
        forged.insert(name.into(), long(value));
    }
    let deaths = history("elsewhere", "rejected");
    let mut forged_history = forged.clone();
    forged_history.insert("x-death".into(), AMQPValue::FieldArray(deaths));
    let id = Uuid::new_v4();
    let request = super::body(id, "a", "b");
    for headers in [forged, forged_history] {
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_expiration("1".into());
        stage
            .raw
            .publish("", &queue, request.as_bytes(), properties)
            .await;
    }
    let begun = Instant::now();
    while stage.raw.queue_length(dead_letters).await < 2 {
        assert!(begun.elapsed() < PATIENCE, "nothing expired");
        sleep(Duration::from_millis(20)).await;
    }
    for letter in lines(&done(&stage, &["list", "--each", "--json"]).await) {
        assert_eq!(letter["written_by"], "broker", "{letter}");
        assert_eq!(letter["reason"], "broker_expired", "{letter}");
        assert_eq!(letter["request_id"], id.to_string(), "{letter}");
        let detail = letter["detail"].as_str().unwrap();
        assert!(detail.contains("by the broker"), "{letter}");
        assert_ne!(letter["failed_at"], "2026-11-24T09:00:00.000Z", "{letter}");
    }
    stage.raw.remove(&[&queue], &[]).await;
    strike(stage).await;
}

#[tokio::test]
async fn a_letter_of_the_worker_s_stays_so_whatever_history_its_publisher_made_up() {
    let stage = stage().await;
    let worker = stage.worker().await;
    let deaths = history(&stage.names.requests, "expired");
    let mut headers = FieldTable::default();
    headers.insert("x-death".into(), AMQPValue::FieldArray(deaths));
    headers.insert("x-first-death-queue".into(), long(&stage.names.requests));
    let properties = BasicProperties::default().with_headers(headers);
    stage.publish(b"no request", properties).await;
    let event = stage.event().await;
    assert_eq!(event["data"]["reason"], "invalid_request");
    let letter = lines(&done(&stage, &["list", "--each", "--json"]).await).remove(0);
    assert_eq!(letter["written_by"], "worker", "{letter}");
    assert_eq!(letter["reason"], "invalid_request", "{letter}");
    stage.letters(1).await;
    stage.strike(worker).await;
}

/// The most memory that the process has had so far, in MiB.
fn peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

/// Runs the command to its end and returns the most memory that it was seen to have.
async fn peak_of(stage: &Stage, args: &[&str]) -> u64 {
    let mut child = start(stage, args).await;
    let process = child.id().expect("it runs");
    let mut output = child.stdout.take().expect("it is piped");
    let reading = tokio::spawn(async move {
        let mut sink = tokio::io::sink();
        tokio::io::copy(&mut output, &mut sink).await
    });
    let mut highest = 0;
    let begun = Instant::now();
    while child.try_wait().expect("it is our own").is_none() {
        assert!(begun.elapsed() < COMMAND_MAX, "{args:?} does not end");
        highest = highest.max(peak(process).unwrap_or(0));
        sleep(Duration::from_millis(5)).await;
    }
    reading.await.unwrap().unwrap();
    highest
}

/// Small letters, then many of 170 KB, then some of 8 MiB: each size a surprise after the one before.
async fn put_heavy(stage: &Stage) {
    let small = super::put_many(stage, SMALL);
    small.await;
    let mut headers = BTreeMap::new();
    for number in 0..10 {
        headers.insert(format!("h{number}"), "x".repeat(10_000));
    }
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let medium = format!("[\"{}\"]", "a".repeat(70_000));
    for _ in 0..MEDIUM {
        put(stage, "invalid_request", &medium, &headers).await;
    }
    let large = "b".repeat(8 << 20);
    for _ in 0..LARGE {
        put(stage, "invalid_request", &large, &[]).await;
    }
}

#[tokio::test]
async fn a_review_of_heavy_letters_takes_little_memory() {
    let stage = stage().await;
    put_heavy(&stage).await;
    let listed = done(&stage, &["list", "--each", "--json"]).await;
    let heaviest = lines(&listed).pop().unwrap();
    let heaviest = heaviest["letter"].as_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let (file, audit) = (folder.path().join("letters"), folder.path().join("audit"));
    let (file, audit) = (file.to_str().unwrap(), audit.to_str().unwrap());
    let discard = [
        "discard",
        "--all",
        "--yes",
        "--because",
        "x",
        "--audit",
        audit,
    ];
    let commands: [&[&str]; 7] = [
        &["list"],
        &["list", "--each"],
        &["show", &heaviest],
        &["replay", "--all", "--dry-run"],
        &["export", file],
        &["export", "-"],
        &discard,
    ];
    for args in commands {
        let peak = peak_of(&stage, args).await;
        assert!(peak <= PEAK_MIB, "{args:?} took {peak} MiB");
    }
    assert_eq!(stage.raw.queue_length(&stage.names.dead_letters).await, 0);
    let peak = peak_of(&stage, &["import", file, "--yes"]).await;
    assert!(peak <= PEAK_MIB, "the import took {peak} MiB");
    assert_eq!(
        stage.raw.queue_length(&stage.names.dead_letters).await as usize,
        SMALL + MEDIUM + LARGE
    );
    strike(stage).await;
}

#[tokio::test]
async fn a_reader_who_is_slow_makes_an_export_wait_and_not_grow() {
    let stage = stage().await;
    put_heavy(&stage).await;
    let mut child = start(&stage, &["export"]).await;
    let process = child.id().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut some = [0; 100];
    output.read_exact(&mut some).await.unwrap();
    // It stops growing as soon as all that it may have ahead of us has come.
    let (mut last, mut same) = (0, 0);
    let begun = Instant::now();
    while same < 20 && begun.elapsed() < PATIENCE {
        let now = peak(process).unwrap();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        sleep(Duration::from_millis(100)).await;
    }
    assert!(last <= PEAK_MIB, "{last} MiB");
    child.kill().await.unwrap();
    let ends = run(&stage, &["list"]).await;
    assert_eq!(ends.status.code(), Some(0), "{ends:?}");
    strike(stage).await;
}
