//! Publishes for a review: messages that say all of themselves.

use crate::broker::codec::{properties_of, short};
use crate::broker::error::BrokerError;
use crate::broker::publish::confirm::PublishResult;
use crate::broker::publish::message::OutboundMessage;
use crate::broker::publish::publishing::{PublishWait, PublishingConnection};
use crate::messages::message::MessageView;

/// Publishes messages as they are, many at a time.
#[derive(Debug)]
pub struct Republisher {
    connection: PublishingConnection,
}

impl Republisher {
    pub(super) const fn new(connection: PublishingConnection) -> Self {
        Self { connection }
    }

    /// Whether AMQP can carry the message: no name and no property has more than 255 bytes.
    #[must_use]
    pub fn fits_frame(message: &MessageView) -> bool {
        let address = [&message.exchange, &message.routing_key];
        let fits = address.into_iter().all(|name| short(name).is_some());
        fits && properties_of(message).is_some()
    }

    /// Hands a message over, behind all that were handed over before; waits only where some
    /// hundreds are under way. What it returns waits for the message's fate, which is
    /// [`PublishResult::Lost`] also where AMQP cannot carry it.
    pub async fn hand_over(
        &self,
        message: MessageView,
    ) -> impl Future<Output = PublishResult> + use<> {
        let outgoing = OutboundMessage::Message(message);
        self.connection.hand_over(outgoing).await
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
