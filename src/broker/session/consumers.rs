//! The consumers of one session: carries out what [`ConsumePlan`] decides.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::fetch::QueueFetch;
use super::queue_consumer::{ConsumerEvent, PendingReply, QueueConsumer};
use crate::broker::delivery::{Delivery, SessionChannel};
use crate::broker::error::BrokerError;
use crate::broker::topology::declare;
use crate::broker::topology::model::QueueNames;
use crate::clock;
use crate::core::policy::consume_plan::{ConsumePlan, ConsumeScope, DeliveryCheck, SourceQueue};

/// How long the broker may take to begin with deliveries. It may have to find the leader of the
/// queue first.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that happened.
pub(in crate::broker) enum ConsumersEvent {
    Delivered(Delivery),
    /// What was to be fetched has come: this number of messages.
    Fetched(u32),
    /// Nothing that anybody has to know.
    Turned,
    /// From now on new requests are taken, beside those that are due.
    TakesNew,
    /// By our own wish: no further delivery comes.
    Stopped,
    /// See [`DeliveryCheck::MetSuspect`].
    MetSuspect,
    /// The broker cancelled a consumer.
    Cancelled,
    Failed(BrokerError),
}

pub(in crate::broker) struct SessionConsumers {
    lane: Arc<SessionChannel>,
    names: QueueNames,
    plan: ConsumePlan,
    due: QueueConsumer,
    requests: QueueConsumer,
    /// Asks how many messages are ready in a queue.
    counting: Option<(SourceQueue, PendingReply<u32>)>,
    fetch: Option<QueueFetch>,
    took_new: bool,
}

impl SessionConsumers {
    pub(in crate::broker) fn new(
        lane: Arc<SessionChannel>,
        names: &QueueNames,
        plan: ConsumePlan,
    ) -> Self {
        Self {
            due: QueueConsumer::new(Arc::clone(&lane), &names.due),
            requests: QueueConsumer::new(Arc::clone(&lane), &names.requests),
            lane,
            names: names.clone(),
            plan,
            counting: None,
            fetch: None,
            took_new: false,
        }
    }

    /// Begins to consume, goes on with other queues, or stops.
    pub(in crate::broker) fn want(&mut self, wanted: Option<ConsumeScope>) {
        self.plan.want(wanted);
        self.adjust();
    }

    /// Takes this number of messages from the head of a queue, beside what is consumed.
    pub(in crate::broker) fn fetch(&mut self, source: SourceQueue, most: u16) {
        let queue = self.queue(source).to_owned();
        self.fetch = Some(QueueFetch::new(&self.lane, source, &queue, most));
    }

    /// The prefetch that holds now.
    pub(in crate::broker) const fn prefetch(&self) -> u16 {
        self.plan.prefetch()
    }

    pub(in crate::broker) const fn has_delivered(&self) -> bool {
        self.plan.has_delivered()
    }

    pub(in crate::broker) fn full_for(&self) -> Duration {
        self.plan.full_for(clock::now())
    }

    /// The next thing that happens; never, while nothing is consumed. May be dropped and asked again.
    pub(in crate::broker) async fn next(&mut self) -> ConsumersEvent {
        let takes_new = self.plan.takes_new();
        if std::mem::replace(&mut self.took_new, takes_new) != takes_new && takes_new {
            return ConsumersEvent::TakesNew;
        }
        if let Some(found) = self.fetch.as_ref().and_then(QueueFetch::ended) {
            self.fetch = None;
            return ConsumersEvent::Fetched(found);
        }
        let (source, is_fetched, event) = tokio::select! {
            biased;
            (queue, ready) = counted(&mut self.counting) => return self.on_counted(queue, ready),
            (source, event) = fetched(&mut self.fetch) => (source, true, event),
            event = self.due.step() => (SourceQueue::Due, false, event),
            event = self.requests.step() => (SourceQueue::Requests, false, event),
        };
        match event {
            ConsumerEvent::Delivered(message) if is_fetched => {
                let delivery = Delivery::new(*message, &self.lane, source);
                ConsumersEvent::Delivered(delivery.fetched())
            }
            ConsumerEvent::Delivered(message) => self.on_delivered(source, *message),
            ConsumerEvent::Stopped if !is_fetched && self.is_stopped() => ConsumersEvent::Stopped,
            ConsumerEvent::Stopped | ConsumerEvent::Turned => ConsumersEvent::Turned,
            ConsumerEvent::Cancelled => ConsumersEvent::Cancelled,
            ConsumerEvent::Failed(trouble) => ConsumersEvent::Failed(trouble),
        }
    }

