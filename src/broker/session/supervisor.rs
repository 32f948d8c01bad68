//! The worker's link to the broker: one task that connects, keeps one session at a time, and
//! connects again; and the handle by which it is told what to do.
//!
//! Everything that happens comes as a [`BrokerEvent`] on one bounded channel, in order. The handle
//! never waits. What it is told while no session lives is answered at once: publishes are
//! [`PublishResult::Lost`], the rest is void.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::event_loop::{Session, SessionEnd, SessionStart};
use super::handshake;
use super::handshake::OpenSession;
use super::protocol::{BrokerEvent, SessionCommand, SessionConfig};
use super::reconnect_backoff::ReconnectBackoff;
use super::undeliverable::UndeliverableReader;
use crate::broker::delivery::Delivery;
use crate::broker::error::BrokerError;
use crate::broker::publish::confirm::{AckPermit, PublishResult};
use crate::broker::publish::message::{OutboundMessage, PublishRouting};
use crate::broker::publish::publisher::PublishId;
use crate::broker::topology::model::{QueueNames, Topology, TopologySettings};
use crate::broker::transport::connection::AmqpConnection;
use crate::broker::transport::frame_filter::StreamLimits;
use crate::config::AmqpSection;
use crate::core::policy::consume_plan::{ConsumePlan, ConsumeScope, SourceQueue};
use crate::core::policy::consume_window::{ConsumeWindow, SessionHistory};

/// Sessions on one connection, at most. lapin never lets go of a closed channel's number, so after
/// some thousand channels a connection would be used up.
const SESSIONS_PER_CONNECTION: u32 = 50;

#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// How many requests may be held unsettled at a time.
    pub prefetch: u16,
    pub topology: TopologySettings,
    /// What the broker's tools show.
    pub connection_name: String,
    /// How much of a message is taken from the broker.
    pub limits: StreamLimits,
}

#[derive(Debug)]
pub struct BrokerClient;

/// Cheap to use, never waits.
#[derive(Debug)]
pub struct BrokerHandle {
    commands: mpsc::UnboundedSender<SessionCommand>,
    task: JoinHandle<()>,
}

impl BrokerClient {
    /// Starts to connect, and tells on `events` how it goes.
    pub fn start(
        amqp: AmqpSection,
        settings: LinkSettings,
        events: mpsc::Sender<BrokerEvent>,
    ) -> BrokerHandle {
        let names = QueueNames::new(&amqp.prefix);
        let plan = SessionConfig {
            topology: Topology::new(&names, &settings.topology),
            addresses: Arc::new(PublishRouting::new(&names, &settings.topology.delays)),
            names,
            amqp,
            prefetch: settings.prefetch,
            connection_name: settings.connection_name,
            limits: settings.limits,
        };
        // Unbounded, but what its one user puts in is bounded by what it holds: some commands for
        // each delivery of the prefetch.
        let (commands, inbox) = mpsc::unbounded_channel();
        let keeper = ConnectionSupervisor {
            plan: Arc::new(plan),
            events,
            inbox,
            patience: ReconnectBackoff::default(),
            history: SessionHistory::default(),
            epoch: 0,
        };
        BrokerHandle {
            commands,
            task: tokio::spawn(keeper.run()),
        }
    }
}

impl BrokerHandle {
    /// Begins to consume in the session that [`BrokerEvent::Up`] announced, or goes on with other
    /// queues.
    pub fn consume(&self, epoch: u64, scope: ConsumeScope) {
        self.send(SessionCommand::Consume { epoch, scope });
    }

    /// Stops consuming. What the broker sent before it knew still comes as
    /// [`BrokerEvent::Delivered`]; then comes [`BrokerEvent::Stopped`]. What it had set aside for
    /// us but not sent returns to the queue, some of it marked as redelivered. Deliveries that are
    /// held stay held and can be settled as before.
    pub fn stop_consuming(&self, epoch: u64) {
        self.send(SessionCommand::Stop { epoch });
    }

    /// Asks for the next messages of a queue, about this number at most. They come as
    /// [`BrokerEvent::Delivered`], and then [`BrokerEvent::Fetched`].
    pub fn fetch(&self, epoch: u64, queue: SourceQueue, most: u16) {
        self.send(SessionCommand::Fetch { epoch, queue, most });
    }

    /// Publishes, in the order of the calls. Answered by [`BrokerEvent::Published`].
    pub fn publish(&self, ticket: PublishId, outgoing: OutboundMessage) {
        let outgoing = Box::new(outgoing);
        self.send(SessionCommand::Publish { ticket, outgoing });
    }

    /// Acks. It takes the proof that the broker has what the outcome published.
    pub fn settle(&self, delivery: Delivery, _proof: AckPermit) {
        delivery.ack();
    }

    /// Asks to be told, by [`BrokerEvent::Flushed`], when the broker has taken every ack that was
    /// handed over before. It is not told where the session ends first.
    pub fn flush(&self, epoch: u64, ticket: PublishId) {
        self.send(SessionCommand::Flush { epoch, ticket });
    }

    /// Hands an unsettled request back to the queue. On RabbitMQ before 4.3 that counts against the
    /// delivery limit, so it is for the drain only.
    pub fn requeue(&self, delivery: Delivery) {
        delivery.requeue();
    }

    /// Closes channels and connection; what was settled before is with the broker by then, and the
    /// rest returns to the queue. Ends within seconds, whatever the broker does.
    pub async fn close(self) {
        self.send(SessionCommand::Close);
        // A panic in the link's task was reported where it happened.
        self.task.await.ok();
    }

