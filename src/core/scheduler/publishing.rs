//! Publishing an outcome or a copy until the broker confirms it, then the ack, then whoever waited.

use std::time::Duration;

use super::job::{ConfirmState, Phase, PublishState, PublishSubject};
use super::{
    AckBarrier, DeferralNote, DeferralReason, Destination, Effect, JobId, Observation,
    PublishEffect, PublishPart, RequestEnded, Scheduler, StepContext,
};
use crate::core::model::outcome::{Failed, Outcome};
use crate::core::policy::retry::saturating_add;
use crate::core::scheduler::name_order::{DueReturn, TurnDecision};

/// A request that RabbitMQ removed waits in the worker where another would go to the tail of the due
/// ones: during a hold, say.
const REMOVED_WAITS: Duration = Duration::from_secs(1);
/// A publish that the broker refused or returned is tried again after so long, doubling …
const FIRST_REPUBLISH: Duration = Duration::from_secs(1);
/// … up to so long.
const MAX_REPUBLISH: Duration = Duration::from_secs(30);

impl Scheduler {
    /// The request has ended: publish its event, and its dead letter if it failed.
    pub(super) fn publish_outcome(
        &mut self,
        id: JobId,
        outcome: Outcome,
        cx: &mut StepContext<'_>,
    ) {
        self.note_try_time(id, cx);
        let parts = match outcome {
            Outcome::Renamed(_) => vec![(PublishPart::Event, ConfirmState::Due)],
            Outcome::Failed(_) => vec![
                (PublishPart::Letter, ConfirmState::Due),
                (PublishPart::Event, ConfirmState::Due),
            ],
        };
        self.publish(id, PublishSubject::Tell(outcome), parts, cx);
    }

    /// The request goes to a wait queue for about so long.
    pub(super) fn send_away_for(
        &mut self,
        id: JobId,
        wait: Duration,
        reason: DeferralReason,
        cx: &mut StepContext<'_>,
    ) {
        self.defer(id, Destination::for_wait(wait, &self.retry), reason, cx);
    }

    /// The request goes away; those behind it go after it, once the broker has it.
    pub(super) fn defer(
        &mut self,
        id: JobId,
        to: Destination,
        reason: DeferralReason,
        cx: &mut StepContext<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        // A copy would lose that it was removed, and be tried again. It is alone in what it holds.
        if job.removed.is_some() {
            let wait = match to {
                Destination::Tail => REMOVED_WAITS,
                Destination::Ladder { wait, .. } => wait,
            };
            self.wait_here(id, wait, cx);
            return;
        }
        // A copy may have a twin: were the worker to die before the ack, the original would come
        // again, and be applied, while the copy waits.
        job.carried.maybe_applied = true;
        if let Some(request) = job.request.as_deref() {
            cx.emit(Effect::Note(Observation::Deferred(DeferralNote {
                request_id: request.request_id,
                account: request.account_id.clone(),
                destination: to,
                reason,
                attempts: job.carried.attempts,
            })));
        }
        if let Destination::Ladder { step, wait } = to
            && let Some(last) = self.last_expiry.get_mut(step)
        {
            *last = (*last).max(Some(saturating_add(cx.now, wait)));
        }
        self.give_up_share(id);
        self.publish(
            id,
            PublishSubject::Move(to),
            vec![(PublishPart::Copy, ConfirmState::Due)],
            cx,
        );
    }

    /// Sends a request after those before it, which are away: to the tail, or to the ladder where
    /// it is not back before `due`.
    fn queue_behind(&mut self, id: JobId, due: Option<DueReturn>, cx: &mut StepContext<'_>) {
        let Some(due) = due else {
            return self.defer(id, Destination::Tail, DeferralReason::NameOrder, cx);
        };
        let turn = self.turn_of_name(id).unwrap_or_default();
        let wait = due.wait(cx.now).max(turn);
        if due.is_to_come(cx.now) {
            self.wait_for_turn(id, wait, cx);
        } else {
            self.wait_elsewhere(id, wait, cx);
        }
    }

    /// Whether the request may run, must wait here, or must follow.
    pub(super) fn schedule(&mut self, id: JobId, cx: &mut StepContext<'_>) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let turn = job
            .ticket
            .map_or(TurnDecision::Run, |ticket| self.line.eligibility(ticket));
        match turn {
            TurnDecision::Run if self.draining => self.requeue(id, cx),
            TurnDecision::Run if self.hold.cause().is_some() => {
                self.defer(id, Destination::Tail, DeferralReason::WorkerHeld, cx);
            }
            TurnDecision::Run => self.make_ready(id),
            TurnDecision::Wait => match self.wait_for_name(id) {
                None => self.set_phase(id, Phase::Blocked),
                // It keeps its place in the line, from the ladder.
                Some(wait) => self.wait_for_turn(id, wait, cx),
            },
            TurnDecision::Follow { due } => self.queue_behind(id, due, cx),
        }
    }

