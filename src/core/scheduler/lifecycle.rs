//! The broker comes and goes, too much is away, the worker has to stop.

use super::job::{Phase, PublishSubject};
use super::{DeferralReason, Effect, JobId, Observation, Scheduler, StepContext};
use crate::core::policy::consume_plan::ConsumeScope;

impl Scheduler {
    pub(super) fn on_connected(&mut self, cx: &mut StepContext<'_>) {
        self.connected = true;
        if !self.draining {
            let is_held = self.hold.cause().is_some();
            let held = is_held.then_some(ConsumeScope::UndeliverableOnly);
            cx.emit(Effect::Consume(held.unwrap_or(self.scope)));
        }
    }

    /// Every delivery is void: its message comes again, here or elsewhere. Calls under way go on,
    /// and what is known already is kept, so that it need not be asked twice.
    pub(super) fn on_disconnected(&mut self, cx: &mut StepContext<'_>) {
        self.connected = false;
        self.blocked = false;
        self.ready.clear();
        self.line.on_disconnect(cx.now);
        for id in self.ids() {
            self.invalidate_deliveries(id, cx);
        }
        self.look.stop();
        self.probe_missed(cx);
        cx.emit(Effect::ForgetAll);
    }

    fn invalidate_deliveries(&mut self, id: JobId, cx: &StepContext<'_>) {
        let cut = self.line.last_cut();
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(identity) = job.identity.filter(|_| job.orphan.is_none()) {
            self.survivals.session_ended(identity);
        }
        if matches!(job.phase, Phase::Calling(_)) {
            job.heir = None;
            if job.orphan.is_none() {
                job.orphan = Some(cut);
                job.probe.of_worker = false;
                // Another worker may take the message and try it meanwhile.
                job.carried.maybe_applied = true;
                job.carried.unclear = true;
                if let Some(identity) = job.identity {
                    self.orphans.insert(identity, id);
                }
            }
            return;
        }
        // An heir stands in its orphan's place; give the place back.
        let heir_of = matches!(job.phase, Phase::Heir)
            .then_some(job.identity)
            .flatten()
            .and_then(|identity| self.orphans.get(&identity).copied());
        let Some(job) = self.remove(id) else { return };
        self.lose_probe(&job, cx);
        let known = match job.phase {
            Phase::Publishing(publishing) => match publishing.what {
                PublishSubject::Move(_) => None,
                PublishSubject::Tell(outcome) => Some(outcome),
            },
            Phase::Settling(outcome) => Some(*outcome),
            _ => None,
        };
        let (Some(identity), Some(ticket)) = (job.identity, job.ticket) else {
            return;
        };
        if let Some(outcome) = known {
            self.recent.remember(identity, &outcome);
        }
        // Even where the outcome is known: were those behind to run, and the worker to die before
        // it is told, the next worker could not find out any more.
        if let Some(orphan) = heir_of
            && let Some(orphan_job) = self.jobs.get_mut(&orphan)
            && orphan_job.ticket.is_none()
        {
            orphan_job.ticket = Some(ticket);
            (orphan_job.orphan, orphan_job.source) = (Some(cut), job.source);
            self.by_ticket.insert(ticket, orphan);
        } else {
            self.line.delivery_lost(ticket, job.source, cut, cx.now);
        }
    }

    /// While more requests are away than may be, what is due is consumed and nothing new. It goes on
    /// when a tenth of them are back, so that it does not turn with each.
    pub(super) fn bound_what_is_away(&mut self, cx: &mut StepContext<'_>) {
        let (away, most) = (self.away(), self.rules.max_deferred);
        let scope = match self.scope {
            ConsumeScope::All if away >= most => ConsumeScope::DueOnly,
            ConsumeScope::DueOnly if away <= most - most / 10 => ConsumeScope::All,
            scope => scope,
        };
        if scope == self.scope {
            return;
        }
        self.scope = scope;
        if scope == ConsumeScope::DueOnly {
            self.line.takes_nothing_new();
        }
        cx.emit(Effect::Note(Observation::TakesNew(
            scope == ConsumeScope::All,
        )));
        if self.connected && !self.draining && self.hold.cause().is_none() {
            cx.emit(Effect::Consume(scope));
        }
    }

    /// How many requests wait outside the worker, as far as it knows.
    fn away(&self) -> usize {
        self.line.places().saturating_sub(self.by_ticket.len())
    }

    /// Whether as many are away as may be.
    pub(super) fn is_away_full(&self) -> bool {
        self.away() >= self.rules.max_deferred
    }

    /// Calls that were begun are finished. What waits with a history goes to the ladder, where its
    /// history is kept; what is untouched goes back to its old place in the queue, in its turn.
    pub(super) fn drain(&mut self, cx: &mut StepContext<'_>) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.look.stop();
        if !self.connected {
            return;
        }
        cx.emit(Effect::StopConsuming);
        self.ready.clear();
        for id in self.ids() {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            match job.phase {
                Phase::Ready | Phase::Waiting if job.removed.is_some() => self.requeue(id, cx),
                Phase::Ready if job.carried.attempts == 0 => self.requeue(id, cx),
                Phase::Ready | Phase::Waiting => {
                    let wait = self.retry.step_delay(0);
                    self.send_away_for(id, wait, DeferralReason::Drain, cx);
                }
                _ => {}
            }
        }
    }

    pub(super) fn requeue(&mut self, id: JobId, cx: &mut StepContext<'_>) {
        if let Some(ticket) = self.remove(id).and_then(|job| job.ticket) {
            self.line.release(ticket);
        }
        cx.emit(Effect::GiveBack { job: id });
    }

    pub(super) fn ids(&self) -> Vec<JobId> {
        self.jobs.keys().copied().collect()
    }
}