    /// Called about once a second. Tells what is wrong, if the broker listens (it does not while it is in
    /// an alarm) and does not answer.
    pub(in crate::broker) fn on_tick(&mut self, listens: bool) -> Option<BrokerError> {
        self.plan.on_tick(self.lane.unsettled());
        self.adjust();
        let fetch = self.fetch.as_mut().map(|fetch| &mut fetch.consumer);
        let mut intakes = [&mut self.due, &mut self.requests].into_iter().chain(fetch);
        if !listens {
            intakes.for_each(QueueConsumer::ask_anew);
            return None;
        }
        let late = intakes.any(|intake| intake.starting_for() > START_TIMEOUT);
        late.then(|| BrokerError::Silent(START_TIMEOUT.as_secs()))
    }

    fn is_stopped(&self) -> bool {
        self.plan.wanted().is_none() && self.due.is_stopped() && self.requests.is_stopped()
    }

    fn on_delivered(
        &mut self,
        source: SourceQueue,
        message: lapin::message::Delivery,
    ) -> ConsumersEvent {
        let delivery = Delivery::new(message, &self.lane, source);
        let (redelivered, count) = (delivery.redelivered(), delivery.delivery_count());
        let check = self
            .plan
            .on_delivery(source, redelivered, count, clock::now());
        self.adjust();
        match check {
            DeliveryCheck::Accept => ConsumersEvent::Delivered(delivery),
            DeliveryCheck::MetSuspect => ConsumersEvent::MetSuspect,
        }
    }

    fn on_counted(&mut self, queue: SourceQueue, ready: lapin::Result<u32>) -> ConsumersEvent {
        match ready {
            Ok(ready) => {
                let unsettled = self.lane.unsettled();
                self.plan.on_count(queue, ready, unsettled, clock::now());
                self.adjust();
                ConsumersEvent::Turned
            }
            Err(error) if declare::is_missing(&error) => ConsumersEvent::Cancelled,
            Err(error) => ConsumersEvent::Failed(BrokerError::of_session(&error)),
        }
    }

    fn adjust(&mut self) {
        self.due.set_active(self.plan.prefetch_of(SourceQueue::Due));
        let requests = self.plan.prefetch_of(SourceQueue::Requests);
        self.requests.set_active(requests);
        if let Some(queue) = self.plan.take_count() {
            self.count(queue);
        }
    }

    fn queue(&self, source: SourceQueue) -> &str {
        match source {
            SourceQueue::Requests => &self.names.requests,
            SourceQueue::Due => &self.names.due,
            SourceQueue::Undeliverable => &self.names.undeliverable,
        }
    }

    fn count(&mut self, source: SourceQueue) {
        let (lane, queue) = (Arc::clone(&self.lane), self.queue(source).into());
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let reply: PendingReply<u32> = Box::pin(async move {
            let table = FieldTable::default();
            let found = lane.channel.queue_declare(queue, options, table).await?;
            Ok(found.message_count())
        });
        self.counting = Some((source, reply));
    }
}

async fn counted(
    counting: &mut Option<(SourceQueue, PendingReply<u32>)>,
) -> (SourceQueue, lapin::Result<u32>) {
    match counting {
        Some((source, waiting)) => {
            let (source, ready) = (*source, waiting.await);
            *counting = None;
            (source, ready)
        }
        None => std::future::pending().await,
    }
}

async fn fetched(fetch: &mut Option<QueueFetch>) -> (SourceQueue, ConsumerEvent) {
    match fetch {
        Some(fetch) => (fetch.source, fetch.step().await),
        None => std::future::pending().await,
    }
}
