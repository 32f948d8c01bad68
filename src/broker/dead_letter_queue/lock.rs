//! The lock of a review: whoever holds the token of `rename.review-lock` reviews, nobody else.
//!
//! The queue has a single active consumer, so RabbitMQ delivers its messages to one consumer at a
//! time, and to the next one within milliseconds when the first is gone, however it went. A review that
//! finds no token and nobody who could hold it publishes one; the holder acknowledges spare ones.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};

use super::depth;
use crate::broker::error::BrokerError;
use crate::broker::session::queue_consumer::consume;
use crate::broker::topology::declare;
use crate::broker::topology::declare::open_channel;
use crate::broker::topology::model::{
    DifferenceKind, QueueNames, Topology, TopologyDifference, TopologyObject, TopologySettings,
};
use crate::broker::transport::connection;
use crate::broker::transport::connection::AmqpConnection;
use crate::config::AmqpSection;

/// How long the token is waited for: a review that has just ended frees it within milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the broker may take to confirm a token.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Tokens taken at a time: the one that is held, and spare ones.
const PREFETCH: u16 = 8;
/// AMQP's mark of a message that survives the broker's restart.
const PERSISTENT: u8 = 2;

/// Takes the lock. The connection holds it from now on; the channel is free for questions.
pub(super) async fn acquire(
    amqp: &AmqpSection,
    wire: &AmqpConnection,
    names: &QueueNames,
) -> Result<Channel, BrokerError> {
    let needed = needed(names);
    // What is there already takes no right to configure.
    match declare::declare_and_verify(wire, &needed).await {
        Err(BrokerError::Topology(_)) if amqp.declare_topology => {
            declare::declare(wire, &needed).await?;
        }
        there => there?,
    }
    provide_token(amqp, wire, names).await?;
    let channel = open_channel(&wire.connection).await?;
    match take_token(&channel, names).await {
        Ok(true) => Ok(channel),
        Ok(false) => Err(BrokerError::Reviewed),
        Err(error) => Err(BrokerError::of_session(&error)),
    }
}

/// What of the topology the lock needs.
fn needed(names: &QueueNames) -> Topology {
    let lock = names.review_lock.as_str();
    let mut topology = Topology::new(names, &TopologySettings::with_delays(&[]));
    topology.objects.retain(|object| match object {
        TopologyObject::Exchange { name, .. } => *name == names.internal,
        TopologyObject::Queue { name, .. } => name == lock,
        TopologyObject::Binding { queue, .. } => queue == lock,
    });
    topology
}

/// That the binding is missing, which only a message that returns shows.
fn unbound(names: &QueueNames) -> TopologyDifference {
    let needed = needed(names);
    let mut objects = needed.objects.iter();
    let binding = objects.find(|object| matches!(object, TopologyObject::Binding { .. }));
    TopologyDifference {
        object: binding.map(TopologyObject::to_string).unwrap_or_default(),
        what: DifferenceKind::Missing,
    }
}

/// `false` if somebody else has it.
async fn take_token(channel: &Channel, names: &QueueNames) -> lapin::Result<bool> {
    let mut tokens = consume(channel, names.review_lock.as_str().into(), PREFETCH).await?;
    let Ok(first) = tokio::time::timeout(LOCK_TIMEOUT, tokens.next()).await else {
        return Ok(false);
    };
    let Some(first) = first else { return Ok(false) };
    first?;
    // Ends with the channel.
    tokio::spawn(async move {
        while let Some(Ok(spare)) = tokens.next().await {
            spare.ack(BasicAckOptions::default()).await.ok();
        }
    });
    Ok(true)
}

/// Publishes a token where the queue has none and nobody holds one: the first review of all does.
///
/// Not on the review's own connection: in an alarm RabbitMQ reads nothing more from a connection that
/// has published, and then not even its questions.
async fn provide_token(
    amqp: &AmqpSection,
    wire: &AmqpConnection,
    names: &QueueNames,
) -> Result<(), BrokerError> {
    let channel = open_channel(&wire.connection).await?;
    let lock = depth(channel.clone(), names.review_lock.clone())
        .await
        .map_err(|error| BrokerError::of_session(&error))?;
    channel.close(200, "OK".into()).await.ok();
    if lock.ready > 0 || lock.consumers > 0 {
        return Ok(());
    }
    let publishing = connection::open(amqp, "rename-worker review token").await?;
    let published = tokio::time::timeout(TOKEN_TIMEOUT, publish_token(&publishing, names)).await;
    let is_blocked = publishing.connection.status().blocked();
    publishing.close().await;
    match published {
        Ok(Ok(Confirmation::Ack(Some(_)))) => Err(BrokerError::Topology(vec![unbound(names)])),
        // One that the broker refuses is missed below, and reported as a review of somebody else's.
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(BrokerError::of_session(&error)),
        Err(_) if is_blocked => Err(BrokerError::Alarmed),
        Err(_) => Err(BrokerError::Silent(TOKEN_TIMEOUT.as_secs())),
    }
}

async fn publish_token(wire: &AmqpConnection, names: &QueueNames) -> lapin::Result<Confirmation> {
    let channel = wire.connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let confirm = channel
        .basic_publish(
            names.internal.as_str().into(),
            names.review_lock.as_str().into(),
            options,
            b"",
            BasicProperties::default().with_delivery_mode(PERSISTENT),
        )
        .await?;
    confirm.await
}
