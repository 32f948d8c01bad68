//! A delivery arrives: whether it is worth a try, and whose turn it is.

use super::job::{BrokerRemoval, Job, Phase, ProbeKind};
use super::{
    ArrivedRequest, AttemptHistory, DeferralReason, Effect, JobId, Scheduler, StepContext,
};
use crate::core::model::outcome::Reason;
use crate::core::policy::removal::RemovalCause;
use crate::core::policy::verdict::{ProvisionalFailure, unknown};
use crate::core::scheduler::name_order::{Arrival, ArrivalSource, RequestIdentity, TurnDecision};

/// From this many deliveries below the broker's limit, a request is no longer tried: it may be what
/// kills the worker. It is asked whether an earlier try was applied, and ends.
pub const POISON_MARGIN: u32 = 6;

/// From here on even asking is too much: a few deaths more, and the broker drops it untold.
const LAST_MARGIN: u32 = 3;

/// What a request carries, given whether its message may have been delivered before.
fn in_doubt(mut carried: AttemptHistory, delivered_before: bool) -> AttemptHistory {
    // Whoever sends a message again that says "maybe applied" and is no copy, such as a review, knows
    // nothing more of its effect.
    let sent_again = carried.maybe_applied && carried.copy.is_none();
    carried.maybe_applied |= delivered_before;
    carried.unclear |= delivered_before || sent_again;
    carried
}

fn removal(cause: RemovalCause, carried: &AttemptHistory) -> BrokerRemoval {
    let tried = carried.attempts > 0 || carried.maybe_applied;
    BrokerRemoval {
        cause,
        untried: !tried && cause != RemovalCause::DeliveryLimit,
    }
}

impl Scheduler {
    pub(super) fn delivered(&mut self, arrived: ArrivedRequest, cx: &mut StepContext<'_>) {
        let ArrivedRequest {
            job: id,
            request,
            carried,
            redelivered,
            delivery_count,
            fetched,
            source,
            removed,
        } = arrived;
        if self.draining {
            cx.emit(Effect::GiveBack { job: id });
            return;
        }
        let removed = removed.map(|cause| removal(cause, &carried));
        let mut job = Job {
            request: None,
            identity: None,
            ticket: None,
            received_at: cx.now,
            failed_at: carried.copy.and_then(|copy| self.line.sent_at(copy)),
            phase: Phase::Ready,
            closing: None,
            maybe_twin: redelivered || carried.copy.is_some(),
            // Of what RabbitMQ moved away, nothing tells whether it had been delivered before.
            carried: in_doubt(
                carried,
                redelivered || delivery_count > 0 || removed.is_some(),
            ),
            source,
            probe: ProbeKind::default(),
            holds_share: false,
            try_began_at: None,
            removed,
            orphan: None,
            heir: None,
            timer: None,
        };
        let request = match request {
            Ok(request) => request,
            Err(detail) => {
                self.jobs.insert(id, job);
                self.fail(id, Reason::InvalidRequest, None, detail, cx);
                return;
            }
        };
        let identity = RequestIdentity::of(&request, job.carried.replay);
        let from = ArrivalSource::new(source, redelivered);
        let copy = job.carried.copy;
        let Arrival { ticket, is_twin } = self.line.arrive(identity, copy, from, cx.now);
        // Whatever was tried for the other message was tried for this one.
        job.carried.maybe_applied |= is_twin;
        job.carried.unclear |= is_twin;
        job.maybe_twin |= is_twin;
        let maybe_twin = job.maybe_twin;
        let account = request.account_id.clone();
        self.accounts.see(&account, cx.now);
        job.request = Some(request);
        job.identity = Some(identity);
        job.ticket = Some(ticket);
        self.jobs.insert(id, job);
        self.take_share(id, &account);
        // A copy may be back before its confirm is known: the place goes over to it.
        if let Some(original) = self.by_ticket.insert(ticket, id)
            && let Some(original) = self.jobs.get_mut(&original)
        {
            original.ticket = None;
        }
        if !self.ends_at_once(id, identity, maybe_twin, delivery_count, cx) {
            let probes = fetched && self.is_wanted_to_probe(&account, cx.now);
            self.admit(id, probes, cx);
        }
    }

