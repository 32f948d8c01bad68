//! Publishes in the order given, without waiting in between, and tells each one's fate.
//!
//! # Whose return is it?
//!
//! For a mandatory message that no queue takes the broker sends `basic.return`, then the confirm.
//! lapin hands the returned message to whichever confirm comes next, and several that come in one
//! `multiple` frame in no order. So the confirm that carries a return is often another message's:
//! believing it would call a lost dead letter safe. What lapin does keep is that a return is never
//! attached to a later confirm than its own. Therefore all confirms that are ready are gathered
//! before any is told, and each return is given to the outstanding publish that it equals (address,
//! message id and bytes). If two are equal in all of that, either may have it: what is in the
//! queues in the end is the same.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};

use super::outgoing::{Addresses, Outgoing, Parcel};
use super::proof::{Confirmed, Publication};

/// Names a publish in its answer; the asker chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

pub(super) struct Publisher {
    /// Shared, since cloning lapin's own handle costs a dozen counters.
    channel: Arc<Channel>,
    addresses: Arc<Addresses>,
    frame_max: u32,
    confirming: FuturesUnordered<Confirming>,
    /// By order of publishing; a resolved one is kept as `None` until all before it are resolved.
    outstanding: VecDeque<Option<Outstanding>>,
    /// The sequence number of the first of `outstanding`.
    first: u64,
}

type Confirming = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The sequence number of a publish, and what became of it.
type Answer = (u64, lapin::Result<Confirmation>);

struct Outstanding {
    /// `None` is our own greeting.
    ticket: Option<Ticket>,
    parcel: Arc<Parcel>,
    returned: bool,
}

/// What one round of confirms brought.
#[derive(Default)]
pub(super) struct Told {
    pub(super) publications: Vec<(Ticket, Publication)>,
    /// The channel has ended.
    pub(super) broken: Option<lapin::Error>,
}

impl Publisher {
    /// On a channel in confirm mode, of a connection that agreed on frames of `frame_max` bytes.
    pub(super) fn new(channel: Channel, addresses: Arc<Addresses>, frame_max: u32) -> Self {
        Self {
            channel: Arc::new(channel),
            addresses,
            frame_max,
            confirming: FuturesUnordered::new(),
            outstanding: VecDeque::new(),
            first: 0,
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(super) fn is_idle(&self) -> bool {
        self.confirming.is_empty()
    }

    /// Hands the message to the connection; never waits. `false` if there is no way to address it.
    pub(super) fn publish(&mut self, ticket: Ticket, outgoing: Outgoing) -> bool {
        let Some(parcel) = self.addresses.parcel(outgoing, self.frame_max) else {
            return false;
        };
        self.send(Some(ticket), parcel);
        true
    }

    /// Publishes an empty message to nowhere, to be told that the broker takes messages.
    pub(super) fn greet(&mut self) {
        let canary = Parcel::to_nowhere(&self.addresses);
        self.send(None, canary);
    }

    fn send(&mut self, ticket: Option<Ticket>, parcel: Parcel) {
        let parcel = Arc::new(parcel);
        let sequence = self.first + self.outstanding.len() as u64;
        let mut confirming: Confirming = Box::pin(send(
            Arc::clone(&self.channel),
            Arc::clone(&parcel),
            sequence,
        ));
        // The first poll hands the frames over, which fixes the order.
        if let Some(failed) = (&mut confirming).now_or_never() {
            confirming = Box::pin(std::future::ready(failed));
        }
        self.confirming.push(confirming);
        self.outstanding.push_back(Some(Outstanding {
            ticket,
            parcel,
            returned: false,
        }));
    }

    /// Waits for the next confirms. Pending for ever while idle.
    pub(super) async fn told(&mut self) -> Told {
        let answers = poll_fn(|cx| self.gather(cx)).await;
        self.sort_out(answers)
    }

    /// Everything that is outstanding counts as lost.
    pub(super) fn give_up(&mut self) -> Vec<Ticket> {
        self.confirming.clear();
        let outstanding = self.outstanding.drain(..);
        outstanding
            .flatten()
            .filter_map(|lost| lost.ticket)
            .collect()
    }

    /// All that are ready, at least one.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Answer>> {
        let mut answers = Vec::new();
        while let Poll::Ready(Some(answer)) = self.confirming.poll_next_unpin(cx) {
            answers.push(answer);
        }
        if answers.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(answers)
        }
    }

    fn sort_out(&mut self, mut answers: Vec<Answer>) -> Told {
        for (sequence, answer) in &mut answers {
            if let Ok(Confirmation::Ack(returned) | Confirmation::Nack(returned)) = answer
                && let Some(returned) = returned.take()
            {
                self.attribute(*sequence, &returned);
            }
        }
        let mut told = Told::default();
        for (sequence, answer) in answers {
            let Some(outstanding) = self.take(sequence) else {
                continue;
            };
            let publication = match answer {
                Ok(Confirmation::Ack(_)) => outstanding.confirmed(),
                Ok(Confirmation::Nack(_)) => Publication::Refused,
                // Never asked for confirms: that would be our own mistake. Count nothing as safe.
                Ok(Confirmation::NotRequested) => Publication::Lost,
                Err(error) => {
                    told.broken = Some(error);
                    Publication::Lost
                }
            };
            if let Some(ticket) = outstanding.ticket {
                told.publications.push((ticket, publication));
            }
        }
        told
    }

    /// Gives a return to the publish it belongs to, see the head of this file.
    fn attribute(&mut self, carrier: u64, returned: &BasicReturnMessage) {
        let carrier = usize::try_from(carrier - self.first).unwrap_or(usize::MAX);
        let own = self.outstanding.get_mut(carrier).into_iter();
        // Most often the carrier is the owner, so it is asked first. `iter_mut` twice over the same
        // place is not possible, hence two passes.
        for candidate in own.flatten() {
            if candidate.claims(returned) {
                return;
            }
        }
        for candidate in self.outstanding.iter_mut().flatten() {
            if candidate.claims(returned) {
                return;
            }
        }
        // A message id stays out of the log: it may be anything.
        tracing::error!(
            exchange = %returned.exchange,
            "the broker returned a message that is not outstanding"
        );
    }

    fn take(&mut self, sequence: u64) -> Option<Outstanding> {
        let place = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let taken = self.outstanding.get_mut(place)?.take();
        while let Some(None) = self.outstanding.front() {
            self.outstanding.pop_front();
            self.first += 1;
        }
        taken
    }
}

impl Outstanding {
    /// Whether the returned message is this one; if so, that is remembered.
    fn claims(&mut self, returned: &BasicReturnMessage) -> bool {
        let parcel = &self.parcel;
        let mine = !self.returned
            && parcel.exchange == returned.exchange
            && parcel.routing_key == returned.routing_key
            && parcel.properties.message_id() == returned.properties.message_id()
            && parcel.body.bytes() == returned.data;
        self.returned |= mine;
        mine
    }

    fn confirmed(&self) -> Publication {
        if self.returned && self.parcel.must_route {
            Publication::Returned
        } else {
            Publication::Confirmed(Confirmed::by_broker(!self.returned))
        }
    }
}

async fn send(channel: Arc<Channel>, parcel: Arc<Parcel>, sequence: u64) -> Answer {
    let options = BasicPublishOptions {
        mandatory: parcel.mandatory,
        immediate: false,
    };
    let sent = channel
        .basic_publish(
            parcel.exchange.clone(),
            parcel.routing_key.clone(),
            options,
            parcel.body.bytes(),
            parcel.properties.clone(),
        )
        .await;
    let confirmation = match sent {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (sequence, confirmation)
}
