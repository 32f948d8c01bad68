//! Publishes for a review: messages that say all of themselves.

use super::super::convert::{properties_of, short};
use super::super::outgoing::Outgoing;
use super::super::proof::Publication;
use super::super::publishing::{PublishingConnection, Waiting};
use super::super::trouble::Trouble;
use crate::wire::message::Message;

/// Publishes messages as they are, many at a time.
#[derive(Debug)]
pub struct Sender {
    connection: PublishingConnection,
}

impl Sender {
    pub(super) const fn new(connection: PublishingConnection) -> Self {
        Self { connection }
    }

    /// Whether AMQP can carry the message: no name and no property has more than 255 bytes.
    #[must_use]
    pub fn carries(message: &Message) -> bool {
        let address = [&message.exchange, &message.routing_key];
        let fits = address.into_iter().all(|name| short(name).is_some());
        fits && properties_of(message).is_some()
    }

    /// Hands a message over, behind all that were handed over before; waits only where some
    /// hundreds are under way. What it returns waits for the message's fate, which is
    /// [`Publication::Lost`] also where AMQP cannot carry it.
    pub async fn hand_over(&self, message: Message) -> impl Future<Output = Publication> + use<> {
        let outgoing = Outgoing::Message(message);
        self.connection.hand_over(outgoing).await
    }

    /// Why nothing is confirmed, where that is to be told.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        self.connection.waiting()
    }

    /// Leaves, and says what ended the connection before, if anything did.
    pub async fn close(self) -> Option<Trouble> {
        self.connection.close().await
    }
}