    /// It may run now, or waits here or elsewhere.
    fn admit(&mut self, id: JobId, probes: bool, cx: &mut StepContext<'_>) {
        let ticket = self.jobs.get(&id).and_then(|job| job.ticket);
        if probes && ticket.is_none_or(|ticket| self.line.eligibility(ticket) == TurnDecision::Run)
        {
            self.probe_with(id, cx);
        } else if let Some(wait) = self.wait_for_share(id, cx) {
            let to = self.least_blocked(wait, cx);
            self.defer(id, to, DeferralReason::AccountShare, cx);
        } else {
            self.schedule(id, cx);
        }
    }

    /// What is known of it already ends it, or leaves it to a call that is under way.
    fn ends_at_once(
        &mut self,
        id: JobId,
        identity: RequestIdentity,
        maybe_twin: bool,
        delivery_count: u32,
        cx: &mut StepContext<'_>,
    ) -> bool {
        if self.publish_cached_outcome(id, cx) {
            return true;
        }
        if !maybe_twin {
            self.recent.forget_failure(identity);
        }
        if let Some(&orphan) = self.orphans.get(&identity)
            && self
                .jobs
                .get(&orphan)
                .is_some_and(|orphan| orphan.heir.is_none())
        {
            self.reattach(orphan, id);
            return true;
        }
        let unexplained = self.survivals.unexplained(identity, delivery_count);
        // What the broker moved away at the limit has died often enough.
        let left = match self.removal_of(id) {
            Some(RemovalCause::DeliveryLimit) => LAST_MARGIN * 2,
            _ => self.rules.delivery_limit,
        };
        if unexplained.saturating_add(LAST_MARGIN) >= left {
            let what = "delivered again and again without an end, up to the queue's delivery limit";
            let ProvisionalFailure { reason, detail, .. } = unknown(what, None);
            self.fail(id, reason, None, detail, cx);
            return true;
        }
        let removal = self.removal_that_ends(id, identity);
        let Some(job) = self.jobs.get_mut(&id) else {
            return true;
        };
        if let Some(cause) = removal {
            job.closing = Some(cause.failure());
        } else if unexplained.saturating_add(POISON_MARGIN) >= self.rules.delivery_limit {
            job.closing = Some(ProvisionalFailure {
                reason: Reason::Poison,
                http_status: None,
                detail: "delivered again and again without an end; it may be what stops the worker"
                    .into(),
            });
        }
        false
    }

    fn removal_of(&self, id: JobId) -> Option<RemovalCause> {
        Some(self.jobs.get(&id)?.removed?.cause)
    }

    /// Why the request ends without a try, if it does: RabbitMQ moved it away. Not where the limit of
    /// deliveries was used up by sessions that ended while this process lived on.
    fn removal_that_ends(&self, id: JobId, identity: RequestIdentity) -> Option<RemovalCause> {
        let cause = self.removal_of(id)?;
        let limit = self.rules.delivery_limit;
        let is_innocent = cause == RemovalCause::DeliveryLimit
            && self
                .survivals
                .unexplained(identity, limit)
                .saturating_add(POISON_MARGIN)
                < limit;
        (!is_innocent).then_some(cause)
    }

    /// A twin of this message may have come to its end while this one waited.
    pub(super) fn publish_cached_outcome(&mut self, id: JobId, cx: &mut StepContext<'_>) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        let Some(identity) = job.identity else {
            return false;
        };
        let Some(outcome) = self.recent.get(identity, job.maybe_twin, cx.now) else {
            return false;
        };
        self.publish_outcome(id, outcome, cx);
        true
    }
}
