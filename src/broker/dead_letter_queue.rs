//! Access to the dead letters' queue, for review: looking without taking, taking with proof.
//!
//! # Looking
//!
//! A look consumes without acknowledging and gives everything back by closing its channel. That
//! keeps every letter and, as far as RabbitMQ does, its place. It is not free of traces everywhere:
//! the broker counts the delivery in `x-delivery-count`, which is no part of the message, and on a
//! queue with a delivery limit it would drop the letter in the end (on 4.0 and 4.3 the 21st look
//! at such a queue finds it empty). So a review begins with asking whether the queue was made
//! without a limit, as this program makes it, and refuses one of which that cannot be said.
//!
//! A look takes as many letters as were waiting when it began; what comes meanwhile is for the next
//! one. It holds no letter in memory, but the ones on their way: they come in waves, a consumer
//! each, so that even a queue of millions is never more than a wave ahead of its reader. A wave has
//! as many letters as fit into some MB, going by the size of those before; and where they turn out
//! to be larger, the rest waits at the broker (see [`super::transport::flow`]).
//!
//! # One at a time
//!
//! Letters that one reviewer holds are invisible to the other, who would take half of the queue for
//! all of it. So there is one review at a time, and the second one is told so: see [`lock`].
//!
//! # Taking
//!
//! A letter leaves the queue by its [`AckHandle`] only, and a claim asks for proof: that the broker has
//! confirmed the replay, or that the record of its discard is on the disk.
//!
//! And then it may still come back. RabbitMQ hands acks on to a quorum queue at the pace at which
//! the queue's log takes them, and when the channel ends, it forgets those that it had not handed
//! on yet: some hundred of a thousand acks that came just before (seen on 3.10, 4.0 and 4.3). So
//! ending a look tells whether the queue is as long as it should be ([`DepthCheck`]). If not, the next
//! look may meet letters that were taken before; those are taken again, for the proof of the first
//! time ([`Acked`]).

mod lock;
mod browse;
mod republisher;

use std::time::Duration;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::{Instant, sleep};

pub use browse::{AckHandle, Acked, BrowseCursor, BrowsedMessage, FsyncProof};
pub use republisher::Republisher;

use super::error::BrokerError;
use super::publish::message::PublishRouting;
use super::publish::publishing::PublishingConnection;
use super::topology::declare;
use super::topology::declare::open_channel;
use super::topology::model::{
    DELIVERY_LIMIT_ARGUMENT, DifferenceKind, QueueNames, Topology, TopologyDifference,
    TopologyObject, TopologySettings,
};
use super::transport::connection;
use super::transport::connection::AmqpConnection;
use crate::config::AmqpSection;

/// How long letters that are given back may take to be back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions whether something has happened at the broker.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The queue after a look has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepthCheck {
    expected: u64,
    waiting: u64,
}

impl DepthCheck {
    /// Whether the queue is as long as it is to be after what was taken. Where it is not, others
    /// may have added or removed letters, or the broker has forgotten that some were taken.
    #[must_use]
    pub const fn matches(self) -> bool {
        self.expected == self.waiting
    }
}

/// Whether the queue is believed to have no delivery limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryLimitCheck {
    /// Only if its arguments say so.
    Checked,
    /// A person says so: a policy lifts the limit, which cannot be asked about over AMQP.
    Given,
}

/// Why there is no review.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error(
        "queue {queue} may have a delivery limit, and then RabbitMQ drops letters that are looked \
         at too often: {found}; make the queue anew, or lift the limit by a policy \
         (delivery-limit: -1) and say --trust-queue"
    )]
    Limited { queue: String, found: String },
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// A review, for as long as its lock is held.
#[derive(Debug)]
pub struct DeadLetterQueue {
    amqp: AmqpSection,
    by: String,
    wire: AmqpConnection,
    control: Channel,
    names: QueueNames,
}

impl DeadLetterQueue {
    /// Connects, takes the lock, and makes sure that looking is safe. `by` is who reviews, for the
    /// broker's list of connections.
    pub async fn begin(
        amqp: &AmqpSection,
        by: &str,
        trust: DeliveryLimitCheck,
    ) -> Result<Self, ReviewError> {
        let wire = connection::open(amqp, &format!("rename-worker review by {by}")).await?;
        let names = QueueNames::new(&amqp.prefix);
        match prepare(amqp, &wire, &names, trust).await {
            Ok(control) => Ok(Self {
                amqp: amqp.clone(),
                by: by.to_owned(),
                wire,
                control,
                names,
            }),
            Err(trouble) => {
                wire.close().await;
                Err(trouble)
            }
        }
    }

    /// The exchange that routes to the queues of this program by their names.
    #[must_use]
    pub fn internal(&self) -> &str {
        &self.names.internal
    }

