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

//!
//! # Which one does the broker refuse?
//!
//! It closes the channel for a message that it refuses, without a word about which one that was. The
//! publisher then opens another channel and publishes there what was under way, as
//! [`republish`](crate::core::policy::republish) decides. Whoever waits for answers learns nothing of it. What
//! the broker had taken before it closed the channel, and not confirmed, is then there twice, as after
//! any loss of a connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPSoftError};
use lapin::{Channel, Confirmation, Connection, ErrorKind};

use super::confirm::{PublishResult, PublisherConfirm};
use super::message::{EncodedPublish, MessageReduction, OutboundMessage, PublishRouting};
use crate::broker::error::BrokerError;
use crate::broker::topology::declare::open_channel;
use crate::core::policy::republish::{PublishForm, RefusalSuspicion};

/// How many channels a publisher uses up, at most. lapin never lets go of a channel's number, and
/// RabbitMQ has 2047 for a connection; several publishers may share it, one after the other.
const CHANNELS: u32 = 30;
/// How long opening another channel may take.
const REOPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Names a publish in its answer; the asker chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublishId(pub u64);

pub(in crate::broker) struct SessionPublisher {
    connection: Arc<Connection>,
    /// Shared, since cloning lapin's own handle costs a dozen counters.
    channel: Arc<Channel>,
    addresses: Arc<PublishRouting>,
    frame_max: u32,
    confirming: FuturesUnordered<ConfirmFuture>,
    /// By order of publishing; a resolved one is kept as `None` until all before it are resolved.
    outstanding: VecDeque<Option<OutstandingPublish>>,
    /// The sequence number of the first of `outstanding`.
    first: u64,
    /// What is published when the channel is open, or a suspect is done with, in this order.
    waiting: VecDeque<OutstandingPublish>,
    /// A suspect is under way.
    careful: bool,
    reopening: Option<ReopenFuture>,
    /// Channels that it may still use up.
    channels_left: u32,
    /// The channel has ended, and this is the first that was heard of why.
    ending: Option<lapin::Error>,
}

type ConfirmFuture = Pin<Box<dyn Future<Output = ConfirmFrame> + Send>>;
type ReopenFuture = Pin<Box<dyn Future<Output = Result<Channel, BrokerError>> + Send>>;

/// The sequence number of a publish, and what became of it.
type ConfirmFrame = (u64, lapin::Result<Confirmation>);

struct OutstandingPublish {
    /// `None` is our own greeting.
    ticket: Option<PublishId>,
    parcel: Arc<EncodedPublish>,
    returned: bool,
    suspicion: RefusalSuspicion,
}

/// What one round of confirms brought.
#[derive(Default)]
pub(in crate::broker) struct ConfirmBatch {
    pub(in crate::broker) publications: Vec<(PublishId, PublishResult)>,
    /// The channel has ended, for a reason that is not one message's.
    pub(in crate::broker) broken: Option<BrokerError>,
    /// The broker has answered at least one.
    answered: bool,
}

impl SessionPublisher {
    /// Opens a channel of its own.
    pub(in crate::broker) async fn open(
        connection: &Arc<Connection>,
        addresses: Arc<PublishRouting>,
    ) -> Result<Self, BrokerError> {
        Ok(Self {
            channel: Arc::new(confirming_channel(connection).await?),
            frame_max: connection.configuration().frame_max(),
            connection: Arc::clone(connection),
            addresses,
            confirming: FuturesUnordered::new(),
            outstanding: VecDeque::new(),
            first: 0,
            waiting: VecDeque::new(),
            careful: false,
            reopening: None,
            channels_left: CHANNELS,
            ending: None,
        })
    }

    /// With so many channels to use up.
    pub(in crate::broker) const fn with_channels(mut self, channels: u32) -> Self {
        self.channels_left = channels;
        self
    }

    pub(in crate::broker) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(in crate::broker) fn is_idle(&self) -> bool {
        self.confirming.is_empty() && self.waiting.is_empty() && self.reopening.is_none()
    }

    /// Whether its channel is gone and [`Self::next_batch`] will not say so.
    pub(in crate::broker) fn is_lost(&self) -> bool {
        self.is_idle() && !self.channel.status().connected()
    }

    /// Hands the message to the connection; never waits. `false` if there is no way to address it.
    pub(in crate::broker) fn publish(
        &mut self,
        ticket: PublishId,
        outgoing: OutboundMessage,
    ) -> bool {
        let Some(parcel) = self.addresses.parcel(outgoing, self.frame_max) else {
            return false;
        };
        self.enter(Some(ticket), parcel);
        true
    }

    /// Publishes an empty message to nowhere, to be told that the broker takes messages.
    pub(in crate::broker) fn publish_canary(&mut self) {
        let canary = EncodedPublish::canary(&self.addresses);
        self.enter(None, canary);
    }