    fn send(&self, command: SessionCommand) {
        // It fails only when the task has ended because nobody listens to the events.
        self.commands.send(command).ok();
    }
}

/// The task that keeps the link.
struct ConnectionSupervisor {
    plan: Arc<SessionConfig>,
    events: mpsc::Sender<BrokerEvent>,
    inbox: mpsc::UnboundedReceiver<SessionCommand>,
    patience: ReconnectBackoff,
    history: SessionHistory,
    epoch: u64,
}

impl ConnectionSupervisor {
    async fn run(mut self) {
        while self.one_connection().await.is_some() {}
    }

    /// Connects once and works until that connection ends. `None` when the link is to end.
    async fn one_connection(&mut self) -> Option<()> {
        let opened = tokio::select! {
            opened = handshake::connect(&self.plan) => opened,
            () = reject_while_disconnected(&mut self.inbox, &self.events) => return None,
        };
        let (mut wire, ready) = match opened {
            Ok(opened) => opened,
            Err(trouble) => return self.back_off(trouble, None).await,
        };
        let outcome = self.sessions(&mut wire, ready).await;
        wire.close().await;
        outcome
    }

    /// Sessions on one connection, until it ends. `None` when the link is to end.
    async fn sessions(&mut self, wire: &mut AmqpConnection, first: OpenSession) -> Option<()> {
        let mut first = Some(first);
        for _ in 0..SESSIONS_PER_CONNECTION {
            let ready = if let Some(first) = first.take() {
                first
            } else {
                let ready = tokio::select! {
                    ready = handshake::ready(wire, &self.plan) => ready,
                    () = reject_while_disconnected(&mut self.inbox, &self.events) => return None,
                };
                match ready {
                    Ok(ready) => ready,
                    Err(trouble) => {
                        let cut = abort_if_unresponsive(wire, &trouble);
                        self.back_off(trouble, None).await?;
                        if cut || !wire.connection.status().connected() {
                            return Some(());
                        }
                        continue;
                    }
                }
            };
            self.epoch += 1;
            let consuming = ConsumePlan::new(self.history.window(), self.plan.prefetch);
            let undeliverable =
                UndeliverableReader::start(Arc::clone(&self.plan), self.epoch, self.events.clone());
            let start = SessionStart {
                epoch: self.epoch,
                ready,
                consuming,
                undeliverable,
            };
            let session = Session::new(start, wire, &self.plan, &self.events);
            self.emit(BrokerEvent::Up { epoch: self.epoch }).await?;
            let began = tokio::time::Instant::now();
            let end = session.run(&mut self.inbox).await;
            self.patience.reset_if_stable(began.elapsed());
            match end {
                SessionEnd::Closed => return None,
                SessionEnd::Trouble(trouble, death) => {
                    self.history.session_died(death);
                    if death.delivered && self.history.window() == ConsumeWindow::OneAtATime {
                        // Each such session brings RabbitMQ's count of the culprit nearer to its limit.
                        self.patience = ReconnectBackoff::default();
                    }
                    let cut = abort_if_unresponsive(wire, &trouble);
                    self.back_off(trouble, Some(self.epoch)).await?;
                    if cut || !wire.connection.status().connected() {
                        return Some(());
                    }
                }
            }
        }
        Some(())
    }

    /// Tells of a failure, or of the end of a session, and waits before the next try. `None` when
    /// the link is to end.
    async fn back_off(&mut self, why: BrokerError, ended: Option<u64>) -> Option<()> {
        let again_in = self
            .patience
            .next_delay(why.pace(), crate::clock::random_unit());
        let tries = self.patience.attempts();
        let event = if let Some(epoch) = ended {
            BrokerEvent::Down { epoch, why }
        } else {
            BrokerEvent::Failed {
                tries,
                why,
                again_in,
            }
        };
        self.emit(event).await?;
        tokio::select! {
            () = tokio::time::sleep(again_in) => Some(()),
            () = reject_while_disconnected(&mut self.inbox, &self.events) => None,
        }
    }

    /// `None` when nobody listens any more.
    async fn emit(&self, event: BrokerEvent) -> Option<()> {
        self.events.send(event).await.ok()
    }
}

/// Cuts a connection that fell silent; a goodbye would only be waited for.
fn abort_if_unresponsive(wire: &AmqpConnection, trouble: &BrokerError) -> bool {
    let silent = matches!(trouble, BrokerError::Silent(_));
    if silent {
        wire.cut();
    }
    silent
}

/// Answers what is asked while no session lives. Ends when the link is to end. It may be dropped at
/// any point without an answer getting lost: the place for one is reserved before asking.
async fn reject_while_disconnected(
    inbox: &mut mpsc::UnboundedReceiver<SessionCommand>,
    events: &mpsc::Sender<BrokerEvent>,
) {
    while let Ok(place) = events.reserve().await {
        match inbox.recv().await {
            None | Some(SessionCommand::Close) => return,
            Some(SessionCommand::Publish { ticket, .. }) => place.send(BrokerEvent::Published {
                ticket,
                result: PublishResult::Lost,
            }),
            Some(
                SessionCommand::Consume { .. }
                | SessionCommand::Stop { .. }
                | SessionCommand::Fetch { .. }
                | SessionCommand::Flush { .. },
            ) => {}
        }
    }
}
