//! Whether deliveries flow, whether they should, and the steps from the one to the other.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Consumer;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions};
use lapin::types::{FieldTable, ShortString};

use super::delivery::Lane;
use super::trouble::Trouble;

pub(super) type Reply<T> = Pin<Box<dyn Future<Output = lapin::Result<T>> + Send>>;

type Start = Pin<Box<dyn Future<Output = Result<Consumer, Trouble>> + Send>>;

pub(super) struct Intake {
    lane: Arc<Lane>,
    queue: ShortString,
    wanted: bool,
    flow: Flow,
}

#[derive(Default)]
enum Flow {
    #[default]
    Stopped,
    Starting(Start),
    Running(Consumer),
    /// Cancelled; what the broker sent before it knew still comes.
    Stopping(Consumer, Option<Reply<()>>),
}

/// Something that happened.
pub(super) enum Step {
    Delivered(Box<lapin::message::Delivery>),
    /// Nothing that needs to be told.
    Turned,
    /// By our own wish: no further delivery comes.
    Stopped,
    /// By the broker's.
    Cancelled,
    Failed(Trouble),
}

/// How long the broker may take to begin with deliveries. It may have to find the leader of the
/// queue first.
const START_TIMEOUT: Duration = Duration::from_secs(5);

impl Intake {
    pub(super) fn new(lane: Arc<Lane>, queue: &str) -> Self {
        Self {
            lane,
            queue: queue.into(),
            wanted: false,
            flow: Flow::Stopped,
        }
    }

    pub(super) fn want(&mut self, deliveries: bool) {
        self.wanted = deliveries;
        self.adjust();
    }

    /// The next thing that happens; never, while stopped. May be dropped and asked again.
    pub(super) async fn step(&mut self) -> Step {
        match self.flow.turn().await {
            Turn::Delivered(message) => Step::Delivered(message),
            Turn::Started(consumer) => {
                self.flow = Flow::Running(consumer);
                self.adjust();
                Step::Turned
            }
            Turn::Ended { by_us: false } => Step::Cancelled,
            Turn::Ended { by_us: true } => {
                self.flow = Flow::Stopped;
                self.adjust();
                if self.wanted {
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
            (Flow::Stopped, true) => Flow::Starting(self.start()),
            (Flow::Running(consumer), false) => {
                let cancelling = self.cancel(consumer.tag());
                Flow::Stopping(consumer, Some(cancelling))
            }
            (flow, _) => flow,
        };
    }

    fn start(&self) -> Start {
        let (lane, queue) = (Arc::clone(&self.lane), self.queue.clone());
        Box::pin(async move {
            let options = BasicConsumeOptions::default();
            let channel = &lane.channel;
            let starting = channel.basic_consume(queue, "".into(), options, FieldTable::default());
            match tokio::time::timeout(START_TIMEOUT, starting).await {
                Ok(started) => started.map_err(|error| Trouble::of_session(&error)),
                Err(_) => Err(Trouble::Silent(START_TIMEOUT.as_secs())),
            }
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

enum Turn {
    Started(Consumer),
    Delivered(Box<lapin::message::Delivery>),
    Ended { by_us: bool },
    Failed(Trouble),
}

impl Flow {
    async fn turn(&mut self) -> Turn {
        match self {
            Self::Stopped => std::future::pending().await,
            Self::Starting(starting) => match starting.await {
                Ok(consumer) => Turn::Started(consumer),
                Err(trouble) => Turn::Failed(trouble),
            },
            Self::Running(consumer) => came(consumer.next().await, false),
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
