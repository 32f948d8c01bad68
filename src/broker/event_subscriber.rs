//! Hears what the worker tells, as any subscriber would: a queue of its own on the events' exchange.
//!
//! For the demo and for watching; nothing is lost to others by listening, and what comes while
//! nobody listens is not kept.

use futures_util::StreamExt as _;
use lapin::Consumer;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use super::error::BrokerError;
use super::topology::declare::open_channel;
use super::topology::model::QueueNames;
use super::transport::connection;
use super::transport::connection::AmqpConnection;
use crate::config::AmqpSection;

/// What the broker's tools show of the connection.
const CONNECTION_NAME: &str = "rename-worker audience";

/// A subscriber of all events. Its queue goes with its connection.
pub struct EventSubscriber {
    wire: AmqpConnection,
    consumer: Consumer,
}

impl std::fmt::Debug for EventSubscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audience").finish_non_exhaustive()
    }
}

impl EventSubscriber {
    /// Begins to listen. The events' exchange must be there.
    pub async fn subscribe(amqp: &AmqpSection) -> Result<Self, BrokerError> {
        let wire = connection::open(amqp, CONNECTION_NAME).await?;
        match listen(&wire, &QueueNames::new(&amqp.prefix)).await {
            Ok(consumer) => Ok(Self { wire, consumer }),
            Err(trouble) => {
                wire.close().await;
                Err(trouble)
            }
        }
    }

    /// The next event's body.
    pub async fn next(&mut self) -> Result<Vec<u8>, BrokerError> {
        match self.consumer.next().await {
            Some(Ok(delivery)) => Ok(delivery.data),
            Some(Err(error)) => Err(BrokerError::of_session(&error)),
            None => Err(BrokerError::ConsumerCancelled),
        }
    }

    pub async fn close(self) {
        self.wire.close().await;
    }
}

async fn listen(wire: &AmqpConnection, names: &QueueNames) -> Result<Consumer, BrokerError> {
    let session_error = |error: lapin::Error| BrokerError::of_session(&error);
    let channel = open_channel(&wire.connection).await?;
    let own = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), own, FieldTable::default())
        .await
        .map_err(session_error)?;
    channel
        .queue_bind(
            queue.name().clone(),
            names.events.as_str().into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(session_error)?;
    let unasked = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(
            queue.name().clone(),
            "".into(),
            unasked,
            FieldTable::default(),
        )
        .await
        .map_err(session_error)
}