    fn enter(&mut self, ticket: Option<PublishId>, parcel: EncodedPublish) {
        self.waiting.push_back(OutstandingPublish {
            ticket,
            parcel: Arc::new(parcel),
            returned: false,
            suspicion: RefusalSuspicion::default(),
        });
        self.send_waiting();
    }

    /// Sends what may be sent now.
    fn send_waiting(&mut self) {
        let under_way =
            |outstanding: &VecDeque<Option<OutstandingPublish>>| !outstanding.is_empty();
        while self.reopening.is_none()
            && self.ending.is_none()
            && !self.careful
            && let Some(next) = self.waiting.front()
        {
            self.careful = next.suspicion.goes_alone();
            if self.careful && under_way(&self.outstanding) {
                self.careful = false;
                return;
            }
            if let Some(next) = self.waiting.pop_front() {
                self.send(next);
            }
        }
    }

    fn send(&mut self, next: OutstandingPublish) {
        let sequence = self.first + self.outstanding.len() as u64;
        let mut confirming: ConfirmFuture = Box::pin(send(
            Arc::clone(&self.channel),
            Arc::clone(&next.parcel),
            sequence,
        ));
        // The first poll hands the frames over, which fixes the order.
        if let Some(failed) = (&mut confirming).now_or_never() {
            confirming = Box::pin(std::future::ready(failed));
        }
        self.confirming.push(confirming);
        self.outstanding.push_back(Some(next));
    }

    /// Waits for the next confirms. Pending for ever while idle. May be dropped and asked again.
    pub(in crate::broker) async fn next_batch(&mut self) -> ConfirmBatch {
        loop {
            if let Some(reopening) = &mut self.reopening {
                let reopened = reopening.await;
                self.reopening = None;
                match reopened {
                    Ok(channel) => self.channel = Arc::new(channel),
                    Err(trouble) => {
                        return ConfirmBatch {
                            broken: Some(trouble),
                            ..ConfirmBatch::default()
                        };
                    }
                }
                self.send_waiting();
                if self.is_idle() {
                    return ConfirmBatch::default();
                }
            }
            let answers = poll_fn(|cx| self.poll_confirms(cx)).await;
            let batch = self.resolve(answers);
            self.send_waiting();
            if batch.answered || batch.broken.is_some() || !batch.publications.is_empty() {
                return batch;
            }
        }
    }

    /// Everything that is outstanding counts as lost.
    pub(in crate::broker) fn fail_outstanding(&mut self) -> Vec<PublishId> {
        self.confirming.clear();
        self.reopening = None;
        let outstanding = self.outstanding.drain(..).flatten();
        let lost = outstanding.chain(self.waiting.drain(..));
        lost.filter_map(|lost| lost.ticket).collect()
    }

