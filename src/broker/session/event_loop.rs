//! One session (epoch): two channels on a live connection, from the moment they are open until
//! one of them or the connection ends.
//!
//! Consuming and publishing have a channel each, so that a mistake in publishing does not hold up
//! acks, and the broker's flow control of one does not touch the other. When either ends, both do:
//! an outcome needs both. Nothing of a session outlives it: its deliveries are void, its publishes
//! are lost or told.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::Event;
use lapin::options::BasicQosOptions;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::consumers::{ConsumersEvent, SessionConsumers};
use super::handshake::OpenSession;
use super::protocol::{BrokerEvent, SessionCommand, SessionConfig};
use super::undeliverable::UndeliverableReader;
use crate::broker::delivery::{Delivery, SessionChannel};
use crate::broker::error::{BrokerError, closed_without_reason};
use crate::broker::publish::confirm::PublishResult;
use crate::broker::publish::message::OutboundMessage;
use crate::broker::publish::publisher::{ConfirmBatch, PublishId, SessionPublisher};
use crate::broker::transport::connection::AmqpConnection;
use crate::core::policy::consume_plan::{ConsumePlan, ConsumeScope};
use crate::core::policy::consume_window::SessionDeath;

/// How often the states are looked at, in case lapin closed something without a word, as it does
/// when the broker closes a connection with a code that is no error.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(1);
/// So long after a confirm the broker is believed to take messages still. A delivery that comes
/// later waits for one more confirm: a call must not be made whose outcome cannot be told, and an
/// idle connection learns of an alarm only by publishing.
const FLOW_CHECK_TTL: Duration = Duration::from_secs(1);
/// How long closing a channel may take before it is left to the connection's end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

pub(in crate::broker) struct Session<'a> {
    epoch: u64,
    wire: &'a mut AmqpConnection,
    events: &'a mpsc::Sender<BrokerEvent>,
    lane: Arc<SessionChannel>,
    publisher: SessionPublisher,
    consumers: SessionConsumers,
    /// Until the session ends.
    undeliverable: Option<UndeliverableReader>,
    /// How many messages were fetched, while some of them are pending.
    fetched_count: Option<u32>,
    flushing: FuturesUnordered<PendingFlush>,
    blocked: bool,
    /// When the broker last showed that it takes messages.
    last_confirm_at: Instant,
    /// Deliveries that wait until the broker has shown that it takes messages.
    pending: Vec<Delivery>,
}

/// What a session begins with, beside the connection.
pub(in crate::broker) struct SessionStart {
    pub(in crate::broker) epoch: u64,
    pub(in crate::broker) ready: OpenSession,
    pub(in crate::broker) consuming: ConsumePlan,
    pub(in crate::broker) undeliverable: UndeliverableReader,
}

/// Why a session ended.
pub(in crate::broker) enum SessionEnd {
    /// We were asked to close, or nobody listens any more.
    Closed,
    Trouble(BrokerError, SessionDeath),
}

type PendingFlush = Pin<Box<dyn Future<Output = (PublishId, lapin::Result<()>)> + Send>>;
impl<'a> Session<'a> {
    pub(in crate::broker) fn new(
        start: SessionStart,
        wire: &'a mut AmqpConnection,
        plan: &SessionConfig,
        events: &'a mpsc::Sender<BrokerEvent>,
    ) -> Self {
        let SessionStart {
            epoch,
            ready,
            consuming,
            undeliverable,
        } = start;
        let lane = Arc::new(SessionChannel::new(epoch, ready.consuming));
        Self {
            epoch,
            wire,
            events,
            consumers: SessionConsumers::new(Arc::clone(&lane), &plan.names, consuming),
            undeliverable: Some(undeliverable),
            lane,
            publisher: ready.publisher,
            fetched_count: None,
            flushing: FuturesUnordered::new(),
            blocked: ready.blocked,
            last_confirm_at: ready.told_at,
            pending: Vec::new(),
        }
    }