    pub(super) fn published(
        &mut self,
        id: JobId,
        part: PublishPart,
        confirmed: bool,
        cx: &mut StepContext<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Phase::Publishing(publishing) = &mut job.phase else {
            return;
        };
        for (which, progress) in &mut publishing.parts {
            if *which == part && *progress == ConfirmState::Sent {
                *progress = if confirmed {
                    ConfirmState::Confirmed
                } else {
                    ConfirmState::Due
                };
            }
        }
        if !confirmed {
            publishing.failures = publishing.failures.saturating_add(1);
            let doublings = (publishing.failures - 1).min(16);
            let wait = FIRST_REPUBLISH
                .saturating_mul(1 << doublings)
                .min(MAX_REPUBLISH);
            self.set_timer(id, saturating_add(cx.now, wait));
        } else if publishing
            .parts
            .iter()
            .all(|(_, progress)| *progress == ConfirmState::Confirmed)
        {
            self.all_confirmed(id, cx);
        } else {
            self.publish_what_is_due(id, cx);
        }
    }

    /// Only here is a request acknowledged.
    fn all_confirmed(&mut self, id: JobId, cx: &mut StepContext<'_>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let first_receipt_at = job.first_receipt_at();
        let (ticket, identity) = (job.ticket, job.identity);
        let phase = std::mem::replace(&mut job.phase, Phase::Ready);
        let Phase::Publishing(publishing) = phase else {
            return;
        };
        match publishing.what {
            PublishSubject::Move(to) => {
                if let Some(ticket) = ticket {
                    self.line
                        .deferral_confirmed(ticket, to.stay(&self.retry), cx.now);
                }
                self.remove(id);
                cx.emit(Effect::Ack {
                    job: id,
                    ended: None,
                    settle: None,
                });
            }
            PublishSubject::Tell(outcome) => {
                if let Some(identity) = identity {
                    self.recent.remember(identity, &outcome);
                    self.survivals.forget(identity);
                }
                let ended = Some(Box::new(RequestEnded {
                    outcome: outcome.clone(),
                    first_receipt_at,
                }));
                let followed = ticket.is_some_and(|ticket| self.line.is_followed(ticket));
                let settle = if followed {
                    AckBarrier::Processed
                } else {
                    AckBarrier::Sent
                };
                let settle = ticket.map(|_| settle);
                if settle.is_some() {
                    self.set_phase(id, Phase::Settling(Box::new(outcome)));
                } else {
                    self.remove(id);
                }
                cx.emit(Effect::Ack {
                    job: id,
                    ended,
                    settle,
                });
            }
        }
    }

    /// The ack is with the broker: those behind may run.
    pub(super) fn settled(&mut self, id: JobId, cx: &mut StepContext<'_>) {
        if !self
            .jobs
            .get(&id)
            .is_some_and(|job| matches!(job.phase, Phase::Settling(_)))
        {
            return;
        }
        self.note_name_time(id, cx);
        if let Some(ticket) = self.remove(id).and_then(|job| job.ticket) {
            self.line.release(ticket);
        }
        if self.counts.blocked_by_order > self.rules.capacity() {
            self.send_crowd_away(cx);
        }
    }

    /// Lets those take their turn whose turn it may have become.
    pub(super) fn schedule_unblocked(&mut self, cx: &mut StepContext<'_>) {
        // One that goes away wakes the next behind it.
        loop {
            let woken = self.line.take_unblocked();
            if woken.is_empty() {
                return;
            }
            for next in woken {
                if let Some(&id) = self.by_ticket.get(&next)
                    && self
                        .jobs
                        .get(&id)
                        .is_some_and(|job| matches!(job.phase, Phase::Blocked))
                {
                    self.schedule(id, cx);
                }
            }
        }
    }

    pub(super) fn publish_what_is_due(&mut self, id: JobId, cx: &mut StepContext<'_>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Phase::Publishing(publishing) = &mut job.phase else {
            return;
        };
        // One by one: a failure that is told must have its dead letter, whatever happens in between.
        let unconfirmed = publishing
            .parts
            .iter_mut()
            .find(|(_, progress)| *progress != ConfirmState::Confirmed);
        let Some((part, progress)) = unconfirmed.filter(|part| part.1 == ConfirmState::Due) else {
            return;
        };
        *progress = ConfirmState::Sent;
        let parcel = match (&publishing.what, part) {
            (PublishSubject::Tell(Outcome::Failed(failed)), PublishPart::Letter) => {
                PublishEffect::Letter(Failed::clone(failed))
            }
            (PublishSubject::Tell(outcome), _) => PublishEffect::Event(outcome.clone()),
            (&PublishSubject::Move(to), _) => {
                // Each time anew: a copy that was refused gets there later than it first seemed.
                job.carried.copy = Some(match job.ticket {
                    Some(ticket) => self
                        .line
                        .begin_deferral(ticket, to.stay(&self.retry), cx.now),
                    None => self.line.number_of_next_copy(cx.now),
                });
                PublishEffect::Copy {
                    to,
                    carried: job.carried.clone(),
                }
            }
        };
        cx.emit(Effect::Publish { job: id, parcel });
    }

    fn publish(
        &mut self,
        id: JobId,
        what: PublishSubject,
        parts: Vec<(PublishPart, ConfirmState)>,
        cx: &mut StepContext<'_>,
    ) {
        let publishing = PublishState {
            what,
            parts,
            failures: 0,
        };
        self.set_phase(id, Phase::Publishing(Box::new(publishing)));
        self.publish_what_is_due(id, cx);
    }
}
