//! Single visits to the broker, for commands: connect, do one thing, leave. No retry; a person or
//! a script decides whether to try again.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::connection::{self, Wire};
use super::declare;
use super::outgoing::{Addresses, Outgoing, Request};
use super::proof::Publication;
use super::publisher::{Publisher, Ticket};
use super::topology::{Difference, Names, Topology};
use super::trouble::Trouble;
use crate::config::Amqp;

/// What the broker's tools show of a command's connection.
const CONNECTION_NAME: &str = "rename-worker command";
/// Publishes that wait to be handed over, so that a caller with many of them is held back.
const QUEUE: usize = 256;

/// Declares the topology; what exists already must be as it is to be.
pub async fn declare_topology(amqp: &Amqp, ladder: &[Duration]) -> Result<(), Trouble> {
    let wire = connection::open(amqp, CONNECTION_NAME).await?;
    let topology = Topology::new(&Names::new(&amqp.prefix), ladder);
    let outcome = declare::declare(&wire.connection, amqp, &topology).await;
    wire.close().await;
    outcome
}

/// Everything about the topology that is missing or differs. Bindings cannot be asked about.
pub async fn compare_topology(
    amqp: &Amqp,
    ladder: &[Duration],
) -> Result<Vec<Difference>, Trouble> {
    let wire = connection::open(amqp, CONNECTION_NAME).await?;
    let topology = Topology::new(&Names::new(&amqp.prefix), ladder);
    let outcome = declare::compare(&wire.connection, amqp, &topology).await;
    wire.close().await;
    outcome
}

/// Publishes requests, many at a time, each with its own answer.
#[derive(Debug)]
pub struct RequestPublisher {
    inbox: mpsc::Sender<(Request, oneshot::Sender<Publication>)>,
    task: JoinHandle<Option<Trouble>>,
}

impl RequestPublisher {
    /// Connects. The topology is left as it is: publishing to a missing exchange or queue is told
    /// as [`Publication::Lost`] or [`Publication::Returned`].
    pub async fn connect(amqp: &Amqp) -> Result<Self, Trouble> {
        let wire = connection::open(amqp, CONNECTION_NAME).await?;
        let channel = declare::open_channel(&wire.connection).await?;
        channel
            .confirm_select(ConfirmSelectOptions { nowait: false })
            .await
            .map_err(|error| Trouble::of_session(&error))?;
        // No ladder: requests only.
        let addresses = Addresses::new(&Names::new(&amqp.prefix), &[]);
        let publisher = Publisher::new(channel, Arc::new(addresses));
        let (inbox, requests) = mpsc::channel(QUEUE);
        let task = tokio::spawn(serve(wire, publisher, requests));
        Ok(Self { inbox, task })
    }

    /// Hands one request over, behind all that were handed over before; waits only while the pipe
    /// is full. What it returns waits for the request's fate.
    ///
    /// Handing over is a step of its own, since of many futures that are polled together none need
    /// be first: tokio makes some of them wait to be fair to other tasks.
    pub async fn hand_over(&self, request: Request) -> impl Future<Output = Publication> + use<> {
        let (answer, fate) = oneshot::channel();
        // When nobody takes it any more, the answer's end says so.
        self.inbox.send((request, answer)).await.ok();
        async { fate.await.unwrap_or(Publication::Lost) }
    }

    /// Publishes one request and waits for its fate.
    pub async fn publish(&self, request: Request) -> Publication {
        self.hand_over(request).await.await
    }

    /// Leaves, and says what ended the connection before, if anything did.
    pub async fn close(self) -> Option<Trouble> {
        drop(self.inbox);
        // A panic in the task was reported where it happened.
        self.task.await.ok().flatten()
    }
}

type Asked = (Request, oneshot::Sender<Publication>);

/// Ends when the connection does, or when nobody can ask any more and all is answered.
async fn serve(
    wire: Wire,
    mut publisher: Publisher,
    mut requests: mpsc::Receiver<Asked>,
) -> Option<Trouble> {
    let mut waiting = std::collections::HashMap::new();
    let mut next = 0;
    let mut open = true;
    let mut trouble = None;
    while open || !publisher.is_idle() {
        tokio::select! {
            told = publisher.told(), if !publisher.is_idle() => {
                for (ticket, publication) in told.publications {
                    if let Some(answer) = waiting.remove(&ticket) {
                        let answer: oneshot::Sender<Publication> = answer;
                        // Nobody may wait for it any more.
                        answer.send(publication).ok();
                    }
                }
                if let Some(error) = told.broken {
                    trouble = Some(Trouble::of_session(&error));
                    break;
                }
            }
            asked = requests.recv(), if open => match asked {
                Some((request, answer)) => {
                    let ticket = Ticket(next);
                    next += 1;
                    if publisher.publish(ticket, Outgoing::Request(request)) {
                        waiting.insert(ticket, answer);
                    }
                }
                None => open = false,
            },
        }
    }
    // Those still waiting are told by their senders' end.
    drop(waiting);
    wire.close().await;
    trouble
}
