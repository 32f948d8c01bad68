//! One look at the letters, and what gives one of them away for good.

use std::fmt;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::SelectAll;
use futures_util::{FutureExt as _, Stream, StreamExt as _, future, stream};
use lapin::options::{BasicAckOptions, BasicQosOptions};
use lapin::{Channel, Consumer};
use tokio::time::sleep;

use super::super::delivery::{DELIVERY_COUNT, as_i64};
use super::{QueueDepth, depth};
use crate::broker::codec::message_of;
use crate::broker::error::BrokerError;
use crate::broker::publish::confirm::PublisherConfirm;
use crate::broker::session::queue_consumer::consume;
use crate::broker::transport::flow::ReadFlow;
use crate::messages::message::MessageView;

/// Letters of the first wave, of whose size nothing is known. Each wave has twice as many as the one
/// before at most.
const FIRST_WAVE: u16 = 8;
/// Letters of a wave at most, however small they are: a wave costs two round trips, so more would
/// save nothing.
const WAVE_MAX: u16 = 500;
/// Bytes of a wave, going by the heaviest letter of the one before.
const WAVE_BYTES: usize = 8 << 20;
/// Bytes that may come before they are read, whatever the letters weigh.
const UNREAD_BYTES: usize = 16 << 20;
/// Letters that are taken at most though they were not expected.
const UNEXPECTED_MAX: u64 = 2000;
/// How long a letter that was waiting may take to come, before it counts as somebody else's.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// After all that were waiting have come, a look asks again so often whether more are there: a
/// review that was killed just before gives its letters back while the next one begins.
const MAX_RECHECKS: u8 = 3;
/// How long acks are given to get from the broker into its queue. It needs some milliseconds and is
/// checked afterwards; to wait is cheaper than to look once more.
const ACKS_SETTLE: Duration = Duration::from_millis(100);
/// How long closing a channel may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// One look at the letters, from the first to the last that was there. Dropped, it gives them back
/// when the review ends; [`super::DeadLetterQueue::give_back`] does so at once.
pub struct BrowseCursor {
    lane: Arc<BrowseChannel>,
    queue: String,
    flow: ReadFlow,
    consumers: SelectAll<ArrivalFuture>,
    /// How many letters the last wave may have, and all of them together.
    wave: u16,
    credit: u64,
    /// The weight of the heaviest letter since the last wave began.
    heaviest: usize,
    /// Consumers of others.
    others: u32,
    expected: u64,
    seen: u64,
    second_looks: u8,
    /// How many more are taken that came beyond what was expected.
    unexpected: u64,
    asking: Option<GetReply<QueueDepth>>,
    starting: Option<GetReply<Consumer>>,
    is_over: bool,
}

/// What a consumer brings; nothing, when the broker has cancelled it.
type CursorEvent = Option<lapin::Result<lapin::message::Delivery>>;
type ArrivalFuture = Pin<Box<dyn Stream<Item = CursorEvent> + Send>>;
type GetReply<T> = Pin<Box<dyn Future<Output = lapin::Result<T>> + Send>>;

/// The channel that the letters came by, and by which alone they can be taken.
struct BrowseChannel {
    channel: Channel,
    taken: AtomicU64,
}

/// A letter that this review holds. Dropped, it goes back when the look ends.
#[derive(Debug)]
pub struct BrowsedMessage {
    pub message: MessageView,
    /// How often the broker says that it was delivered before.
    pub deliveries: u32,
    /// Whether it was delivered before at all.
    pub redelivered: bool,
    pub claim: AckHandle,
}

/// The right to take one letter out of the queue, for proof of where it is kept now.
pub struct AckHandle {
    lane: Arc<BrowseChannel>,
    tag: u64,
}

/// A letter was taken, for proof; where the broker forgets it, it may be taken again.
#[derive(Debug)]
pub struct Acked(());

/// What a look leaves.
pub(super) struct CursorClosed {
    pub(super) left: u64,
    pub(super) others: u32,
}

/// A record has reached the disk.
#[derive(Debug)]
pub struct FsyncProof(());

impl BrowseCursor {
    /// On a channel that nothing else is done on.
    pub(super) async fn begin(
        channel: Channel,
        queue: String,
        flow: ReadFlow,
    ) -> lapin::Result<Self> {
        flow.limit(UNREAD_BYTES);
        let depth = depth(channel.clone(), queue.clone()).await?;
        Ok(Self {
            lane: Arc::new(BrowseChannel {
                channel,
                taken: AtomicU64::new(0),
            }),
            queue,
            flow,
            consumers: SelectAll::new(),
            wave: 0,
            credit: 0,
            heaviest: 0,
            others: depth.consumers,
            expected: depth.ready,
            seen: 0,
            second_looks: MAX_RECHECKS,
            unexpected: UNEXPECTED_MAX,
            asking: None,
            starting: None,
            is_over: false,
        })
    }

    /// How many letters this look takes in all, as far as is known.
    #[must_use]
    pub const fn expected(&self) -> u64 {
        self.expected
    }

