//! Reads `rename.undeliverable`: what RabbitMQ itself moved away, and what the worker rejected unread.
//!
//! On a connection of its own and one message at a time, since what lies there may have ended the
//! sessions that it was delivered in: only this connection ends with it then. Its deliveries go the way
//! of all others, to the worker's loop, which publishes their outcome. It lives as long as the session
//! beside which it was started, and consumes while that one does.
//!
//! A message that ends this connection, too, each time it is delivered cannot be read over AMQP 0-9-1
//! by anybody. It is reported again with each attempt, and the messages behind it wait: an operator
//! takes it out with another protocol (`docs/runbook.md`). One whose body is too large for the worker's
//! memory is reported as well, and set aside until the connection ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::BasicCancelOptions;
use lapin::{Channel, Consumer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::protocol::{BrokerEvent, SessionConfig};
use super::queue_consumer::consume;
use crate::broker::delivery::{Delivery, SessionChannel};
use crate::broker::error::{BrokerError, RetryClass, closed_without_reason};
use crate::broker::topology::declare;
use crate::broker::topology::declare::open_channel;
use crate::broker::transport::connection;
use crate::broker::transport::connection::AmqpConnection;
use crate::broker::transport::frame_filter::StreamLimits;
use crate::broker::transport::sanitizing_stream::ReadActivity;
use crate::core::policy::consume_plan::SourceQueue;

/// Before the first new attempt after a connection ended; it doubles …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this: often enough to go on soon after an operator took the message out.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Connections in a row that end at once although a message waits, before it is reported: one may be
/// cut for any reason.
const ENDS_BEFORE_REPORT: u32 = 3;

/// The largest body that is read, in bytes: twice what RabbitMQ 4 takes by default. RabbitMQ 3 takes
/// eight times as much, which would not fit into the memory that the chart gives a worker.
const BODY_MAX: u64 = 32 * 1024 * 1024;
/// Messages that are set aside at most; past it, those behind them wait.
const MAX_SET_ASIDE: u16 = 16;

/// The task that reads, for as long as a session lives.
pub(in crate::broker) struct UndeliverableReader {
    wanted: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl UndeliverableReader {
    pub(in crate::broker) fn start(
        plan: Arc<SessionConfig>,
        epoch: u64,
        events: mpsc::Sender<BrokerEvent>,
    ) -> Self {
        let (wanted, is_wanted) = watch::channel(false);
        let reading = UndeliverableRun {
            plan,
            epoch,
            events,
            is_wanted,
            has_reported: false,
        };
        Self {
            wanted,
            task: tokio::spawn(reading.run()),
        }
    }

    /// Consumes, or gives back what it has and waits.
    pub(in crate::broker) fn want(&self, wanted: bool) {
        self.wanted.send_replace(wanted);
    }

    /// Ends the connection; its deliveries are void.
    pub(in crate::broker) async fn stop(self) {
        self.wanted.send_replace(false);
        drop(self.wanted);
        // A panic in the task was reported where it happened.
        self.task.await.ok();
    }
}

struct UndeliverableRun {
    plan: Arc<SessionConfig>,
    epoch: u64,
    events: mpsc::Sender<BrokerEvent>,
    is_wanted: watch::Receiver<bool>,
    has_reported: bool,
}

/// How a connection ended.
enum ReadingEnd {
    /// It is not wanted any more.
    NotWanted,
    /// It broke after something was delivered, or while nothing waited to be.
    Broken,
    /// It broke while a message waited and before any was delivered.
    BrokenUnread(BrokerError),
}

impl UndeliverableRun {
    async fn run(mut self) {
        let (mut pause, mut ends) = (FIRST_PAUSE, 0);
        // An error means that the session is over.
        while self.is_wanted.wait_for(|wanted| *wanted).await.is_ok() {
            match self.read().await {
                ReadingEnd::NotWanted => {
                    (pause, ends) = (FIRST_PAUSE, 0);
                    continue;
                }
                ReadingEnd::Broken => (pause, ends) = (FIRST_PAUSE, 0),
                ReadingEnd::BrokenUnread(why) => {
                    ends += 1;
                    if ends >= ENDS_BEFORE_REPORT {
                        let event = BrokerEvent::Unreadable { why };
                        self.events.send(event).await.ok();
                    }
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                // Stopped meanwhile, or its sender is gone.
                _ = self.is_wanted.wait_for(|wanted| !*wanted) => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Reports once what only this connection meets, such as a right that is missing or a limit of
    /// connections. That the broker is away, the session beside this one reports.
    fn report(&mut self, trouble: &BrokerError) {
        if trouble.pace() == RetryClass::Slow && !self.has_reported {
            self.has_reported = true;
            tracing::error!(
                queue = %self.plan.names.undeliverable,
                why = %trouble,
                "cannot read what is undeliverable: it has no outcome until this is put right"
            );
        }
    }

    /// Reads on one connection until it ends.
    async fn read(&mut self) -> ReadingEnd {
        let name = format!("{} undeliverable", self.plan.connection_name);
        let opening = async {
            let limits = StreamLimits {
                body_max: Some(BODY_MAX),
            };
            let amqp = &self.plan.amqp;
            let wire = connection::open_limited(amqp, &name, limits, ReadActivity::default())
                .await
                .map_err(|why| OpenFailure { why, waiting: 0 })?;
            match open(&wire, &self.plan.names.undeliverable).await {
                Ok(opened) => Ok((wire, opened)),
                Err(failure) => {
                    wire.close().await;
                    Err(failure)
                }
            }
        };
        let opened = tokio::select! {
            opened = opening => opened,
            _ = self.is_wanted.wait_for(|wanted| !*wanted) => return ReadingEnd::NotWanted,
        };
        let (wire, (channel, mut consumer, waiting)) = match opened {
            Ok(opened) => opened,
            // The delivery may end the connection before the consumer's start is answered.
            Err(OpenFailure { why, waiting }) if waiting > 0 && why.pace() == RetryClass::Quick => {
                return ReadingEnd::BrokenUnread(why);
            }
            Err(OpenFailure { why, .. }) => {
                self.report(&why);
                return ReadingEnd::Broken;
            }
        };
        let lane = Arc::new(SessionChannel::new(self.epoch, channel));
        let end = self.forward(&lane, &mut consumer, waiting).await;
        lane.close();
        wire.close().await;
        end
    }

    async fn forward(
        &mut self,
        lane: &Arc<SessionChannel>,
        consumer: &mut Consumer,
        waiting: u32,
    ) -> ReadingEnd {
        let mut has_delivered = false;
        let (mut set_aside, mut prefetch) = (Vec::new(), 1);
        loop {
            let next = tokio::select! {
                biased;
                _ = self.is_wanted.wait_for(|wanted| !*wanted) => return ReadingEnd::NotWanted,
                next = consumer.next() => next,
            };
            match next {
                Some(Ok(message)) => {
                    has_delivered = true;
                    let delivery = Delivery::new(message, lane, SourceQueue::Undeliverable);
                    let event = match delivery.cut_from() {
                        None => BrokerEvent::Delivered(delivery),
                        Some(size) => {
                            set_aside.push(delivery);
                            let why = BrokerError::TooLarge(size);
                            BrokerEvent::Unreadable { why }
                        }
                    };
                    if self.events.send(event).await.is_err() {
                        return ReadingEnd::NotWanted;
                    }
                    let aside = u16::try_from(set_aside.len()).unwrap_or(u16::MAX);
                    if aside > prefetch - 1 && aside <= MAX_SET_ASIDE {
                        prefetch = aside + 1;
                        let queue = &self.plan.names.undeliverable;
                        match consume_again(lane, consumer, queue, prefetch).await {
                            Ok(again) => *consumer = again,
                            Err(_) => return ReadingEnd::Broken,
                        }
                    }
                }
                ended if waiting > 0 && !has_delivered => {
                    let why = match ended {
                        Some(Err(error)) => BrokerError::of_session(&error),
                        _ => closed_without_reason(),
                    };
                    return ReadingEnd::BrokenUnread(why);
                }
                Some(Err(_)) | None => return ReadingEnd::Broken,
            }
        }
    }
}

/// Why nothing can be read, and how many messages wait to be.
struct OpenFailure {
    why: BrokerError,
    waiting: u32,
}

/// A consumer, and how many messages wait for it.
async fn open(wire: &AmqpConnection, queue: &str) -> Result<(Channel, Consumer, u32), OpenFailure> {
    let waiting = declare::length(&wire.connection, queue)
        .await
        .map_err(|why| OpenFailure { why, waiting: 0 })?;
    let opened = async {
        let channel = open_channel(&wire.connection).await?;
        let consumer = consume(&channel, queue.into(), 1)
            .await
            .map_err(|error| BrokerError::of_session(&error))?;
        Ok((channel, consumer, waiting))
    };
    opened.await.map_err(|why| OpenFailure { why, waiting })
}

/// A prefetch holds for a consumer from its start, so another one means another consumer.
async fn consume_again(
    lane: &SessionChannel,
    consumer: &Consumer,
    queue: &str,
    prefetch: u16,
) -> lapin::Result<Consumer> {
    let options = BasicCancelOptions::default();
    lane.channel.basic_cancel(consumer.tag(), options).await?;
    consume(&lane.channel, queue.into(), prefetch).await
}
