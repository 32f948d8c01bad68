//! The outcomes that the worker publishes, each with the time of its arrival.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::fixture::Request;
use crate::support::stage::Stage;

/// What one event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub at: Instant,
    pub event_id: String,
    /// The reason, if the request failed.
    pub failed: Option<String>,
    /// The name that the user has now; empty for a failure.
    pub username: String,
}

type ByRequest = HashMap<Uuid, Vec<Outcome>>;

/// Collects every event of a stage from its creation on.
pub struct Outcomes {
    by_request: Arc<Mutex<ByRequest>>,
    /// Requests that have an outcome.
    count: watch::Receiver<usize>,
}

impl Outcomes {
    pub async fn collect(stage: &Stage) -> Self {
        let channel = stage.raw.another_channel().await;
        let prefetch = channel.basic_qos(1_000, BasicQosOptions::default()).await;
        prefetch.expect("a prefetch can be set");
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let queue = stage.events.as_str().into();
        let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default());
        let mut consumer = consumer.await.expect("the queue can be consumed");
        let by_request = Arc::<Mutex<ByRequest>>::default();
        let (counted, count) = watch::channel(0);
        let collected = Arc::clone(&by_request);
        tokio::spawn(async move {
            // The consumer lives as long as its channel.
            let _channel = channel;
            while let Some(Ok(delivery)) = consumer.next().await {
                let event = serde_json::from_slice(&delivery.data).expect("an event is JSON");
                let mut by_request = lock(&collected);
                add(&mut by_request, &event);
                counted.send_replace(by_request.len());
            }
        });
        Self { by_request, count }
    }

    /// Everything published for the request so far, in the order of arrival.
    pub fn of(&self, request: &Request) -> Vec<Outcome> {
        let by_request = lock(&self.by_request);
        by_request.get(&request.id).cloned().unwrap_or_default()
    }

    pub fn first(&self, request: &Request) -> Option<Outcome> {
        let by_request = lock(&self.by_request);
        by_request.get(&request.id)?.first().cloned()
    }

    /// How many of these were renamed.
    pub fn renamed(&self, requests: &[Request]) -> usize {
        let first = requests.iter().filter_map(|request| self.first(request));
        first.filter(|outcome| outcome.failed.is_none()).count()
    }

    /// How many of these failed, by reason.
    pub fn failed(&self, requests: &[Request]) -> HashMap<String, usize> {
        let first = requests.iter().filter_map(|request| self.first(request));
        let mut failed = HashMap::new();
        for reason in first.filter_map(|outcome| outcome.failed) {
            *failed.entry(reason).or_default() += 1;
        }
        failed
    }

    /// When the last of those outcomes that are there arrived.
    pub fn last(&self, requests: &[Request]) -> Option<Instant> {
        let first = requests.iter().filter_map(|request| self.first(request));
        first.map(|outcome| outcome.at).max()
    }

    /// Waits until each of these has an outcome; false if some have none within the limit.
    pub async fn wait_for(&self, requests: &[Request], limit: Duration) -> bool {
        let all = async {
            let mut count = self.count.clone();
            loop {
                let seen = *count.borrow_and_update();
                let missing = requests.iter().filter(|one| self.first(one).is_none());
                let missing = missing.count();
                if missing == 0 {
                    return;
                }
                // Each that is missing still adds one to the count, at least.
                let enough = count.wait_for(|count| *count >= seen + missing).await;
                enough.expect("the collector lives");
            }
        };
        timeout(limit, all).await.is_ok()
    }

    /// Waits until `count` requests of the stage have an outcome.
    pub async fn wait_for_count(&self, count: usize, limit: Duration) -> bool {
        let mut counted = self.count.clone();
        let enough = counted.wait_for(|counted| *counted >= count);
        timeout(limit, enough).await.is_ok()
    }
}

fn add(by_request: &mut ByRequest, event: &Value) {
    let data = &event["data"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_failure = event["type"] == "user.rename-failed";
    let id = data["request_id"].as_str().and_then(|id| id.parse().ok());
    let outcome = Outcome {
        at: Instant::now(),
        event_id: text(&event["id"]),
        failed: is_failure.then(|| text(&data["reason"])),
        username: if is_failure {
            String::new()
        } else {
            text(&data["username"])
        },
    };
    let id = id.expect("the event carries the id of a request");
    by_request.entry(id).or_default().push(outcome);
}

fn lock(by_request: &Mutex<ByRequest>) -> MutexGuard<'_, ByRequest> {
    by_request.lock().unwrap_or_else(PoisonError::into_inner)
}