    /// How many of them did not come: somebody else holds them.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.expected - self.seen
    }

    /// The next letter; none after the last. It may be given up while it waits.
    pub async fn next(&mut self) -> Result<Option<BrowsedMessage>, BrokerError> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            if let Some(asking) = &mut self.asking {
                let waiting = self.flow.wait_for(asking).await;
                self.asking = None;
                let more = waiting.map_err(|error| BrokerError::of_session(&error))?;
                self.expected += more.ready;
            } else if let Some(starting) = &mut self.starting {
                let started = self.flow.wait_for(starting).await;
                self.starting = None;
                let consumer = started.map_err(|error| BrokerError::of_session(&error))?;
                let cancelled = stream::once(future::ready(None));
                self.consumers
                    .push(Box::pin(consumer.map(Some).chain(cancelled)));
                self.credit += u64::from(self.wave);
            } else if self.seen == self.expected {
                if let Some(held) = self.unexpected()? {
                    return Ok(Some(held));
                }
                self.refill();
            } else if self.held() >= self.credit {
                self.start_wave();
            } else if let Some(held) = self.arrival().await? {
                return Ok(Some(held));
            }
        }
    }

    /// Gives back what is not taken.
    pub(super) async fn close(self) -> CursorClosed {
        self.flow.unlimit();
        let channel = &self.lane.channel;
        let taken = self.lane.taken.load(Ordering::Relaxed);
        if taken > 0 {
            // An answer means that the broker has the acks, and the wait that it has, most likely,
            // handed them on to the queue.
            let options = BasicQosOptions { global: false };
            let answered = channel.basic_qos(FIRST_WAVE, options);
            tokio::time::timeout(CLOSE_TIMEOUT, answered).await.ok();
            sleep(ACKS_SETTLE).await;
        }
        // The consumers outlive their channel: lapin cancels one that is dropped before, and where the
        // channel is closed meanwhile, it gives up the whole connection.
        let closing = channel.close(200, "OK".into());
        let mut arriving = self.consumers;
        tokio::select! {
            _ = tokio::time::timeout(CLOSE_TIMEOUT, closing) => {}
            // What is still on its way is dropped as it comes.
            () = async { while arriving.next().await.is_some() {} future::pending().await } => {}
        }
        CursorClosed {
            left: self.expected - taken,
            others: self.others,
        }
    }

    /// Letters of this look that are neither taken nor given back.
    fn held(&self) -> u64 {
        self.seen - self.lane.taken.load(Ordering::Relaxed)
    }

    fn refill(&mut self) {
        if self.second_looks == 0 {
            self.is_over = true;
            return;
        }
        self.second_looks -= 1;
        let channel = self.lane.channel.clone();
        self.asking = Some(Box::pin(depth(channel, self.queue.clone())));
    }

    /// How many letters the next wave may have.
    fn next_wave(&self) -> u16 {
        let fitting = WAVE_BYTES / self.heaviest.max(1);
        let fitting = u16::try_from(fitting).unwrap_or(u16::MAX);
        let twice = self.wave.saturating_mul(2).max(FIRST_WAVE);
        fitting.min(twice).clamp(1, WAVE_MAX)
    }

    fn start_wave(&mut self) {
        let wave = self.next_wave();
        (self.wave, self.heaviest) = (wave, 0);
        let channel = self.lane.channel.clone();
        let queue = self.queue.as_str().into();
        self.starting = Some(Box::pin(
            async move { consume(&channel, queue, wave).await },
        ));
    }

    async fn arrival(&mut self) -> Result<Option<BrowsedMessage>, BrokerError> {
        let arriving = self.flow.wait_for(self.consumers.next());
        let Ok(arrived) = tokio::time::timeout(DELIVERY_TIMEOUT, arriving).await else {
            self.is_over = true;
            return Ok(None);
        };
        self.hold(arrived).map(Some)
    }

    /// A letter that has arrived though no more were expected, as when somebody gave it back.
    fn unexpected(&mut self) -> Result<Option<BrowsedMessage>, BrokerError> {
        if self.unexpected == 0 || self.consumers.is_empty() {
            return Ok(None);
        }
        let Some(arrived) = self.consumers.next().now_or_never() else {
            return Ok(None);
        };
        self.unexpected -= 1;
        self.expected += 1;
        self.hold(arrived).map(Some)
    }

    fn hold(&mut self, arrived: Option<CursorEvent>) -> Result<BrowsedMessage, BrokerError> {
        let delivery = match arrived {
            Some(Some(Ok(delivery))) => delivery,
            Some(Some(Err(error))) => return Err(BrokerError::of_session(&error)),
            Some(None) | None => return Err(BrokerError::ConsumerCancelled),
        };
        self.seen += 1;
        let redelivered = delivery.redelivered;
        let table = delivery.properties.headers().as_ref();
        let count = table.and_then(|table| table.inner().get(DELIVERY_COUNT));
        let claim = AckHandle {
            lane: Arc::clone(&self.lane),
            tag: delivery.delivery_tag,
        };
        let deliveries = count.and_then(as_i64).unwrap_or(0);
        let message = message_of(delivery);
        self.heaviest = self.heaviest.max(message.weight());
        Ok(BrowsedMessage {
            message,
            redelivered,
            deliveries: u32::try_from(deliveries.max(0)).unwrap_or(u32::MAX),
            claim,
        })
    }
}

impl AckHandle {
    /// Takes the letter, since the broker has its replay.
    pub fn replayed(self, _: PublisherConfirm) -> Acked {
        self.ack()
    }

    /// Takes the letter, since the disk has its record.
    pub fn discarded(self, _: &FsyncProof) -> Acked {
        self.ack()
    }

    /// Takes a letter that the broker has brought back although it was taken before.
    pub fn unacked_copy(self, _: &Acked) {
        self.ack();
    }

    fn ack(self) -> Acked {
        // The first poll hands the frame over. An error means that the channel has just ended, and
        // the broker has the letter still.
        self.lane
            .channel
            .basic_ack(self.tag, BasicAckOptions::default())
            .now_or_never();
        self.lane.taken.fetch_add(1, Ordering::Relaxed);
        Acked(())
    }
}

impl FsyncProof {
    /// Makes the disk keep what was written to the file.
    pub fn by_syncing(file: &File) -> io::Result<Self> {
        file.sync_data()?;
        Ok(Self(()))
    }
}

impl fmt::Debug for BrowseCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look")
            .field("expected", &self.expected)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AckHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}
