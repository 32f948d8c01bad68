//! A visit to the dead letters' queue, for review: look at all of them, put some elsewhere, remove
//! some, leave the rest as it was.
//!
//! Looking holds the letters unsettled until the visit ends, which returns those that were not
//! removed to the queue. Meanwhile nobody else would see them, so only one visit is let in.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer, ErrorKind};

use super::connection::{self, Wire};
use super::declare::{self, open_channel};
use super::delivery::{Delivery, Lane};
use super::outgoing::{Addresses, Outgoing};
use super::pipe::Pipe;
use super::proof::{Confirmed, Publication};
use super::topology::{Difference, Names, Topology, What};
use super::trouble::Trouble;
use crate::config::Amqp;

/// Letters on their way to us at a time. It bounds the memory to 32 MiB of the largest letters,
/// and costs two questions to the broker each time it is used up.
const WINDOW: u16 = 500;
/// So long without a letter, and the broker is asked whether there are more.
const LULL: Duration = Duration::from_millis(200);
/// What the broker's tools show.
const CONNECTION_NAME: &str = "rename-worker dead-letters";

/// What a letter may be removed for. Implement it for what only a lasting record makes.
pub trait Removal {}

/// A letter that was published again, and confirmed.
impl Removal for Confirmed {}

/// The one visit to the dead letters.
#[derive(Debug)]
pub struct LetterBox {
    wire: Wire,
    queue: String,
    lane: Arc<Lane>,
    pipe: Pipe,
    consumer: Option<Consumer>,
    /// Letters of the current consumer that are not removed yet.
    held: u16,
    /// The delivery tag of its first letter.
    first_tag: u64,
    differences: Vec<Difference>,
}

impl LetterBox {
    /// Connects and takes the place of the only visitor. [`Trouble::Reviewed`] if it is taken.
    pub async fn open(amqp: &Amqp) -> Result<Self, Trouble> {
        let wire = connection::open(amqp, CONNECTION_NAME).await?;
        let names = Names::new(&amqp.prefix);
        take_the_place(&wire.connection, &names).await?;
        let mut topology = Topology::new(&names, &[]);
        topology
            .objects
            .retain(|object| object.is_queue(&names.dead_letters));
        let differences = declare::compare(&wire.connection, amqp, &topology).await?;
        if differences.iter().any(|found| found.what == What::Missing) {
            return Err(Trouble::Topology(differences));
        }
        let lane = Arc::new(Lane::new(0, open_channel(&wire.connection).await?));
        let addresses = Addresses::new(&names, &[]);
        let pipe = Pipe::open(&wire.connection, addresses).await?;
        Ok(Self {
            wire,
            queue: names.dead_letters,
            lane,
            pipe,
            consumer: None,
            held: 0,
            first_tag: 0,
            differences,
        })
    }

    /// How the queue is not as it is to be. With a delivery limit, looking at a letter too often
    /// loses it.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// How many letters there are that were not looked at yet.
    pub async fn unseen(&self) -> Result<u32, Trouble> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self.queue.as_str().into();
        let declared = self
            .lane
            .channel
            .queue_declare(queue, options, FieldTable::default())
            .await;
        declared
            .map(|queue| queue.message_count())
            .map_err(|error| Trouble::of_session(&error))
    }

    /// The next letter that was not looked at yet, oldest first; `None` when there is none left.
    pub async fn next(&mut self) -> Result<Option<Delivery>, Trouble> {
        loop {
            let Some(consumer) = &mut self.consumer else {
                if self.unseen().await? == 0 {
                    return Ok(None);
                }
                self.consumer = Some(consume(&self.lane.channel, &self.queue).await?);
                self.held = 0;
                self.first_tag = 0;
                continue;
            };
            match tokio::time::timeout(LULL, consumer.next()).await {
                Ok(Some(Ok(message))) => {
                    if self.first_tag == 0 {
                        self.first_tag = message.delivery_tag;
                    }
                    self.held += 1;
                    let letter = Delivery::new(message, &self.lane);
                    if self.held == WINDOW {
                        self.stop_consumer().await?;
                    }
                    return Ok(Some(letter));
                }
                Ok(Some(Err(error))) => return Err(Trouble::of_session(&error)),
                // Its cancel is through: the window was used up.
                Ok(None) if self.held >= WINDOW => self.consumer = None,
                Ok(None) => return Err(Trouble::ConsumerCancelled),
                Err(_) if self.unseen().await? == 0 => return Ok(None),
                Err(_) => {}
            }
        }
    }

    /// Removes a letter, for good. What was removed is with the broker when [`LetterBox::close`]
    /// has ended.
    pub fn remove(&mut self, letter: Delivery, _for: impl Removal) {
        // While it consumes, a removed letter makes room in the window.
        if self.held < WINDOW && letter.tag() >= self.first_tag {
            self.held = self.held.saturating_sub(1);
        }
        letter.ack();
    }

    /// Hands a message over to publish, behind all that were handed over before; waits only while
    /// the pipe is full. What it returns waits for the message's fate.
    pub async fn hand_over(&self, outgoing: Outgoing) -> impl Future<Output = Publication> + use<> {
        self.pipe.hand_over(outgoing).await
    }

    /// Publishes one message and waits for its fate.
    pub async fn publish(&self, outgoing: Outgoing) -> Publication {
        self.hand_over(outgoing).await.await
    }

    /// Ends the visit: waits for what is being published, returns what was not removed.
    pub async fn close(self) -> Option<Trouble> {
        let trouble = self.pipe.close().await;
        self.lane.end();
        let closing = self.lane.channel.close(200, "OK".into());
        let closed = closing.await.map_err(|error| Trouble::of_session(&error));
        self.wire.close().await;
        trouble.or(closed.err())
    }

    async fn stop_consumer(&mut self) -> Result<(), Trouble> {
        let Some(consumer) = &self.consumer else {
            return Ok(());
        };
        let tag = consumer.tag();
        let cancelling = self
            .lane
            .channel
            .basic_cancel(tag, BasicCancelOptions::default());
        cancelling
            .await
            .map_err(|error| Trouble::of_session(&error))
    }
}

async fn consume(channel: &Channel, queue: &str) -> Result<Consumer, Trouble> {
    let told = |error: lapin::Error| Trouble::of_session(&error);
    channel
        .basic_qos(WINDOW, BasicQosOptions { global: false })
        .await
        .map_err(told)?;
    let options = BasicConsumeOptions::default();
    channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .map_err(told)
}

/// Declares a queue that only one connection can have and that goes with it.
async fn take_the_place(connection: &Connection, names: &Names) -> Result<(), Trouble> {
    let channel = open_channel(connection).await?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let taken = channel
        .queue_declare(names.review.as_str().into(), options, FieldTable::default())
        .await;
    match taken {
        // The channel may close: the queue is the connection's.
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            ErrorKind::ProtocolError(amqp)
                if amqp.kind() == &AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) =>
            {
                Trouble::Reviewed
            }
            _ => Trouble::of_session(&error),
        }),
    }
}
