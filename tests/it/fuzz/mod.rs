//! Messages drawn at random, thrown at the real binary over AMQP: it lives on with one session and
//! little memory, each message ends in exactly one outcome, nothing is left, and the review can read
//! all of it.
//!
//! `make fuzz-amqp` throws 200,000; `FUZZ_MESSAGES` and `FUZZ_SEED` change how many, and which.

mod draw;
mod publisher;

use std::collections::BTreeMap;
use std::env;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rename_worker::broker::topology::model::{Topology, TopologyObject, TopologySettings};
use rename_worker::demo::broker::docker::free_ports;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use self::publisher::Publisher;
use crate::support::amqp::Raw;
use crate::support::process::terminate;
use crate::support::stage::Stage;
use crate::support::{broker, say};

/// In `cargo test`: a few seconds.
const SHORT: u64 = 1_000;
const LONG: u64 = 200_000;

/// The limit of the chart, in KiB.
const MEMORY_MAX: u64 = 192 * 1024;

/// Published and not confirmed.
const UNCONFIRMED: usize = 100;
/// Published and without an outcome: the worker always has work, and the broker never much.
const OUTSTANDING: u64 = 2_000;

/// A test's binary on a busy machine does a hundred and more a second.
const PER_MESSAGE: Duration = Duration::from_millis(20);
/// What comes on top for starting and for reading at the end.
const AT_LEAST: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_random_messages_end_in_one_outcome_each() {
    run(SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make fuzz-amqp"]
async fn two_hundred_thousand_random_messages_end_in_one_outcome_each() {
    run(number("FUZZ_MESSAGES").unwrap_or(LONG)).await;
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().expect("it is a number"))
}

async fn run(messages: u64) {
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let limit = AT_LEAST + PER_MESSAGE * u32::try_from(messages).expect("it fits");
    let again = format!("again: FUZZ_SEED={seed} FUZZ_MESSAGES={messages} make fuzz-amqp");
    let thrown = timeout(limit, throw(messages, seed)).await;
    let told = thrown.unwrap_or_else(|_| panic!("it hangs; {again}"));
    say(&format!("fuzz over AMQP: {told}; {again}"));
}

async fn throw(messages: u64, seed: u64) -> String {
    let stage = Stage::set(|_| {}).await;
    for nth in 0..draw::NAMES {
        stage.user(&draw::name(nth));
    }
    let [port] = free_ports().expect("a port is free");
    let admin = format!("127.0.0.1:{port}");
    let mut worker = stage
        .process()
        .env("RENAME_WORKER_ADMIN__LISTEN", &admin)
        .env("RENAME_WORKER_LOG__LEVEL", "error")
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the worker starts");
    let heard = Heard::listen(&stage).await;
    let accepted = publish(&stage, messages, seed, &heard, &mut worker).await;
    heard.await_outcomes(accepted, &mut worker).await;
    let status = status(&admin).await;
    assert_eq!(status["broker"]["sessions"], 1, "sessions ended: {status}");
    assert_eq!(status["in_hand"], 0, "something is in hand: {status}");
    let memory = peak_memory(&worker);
    assert!(memory < MEMORY_MAX, "it took {memory} KiB");
    let known = heard.known();
    assert_eq!(known.strange, [""; 0], "events that say something wrong");
    assert_eq!(known.events, accepted, "more outcomes than messages");
    nothing_is_left_but(&stage, known.to_review).await;
    the_review_reads_all(&stage, known.to_review).await;
    let ended = terminate(&mut worker).await;
    assert!(ended.success(), "the idle worker ended with {ended}");
    clean(&stage).await;
    let outcomes = &known.outcomes;
    format!("{accepted} of {messages} messages accepted, {memory} KiB at most, {outcomes:?}")
}

/// Publishes all, as fast as the worker works. How many the broker took.
async fn publish(
    stage: &Stage,
    messages: u64,
    seed: u64,
    heard: &Heard,
    worker: &mut Child,
) -> u64 {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut publisher = Publisher::connect(broker().await).await;
    let (mut accepted, mut refused) = (0, 0);
    let exchange = &stage.names.requests;
    for nth in 0..messages {
        let message = draw::message(&mut rng);
        // A routing key that is no plain text may cost the channel, on some releases.
        let risky = !message.routing_key.is_ascii();
        let window = if risky { 0 } else { UNCONFIRMED };
        let sent = async {
            publisher.confirm_down_to(window).await?;
            publisher.publish(exchange, &message).await?;
            publisher.confirm_down_to(window).await
        };
        match sent.await {
            Ok(()) => accepted += 1,
            Err(_) if risky => publisher = Publisher::connect(broker().await).await,
            Err(closed) => panic!("message {nth} of seed {seed} is refused: {}", closed.0),
        }
        heard
            .await_at_least(accepted - OUTSTANDING.min(accepted), worker)
            .await;
    }
    let last = publisher.confirm_down_to(0).await;
    last.expect("the broker confirms");
    assert_eq!(publisher.unconfirmed(), 0);
    refused += publisher.refused();
    accepted - refused
}

/// What the events said so far.
#[derive(Debug, Clone, Default)]
struct Known {
    events: u64,
    /// Failures that a person has to look at.
    to_review: u64,
    outcomes: BTreeMap<String, u64>,
    strange: Vec<String>,
}

struct Heard {
    known: Arc<Mutex<Known>>,
    events: watch::Receiver<u64>,
}

impl Heard {
    async fn listen(stage: &Stage) -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let (tell, events) = watch::channel(0);
        let channel = stage.raw.another_channel().await;
        let prefetch = channel.basic_qos(1_000, BasicQosOptions::default()).await;
        prefetch.expect("a prefetch can be set");
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = channel
            .basic_consume(
                stage.events.as_str().into(),
                "".into(),
                options,
                FieldTable::default(),
            )
            .await;
        let mut consumer = consumer.expect("the queue can be consumed");
        let noting = Arc::clone(&known);
        tokio::spawn(async move {
            // Lives as long as its consumer.
            let _channel = channel;
            while let Some(Ok(delivery)) = consumer.next().await {
                let mut known = noting.lock().unwrap_or_else(PoisonError::into_inner);
                let id = delivery.properties.message_id().as_ref();
                known.note(id.map_or("", |id| id.as_str()), &delivery.data);
                tell.send_replace(known.events);
            }
        });
        Self { known, events }
    }

    fn known(&self) -> Known {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    async fn await_at_least(&self, events: u64, worker: &mut Child) {
        let mut seen = self.events.clone();
        tokio::select! {
            came = seen.wait_for(|seen| *seen >= events) => {
                came.expect("the listener lives");
            }
            ended = worker.wait() => panic!("the worker ended by itself: {ended:?}"),
        }
    }

    async fn await_outcomes(&self, accepted: u64, worker: &mut Child) {
        let waiting = self.await_at_least(accepted, worker);
        if timeout(AT_LEAST, waiting).await.is_err() {
            let known = self.known();
            panic!(
                "{} of {accepted} messages have an outcome: {known:?}",
                known.events
            );
        }
    }
}

impl Known {
    fn note(&mut self, message_id: &str, body: &[u8]) {
        self.events += 1;
        let event: Value = serde_json::from_slice(body).unwrap_or_default();
        let data = &event["data"];
        let outcome = match event["type"].as_str() {
            Some("user.renamed") => data["outcome"].as_str(),
            Some("user.rename-failed") => {
                self.to_review += u64::from(data["review"] != "none");
                data["reason"].as_str()
            }
            _ => None,
        };
        match outcome {
            Some(outcome) if event["id"] == message_id => {
                *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
            }
            _ => self.strange.push(event.to_string()),
        }
    }
}

async fn status(admin: &str) -> Value {
    // Another test may have set it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer = reqwest::get(format!("http://{admin}/status")).await;
    let body = answer.expect("the worker answers").bytes().await;
    serde_json::from_slice(&body.expect("the answer comes")).expect("the status is JSON")
}

/// The most that the process ever had, in KiB.
fn peak_memory(worker: &Child) -> u64 {
    let id = worker.id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .expect("Linux tells")
        .parse()
        .expect("it is a number")
}

fn queues(stage: &Stage) -> Vec<String> {
    let settings = TopologySettings::from(&stage.settings);
    let objects = Topology::new(&stage.names, &settings).objects;
    let queues = objects.into_iter().filter_map(|object| match object {
        TopologyObject::Queue { name, .. } => Some(name),
        _ => None,
    });
    queues.collect()
}

async fn nothing_is_left_but(stage: &Stage, letters: u64) {
    for queue in queues(stage) {
        // These hold a token each, and no message.
        if [".active", ".review-lock"]
            .iter()
            .any(|end| queue.ends_with(end))
        {
            continue;
        }
        let left = u64::from(stage.raw.queue_length(&queue).await);
        let expected = if queue == stage.names.dead_letters {
            letters
        } else {
            0
        };
        assert_eq!(left, expected, "messages in {queue}");
    }
}

async fn the_review_reads_all(stage: &Stage, letters: u64) {
    for arguments in [
        &["list", "--json"][..],
        &["list", "--each", "--json"],
        &["replay", "--all", "--dry-run", "--json"],
        &["export", "-"],
    ] {
        let url = stage.settings.amqp.url.read().expect("the URL is given");
        let ran = Command::new(env!("CARGO_BIN_EXE_rename-worker"))
            .arg("dead-letters")
            .args(arguments)
            .env("RENAME_WORKER_AMQP__URL", url.expose_secret())
            .env("RENAME_WORKER_AMQP__PREFIX", &stage.settings.amqp.prefix)
            .output()
            .await
            .expect("the command runs");
        let said = String::from_utf8_lossy(&ran.stderr);
        // A replay ends with 1 where letters stay that are no valid request, as many are here.
        let fine =
            ran.status.success() || (arguments[0] == "replay" && ran.status.code() == Some(1));
        assert!(fine, "{arguments:?} ends with {}: {said}", ran.status);
        if arguments[0] == "export" {
            let text = std::str::from_utf8(&ran.stdout).expect("the export is text");
            let lines = text.lines().inspect(|line| {
                let read = serde_json::from_str::<Value>(line);
                assert!(read.is_ok_and(|line| line.is_object()), "no JSON: {line}");
            });
            let count = u64::try_from(lines.count()).expect("it fits");
            assert_eq!(count, letters, "lines of the export");
        }
    }
}

async fn clean(stage: &Stage) {
    let queues = queues(stage);
    let queues: Vec<&str> = queues.iter().map(String::as_str).collect();
    let names = &stage.names;
    let exchanges = [&*names.requests, &*names.events, &*names.dead_letters];
    let raw: &Raw = &stage.raw;
    raw.remove(&queues, &exchanges).await;
}
