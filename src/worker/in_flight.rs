//! What the shell keeps of a request in hand: the delivery, its bytes, and the proofs so far.

use std::sync::Arc;

use jiff::Timestamp;

use crate::broker::{AckPermit, Delivery, PublisherConfirm, ReceivedMessage};
use crate::core::model::outcome::Reason;
use crate::core::scheduler::PublishPart;
use crate::messages::request::PartialRequest;
use crate::telemetry::metrics::EventType;
use crate::telemetry::trace::{RequestTrace, StepTrace};

#[derive(Debug)]
pub(super) struct InFlight {
    pub delivery: Delivery,
    pub received: Arc<ReceivedMessage>,
    /// What could be read of a message that is no valid request.
    pub partial: Option<Box<PartialRequest>>,
    /// `requested_at`, else the message's own timestamp.
    pub asked_at: Option<Timestamp>,
    /// What is being told, for the metrics.
    pub telling: Option<(EventType, Option<Reason>)>,
    pub trace: RequestTrace,
    event: PublishedOutcome,
    letter: PublishedOutcome,
    copy: PublishedOutcome,
}

/// One part of what is published for a request.
#[derive(Debug, Default)]
struct PublishedOutcome {
    trace: Option<StepTrace>,
    proof: Option<PublisherConfirm>,
}

impl InFlight {
    pub fn new(
        delivery: Delivery,
        partial: Option<Box<PartialRequest>>,
        asked_at: Option<Timestamp>,
        trace: RequestTrace,
    ) -> Self {
        Self {
            received: Arc::clone(delivery.received()),
            delivery,
            partial,
            asked_at,
            telling: None,
            trace,
            event: PublishedOutcome::default(),
            letter: PublishedOutcome::default(),
            copy: PublishedOutcome::default(),
        }
    }

    pub fn publishing(&mut self, part: PublishPart, trace: StepTrace) {
        self.part(part).trace = Some(trace);
    }

    pub fn confirm(&mut self, part: PublishPart, proof: PublisherConfirm) {
        let publishing = self.part(part);
        publishing.proof = Some(proof);
        if let Some(trace) = publishing.trace.take() {
            trace.published(true);
        }
    }

    pub fn refused(&mut self, part: PublishPart) {
        if let Some(trace) = self.part(part).trace.take() {
            trace.published(false);
        }
    }

    fn part(&mut self, part: PublishPart) -> &mut PublishedOutcome {
        match part {
            PublishPart::Event => &mut self.event,
            PublishPart::Letter => &mut self.letter,
            PublishPart::Copy => &mut self.copy,
        }
    }

    /// The delivery and what it may be settled with; the latter is missing where the core asked for
    /// an ack before its time, and then the broker keeps the request.
    pub fn into_ack_permit(self) -> (Delivery, Option<AckPermit>) {
        let failing = matches!(self.telling, Some((EventType::UserRenameFailed, _)));
        let proof = match (self.copy.proof, self.event.proof, self.letter.proof) {
            (Some(copy), ..) => Some(AckPermit::Copied(copy)),
            (None, Some(event), Some(letter)) => Some(AckPermit::Failure { event, letter }),
            (None, Some(event), None) if !failing => Some(AckPermit::Outcome { event }),
            (None, ..) => None,
        };
        (self.delivery, proof)
    }
}
