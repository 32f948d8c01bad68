//! When a request has used up its attempts or its time, and how it ends then.
//!
//! While the API answers others, every request ends within `max_attempts` and `max_elapsed`. Only a
//! hold of the whole worker bears longer.

use std::time::Duration;

use jiff::Timestamp;

use super::super::policy::hold::HoldCause;
use super::job::Job;
use super::{DeferralReason, JobId, Scheduler, StepContext};
use crate::core::model::outcome::Reason;
use crate::core::policy::rate_limit::LimitKind;
use crate::core::policy::retry::{AttemptState, RetryDecision};
use crate::core::policy::verdict;
use crate::core::policy::verdict::{ProvisionalFailure, RetryAdvice, Verdict};

/// What an answer says beside its verdict.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FailureContext {
    /// When the try before this one failed in passing, as far as it is known.
    pub before: Option<Timestamp>,
    /// The API failed in passing; else it answered, if only to ask for a slower pace.
    pub api_failed: bool,
}

impl Scheduler {
    /// A try failed in passing: another one follows, or the request ends.
    pub(super) fn retry_later(
        &mut self,
        id: JobId,
        retry: &RetryAdvice,
        failure: FailureContext,
        cx: &mut StepContext<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(request) = job.request.as_deref() else {
            return;
        };
        job.carried.maybe_applied |= retry.maybe_applied;
        job.carried.unclear |= retry.maybe_applied;
        let first_attempt_at = job.carried.first_attempt_at.unwrap_or(cx.now);
        let tried = AttemptState {
            attempts: job.carried.attempts,
            first_attempt_at,
            // Past its time it may still be asked about.
            not_after: request.not_after.filter(|_| !retry.leaves_open),
            not_before: retry.not_before,
        };
        let is_held = self.accounts.cause(&request.account_id).is_some();
        if is_held || self.hold.cause().is_some() {
            self.wait_for_the_hold(id, retry.http_status, cx);
            return;
        }
        let next = self.retry.next(tried, cx.now, (cx.roll)());
        // It failed before at a time when its limits had been reached already.
        let spared = tried.attempts > self.retry.settings().max_attempts
            || failure
                .before
                .is_some_and(|at| self.retry.is_over(first_attempt_at, at));
        let reason = match next {
            RetryDecision::Wait(wait) => return self.wait(id, wait, DeferralReason::Retry, cx),
            RetryDecision::Exhausted | RetryDecision::PastDeadline
                if failure.api_failed
                    && self.accounts.spares(
                        &request.account_id,
                        job.fingerprint(),
                        failure.before,
                        spared,
                    ) =>
            {
                let wait = self.retry.delay(tried.attempts, (cx.roll)());
                let wait = wait.max(retry.not_before.unwrap_or_default());
                return self.wait(id, wait, DeferralReason::Retry, cx);
            }
            RetryDecision::Exhausted => Reason::RetriesExhausted,
            RetryDecision::PastDeadline => Reason::DeadlineExceeded,
        };
        let verdict = if retry.leaves_open {
            Verdict::Failed(verdict::unknown(retry.what, retry.http_status))
        } else {
            let pending = ProvisionalFailure {
                reason,
                http_status: retry.http_status,
                detail: retry.what.into(),
            };
            verdict::failure(pending, job.carried.maybe_applied)
        };
        self.apply_verdict(id, verdict, failure, cx);
    }

    /// The API refuses the credentials of the request's account: no attempt was spent, but its time
    /// runs.
    pub(super) fn credentials_refused(
        &mut self,
        id: JobId,
        http_status: Option<u16>,
        cx: &mut StepContext<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.carried.attempts = job.carried.attempts.saturating_sub(1);
        job.carried.refused_since.get_or_insert(cx.now);
        self.wait_for_the_hold(id, http_status, cx);
    }

    /// No call of its account may go before then, by its rate or since the API asked for it.
    pub(super) fn kept_back(
        &mut self,
        id: JobId,
        until: Timestamp,
        brake: LimitKind,
        cx: &mut StepContext<'_>,
    ) {
        if brake == LimitKind::Throttle && self.is_out_of_time(id, cx.now) {
            self.end_uncalled(id, brake.into(), None, cx);
            return;
        }
        let mut wait = Duration::try_from(until.duration_since(cx.now)).unwrap_or_default();
        if brake == LimitKind::Rate
            && let Some(request) = self.jobs.get(&id).and_then(|job| job.request.as_deref())
        {
            let account = request.account_id.clone();
            wait = wait.max(self.wait_for_rate(&account, cx));
        }
        self.wait(id, wait, brake.into(), cx);
    }

    /// Whether the account of the request is kept from being called for longer than any request is
    /// tried, while other accounts are answered.
    pub(super) fn is_out_of_time(&self, id: JobId, now: Timestamp) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        let (Some(request), Some(since)) = (job.request.as_deref(), waits_since(job)) else {
            return false;
        };
        self.hold.cause().is_none()
            && self.retry.is_over(since, now)
            && self.accounts.is_served_less(&request.account_id)
    }

    /// Ends a request whose account is kept from being called, so that nothing can be asked either.
    pub(super) fn end_uncalled(
        &mut self,
        id: JobId,
        kept_by: DeferralReason,
        http_status: Option<u16>,
        cx: &mut StepContext<'_>,
    ) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let account = job.request.as_deref().map(|request| &request.account_id);
        let cause = account.and_then(|account| self.accounts.cause(account));
        let (reason, what) = match (kept_by, cause) {
            (DeferralReason::AccountHeld, Some(HoldCause::Api)) => (
                Reason::RetriesExhausted,
                "the API failed the account's calls for as long as a request is tried",
            ),
            (DeferralReason::AccountHeld, _) => (
                Reason::Forbidden,
                "the API refused the account's credentials for as long as a request is tried",
            ),
            _ => (
                Reason::RetriesExhausted,
                "the API asked the account to slow down for as long as a request is tried",
            ),
        };
        let pending = if job.carried.unclear {
            verdict::unknown(what, http_status)
        } else {
            job.closing.clone().unwrap_or_else(|| ProvisionalFailure {
                reason,
                http_status,
                detail: what.into(),
            })
        };
        self.apply_verdict(id, Verdict::Failed(pending), FailureContext::default(), cx);
    }
}

/// Since when it has been tried or kept from being tried.
fn waits_since(job: &Job) -> Option<Timestamp> {
    let carried = &job.carried;
    match (carried.first_attempt_at, carried.refused_since) {
        (Some(tried), Some(refused)) => Some(tried.min(refused)),
        (tried, refused) => tried.or(refused),
    }
}

impl From<LimitKind> for DeferralReason {
    fn from(brake: LimitKind) -> Self {
        match brake {
            LimitKind::Rate => Self::RateLimit,
            LimitKind::Throttle => Self::Throttled,
        }
    }
}
