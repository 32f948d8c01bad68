//! One queue's consumer: whether it runs, with which prefetch it should, and the steps from the one
//! to the other.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, future};
use lapin::message::BasicGetMessage;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::Instant;

use crate::broker::delivery::SessionChannel;
use crate::broker::error::BrokerError;

pub(in crate::broker) type PendingReply<T> = Pin<Box<dyn Future<Output = lapin::Result<T>> + Send>>;

type ConsumerStart = Pin<Box<dyn Future<Output = Result<Consumer, BrokerError>> + Send>>;

pub(in crate::broker) struct QueueConsumer {
    lane: Arc<SessionChannel>,
    queue: ShortString,
    /// The prefetch to consume with; `None` is not to consume.
    wanted: Option<u16>,
    flow: ConsumerState,
    /// When the broker was asked to begin with deliveries.
    asked_at: Instant,
}

#[derive(Default)]
enum ConsumerState {
    #[default]
    Stopped,
    Starting(ConsumerStart, u16),
    Running(Consumer, u16),
    /// Cancelled. What the broker sent before it knew still comes.
    Stopping(Consumer, Option<PendingReply<()>>),
}

/// Something that happened.
pub(in crate::broker) enum ConsumerEvent {
    Delivered(Box<lapin::message::Delivery>),
    /// Nothing that anybody has to know.
    Turned,
    /// By our own wish: no further delivery comes.
    Stopped,
    /// By the broker's.
    Cancelled,
    Failed(BrokerError),
}

impl QueueConsumer {
    pub(in crate::broker) fn new(lane: Arc<SessionChannel>, queue: &str) -> Self {
        Self {
            lane,
            queue: queue.into(),
            wanted: None,
            flow: ConsumerState::Stopped,
            asked_at: Instant::now(),
        }
    }

    /// Consumes with that prefetch from now on, or not at all. A prefetch holds for a consumer from
    /// its start, so another one means another consumer.
    pub(in crate::broker) fn set_active(&mut self, prefetch: Option<u16>) {
        self.wanted = prefetch;
        self.reconcile();
    }

    pub(in crate::broker) const fn is_stopped(&self) -> bool {
        matches!(self.flow, ConsumerState::Stopped)
    }

    /// For how long the broker has been asked to begin with deliveries.
    pub(in crate::broker) fn starting_for(&self) -> Duration {
        match self.flow {
            ConsumerState::Starting(..) => self.asked_at.elapsed(),
            ConsumerState::Stopped | ConsumerState::Running(..) | ConsumerState::Stopping(..) => {
                Duration::ZERO
            }
        }
    }

    /// While the broker was in an alarm it did not listen: it gets the whole time once more.
    pub(in crate::broker) fn ask_anew(&mut self) {
        self.asked_at = Instant::now();
    }

    /// The next thing that happens; never, while stopped. May be dropped and asked again.
    pub(in crate::broker) async fn step(&mut self) -> ConsumerEvent {
        match self.flow.turn().await {
            PollOutcome::Delivered(message) => ConsumerEvent::Delivered(message),
            PollOutcome::Started(consumer, prefetch) => {
                self.flow = ConsumerState::Running(consumer, prefetch);
                self.reconcile();
                ConsumerEvent::Turned
            }
            PollOutcome::Ended { by_us: false } => ConsumerEvent::Cancelled,
            PollOutcome::Ended { by_us: true } => {
                self.flow = ConsumerState::Stopped;
                self.reconcile();
                if self.wanted.is_some() {
                    ConsumerEvent::Turned
                } else {
                    ConsumerEvent::Stopped
                }
            }
            PollOutcome::Failed(trouble) => ConsumerEvent::Failed(trouble),
        }
    }

    /// Takes the next step from what is to what is wanted.
    fn reconcile(&mut self) {
        self.flow = match (std::mem::take(&mut self.flow), self.wanted) {
            (ConsumerState::Stopped, Some(prefetch)) => {
                self.asked_at = Instant::now();
                ConsumerState::Starting(self.start(prefetch), prefetch)
            }
            (ConsumerState::Running(consumer, prefetch), wanted) if wanted != Some(prefetch) => {
                let cancelling = self.cancel(consumer.tag());
                ConsumerState::Stopping(consumer, Some(cancelling))
            }
            (flow, _) => flow,
        };
    }

    fn start(&self, prefetch: u16) -> ConsumerStart {
        let (lane, queue) = (Arc::clone(&self.lane), self.queue.clone());
        Box::pin(async move {
            let started = consume(&lane.channel, queue, prefetch).await;
            started.map_err(|error| BrokerError::of_session(&error))
        })
    }

    /// Asks for the message at the head of the queue.
    pub(in crate::broker) fn get(&self) -> PendingReply<Option<BasicGetMessage>> {
        let (lane, queue) = (Arc::clone(&self.lane), self.queue.clone());
        Box::pin(async move {
            let options = BasicGetOptions::default();
            lane.channel.basic_get(queue, options).await
        })
    }

    fn cancel(&self, tag: ShortString) -> PendingReply<()> {
        let lane = Arc::clone(&self.lane);
        Box::pin(async move {
            let options = BasicCancelOptions::default();
            lane.channel.basic_cancel(tag, options).await
        })
    }
}

/// Starts a consumer. A prefetch is set for a channel, and holds for the consumers that start after it:
/// both frames are written at once, so that no other prefetch comes between them.
pub(in crate::broker) async fn consume(
    channel: &Channel,
    queue: ShortString,
    prefetch: u16,
) -> lapin::Result<Consumer> {
    let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default());
    // The first poll of each hands its frame over.
    let ((), consumer) = future::try_join(qos, consumer).await?;
    Ok(consumer)
}

enum PollOutcome {
    Started(Consumer, u16),
    Delivered(Box<lapin::message::Delivery>),
    Ended { by_us: bool },
    Failed(BrokerError),
}

impl ConsumerState {
    async fn turn(&mut self) -> PollOutcome {
        match self {
            Self::Stopped => std::future::pending().await,
            Self::Starting(starting, prefetch) => match starting.await {
                Ok(consumer) => PollOutcome::Started(consumer, *prefetch),
                Err(trouble) => PollOutcome::Failed(trouble),
            },
            Self::Running(consumer, _) => on_delivery(consumer.next().await, false),
            Self::Stopping(consumer, cancelling) => tokio::select! {
                biased;
                next = consumer.next() => on_delivery(next, true),
                Err(error) = reply(cancelling) => {
                    PollOutcome::Failed(BrokerError::of_session(&error))
                }
            },
        }
    }
}

fn on_delivery(next: Option<lapin::Result<lapin::message::Delivery>>, by_us: bool) -> PollOutcome {
    match next {
        Some(Ok(message)) => PollOutcome::Delivered(Box::new(message)),
        Some(Err(error)) => PollOutcome::Failed(BrokerError::of_session(&error)),
        None => PollOutcome::Ended { by_us },
    }
}

/// The answer that is awaited, if one is; else never.
pub(in crate::broker) async fn reply<T>(awaited: &mut Option<PendingReply<T>>) -> lapin::Result<T> {
    match awaited {
        Some(waiting) => {
            let answer = waiting.await;
            *awaited = None;
            answer
        }
        None => std::future::pending().await,
    }
}
