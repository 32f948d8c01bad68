//! What a hold does: of the worker, which gives back what it has and looks for a request to probe
//! with, and of one account, whose requests go to the ladder while others go on.

use std::time::Duration;

use jiff::Timestamp;

use super::super::policy::hold::account::{AccountChange, AccountEvent};
use super::super::policy::hold::{HoldCause, HoldChange, HoldEvent};
use super::job::{Job, Phase, ProbeKind};
use super::{
    CallReport, DeferralReason, Destination, Effect, JobId, Observation, Scheduler, StepContext,
};
use crate::core::model::request::AccountId;
use crate::core::policy::consume_plan::{ConsumeScope, SourceQueue};
use crate::core::policy::retry::saturating_add;
use crate::core::policy::verdict::HealthSignal;
use crate::core::scheduler::accounts::Admission;

/// While the worker is held, new requests are looked at this often: one of an account that has not
/// failed probes at once, so that it does not wait for others' trouble to end.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Due requests that are moved to the tail in search of another account's, for one probe.
const MAX_TURNED: u32 = 3;

/// A request that may not be called now waits this long at least, so that it comes after the probe and
/// does not turn in circles.
const HOLD_WAIT_MIN: Duration = Duration::from_secs(1);

/// The search for a request to probe with while the worker is held.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbeSearch {
    fetch: Option<ProbeFetch>,
    next_at: Option<Timestamp>,
    /// Whose request probed last.
    last_probed: Option<AccountId>,
}

/// What was asked of the broker.
#[derive(Debug, Clone, Copy)]
struct ProbeFetch {
    queue: SourceQueue,
    most: u16,
    /// The probe is due: a request of an account that fails will do, too.
    is_due: bool,
    /// Due requests that were moved to the tail so far.
    turned: u32,
    /// How many came, once all have.
    found: Option<u32>,
}

impl ProbeSearch {
    pub(super) const fn is_under_way(&self) -> bool {
        self.fetch.is_some()
    }

    /// What was asked will not come, or is given back.
    pub(super) fn stop(&mut self) {
        self.fetch = None;
    }
}

impl Scheduler {
    /// An answer came: what it says of its account, and of the API.
    pub(super) fn judge_health(
        &mut self,
        id: JobId,
        sign: HealthSignal,
        report: &CallReport,
        cx: &mut StepContext<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let (request, failed_before) = (job.fingerprint(), job.failed_at);
        let probe = std::mem::take(&mut job.probe);
        let is_probe = probe != ProbeKind::default();
        if is_probe && sign == HealthSignal::Transient {
            // It was sent to find out about the API, not because it was its turn.
            job.carried.attempts = job.carried.attempts.saturating_sub(1);
        }
        job.failed_at = (sign == HealthSignal::Transient).then_some(cx.now);
        let account = &report.account;
        let event = AccountEvent::Answered {
            sign,
            request,
            failed_before,
            probe: is_probe,
        };
        let others = self.hold.answers_others(account, cx.now);
        let change = self
            .accounts
            .answered(account, event, report.gist, others, cx.now);
        match change {
            AccountChange::Held(cause) => {
                cx.emit(Effect::Note(Observation::AccountHeld(
                    cause,
                    report.clone(),
                )));
            }
            AccountChange::Resumed(cause) => {
                cx.emit(Effect::Note(Observation::AccountResumed(
                    cause,
                    report.clone(),
                )));
            }
            AccountChange::None => {}
        }
        let event = HoldEvent::Answered {
            sign,
            account,
            facts: self.accounts.facts(account, cx.now),
            failed_before,
            probe: probe.of_worker,
        };
        // Answers are legal in every state of the hold.
        match self.hold.on(event, cx.now).unwrap_or(HoldChange::None) {
            HoldChange::Held(cause) => self.begin_hold(cause, report.clone(), cx),
            HoldChange::ProbeFailed(cause) => {
                cx.emit(Effect::Note(Observation::ProbeFailed(
                    cause,
                    report.clone(),
                )));
            }
            HoldChange::Resumed => self.end_hold(cx),
            HoldChange::None => {}
        }
    }