    /// All that are ready, at least one.
    fn poll_confirms(&mut self, cx: &mut Context<'_>) -> Poll<Vec<ConfirmFrame>> {
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

    fn resolve(&mut self, mut answers: Vec<ConfirmFrame>) -> ConfirmBatch {
        for (sequence, answer) in &mut answers {
            if let Ok(Confirmation::Ack(returned) | Confirmation::Nack(returned)) = answer
                && let Some(returned) = returned.take()
            {
                self.match_returns(*sequence, &returned);
            }
        }
        let mut batch = ConfirmBatch::default();
        let mut refusal = None;
        for (sequence, answer) in answers {
            let answer = match answer {
                Ok(answer) => answer,
                // It stays outstanding until it is known what the channel ended for.
                Err(error) => {
                    if let Some(refused) = refusal_of(&error) {
                        refusal.get_or_insert(refused);
                    }
                    self.ending.get_or_insert(error);
                    continue;
                }
            };
            let Some(outstanding) = self.take(sequence) else {
                continue;
            };
            batch.answered = true;
            let publication = match answer {
                Confirmation::Ack(_) => outstanding.confirmed(),
                Confirmation::Nack(_) => PublishResult::Refused,
                // Never asked for confirms: that would be our own mistake. Count nothing as safe.
                Confirmation::NotRequested => PublishResult::Lost,
            };
            if let Some(ticket) = outstanding.ticket {
                batch.publications.push((ticket, publication));
            }
        }
        self.careful &= !self.outstanding.is_empty();
        match (refusal, &self.ending) {
            (Some(refusal), _) if self.may_reopen() => self.publish_again(&refusal, &mut batch),
            // Others may know more: those that were sent on the dying channel fail first.
            (None, Some(_)) if !self.confirming.is_empty() => {}
            (_, Some(error)) => batch.broken = Some(BrokerError::of_session(error)),
            (_, None) => {}
        }
        batch
    }

    fn may_reopen(&self) -> bool {
        self.channels_left > 0 && self.connection.status().connected()
    }

    /// The channel was closed for one of those that were under way.
    fn publish_again(&mut self, refusal: &AMQPError, batch: &mut ConfirmBatch) {
        self.confirming.clear();
        self.careful = false;
        self.ending = None;
        self.first += self.outstanding.len() as u64;
        let suspects: Vec<_> = self.outstanding.drain(..).flatten().collect();
        let under_way = suspects.len();
        for mut suspect in suspects.into_iter().rev() {
            let parcel = &suspect.parcel;
            let next = suspect
                .suspicion
                .after_refusal(under_way, parcel.reduction != MessageReduction::Never);
            let Some(suspicion) = next else {
                warn_of(
                    refusal,
                    parcel,
                    "the broker refuses a message in every form",
                );
                let refused = suspect
                    .ticket
                    .map(|ticket| (ticket, PublishResult::Refused));
                batch.publications.extend(refused);
                continue;
            };
            if suspicion.form() != PublishForm::Whole && suspicion != suspect.suspicion {
                let what = "the broker refuses a message; trying it with less of the properties \
                            and headers that its request came with";
                warn_of(refusal, parcel, what);
                let reduced = parcel.reduced(suspicion.form(), &code_of(refusal));
                suspect.parcel = Arc::new(reduced);
            }
            suspect.suspicion = suspicion;
            suspect.returned = false;
            self.waiting.push_front(suspect);
        }
        self.channels_left -= 1;
        let connection = Arc::clone(&self.connection);
        self.reopening = Some(Box::pin(async move {
            let opening = confirming_channel(&connection);
            let silent = |_| BrokerError::Silent(REOPEN_TIMEOUT.as_secs());
            let opened = tokio::time::timeout(REOPEN_TIMEOUT, opening).await;
            opened.map_err(silent).flatten()
        }));
    }

    /// Gives a return to the publish it belongs to, see the head of this file.
    fn match_returns(&mut self, carrier: u64, returned: &BasicReturnMessage) {
        let carrier = usize::try_from(carrier - self.first).unwrap_or(usize::MAX);
        let own = self.outstanding.get_mut(carrier).into_iter();
        // Most often the carrier is the owner, so it is asked first. `iter_mut` twice over the same
        // place is not possible, hence two passes.
        for candidate in own.flatten() {
            if candidate.matches_return(returned) {
                return;
            }
        }
        for candidate in self.outstanding.iter_mut().flatten() {
            if candidate.matches_return(returned) {
                return;
            }
        }
        // A message id stays out of the log: it may be anything.
        tracing::error!(
            exchange = %returned.exchange,
            "the broker returned a message that is not outstanding"
        );
    }

    fn take(&mut self, sequence: u64) -> Option<OutstandingPublish> {
        let place = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let taken = self.outstanding.get_mut(place)?.take();
        while let Some(None) = self.outstanding.front() {
            self.outstanding.pop_front();
            self.first += 1;
        }
        taken
    }
}

impl OutstandingPublish {
    /// Whether the returned message is this one; if so, that is remembered.
    fn matches_return(&mut self, returned: &BasicReturnMessage) -> bool {
        let parcel = &self.parcel;
        let mine = !self.returned
            && parcel.exchange == returned.exchange
            && parcel.routing_key == returned.routing_key
            && parcel.properties.message_id() == returned.properties.message_id()
            && parcel.body.bytes() == returned.data;
        self.returned |= mine;
        mine
    }

    fn confirmed(&self) -> PublishResult {
        if self.returned && self.parcel.must_route {
            PublishResult::Returned
        } else {
            let whole = self.parcel.reduction != MessageReduction::Done;
            PublishResult::Confirmed(PublisherConfirm::by_broker(!self.returned, whole))
        }
    }
}

async fn confirming_channel(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = open_channel(connection).await?;
    channel
        .confirm_select(ConfirmSelectOptions { nowait: false })
        .await
        .map_err(|error| BrokerError::of_session(&error))?;
    Ok(channel)
}

/// What the broker says where it closes a channel for one message and not for its address.
fn refusal_of(error: &lapin::Error) -> Option<AMQPError> {
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return None;
    };
    let of_a_message = matches!(
        amqp.kind(),
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE)
    );
    of_a_message.then(|| amqp.clone())
}

/// The name of the code, without what the broker says about it, which may quote the message.
fn code_of(refusal: &AMQPError) -> String {
    let text = refusal.get_message().as_str();
    let (code, _) = text.split_once(' ').unwrap_or((text, ""));
    code.to_owned()
}

fn warn_of(refusal: &AMQPError, parcel: &EncodedPublish, what: &str) {
    tracing::warn!(
        request_id = parcel.request_id(),
        code = code_of(refusal),
        "{what}"
    );
}

async fn send(channel: Arc<Channel>, parcel: Arc<EncodedPublish>, sequence: u64) -> ConfirmFrame {
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
