//! A publisher in a task of its own, for those that wait for each answer: many can wait at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lapin::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::confirm::PublishResult;
use super::message::{OutboundMessage, PublishRouting};
use super::publisher::{PublishId, SessionPublisher};
use crate::broker::error::BrokerError;

/// Publishes that wait to be handed over, so that a caller with many of them is held back.
const QUEUE: usize = 256;
/// A confirm takes milliseconds, and some seconds while a queue elects a leader. One that does not
/// come for this long is worth a word.
pub(in crate::broker) const CONFIRMS_LATE: Duration = Duration::from_secs(10);

/// Channels that may be closed for messages that the broker refuses. A connection has 2047, and a
/// command's has no other use for them than its looks.
const CHANNELS: u32 = 1500;

#[derive(Debug)]
pub(in crate::broker) struct ConfirmedPublisher {
    inbox: mpsc::Sender<PublishCommand>,
    /// Since when nothing has been confirmed, while something waits to be.
    waiting_since: watch::Receiver<Option<Instant>>,
    task: JoinHandle<Option<BrokerError>>,
}

type PublishCommand = (OutboundMessage, oneshot::Sender<PublishResult>);

impl ConfirmedPublisher {
    pub(in crate::broker) async fn open(
        connection: &Arc<Connection>,
        addresses: PublishRouting,
    ) -> Result<Self, BrokerError> {
        let publisher = SessionPublisher::open(connection, Arc::new(addresses)).await?;
        let publisher = publisher.with_channels(CHANNELS);
        let (inbox, requests) = mpsc::channel(QUEUE);
        let (since, waiting_since) = watch::channel(None);
        let task = tokio::spawn(serve(publisher, requests, since));
        Ok(Self {
            inbox,
            waiting_since,
            task,
        })
    }

    /// Hands one message over, behind all that were handed over before; waits only while the pipe
    /// is full. What it returns waits for the message's fate.
    pub(in crate::broker) async fn publish(
        &self,
        outgoing: OutboundMessage,
    ) -> impl Future<Output = PublishResult> + use<> {
        let (answer, fate) = oneshot::channel();
        // When nobody takes it any more, the answer's end says so.
        self.inbox.send((outgoing, answer)).await.ok();
        async { fate.await.unwrap_or(PublishResult::Lost) }
    }

    /// Whether confirms have not come for long.
    pub(in crate::broker) fn is_late(&self) -> bool {
        let since = *self.waiting_since.borrow();
        since.is_some_and(|since| since.elapsed() >= CONFIRMS_LATE)
    }

    /// Waits for what is under way, for as long as that, and says what ended the channel before, if
    /// anything did.
    pub(in crate::broker) async fn close(mut self, patience: Duration) -> Option<BrokerError> {
        drop(self.inbox);
        if let Ok(ended) = timeout(patience, &mut self.task).await {
            // A panic in the task was reported where it happened.
            return ended.ok().flatten();
        }
        self.task.abort();
        None
    }
}

/// Ends when the channel does, or when nobody can ask any more and all is answered.
async fn serve(
    mut publisher: SessionPublisher,
    mut requests: mpsc::Receiver<PublishCommand>,
    waiting_since: watch::Sender<Option<Instant>>,
) -> Option<BrokerError> {
    let mut waiting: HashMap<PublishId, oneshot::Sender<PublishResult>> = HashMap::new();
    let mut next = 0;
    let mut open = true;
    while open || !publisher.is_idle() {
        tokio::select! {
            told = publisher.next_batch(), if !publisher.is_idle() => {
                let still = (!publisher.is_idle()).then(Instant::now);
                waiting_since.send_replace(still);
                for (ticket, publication) in told.publications {
                    if let Some(answer) = waiting.remove(&ticket) {
                        // Nobody may wait for it any more.
                        answer.send(publication).ok();
                    }
                }
                if told.broken.is_some() {
                    // Those still waiting are told by their senders' end.
                    return told.broken;
                }
            }
            asked = requests.recv(), if open => match asked {
                Some((outgoing, answer)) => {
                    let ticket = PublishId(next);
                    next += 1;
                    if publisher.publish(ticket, outgoing) {
                        waiting.insert(ticket, answer);
                        waiting_since.send_if_modified(|since| {
                            let is_first = since.is_none();
                            since.get_or_insert_with(Instant::now);
                            is_first
                        });
                    }
                }
                None => open = false,
            },
        }
    }
    None
}