    /// Stop consuming, and give back what waits: a confirmed copy to the tail of the queue, which
    /// spends none of the broker's delivery limit on any version. Those that wait for their turn
    /// follow when it comes.
    fn begin_hold(&mut self, cause: HoldCause, report: CallReport, cx: &mut StepContext<'_>) {
        self.look = ProbeSearch {
            last_probed: Some(report.account.clone()),
            next_at: Some(cx.now),
            // What was asked for in a hold before this one still comes.
            fetch: self.look.fetch.take(),
        };
        cx.emit(Effect::Note(Observation::Held(cause, report)));
        if self.connected {
            cx.emit(Effect::Consume(ConsumeScope::UndeliverableOnly));
        }
        self.ready.clear();
        for id in self.ids() {
            let job = self.jobs.get(&id);
            if job.is_some_and(|job| matches!(job.phase, Phase::Ready | Phase::Waiting)) {
                self.defer(id, Destination::Tail, DeferralReason::WorkerHeld, cx);
            }
        }
    }

    fn end_hold(&mut self, cx: &mut StepContext<'_>) {
        // What made the whole worker wait may have been all that they were held for.
        self.accounts.probe_all_now(cx.now);
        cx.emit(Effect::Note(Observation::Resumed));
        if self.connected && !self.draining {
            cx.emit(Effect::Consume(self.scope));
        }
    }

    pub(super) const fn can_probe(&self) -> bool {
        let has_slot = self.counts.in_flight < self.rules.concurrency;
        self.connected && !self.blocked && !self.draining && has_slot && !self.look.is_under_way()
    }

