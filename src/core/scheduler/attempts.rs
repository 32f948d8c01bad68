//! When a try starts, and what an answer does.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::policy::hold::HoldCause;
use super::job::{Job, Phase, ProbeKind};
use super::limits::FailureContext;
use super::{
    CallReport, DeferralReason, Destination, Effect, JobId, Observation, Scheduler, StepContext,
};
use crate::core::model::api_response::ApiResponse;
use crate::core::model::outcome::{AppliedBy, ConfirmedBy, Failed, Outcome, Reason, Renamed};
use crate::core::model::request::Username;
use crate::core::policy::rate_limit::CallPermit;
use crate::core::policy::retry::{WaitLocation, saturating_add};
use crate::core::policy::verdict;
use crate::core::policy::verdict::{
    CallContext, CallStep, HealthSignal, ProvisionalFailure, Verdict,
};

impl Scheduler {
    pub(super) fn make_ready(&mut self, id: JobId) {
        self.set_phase(id, Phase::Ready);
        if let Some(request) = self.jobs.get(&id).and_then(|job| job.request.as_deref()) {
            self.ready.push(&request.account_id, id);
        }
    }

    /// Starts as many of the ready ones as there are slots.
    pub(super) fn start_ready(&mut self, cx: &mut StepContext<'_>) {
        while self.connected
            && !self.blocked
            && self.counts.in_flight < self.rules.concurrency
            && let Some(id) = self.ready.pop()
        {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            if !matches!(job.phase, Phase::Ready) {
                continue;
            }
            self.start_attempt(id, cx);
        }
    }

