//! What the shell keeps of a request in hand: the delivery, its bytes, and the proofs so far.

use std::sync::Arc;

use jiff::Timestamp;

use crate::broker::{Confirmed, Delivery, Received, Settled};
use crate::core::machine::Part;
use crate::core::outcome::Reason;
use crate::telemetry::metrics::EventType;
use crate::wire::request::PartialRequest;

#[derive(Debug)]
pub(super) struct Hand {
    pub delivery: Delivery,
    pub received: Arc<Received>,
    /// What could be read of a message that is no valid request.
    pub partial: Option<Box<PartialRequest>>,
    /// `requested_at`, else the message's own timestamp.
    pub asked_at: Option<Timestamp>,
    /// What is being told, for the metrics.
    pub telling: Option<(EventType, Option<Reason>)>,
    event: Option<Confirmed>,
    letter: Option<Confirmed>,
    copy: Option<Confirmed>,
}

impl Hand {
    pub fn new(
        delivery: Delivery,
        partial: Option<Box<PartialRequest>>,
        asked_at: Option<Timestamp>,
    ) -> Self {
        Self {
            received: Arc::clone(delivery.received()),
            delivery,
            partial,
            asked_at,
            telling: None,
            event: None,
            letter: None,
            copy: None,
        }
    }

    pub fn confirm(&mut self, part: Part, proof: Confirmed) {
        let slot = match part {
            Part::Event => &mut self.event,
            Part::Letter => &mut self.letter,
            Part::Copy => &mut self.copy,
        };
        *slot = Some(proof);
    }

    /// The delivery and what it may be settled with; the latter is missing where the core asked for
    /// an ack before its time, and then the broker keeps the request.
    pub fn into_proof(self) -> (Delivery, Option<Settled>) {
        let failing = matches!(self.telling, Some((EventType::UserRenameFailed, _)));
        let proof = match (self.copy, self.event, self.letter) {
            (Some(copy), ..) => Some(Settled::Copied(copy)),
            (None, Some(event), Some(letter)) => Some(Settled::Failure { event, letter }),
            (None, Some(event), None) if !failing => Some(Settled::Outcome { event }),
            (None, ..) => None,
        };
        (self.delivery, proof)
    }

    /// The id in the W3C trace context that came with the message.
    pub fn trace_id(&self) -> Option<&str> {
        self.received.traceparent()?.split('-').nth(1)
    }
}