    /// When the queues are to be looked at next: for the probe, or for a new account's request.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        let probe_at = self.hold.probe_at().filter(|_| self.can_probe())?;
        Some(self.look.next_at.map_or(probe_at, |at| at.min(probe_at)))
    }

    pub(super) fn look_if_due(&mut self, cx: &mut StepContext<'_>) {
        self.go_on_looking(cx);
        if self.next_look().is_none_or(|at| at > cx.now) {
            return;
        }
        let is_due = self.hold.probe_at().is_some_and(|at| at <= cx.now);
        self.fetch(SourceQueue::Requests, 1, is_due, 0, cx);
    }

    fn fetch(
        &mut self,
        queue: SourceQueue,
        most: u16,
        is_due: bool,
        turned: u32,
        cx: &mut StepContext<'_>,
    ) {
        self.look.next_at = None;
        self.look.fetch = Some(ProbeFetch {
            queue,
            most,
            is_due,
            turned,
            found: None,
        });
        cx.emit(Effect::Fetch { queue, most });
    }

    /// Whether a request that was fetched is what to probe with.
    pub(super) fn is_wanted_to_probe(&self, account: &AccountId, now: Timestamp) -> bool {
        let Some(fetch) = self.look.fetch.filter(|_| self.hold.probe_at().is_some()) else {
            return false;
        };
        if !self.accounts.is_failing(account) {
            return true;
        }
        let is_other = self.look.last_probed.as_ref() != Some(account);
        let is_last_choice = match fetch.queue {
            SourceQueue::Due => fetch.turned >= MAX_TURNED || self.accounts.is_sole(account, now),
            SourceQueue::Requests | SourceQueue::Undeliverable => self.is_away_full(),
        };
        fetch.is_due && (is_last_choice || is_other && self.accounts.cause(account).is_none())
    }

    /// The call of the request that was fetched begins, if nothing kept it from being made.
    pub(super) fn probe_with(&mut self, id: JobId, cx: &mut StepContext<'_>) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.probe.of_worker = true;
        }
        self.start_attempt(id, cx);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if !matches!(job.phase, Phase::Calling(_)) {
            job.probe = ProbeKind::default();
            return;
        }
        self.look.last_probed = job.request.as_ref().map(|it| it.account_id.clone());
        // The look is for a held worker only, and one of its requests is wanted only while none probes.
        let _ = self.hold.on(HoldEvent::ProbeStarted, cx.now);
    }

    /// All that was asked for has come.
    pub(super) fn fetched(&mut self, found: u32) {
        if let Some(fetch) = &mut self.look.fetch {
            fetch.found = Some(found);
        }
    }

    /// Goes on with the look once all that came is settled. What is unsettled while a message is fetched
    /// that ends the session would be counted as if it had.
    fn go_on_looking(&mut self, cx: &mut StepContext<'_>) {
        let is_publishing = |job: &Job| matches!(job.phase, Phase::Publishing(_));
        let Some((fetch, found)) = self
            .look
            .fetch
            .and_then(|fetch| Some((fetch, fetch.found?)))
        else {
            return;
        };
        if self.blocked || self.jobs.values().any(is_publishing) {
            return;
        }
        self.look.fetch = None;
        let ProbeFetch {
            queue,
            most,
            is_due,
            turned,
            ..
        } = fetch;
        let is_full = self.is_away_full();
        match queue {
            // The hold is over, or its probe is under way.
            _ if self.hold.probe_at().is_none() => {}
            SourceQueue::Due if found == 0 => self.probe_with_removed(cx),
            SourceQueue::Due => self.fetch(queue, 1, is_due, turned + 1, cx),
            _ if found >= u32::from(most) && !is_full => {
                let more = most.saturating_mul(2).min(self.rules.prefetch());
                self.fetch(queue, more, is_due, 0, cx);
            }
            _ if is_due => self.fetch(SourceQueue::Due, 1, is_due, 0, cx),
            _ => {}
        }
        if !self.look.is_under_way() && !is_full {
            self.look.next_at = Some(saturating_add(cx.now, LOOK_EVERY));
        }
    }

    /// There is no other request: one that RabbitMQ moved away will do.
    fn probe_with_removed(&mut self, cx: &mut StepContext<'_>) {
        let waits = |job: &Job| job.removed.is_some() && matches!(job.phase, Phase::Waiting);
        if let Some((&id, _)) = self.jobs.iter().find(|(_, job)| waits(job)) {
            self.probe_with(id, cx);
        }
        if self.hold.probe_at().is_some() {
            self.probe_missed(cx);
        }
    }

    /// No probe of the worker is on its way any more; if none was, there is nothing to be noted.
    pub(super) fn probe_missed(&mut self, cx: &StepContext<'_>) {
        if self.hold.cause().is_some() {
            let _ = self.hold.on(HoldEvent::ProbeMissed, cx.now);
        }
    }

    /// The probe will not be answered, or its answer not be heard.
    pub(super) fn lose_probe(&mut self, job: &Job, cx: &StepContext<'_>) {
        if job.probe.of_account
            && let Some(request) = &job.request
        {
            self.accounts.probe_lost(&request.account_id, cx.now);
        }
    }

    /// Whether the call of a request may begin, as far as its account's hold goes. If not, it waits
    /// elsewhere, or ends.
    pub(super) fn is_admitted(&mut self, id: JobId, cx: &mut StepContext<'_>) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        let Some(request) = job.request.as_deref() else {
            return false;
        };
        match self.accounts.admission(&request.account_id, cx.now) {
            Admission::Call => true,
            Admission::Probe => {
                job.probe.of_account = true;
                true
            }
            Admission::ComeBackAt(_) if job.probe.of_worker => true,
            Admission::ComeBackAt(at) => {
                self.keep_back(id, at, None, cx);
                false
            }
        }
    }

    /// The account of the request is held: it waits until about the next probe, or ends.
    pub(super) fn keep_back(
        &mut self,
        id: JobId,
        until: Timestamp,
        http_status: Option<u16>,
        cx: &mut StepContext<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.carried.refused_since.get_or_insert(cx.now);
        if self.is_out_of_time(id, cx.now) {
            self.end_uncalled(id, DeferralReason::AccountHeld, http_status, cx);
            return;
        }
        let wait = Duration::try_from(until.duration_since(cx.now)).unwrap_or_default();
        self.wait(id, wait.max(HOLD_WAIT_MIN), DeferralReason::AccountHeld, cx);
    }

    /// The request was called, and its account is held or the worker is: it waits unharmed.
    pub(super) fn wait_for_the_hold(
        &mut self,
        id: JobId,
        http_status: Option<u16>,
        cx: &mut StepContext<'_>,
    ) {
        let account = self.jobs.get(&id).and_then(|job| job.request.as_deref());
        let account = account.map(|request| request.account_id.clone());
        let admission = account.map(|account| self.accounts.admission(&account, cx.now));
        match admission {
            Some(Admission::ComeBackAt(at)) if self.hold.cause().is_none() && !self.draining => {
                self.keep_back(id, at, http_status, cx);
            }
            _ if self.is_out_of_time(id, cx.now) => {
                self.end_uncalled(id, DeferralReason::AccountHeld, http_status, cx);
            }
            _ => self.defer(id, Destination::Tail, DeferralReason::WorkerHeld, cx),
        }
    }
}
