//! What is known of a run while it runs: which requests are published, what has been told of each.
//!
//! Filled by a listener that survives the broker's restarts: its queue is durable, it counts nothing
//! twice that was delivered twice to itself, and it waits for nothing without an end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, Consumer};
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use super::plan::Plan;

/// Between tries to reach a broker that is away.
const AGAIN: Duration = Duration::from_millis(200);

/// A broker that is starting may take a connection and never greet.
const GREETING: Duration = Duration::from_secs(10);

/// Handing an ack over takes no time; to wait for it without an end has hung a run whose broker
/// restarted meanwhile.
const ACKING: Duration = Duration::from_secs(5);

/// After so long without an event it is looked whether the connection lives.
const SILENCE: Duration = Duration::from_millis(500);

/// After so many silences in a row another connection is made, whatever lapin says of this one: a
/// listener that hears nothing would make the worker look guilty.
const SILENCES: u32 = 6;

/// What one event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The reason, if it is of a failure.
    pub failed: Option<String>,
    pub event: String,
    /// The kills there had been when it was heard.
    pub kills: u64,
}

#[derive(Debug, Default)]
struct Known {
    told: HashMap<Uuid, Vec<Told>>,
    /// Links of chains whose turn it is.
    ready: VecDeque<usize>,
    /// Events of nothing that was asked.
    strays: Vec<String>,
    /// How many disturbances there were, and how many before a request was told of.
    disturbances: u64,
    told_after: HashMap<Uuid, u64>,
    /// How many of them were kills of the worker, and how many before a request was published.
    kills: u64,
    published_after: HashMap<Uuid, u64>,
}

pub struct Board {
    index: HashMap<Uuid, usize>,
    next: Vec<Option<usize>>,
    known: Mutex<Known>,
    /// How many requests have an outcome.
    done: watch::Sender<usize>,
}

impl Board {
    pub fn new(plan: &Plan) -> Arc<Self> {
        let numbered = plan.asked.iter().enumerate();
        Arc::new(Self {
            index: numbered.map(|(at, asked)| (asked.id, at)).collect(),
            next: plan.asked.iter().map(|asked| asked.next).collect(),
            known: Mutex::default(),
            done: watch::Sender::new(0),
        })
    }

    pub fn done(&self) -> watch::Receiver<usize> {
        self.done.subscribe()
    }

    pub fn take_ready(&self) -> Option<usize> {
        self.lock().ready.pop_front()
    }

    /// A worker was killed, its connection cut or its broker stopped; said before and after.
    pub fn disturb(&self) {
        self.lock().disturbances += 1;
    }

    /// The worker is killed; said before and after, so that what is counted in between is counted
    /// to neither side for certain.
    pub fn kill(&self) {
        let mut known = self.lock();
        known.disturbances += 1;
        known.kills += 1;
    }

    pub fn publish(&self, id: Uuid) {
        let mut known = self.lock();
        let kills = known.kills;
        known.published_after.insert(id, kills);
    }

    /// How many kills there had been when the request was published.
    pub fn published_after(&self, id: Uuid) -> Option<u64> {
        self.lock().published_after.get(&id).copied()
    }

    pub fn disturbances(&self) -> u64 {
        self.lock().disturbances
    }

    /// How many disturbances there had been when the request's outcome was told.
    pub fn told_after(&self, id: Uuid) -> Option<u64> {
        self.lock().told_after.get(&id).copied()
    }

    /// Everything told so far, and what was told of nothing.
    pub fn read(&self) -> (HashMap<Uuid, Vec<Told>>, Vec<String>) {
        let known = self.lock();
        (known.told.clone(), known.strays.clone())
    }

    /// The requests without an outcome.
    pub fn untold(&self) -> HashSet<Uuid> {
        let known = self.lock();
        let ids = self.index.keys().copied();
        ids.filter(|id| !known.told.contains_key(id)).collect()
    }

    /// Takes one event down.
    pub fn hear(&self, correlation_id: Option<&str>, redelivered: bool, body: &[u8]) {
        let event: Value = serde_json::from_slice(body).expect("an event is JSON");
        let id = correlation_id.and_then(|id| Uuid::try_parse(id).ok());
        let mut known = self.lock();
        let Some((id, &at)) = id.and_then(|id| Some((id, self.index.get(&id)?))) else {
            known.strays.push(event.to_string());
            return;
        };
        let reason = event["data"]["reason"].as_str().map(str::to_owned);
        let told = Told {
            failed: (event["type"] == "user.rename-failed").then(|| reason.unwrap_or_default()),
            event: event.to_string(),
            kills: known.kills,
        };
        let before = known.told.entry(id).or_default();
        // The queue's second delivery of what was heard already is no second event.
        if redelivered && before.iter().any(|heard| heard.event == told.event) {
            return;
        }
        let first = before.is_empty();
        before.push(told);
        if first {
            let disturbances = known.disturbances;
            known.told_after.insert(id, disturbances);
            known.ready.extend(self.next[at]);
            drop(known);
            self.done.send_modify(|done| *done += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Declares the queue that hears every event, before the first is published.
pub async fn bind(url: &str, exchange: &str, queue: &str) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("the broker can be reached");
    let channel = connection.create_channel().await.expect("a channel opens");
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), text("quorum"));
    // Each restart spends deliveries of what was heard but not acknowledged.
    quorum.insert("x-delivery-limit".into(), AMQPValue::LongInt(1_000_000));
    channel
        .queue_declare(queue.into(), QueueDeclareOptions::durable(), quorum)
        .await
        .expect("a queue can be declared");
    let options = QueueBindOptions::default();
    let none = FieldTable::default();
    channel
        .queue_bind(queue.into(), exchange.into(), "#".into(), options, none)
        .await
        .expect("the exchange is there");
    let _ = connection.close(200, "OK".into()).await;
}

/// Listens for ever, whatever becomes of the broker.
pub async fn listen(board: Arc<Board>, url: String, queue: String) {
    loop {
        let _ = listen_once(&board, &url, &queue).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen_once(board: &Board, url: &str, queue: &str) -> anyhow::Result<()> {
    let (connection, mut consumer) = tokio::time::timeout(GREETING, consume(url, queue)).await??;
    let mut silences = 0;
    while silences < SILENCES {
        let delivery = match tokio::time::timeout(SILENCE, consumer.next()).await {
            Ok(Some(delivery)) => delivery?,
            // lapin does not tell a consumer of every end of its connection.
            Err(_) if connection.status().connected() => {
                silences += 1;
                continue;
            }
            Ok(None) | Err(_) => return Ok(()),
        };
        silences = 0;
        let correlation_id = delivery.properties.correlation_id().as_ref();
        board.hear(
            correlation_id.map(lapin::types::ShortString::as_str),
            delivery.redelivered,
            &delivery.data,
        );
        let acking = delivery.ack(BasicAckOptions::default());
        tokio::time::timeout(ACKING, acking).await??;
    }
    let leaving = connection.close(200, "OK".into());
    let _ = tokio::time::timeout(ACKING, leaving).await;
    Ok(())
}

async fn consume(url: &str, queue: &str) -> lapin::Result<(Connection, Consumer)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(200, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await?;
    Ok((connection, consumer))
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
