//! Takes messages from the head of a queue until a number of them has come or the queue is empty.
//!
//! RabbitMQ commits each `basic.get` of a quorum queue by itself, so that gets alone take about a
//! thousand messages a second; whatever a consumer can take at once is one commit. So all but one come by a
//! consumer, which is cancelled afterwards, and the last one by a get: its answer follows everything
//! that the consumer was sent, and says whether the queue is empty.

use std::sync::Arc;

use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::BasicGetOptions;

use super::delivery::SessionChannel;
use super::intake::{ConsumerEvent, PendingReply, QueueConsumer, reply};
use super::trouble::BrokerError;
use crate::core::consume_plan::SourceQueue;

pub(super) struct QueueFetch {
    pub(super) source: SourceQueue,
    queue: String,
    lane: Arc<SessionChannel>,
    /// Of the consumer; it is stopped where one message is asked for.
    pub(super) intake: QueueConsumer,
    last: Option<PendingReply<Option<BasicGetMessage>>>,
    found: u32,
}

/// Something that happened.
pub(super) enum FetchStep {
    Fetched(Box<Delivery>),
    /// Nothing that anybody has to know.
    Turned,
    /// By the broker.
    Cancelled,
    Failed(BrokerError),
}

impl QueueFetch {
    /// Asks for this number of messages. More may come where some are settled at once.
    pub(super) fn new(
        lane: &Arc<SessionChannel>,
        source: SourceQueue,
        queue: &str,
        most: u16,
    ) -> Self {
        let mut fetch = Self {
            source,
            queue: queue.to_owned(),
            lane: Arc::clone(lane),
            intake: QueueConsumer::new(Arc::clone(lane), queue),
            last: None,
            found: 0,
        };
        match most.saturating_sub(1) {
            0 => fetch.last = Some(fetch.get()),
            others => fetch.intake.set_active(Some(others)),
        }
        fetch
    }

    /// The number of messages that came, once no other will come.
    pub(super) fn ended(&self) -> Option<u32> {
        (self.last.is_none() && self.intake.is_stopped()).then_some(self.found)
    }

    /// The next thing that happens; never, once it has ended. May be dropped and asked again.
    pub(super) async fn step(&mut self) -> FetchStep {
        tokio::select! {
            biased;
            step = self.intake.step() => match step {
                ConsumerEvent::Delivered(message) => {
                    self.found += 1;
                    FetchStep::Fetched(message)
                }
                ConsumerEvent::Turned => {
                    self.last = Some(self.get());
                    FetchStep::Turned
                }
                ConsumerEvent::Stopped => FetchStep::Turned,
                ConsumerEvent::Cancelled => FetchStep::Cancelled,
                ConsumerEvent::Failed(trouble) => FetchStep::Failed(trouble),
            },
            last = reply(&mut self.last) => {
                self.intake.set_active(None);
                match last {
                    Ok(Some(message)) => {
                        self.found += 1;
                        FetchStep::Fetched(Box::new(message.delivery))
                    }
                    Ok(None) => FetchStep::Turned,
                    Err(error) => FetchStep::Failed(BrokerError::of_session(&error)),
                }
            }
        }
    }

    fn get(&self) -> PendingReply<Option<BasicGetMessage>> {
        let (lane, queue) = (Arc::clone(&self.lane), self.queue.as_str().into());
        Box::pin(async move {
            let options = BasicGetOptions::default();
            lane.channel.basic_get(queue, options).await
        })
    }
}