    pub(super) fn start_attempt(&mut self, id: JobId, cx: &mut StepContext<'_>) {
        if self.publish_cached_outcome(id, cx) {
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(request) = job.request.as_deref() else {
            return;
        };
        if job.closing.is_none()
            && request
                .not_after
                .is_some_and(|not_after| cx.now >= not_after)
        {
            job.closing = Some(ProvisionalFailure {
                reason: Reason::DeadlineExceeded,
                http_status: None,
                detail: "not_after passed before the rename could be made".into(),
            });
        }
        let closing = job
            .closing
            .clone()
            .map(|pending| verdict::failure(pending, job.carried.maybe_applied));
        let step = match closing {
            None => verdict::first_step(request, self.rules.verify_before),
            Some(Verdict::Ask(step)) => step,
            Some(verdict) => return self.apply_verdict(id, verdict, FailureContext::default(), cx),
        };
        let calls = if step == CallStep::Verify {
            NonZeroU32::MIN.saturating_add(1)
        } else {
            NonZeroU32::MIN
        };
        if !self.is_admitted(id, cx) {
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(account) = job.request.as_ref().map(|it| it.account_id.clone()) else {
            return;
        };
        match self.pacer.try_acquire(&account, calls, cx.now) {
            CallPermit::Go => {}
            CallPermit::NotBefore(_, brake) if job.probe.of_worker => {
                self.defer(id, Destination::Tail, brake.into(), cx);
                return;
            }
            CallPermit::NotBefore(until, brake) => {
                job.probe = ProbeKind::default();
                return self.kept_back(id, until, brake, cx);
            }
        }
        if job.probe.of_account {
            self.accounts.probe_started(&account, cx.now);
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.try_began_at = Some(cx.now);
        job.carried.attempts = job.carried.attempts.saturating_add(1);
        job.carried.first_attempt_at.get_or_insert(cx.now);
        self.call(id, step, cx);
    }

    fn call(&mut self, id: JobId, step: CallStep, cx: &mut StepContext<'_>) {
        // A rename whose event could not be published must not be made. The try begins anew.
        if self.blocked && step == CallStep::Rename {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.carried.attempts = job.carried.attempts.saturating_sub(1);
                let probe = std::mem::take(&mut job.probe);
                if let Some(request) = job.request.as_deref().filter(|_| probe.of_account) {
                    self.accounts.probe_lost(&request.account_id, cx.now);
                }
            }
            if self.hold.cause().is_some() {
                self.defer(id, Destination::Tail, DeferralReason::Blocked, cx);
            } else {
                self.make_ready(id);
            }
            return;
        }
        let Some(request) = self.request(id) else {
            return;
        };
        let step = verdict::harmless(step, request);
        let (kind, path_name) = (step.kind(), step.path_name());
        self.set_phase(id, Phase::Calling(step));
        cx.emit(Effect::Call {
            job: id,
            kind,
            path_name,
        });
    }

    pub(super) fn answered(&mut self, id: JobId, answer: &ApiResponse, cx: &mut StepContext<'_>) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (Phase::Calling(step), Some(request)) = (&job.phase, job.request.as_deref()) else {
            return;
        };
        let step = step.clone();
        if let Some(confirmation) = verdict::confirmation(&step, answer, request) {
            cx.emit(Effect::Note(Observation::Confirmation(confirmation)));
        }
        let sign = verdict::sign(answer);
        let report = CallReport {
            gist: answer.gist(),
            account: request.account_id.clone(),
        };
        let case = CallContext {
            request,
            maybe_applied: job.carried.maybe_applied,
            verify_before: self.rules.verify_before,
        };
        let verdict = verdict::judge(&step, answer, case);
        let failure = FailureContext {
            before: job.failed_at,
            api_failed: sign == HealthSignal::Transient,
        };
        if let HealthSignal::Throttled(wait) = sign {
            let wait = wait.unwrap_or_else(|| self.retry.delay(job.carried.attempts, (cx.roll)()));
            let until = saturating_add(cx.now, wait.min(self.retry.settings().max_delay));
            self.pacer.throttle(&report.account, until, cx.now);
        }
        self.judge_health(id, sign, &report, cx);
        let Some(id) = self.resolve_owner(id, &verdict, cx) else {
            return;
        };
        // While it is our credentials that are refused, 403 says nothing of the request.
        let refused = sign == HealthSignal::Forbidden
            && [self.hold.cause(), self.accounts.cause(&report.account)]
                .contains(&Some(HoldCause::Credentials));
        if let Verdict::Failed(pending) = &verdict
            && refused
        {
            self.credentials_refused(id, pending.http_status, cx);
        } else {
            self.apply_verdict(id, verdict, failure, cx);
        }
    }

    pub(super) fn apply_verdict(
        &mut self,
        id: JobId,
        verdict: Verdict,
        failure: FailureContext,
        cx: &mut StepContext<'_>,
    ) {
        match verdict {
            Verdict::Ask(step) => self.call(id, step, cx),
            Verdict::Renamed {
                how,
                confirmed_by,
                user_id,
                username,
            } => {
                let Some(job) = self.jobs.get(&id) else {
                    return;
                };
                let outcome = if is_a_guess(job, confirmed_by) {
                    failed(job, verdict::unknown(GUESS, None), cx)
                } else {
                    renamed(job, how, confirmed_by, (user_id, username), cx)
                };
                self.publish_outcome(id, outcome, cx);
            }
            Verdict::Failed(pending) => {
                let Some(job) = self.jobs.get(&id) else {
                    return;
                };
                let outcome = failed(job, pending, cx);
                self.publish_outcome(id, outcome, cx);
            }
            Verdict::Retry(retry) => self.retry_later(id, &retry, failure, cx),
            Verdict::BadCredentials { http_status } => {
                self.credentials_refused(id, http_status, cx);
            }
        }
    }

    /// Waits in the worker if it is short and there is room, else in the ladder.
    pub(super) fn wait(
        &mut self,
        id: JobId,
        wait: Duration,
        reason: DeferralReason,
        cx: &mut StepContext<'_>,
    ) {
        let here =
            self.retry.place(wait) == WaitLocation::Here && self.has_room() && !self.draining;
        if here {
            self.wait_here(id, wait, cx);
        } else {
            self.send_away_for(id, wait, reason, cx);
        }
    }

    pub(super) fn wait_here(&mut self, id: JobId, wait: Duration, cx: &StepContext<'_>) {
        self.set_phase(id, Phase::Waiting);
        self.set_timer(id, saturating_add(cx.now, wait));
    }

    /// Whether one more request may wait in the worker.
    pub(super) fn has_room(&self) -> bool {
        self.counts.waiting + self.counts.blocked_by_order < self.rules.capacity()
    }

    pub(super) fn fail(
        &mut self,
        id: JobId,
        reason: Reason,
        http_status: Option<u16>,
        detail: Box<str>,
        cx: &mut StepContext<'_>,
    ) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let outcome = failed(
            job,
            ProvisionalFailure {
                reason,
                http_status,
                detail,
            },
            cx,
        );
        self.publish_outcome(id, outcome, cx);
    }
}

/// What is known of a request that RabbitMQ moved away untried, and whose new name exists.
const GUESS: &str = "RabbitMQ moved it away before it was processed, as far as is known; its username \
                     does not exist and its new_username does, and without user_id nothing shows \
                     whose that is";

/// Whether the existing name alone would make a rename of a request that nothing shows to have been
/// tried: whoever publishes could have one reported that never was, by a message that expires at once.
fn is_a_guess(job: &Job, confirmed_by: ConfirmedBy) -> bool {
    let untried = job.removed.is_some_and(|removal| removal.untried);
    untried && confirmed_by == ConfirmedBy::Name
}

pub(super) fn renamed(
    job: &Job,
    how: AppliedBy,
    confirmed_by: ConfirmedBy,
    (user_id, username): (Option<uuid::Uuid>, Option<Username>),
    cx: &StepContext<'_>,
) -> Outcome {
    Outcome::Renamed(Renamed {
        how,
        confirmed_by,
        user_id,
        username,
        attempts: job.carried.attempts,
        completed_at: cx.now,
    })
}

fn failed(job: &Job, pending: ProvisionalFailure, cx: &StepContext<'_>) -> Outcome {
    Outcome::Failed(Failed {
        reason: pending.reason,
        detail: pending.detail,
        http_status: pending.http_status,
        attempts: job.carried.attempts,
        first_attempt_at: job.carried.first_attempt_at,
        failed_at: cx.now,
    })
}
