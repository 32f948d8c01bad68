//! Single visits to the broker, for commands: connect, do one thing, leave. No retry; a person or
//! a script decides whether to try again.

use super::error::BrokerError;
use super::publish::confirm::PublishResult;
use super::publish::message::{OutboundMessage, PublishRouting, RequestMessage};
use super::publish::publishing::{PublishWait, PublishingConnection};
use super::topology::declare;
use super::topology::model::{QueueNames, Topology, TopologyDifference, TopologySettings};
use super::transport::connection;
use crate::config::AmqpSection;

/// What the broker's tools show of a command's connection.
const CONNECTION_NAME: &str = "rename-worker command";

/// Declares the topology; what exists already must be as it is to be.
pub async fn declare_topology(
    amqp: &AmqpSection,
    settings: &TopologySettings,
) -> Result<(), BrokerError> {
    let wire = connection::open(amqp, CONNECTION_NAME).await?;
    let topology = Topology::new(&QueueNames::new(&amqp.prefix), settings);
    let outcome = declare::declare(&wire, &topology).await;
    wire.close().await;
    outcome
}

/// Everything about the topology that is missing or differs. Bindings cannot be asked about.
pub async fn compare_topology(
    amqp: &AmqpSection,
    settings: &TopologySettings,
) -> Result<Vec<TopologyDifference>, BrokerError> {
    let wire = connection::open(amqp, CONNECTION_NAME).await?;
    let topology = Topology::new(&QueueNames::new(&amqp.prefix), settings);
    let outcome = declare::compare(&wire, &topology).await;
    wire.close().await;
    outcome
}

/// Removes every queue and exchange of the topology, with all that is in them.
pub async fn remove_topology(
    amqp: &AmqpSection,
    settings: &TopologySettings,
) -> Result<(), BrokerError> {
    let wire = connection::open(amqp, CONNECTION_NAME).await?;
    let topology = Topology::new(&QueueNames::new(&amqp.prefix), settings);
    let outcome = declare::remove(&wire.connection, &topology).await;
    wire.close().await;
    outcome
}

/// How many dead letters wait for review.
pub async fn count_dead_letters(amqp: &AmqpSection) -> Result<u32, BrokerError> {
    let wire = connection::open(amqp, CONNECTION_NAME).await?;
    let queue = QueueNames::new(&amqp.prefix).dead_letters;
    let outcome = declare::length(&wire.connection, &queue).await;
    wire.close().await;
    outcome
}

/// Publishes requests, many at a time, each with its own answer.
#[derive(Debug)]
pub struct RequestPublisher {
    connection: PublishingConnection,
}

impl RequestPublisher {
    /// Connects. The topology is left as it is: publishing to a missing exchange or queue is told
    /// as [`PublishResult::Lost`] or [`PublishResult::Returned`].
    pub async fn connect(amqp: &AmqpSection) -> Result<Self, BrokerError> {
        // No ladder: requests only.
        let addresses = PublishRouting::new(&QueueNames::new(&amqp.prefix), &[]);
        let connection = PublishingConnection::open(amqp, CONNECTION_NAME, addresses).await?;
        Ok(Self { connection })
    }

    /// Hands one request over, behind all that were handed over before; waits only while the pipe
    /// is full. What it returns waits for the request's fate.
    ///
    /// Handing over is a step of its own, since of many futures that are polled together none need
    /// be first: tokio makes some of them wait to be fair to other tasks.
    pub async fn hand_over(
        &self,
        request: RequestMessage,
    ) -> impl Future<Output = PublishResult> + use<> {
        let outgoing = OutboundMessage::Request(request);
        self.connection.hand_over(outgoing).await
    }

    /// Publishes one request and waits for its fate.
    pub async fn publish(&self, request: RequestMessage) -> PublishResult {
        self.hand_over(request).await.await
    }

    /// Why nothing is confirmed, where that is to be told.
    #[must_use]
    pub fn waiting(&self) -> Option<PublishWait> {
        self.connection.waiting()
    }

    /// Leaves, and says what ended the connection before, if anything did.
    pub async fn close(self) -> Option<BrokerError> {
        self.connection.close().await
    }
}
