//! One queue's consumer: whether it runs, with which prefetch it should, and the steps from the one
//! to the other.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, future};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::Instant;

use super::delivery::Lane;
use super::trouble::Trouble;

pub(super) type Reply<T> = Pin<Box<dyn Future<Output = lapin::Result<T>> + Send>>;

type Start = Pin<Box<dyn Future<Output = Result<Consumer, Trouble>> + Send>>;

pub(super) struct Intake {
    lane: Arc<Lane>,
    queue: ShortString,
    /// The prefetch to consume with; `None` is not to consume.
    wanted: Option<u16>,
    flow: Flow,
    /// When the broker was asked to begin with deliveries.
    asked_at: Instant,
}

#[derive(Default)]
enum Flow {
    #[default]
    Stopped,
    Starting(Start, u16),
    Running(Consumer, u16),
    /// Cancelled. What the broker sent before it knew still comes.
    Stopping(Consumer, Option<Reply<()>>),
}

/// Something that happened.
pub(super) enum Step {
    Delivered(Box<lapin::message::Delivery>),
    /// Nothing that anybody has to know.
    Turned,
    /// By our own wish: no further delivery comes.
    Stopped,
    /// By the broker's.
    Cancelled,
    Failed(Trouble),
}

impl Intake {
    pub(super) fn new(lane: Arc<Lane>, queue: &str) -> Self {
        Self {
            lane,
            queue: queue.into(),
            wanted: None,
            flow: Flow::Stopped,
            asked_at: Instant::now(),
        }
    }

    /// Consumes with that prefetch from now on, or not at all. A prefetch holds for a consumer from
    /// its start, so another one means another consumer.
    pub(super) fn want(&mut self, prefetch: Option<u16>) {
        self.wanted = prefetch;
        self.adjust();
    }

    pub(super) const fn is_stopped(&self) -> bool {
        matches!(self.flow, Flow::Stopped)
    }

    /// For how long the broker has been asked to begin with deliveries.
    pub(super) fn starting_for(&self) -> Duration {
        match self.flow {
            Flow::Starting(..) => self.asked_at.elapsed(),
            Flow::Stopped | Flow::Running(..) | Flow::Stopping(..) => Duration::ZERO,
        }
    }

    /// While the broker was in an alarm it did not listen: it gets the whole time once more.
    pub(super) fn ask_anew(&mut self) {
        self.asked_at = Instant::now();
    }

    /// The next thing that happens; never, while stopped. May be dropped and asked again.
    pub(super) async fn step(&mut self) -> Step {
        match self.flow.turn().await {
            Turn::Delivered(message) => Step::Delivered(message),
            Turn::Started(consumer, prefetch) => {
                self.flow = Flow::Running(consumer, prefetch);
                self.adjust();
                Step::Turned
            }
            Turn::Ended { by_us: false } => Step::Cancelled,
            Turn::Ended { by_us: true } => {
                self.flow = Flow::Stopped;
                self.adjust();
                if self.wanted.is_some() {
                    Step::Turned
                } else {
                    Step::Stopped
                }
            }
            Turn::Failed(trouble) => Step::Failed(trouble),
        }
    }

    /// Takes the next step from what is to what is wanted.
    fn adjust(&mut self) {
        self.flow = match (std::mem::take(&mut self.flow), self.wanted) {
            (Flow::Stopped, Some(prefetch)) => {
                self.asked_at = Instant::now();
                Flow::Starting(self.start(prefetch), prefetch)
            }
            (Flow::Running(consumer, prefetch), wanted) if wanted != Some(prefetch) => {
                let cancelling = self.cancel(consumer.tag());
                Flow::Stopping(consumer, Some(cancelling))
            }
            (flow, _) => flow,
        };
    }

    fn start(&self, prefetch: u16) -> Start {
        let (lane, queue) = (Arc::clone(&self.lane), self.queue.clone());
        Box::pin(async move {
            let started = consume(&lane.channel, queue, prefetch).await;
            started.map_err(|error| Trouble::of_session(&error))
        })
    }

    fn cancel(&self, tag: ShortString) -> Reply<()> {
        let lane = Arc::clone(&self.lane);
        Box::pin(async move {
            let options = BasicCancelOptions::default();
            lane.channel.basic_cancel(tag, options).await
        })
    }
}

/// Starts a consumer. A prefetch is set for a channel, and holds for the consumers that start after it:
/// both frames are written at once, so that no other prefetch comes between them.
pub(super) async fn consume(
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

enum Turn {
    Started(Consumer, u16),
    Delivered(Box<lapin::message::Delivery>),
    Ended { by_us: bool },
    Failed(Trouble),
}

impl Flow {
    async fn turn(&mut self) -> Turn {
        match self {
            Self::Stopped => std::future::pending().await,
            Self::Starting(starting, prefetch) => match starting.await {
                Ok(consumer) => Turn::Started(consumer, *prefetch),
                Err(trouble) => Turn::Failed(trouble),
            },
            Self::Running(consumer, _) => came(consumer.next().await, false),
            Self::Stopping(consumer, cancelling) => tokio::select! {
                biased;
                next = consumer.next() => came(next, true),
                Err(error) = reply(cancelling) => {
                    Turn::Failed(Trouble::of_session(&error))
                }
            },
        }
    }
}

fn came(next: Option<lapin::Result<lapin::message::Delivery>>, by_us: bool) -> Turn {
    match next {
        Some(Ok(message)) => Turn::Delivered(Box::new(message)),
        Some(Err(error)) => Turn::Failed(Trouble::of_session(&error)),
        None => Turn::Ended { by_us },
    }
}

/// The answer that is awaited, if one is; else never.
pub(super) async fn reply<T>(awaited: &mut Option<Reply<T>>) -> lapin::Result<T> {
    match awaited {
        Some(waiting) => {
            let answer = waiting.await;
            *awaited = None;
            answer
        }
        None => std::future::pending().await,
    }
}