    /// Works until the session ends; then nothing of it is left.
    pub(in crate::broker) async fn run(
        mut self,
        commands: &mut mpsc::UnboundedReceiver<SessionCommand>,
    ) -> SessionEnd {
        if self.blocked && self.emit(BrokerEvent::Blocked(true)).await {
            return self.finish(SessionEnd::Closed).await;
        }
        let mut watch = tokio::time::interval(WATCHDOG_INTERVAL);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let ended = tokio::select! {
                biased;
                event = self.wire.events.next() => self.on_event(event).await,
                told = self.publisher.next_batch(), if !self.publisher.is_idle() => {
                    self.on_confirms(told).await
                }
                command = commands.recv() => self.on_command(command).await,
                event = self.consumers.next() => self.on_consumers(event).await,
                Some((ticket, flushed)) = self.flushing.next() => {
                    self.on_flushed(ticket, flushed).await
                }
                _ = watch.tick() => self.on_watch(),
            };
            if let Some(end) = ended {
                return self.finish(end).await;
            }
        }
    }

    /// `true` if nobody listens any more.
    async fn emit(&mut self, event: BrokerEvent) -> bool {
        self.events.send(event).await.is_err()
    }

    async fn send_event(&mut self, event: BrokerEvent) -> Option<SessionEnd> {
        self.emit(event).await.then_some(SessionEnd::Closed)
    }

    async fn on_event(&mut self, event: Option<Event>) -> Option<SessionEnd> {
        match event {
            Some(Event::ConnectionBlocked(_)) => {
                self.blocked = true;
                if self.emit(BrokerEvent::Blocked(true)).await {
                    return Some(SessionEnd::Closed);
                }
                self.release_pending().await
            }
            Some(Event::ConnectionUnblocked) => {
                self.blocked = false;
                self.send_event(BrokerEvent::Blocked(false)).await
            }
            // It may be about a channel of the topology's check, long gone; the states tell.
            Some(Event::Error(error)) => self.broken(|| BrokerError::of_session(&error)),
            Some(_) => None,
            None => Some(self.died(closed_without_reason())),
        }
    }

    fn on_watch(&mut self) -> Option<SessionEnd> {
        let silent = self.consumers.on_tick(!self.blocked);
        let end = self.broken(closed_without_reason);
        end.or_else(|| silent.map(|trouble| self.died(trouble)))
    }

    /// The end, if the connection or one of our channels is no more.
    fn broken(&self, why: impl FnOnce() -> BrokerError) -> Option<SessionEnd> {
        let whole = self.wire.connection.status().connected()
            && self.lane.channel.status().connected()
            // While something is under way there, the publisher tells what ends its channel, unless
            // it can go on with another one.
            && !self.publisher.is_lost();
        (!whole).then(|| self.died(why()))
    }

    async fn on_confirms(&mut self, batch: ConfirmBatch) -> Option<SessionEnd> {
        for (ticket, result) in batch.publications {
            if self.emit(BrokerEvent::Published { ticket, result }).await {
                return Some(SessionEnd::Closed);
            }
        }
        if let Some(trouble) = batch.broken {
            return Some(self.died(trouble));
        }
        self.last_confirm_at = Instant::now();
        self.release_pending().await
    }

    async fn on_command(&mut self, command: Option<SessionCommand>) -> Option<SessionEnd> {
        match command {
            None | Some(SessionCommand::Close) => return Some(SessionEnd::Closed),
            Some(SessionCommand::Consume { epoch, scope }) if epoch == self.epoch => {
                self.consume(Some(scope));
            }
            Some(SessionCommand::Stop { epoch }) if epoch == self.epoch => self.consume(None),
            Some(SessionCommand::Fetch { epoch, queue, most }) if epoch == self.epoch => {
                self.consumers.fetch(queue, most);
            }
            Some(SessionCommand::Flush { epoch, ticket }) if epoch == self.epoch => {
                self.flush(ticket);
            }
            Some(SessionCommand::Publish { ticket, outgoing }) => {
                let void = matches!(&*outgoing, OutboundMessage::Copy { of, .. } if of.epoch() != self.epoch);
                if void || !self.publisher.publish(ticket, *outgoing) {
                    let result = PublishResult::Lost;
                    return self
                        .send_event(BrokerEvent::Published { ticket, result })
                        .await;
                }
            }
            // Meant for a session that has ended.
            Some(
                SessionCommand::Consume { .. }
                | SessionCommand::Stop { .. }
                | SessionCommand::Fetch { .. }
                | SessionCommand::Flush { .. },
            ) => {}
        }
        None
    }

    fn consume(&mut self, scope: Option<ConsumeScope>) {
        self.consumers.want(scope);
        if let Some(reader) = &self.undeliverable {
            reader.want(scope.is_some());
        }
    }

    /// A channel works in order: when it answers a question, it has taken what was said before. To
    /// set the prefetch that holds changes nothing.
    fn flush(&mut self, ticket: PublishId) {
        let lane = Arc::clone(&self.lane);
        let prefetch = self.consumers.prefetch();
        self.flushing.push(Box::pin(async move {
            let options = BasicQosOptions { global: false };
            (ticket, lane.channel.basic_qos(prefetch, options).await)
        }));
    }

    async fn on_flushed(
        &mut self,
        ticket: PublishId,
        flushed: lapin::Result<()>,
    ) -> Option<SessionEnd> {
        match flushed {
            Ok(()) => self.send_event(BrokerEvent::Flushed { ticket }).await,
            Err(error) => Some(self.died(BrokerError::of_session(&error))),
        }
    }

    /// Says that all has come that was to be fetched, once it has.
    async fn end_fetching(&mut self) -> Option<SessionEnd> {
        if !self.pending.is_empty() {
            return None;
        }
        let (epoch, found) = (self.epoch, self.fetched_count.take()?);
        self.send_event(BrokerEvent::Fetched { epoch, found }).await
    }

    async fn on_consumers(&mut self, event: ConsumersEvent) -> Option<SessionEnd> {
        match event {
            ConsumersEvent::Turned => None,
            ConsumersEvent::Delivered(delivery) => self.forward(delivery).await,
            ConsumersEvent::Fetched(found) => {
                self.fetched_count = Some(found);
                self.end_fetching().await
            }
            ConsumersEvent::Stopped => {
                // Whoever stops wants no call made, so there is nothing to be sure of.
                if let Some(end) = self.release_pending().await {
                    return Some(end);
                }
                self.send_event(BrokerEvent::Stopped { epoch: self.epoch })
                    .await
            }
            ConsumersEvent::TakesNew => {
                self.send_event(BrokerEvent::TakesNew { epoch: self.epoch })
                    .await
            }
            ConsumersEvent::MetSuspect => Some(self.ended(BrokerError::MetSuspect, true)),
            ConsumersEvent::Cancelled => {
                let end = self.broken(closed_without_reason);
                end.or_else(|| Some(self.died(BrokerError::ConsumerCancelled)))
            }
            ConsumersEvent::Failed(trouble) => Some(self.died(trouble)),
        }
    }

    fn died(&self, trouble: BrokerError) -> SessionEnd {
        self.ended(trouble, false)
    }

    fn ended(&self, trouble: BrokerError, met_suspect: bool) -> SessionEnd {
        SessionEnd::Trouble(
            trouble,
            SessionDeath {
                delivered: self.consumers.has_delivered(),
                full_for: self.consumers.full_for(),
                met_suspect,
            },
        )
    }

    /// Hands a delivery over, unless it is time to make sure that its outcome can be told.
    async fn forward(&mut self, delivery: Delivery) -> Option<SessionEnd> {
        // It was not taken whole. The broker moves it to where it is read one at a time.
        if delivery.cut_from().is_some() {
            delivery.reject();
            return None;
        }
        let sure = self.blocked || self.last_confirm_at.elapsed() < FLOW_CHECK_TTL;
        if sure && self.pending.is_empty() {
            return self.send_event(BrokerEvent::Delivered(delivery)).await;
        }
        if self.pending.is_empty() {
            self.publisher.publish_canary();
        }
        self.pending.push(delivery);
        None
    }

    async fn release_pending(&mut self) -> Option<SessionEnd> {
        for delivery in std::mem::take(&mut self.pending) {
            if self.emit(BrokerEvent::Delivered(delivery)).await {
                return Some(SessionEnd::Closed);
            }
        }
        self.end_fetching().await
    }

    /// Voids the deliveries, tells what is lost, closes the channels.
    async fn finish(mut self, end: SessionEnd) -> SessionEnd {
        self.lane.close();
        if let Some(reader) = self.undeliverable.take() {
            reader.stop().await;
        }
        for ticket in self.publisher.fail_outstanding() {
            let result = PublishResult::Lost;
            if self.emit(BrokerEvent::Published { ticket, result }).await {
                break;
            }
        }
        if matches!(end, SessionEnd::Trouble(BrokerError::Silent(_), _)) {
            // Nobody is there to say goodbye to.
            return end;
        }
        if matches!(end, SessionEnd::Closed) {
            let_acks_settle(&self.lane, self.consumers.prefetch()).await;
        }
        let channels = [self.publisher.channel(), &self.lane.channel];
        for channel in channels.into_iter().filter(|c| c.status().connected()) {
            let closing = channel.close(200, "OK".into());
            tokio::time::timeout(CLOSE_TIMEOUT, closing).await.ok();
        }
        end
    }
}

/// How long acks are given to get from the broker's channel into its queue. It needs some
/// milliseconds; what is still on the way when the channel ends, RabbitMQ forgets, and delivers the
/// messages again.
const ACKS_SETTLE: Duration = Duration::from_millis(100);

/// Waits until the broker has the acks, which an answer on their channel shows, and until it has handed
/// them on, most likely.
async fn let_acks_settle(lane: &SessionChannel, prefetch: u16) {
    let options = BasicQosOptions { global: false };
    let asked = lane.channel.basic_qos(prefetch, options);
    if let Ok(Ok(())) = tokio::time::timeout(CLOSE_TIMEOUT, asked).await {
        tokio::time::sleep(ACKS_SETTLE).await;
    }
}
