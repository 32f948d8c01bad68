//! What the core wants published, as messages for the broker.

use uuid::Uuid;

use super::hand::Hand;
use crate::broker::{CopyTo, Outgoing, Ticket};
use crate::core::machine::{Destination, JobId, Parcel, Part};
use crate::core::outcome::{Failed, Outcome};
use crate::core::request::RenameRequest;
use crate::telemetry::metrics::EventType;
use crate::telemetry::trace::Published;
use crate::wire;

/// The message for a parcel. `None` only for what cannot be: an event of nothing.
pub(super) fn outgoing(
    source: &str,
    hand: &mut Hand,
    request: Option<&RenameRequest>,
    parcel: Parcel,
) -> Option<Outgoing> {
    match parcel {
        Parcel::Event(outcome) => {
            let reason = match &outcome {
                Outcome::Renamed(_) => None,
                Outcome::Failed(failed) => Some(failed.reason),
            };
            hand.telling = Some((EventType::from(&outcome), reason));
            event(source, hand, request, &outcome)
        }
        Parcel::Letter(failed) => {
            hand.telling = Some((EventType::UserRenameFailed, Some(failed.reason)));
            let trace = hand.trace.publish(Published::DeadLetter);
            hand.publishing(Part::Letter, trace);
            Some(dead_letter(
                hand,
                request.map(|request| request.request_id),
                &failed,
            ))
        }
        Parcel::Copy { to, carried } => {
            let (to, step) = match to {
                Destination::Tail => (CopyTo::Due, None),
                Destination::Ladder { step, wait } => (CopyTo::Wait { step, wait }, Some(step)),
            };
            let trace = hand.trace.publish(Published::Copy { step });
            hand.publishing(Part::Copy, trace);
            Some(Outgoing::Copy {
                of: hand.received.clone(),
                to,
                headers: wire::headers::copy_headers(&carried, hand.received.origin()),
            })
        }
    }
}

fn event(
    source: &str,
    hand: &mut Hand,
    request: Option<&RenameRequest>,
    outcome: &Outcome,
) -> Option<Outgoing> {
    let publishing = hand.trace.publish(Published::Event {
        event_type: EventType::from(outcome).as_str(),
    });
    let traceparent = publishing.traceparent();
    let trace = traceparent.as_deref();
    let partial = hand.partial.as_deref();
    let message = match (outcome, request, partial) {
        (Outcome::Renamed(renamed), Some(request), _) => {
            wire::event::renamed(source, request, renamed, trace)
        }
        (Outcome::Failed(failed), Some(request), _) => {
            wire::event::failed(source, request, failed, trace)
        }
        (Outcome::Failed(failed), None, Some(partial)) => {
            wire::event::failed(source, partial, failed, trace)
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
    hand.publishing(Part::Event, publishing);
    Some(Outgoing::Event {
        message,
        correlation_id,
        traceparent,
    })
}

fn dead_letter(hand: &Hand, request_id: Option<Uuid>, failed: &Failed) -> Outgoing {
    let request_id = request_id.or_else(|| hand.partial.as_ref()?.request_uuid());
    Outgoing::DeadLetter {
        of: hand.received.clone(),
        headers: wire::headers::dead_letter_headers(failed, request_id, hand.received.origin()),
    }
}

/// A publish is named by its job and its part.
pub(super) fn ticket(job: JobId, part: Part) -> Ticket {
    let part = match part {
        Part::Event => 0,
        Part::Letter => 1,
        Part::Copy => 2,
    };
    Ticket(job.0 << 2 | part)
}

pub(super) fn addressee(ticket: Ticket) -> (JobId, Part) {
    let part = match ticket.0 & 3 {
        0 => Part::Event,
        1 => Part::Letter,
        _ => Part::Copy,
    };
    (JobId(ticket.0 >> 2), part)
}