    /// The queue that replayed requests are published to.
    #[must_use]
    pub fn due(&self) -> &str {
        &self.names.due
    }

    /// The exchange that upstream publishes requests to.
    #[must_use]
    pub fn requests(&self) -> &str {
        &self.names.requests
    }

    /// The exchange, and the queue, of the letters.
    #[must_use]
    pub fn dead_letters(&self) -> &str {
        &self.names.dead_letters
    }

    /// How many letters are there to be looked at.
    pub async fn waiting(&self) -> Result<u64, BrokerError> {
        Ok(self.depth().await?.ready)
    }

    async fn depth(&self) -> Result<QueueDepth, BrokerError> {
        depth(self.control.clone(), self.names.dead_letters.clone())
            .await
            .map_err(|error| BrokerError::of_session(&error))
    }

    /// Begins to look.
    pub async fn look(&self) -> Result<BrowseCursor, BrokerError> {
        let channel = open_channel(&self.wire.connection).await?;
        let queue = self.names.dead_letters.clone();
        BrowseCursor::begin(channel, queue, self.wire.flow.clone())
            .await
            .map_err(|error| BrokerError::of_session(&error))
    }

    /// Ends a look: what was not taken is there again, for everyone.
    pub async fn give_back(&self, look: BrowseCursor) -> Result<DepthCheck, BrokerError> {
        let closed = look.close().await;
        // The queue learns of the channel's end a little after we do. It forgets the channel's
        // consumers and takes back their letters in one step.
        let deadline = Instant::now() + RETURN_TIMEOUT;
        loop {
            let asked = tokio::time::timeout(RETURN_TIMEOUT, self.depth()).await;
            let depth = asked.unwrap_or(Err(BrokerError::Silent(RETURN_TIMEOUT.as_secs())))?;
            if depth.consumers <= closed.others || Instant::now() >= deadline {
                return Ok(DepthCheck {
                    expected: closed.left,
                    waiting: depth.ready,
                });
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// A way to publish: a connection of its own, so that a broker that takes no messages still
    /// hears what is said of letters.
    pub async fn sender(&self) -> Result<Republisher, BrokerError> {
        let name = format!("rename-worker review by {}, publishing", self.by);
        let addresses = PublishRouting::new(&self.names, &[]);
        let connection = PublishingConnection::open(&self.amqp, &name, addresses).await?;
        Ok(Republisher::new(connection))
    }

    /// Leaves, and frees the lock.
    pub async fn end(self) {
        self.wire.close().await;
    }
}

async fn prepare(
    amqp: &AmqpSection,
    wire: &AmqpConnection,
    names: &QueueNames,
    trust: DeliveryLimitCheck,
) -> Result<Channel, ReviewError> {
    let differences = dead_letter_differences(wire, names).await?;
    for difference in differences {
        match &difference.what {
            DifferenceKind::Argument { .. } if trust == DeliveryLimitCheck::Given => {}
            DifferenceKind::Argument { .. } => {
                return Err(ReviewError::Limited {
                    queue: names.dead_letters.clone(),
                    found: difference.to_string(),
                });
            }
            _ => return Err(BrokerError::Topology(vec![difference]).into()),
        }
    }
    Ok(lock::acquire(amqp, wire, names).await?)
}

/// In what the queue of the dead letters differs from one that can be looked at safely: as it is made
/// now, or as 0.1.0 made it, without `x-overflow`.
async fn dead_letter_differences(
    wire: &AmqpConnection,
    names: &QueueNames,
) -> Result<Vec<TopologyDifference>, BrokerError> {
    let mut topology = Topology::new(names, &TopologySettings::with_delays(&[]));
    let queue = names.dead_letters.as_str();
    topology
        .objects
        .retain(|object| object.queue_name() == Some(queue));
    let differences = declare::compare(wire, &topology).await?;
    let is_argument = |difference: &TopologyDifference| {
        matches!(difference.what, DifferenceKind::Argument { .. })
    };
    if !differences.iter().any(is_argument) {
        return Ok(differences);
    }
    for object in &mut topology.objects {
        if let TopologyObject::Queue { arguments, .. } = object {
            arguments.retain(|argument| {
                ["x-queue-type", DELIVERY_LIMIT_ARGUMENT].contains(&argument.name)
            });
        }
    }
    declare::compare(wire, &topology).await
}

/// What a queue tells of itself.
#[derive(Debug, Clone, Copy)]
struct QueueDepth {
    /// Messages that nobody holds.
    ready: u64,
    consumers: u32,
}

async fn depth(channel: Channel, queue: String) -> lapin::Result<QueueDepth> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await?;
    Ok(QueueDepth {
        ready: queue.message_count().into(),
        consumers: queue.consumer_count(),
    })
}
