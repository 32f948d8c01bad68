//! Takes messages from the head of a queue until a number of them has come or the queue is empty.
//!
//! RabbitMQ commits each `basic.get` of a quorum queue by itself, so that gets alone take about a
//! thousand messages a second; whatever a consumer can take at once is one commit. So all but one come by a
//! consumer, which is cancelled afterwards, and the last one by a get: its answer follows everything
//! that the consumer was sent, and says whether the queue is empty.

use std::sync::Arc;

use lapin::message::BasicGetMessage;

use super::queue_consumer::{ConsumerEvent, PendingReply, QueueConsumer, reply};
use crate::broker::delivery::SessionChannel;
use crate::broker::error::BrokerError;
use crate::core::policy::consume_plan::SourceQueue;

pub(in crate::broker) struct QueueFetch {
    pub(in crate::broker) source: SourceQueue,
    /// It is never started where one message is asked for.
    pub(in crate::broker) consumer: QueueConsumer,
    last: Option<PendingReply<Option<BasicGetMessage>>>,
    found: u32,
}

impl QueueFetch {
    /// Asks for this number of messages. More may come where some are settled at once.
    pub(in crate::broker) fn new(
        lane: &Arc<SessionChannel>,
        source: SourceQueue,
        queue: &str,
        most: u16,
    ) -> Self {
        let mut fetch = Self {
            source,
            consumer: QueueConsumer::new(Arc::clone(lane), queue),
            last: None,
            found: 0,
        };
        match most.saturating_sub(1) {
            0 => fetch.last = Some(fetch.consumer.get()),
            others => fetch.consumer.set_active(Some(others)),
        }
        fetch
    }

    /// The number of messages that came, once no other will come.
    pub(in crate::broker) fn ended(&self) -> Option<u32> {
        (self.last.is_none() && self.consumer.is_stopped()).then_some(self.found)
    }

    /// The next thing that happens; never, once it has ended. May be dropped and asked again.
    pub(in crate::broker) async fn step(&mut self) -> ConsumerEvent {
        let event = tokio::select! {
            biased;
            event = self.consumer.step() => event,
            last = reply(&mut self.last) => {
                self.consumer.set_active(None);
                match last {
                    Ok(Some(message)) => ConsumerEvent::Delivered(Box::new(message.delivery)),
                    Ok(None) => return ConsumerEvent::Turned,
                    Err(error) => ConsumerEvent::Failed(BrokerError::of_session(&error)),
                }
            }
        };
        match event {
            ConsumerEvent::Delivered(_) => self.found += 1,
            ConsumerEvent::Turned => self.last = Some(self.consumer.get()),
            ConsumerEvent::Stopped | ConsumerEvent::Cancelled | ConsumerEvent::Failed(_) => {}
        }
        event
    }
}
