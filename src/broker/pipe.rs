//! A publisher in a task of its own, for those that wait for each answer: many can wait at once.

use std::collections::HashMap;
use std::sync::Arc;

use lapin::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::outgoing::{Addresses, Outgoing};
use super::proof::Publication;
use super::publisher::{Publisher, Ticket};
use super::trouble::Trouble;

/// Publishes that wait to be handed over, so that a caller with many of them is held back.
const QUEUE: usize = 256;

/// Channels that may be closed for messages that the broker refuses. A connection has 2047, and a
/// command's has no other use for them than its looks.
const CHANNELS: u32 = 1500;

#[derive(Debug)]
pub(super) struct Pipe {
    inbox: mpsc::Sender<Asked>,
    task: JoinHandle<Option<Trouble>>,
}

type Asked = (Outgoing, oneshot::Sender<Publication>);

impl Pipe {
    pub(super) async fn open(
        connection: &Arc<Connection>,
        addresses: Addresses,
    ) -> Result<Self, Trouble> {
        let publisher = Publisher::open(connection, Arc::new(addresses)).await?;
        let publisher = publisher.with_channels(CHANNELS);
        let (inbox, requests) = mpsc::channel(QUEUE);
        let task = tokio::spawn(serve(publisher, requests));
        Ok(Self { inbox, task })
    }

    /// Hands one message over, behind all that were handed over before; waits only while the pipe
    /// is full. What it returns waits for the message's fate.
    pub(super) async fn hand_over(
        &self,
        outgoing: Outgoing,
    ) -> impl Future<Output = Publication> + use<> {
        let (answer, fate) = oneshot::channel();
        // When nobody takes it any more, the answer's end says so.
        self.inbox.send((outgoing, answer)).await.ok();
        async { fate.await.unwrap_or(Publication::Lost) }
    }

    /// Waits for what is under way, and says what ended the channel before, if anything did.
    pub(super) async fn close(self) -> Option<Trouble> {
        drop(self.inbox);
        // A panic in the task was reported where it happened.
        self.task.await.ok().flatten()
    }
}

/// Ends when the channel does, or when nobody can ask any more and all is answered.
async fn serve(mut publisher: Publisher, mut requests: mpsc::Receiver<Asked>) -> Option<Trouble> {
    let mut waiting: HashMap<Ticket, oneshot::Sender<Publication>> = HashMap::new();
    let mut next = 0;
    let mut open = true;
    while open || !publisher.is_idle() {
        tokio::select! {
            told = publisher.told(), if !publisher.is_idle() => {
                for (ticket, publication) in told.publications {
                    if let Some(answer) = waiting.remove(&ticket) {
                        // Nobody may wait for it any more.
                        answer.send(publication).ok();
                    }
                }
                if told.broken.is_some() {
                    // Those still waiting are told by their senders' end.
                    return told.broken;
                }
            }
            asked = requests.recv(), if open => match asked {
                Some((outgoing, answer)) => {
                    let ticket = Ticket(next);
                    next += 1;
                    if publisher.publish(ticket, outgoing) {
                        waiting.insert(ticket, answer);
                    }
                }
                None => open = false,
            },
        }
    }
    None
}
