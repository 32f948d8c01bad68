//! What the core wants published, as messages for the broker.

use uuid::Uuid;

use super::in_flight::InFlight;
use crate::broker::{CopyTo, OutboundMessage, PublishId};
use crate::core::model::outcome::{Failed, Outcome};
use crate::core::model::request::RenameRequest;
use crate::core::scheduler::{Destination, JobId, PublishEffect, PublishPart};
use crate::messages;
use crate::telemetry::metrics::EventType;
use crate::telemetry::trace::PublishAttributes;

/// The message for a parcel. `None` only for what cannot be: an event of nothing.
pub(super) fn outgoing(
    source: &str,
    hand: &mut InFlight,
    request: Option<&RenameRequest>,
    parcel: PublishEffect,
) -> Option<OutboundMessage> {
    match parcel {
        PublishEffect::Event(outcome) => {
            let reason = match &outcome {
                Outcome::Renamed(_) => None,
                Outcome::Failed(failed) => Some(failed.reason),
            };
            hand.telling = Some((EventType::from(&outcome), reason));
            event(source, hand, request, &outcome)
        }
        PublishEffect::Letter(failed) => {
            hand.telling = Some((EventType::UserRenameFailed, Some(failed.reason)));
            let trace = hand.trace.publish(PublishAttributes::DeadLetter);
            hand.publishing(PublishPart::Letter, trace);
            Some(dead_letter(
                hand,
                request.map(|request| request.request_id),
                &failed,
            ))
        }
        PublishEffect::Copy { to, carried } => {
            let (to, step) = match to {
                Destination::Tail => (CopyTo::Due, None),
                Destination::Ladder { step, wait } => (CopyTo::Wait { step, wait }, Some(step)),
            };
            let trace = hand.trace.publish(PublishAttributes::Copy { step });
            hand.publishing(PublishPart::Copy, trace);
            Some(OutboundMessage::Copy {
                of: hand.received.clone(),
                to,
                headers: messages::headers::copy_headers(&carried, hand.received.origin()),
            })
        }
    }
}

fn event(
    source: &str,
    hand: &mut InFlight,
    request: Option<&RenameRequest>,
    outcome: &Outcome,
) -> Option<OutboundMessage> {
    let publishing = hand.trace.publish(PublishAttributes::Event {
        event_type: EventType::from(outcome).as_str(),
    });
    let traceparent = publishing.traceparent();
    let trace = traceparent.as_deref();
    let partial = hand.partial.as_deref();
    let message = match (outcome, request, partial) {
        (Outcome::Renamed(renamed), Some(request), _) => {
            messages::event::renamed(source, request, renamed, trace)
        }
        (Outcome::Failed(failed), Some(request), _) => {
            messages::event::failed(source, request, failed, trace)
        }
        (Outcome::Failed(failed), None, Some(partial)) => {
            messages::event::failed(source, partial, failed, trace)
        }
        (Outcome::Failed(_), None, None) | (Outcome::Renamed(_), None, _) => return None,
    };
    publishing.message_id(message.id);
    let correlation_id = hand
        .received
        .correlation_id()
        .map(str::to_owned)
        .or_else(|| {
            let read = partial.and_then(|partial| partial.request_id.as_deref());
            request
                .map(|request| request.request_id.to_string())
                .or(read.map(str::to_owned))
        });
    hand.publishing(PublishPart::Event, publishing);
    Some(OutboundMessage::Event {
        message,
        correlation_id,
        traceparent,
    })
}

fn dead_letter(hand: &InFlight, request_id: Option<Uuid>, failed: &Failed) -> OutboundMessage {
    let request_id = request_id.or_else(|| hand.partial.as_ref()?.request_uuid());
    OutboundMessage::DeadLetter {
        of: hand.received.clone(),
        headers: messages::headers::dead_letter_headers(failed, request_id, hand.received.origin()),
    }
}

/// A publish is named by its job and its part.
pub(super) fn publish_id(job: JobId, part: PublishPart) -> PublishId {
    let part = match part {
        PublishPart::Event => 0,
        PublishPart::Letter => 1,
        PublishPart::Copy => 2,
    };
    PublishId(job.0 << 2 | part)
}

pub(super) fn job_of(ticket: PublishId) -> (JobId, PublishPart) {
    let part = match ticket.0 & 3 {
        0 => PublishPart::Event,
        1 => PublishPart::Letter,
        _ => PublishPart::Copy,
    };
    (JobId(ticket.0 >> 2), part)
}
