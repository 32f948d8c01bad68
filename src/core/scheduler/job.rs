//! One request in hand, and the phases of its life.

use jiff::Timestamp;

use super::{Destination, PublishPart};
use crate::core::model::outcome::{AttemptHistory, Outcome};
use crate::core::model::request::RenameRequest;
use crate::core::policy::consume_plan::SourceQueue;
use crate::core::policy::removal::RemovalCause;
use crate::core::policy::verdict::{CallStep, ProvisionalFailure};
use crate::core::scheduler::name_order::{OrderPosition, RequestIdentity};

#[derive(Debug)]
pub(super) struct Job {
    /// Nothing where the message was no valid request.
    pub request: Option<Box<RenameRequest>>,
    pub identity: Option<RequestIdentity>,
    pub ticket: Option<OrderPosition>,
    /// Attempts, first attempt, maybe applied: as carried here, and as it grows.
    pub carried: AttemptHistory,
    pub received_at: Timestamp,
    /// When its last try failed in passing, as far as it is known.
    pub failed_at: Option<Timestamp>,
    pub phase: Phase,
    /// Decided before any call: tell this failure, unless an earlier try was applied.
    pub closing: Option<ProvisionalFailure>,
    /// Delivered again, or copied: another message of the same request may be about.
    pub maybe_twin: bool,
    /// The queue that it came from.
    pub source: SourceQueue,
    /// Whose probe its call is.
    pub probe: ProbeKind,
    /// It counts as in hand for its account's share.
    pub holds_share: bool,
    /// When its try began.
    pub try_began_at: Option<Timestamp>,
    /// It was delivered from `rename.undeliverable`, and never leaves the worker without an outcome.
    pub removed: Option<BrokerRemoval>,
    /// Its delivery is void, with the connection of this number; its call still runs.
    pub orphan: Option<u64>,
    /// The delivery that came again for this orphan.
    pub heir: Option<super::JobId>,
    pub timer: Option<Timestamp>,
}

/// A call that finds out whether a hold is over: of the worker, of its account, or of both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProbeKind {
    pub of_worker: bool,
    pub of_account: bool,
}

/// That RabbitMQ moved a request away.
#[derive(Debug, Clone, Copy)]
pub(super) struct BrokerRemoval {
    pub cause: RemovalCause,
    /// Nothing shows that anybody had tried it before.
    pub untried: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Others of its name are before it.
    Blocked,
    /// Waits for a call slot.
    Ready,
    /// In backoff, or paced.
    Waiting,
    /// Its call was begun under an earlier connection; waits for that answer.
    Heir,
    Calling(CallStep),
    Publishing(Box<PublishState>),
    /// Acked; the ack is on its way.
    Settling(Box<Outcome>),
}

/// What is being published, and how far it is.
#[derive(Debug)]
pub(super) struct PublishState {
    pub what: PublishSubject,
    pub parts: Vec<(PublishPart, ConfirmState)>,
    /// How often some part of it failed.
    pub failures: u32,
}

#[derive(Debug)]
pub(super) enum PublishSubject {
    Tell(Outcome),
    Move(Destination),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfirmState {
    Due,
    Sent,
    Confirmed,
}

impl Job {
    /// Tells requests apart, for the hold.
    pub fn fingerprint(&self) -> u64 {
        self.identity.map_or(0, |identity| identity.fingerprint())
    }

    /// The first receipt of the request, as far as it is known.
    pub fn first_receipt_at(&self) -> Timestamp {
        self.carried
            .first_attempt_at
            .map_or(self.received_at, |at| at.min(self.received_at))
    }
}
