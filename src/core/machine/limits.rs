//! When a request has used up its attempts or its time, and how it ends then.
//!
//! While the API answers others, every request ends within `max_attempts` and `max_elapsed`. Only a
//! hold of the whole worker bears longer.

use std::time::Duration;

use jiff::Timestamp;

use super::super::outcome::Reason;
use super::super::pace::Brake;
use super::super::retry::{Next, Tried};
use super::super::verdict::{self, Pending, Retry, Verdict};
use super::job::Job;
use super::{Context, DeferralReason, Destination, JobId, Machine};

/// What an answer says beside its verdict.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Failure {
    /// When the try before this one failed in passing, as far as it is known.
    pub before: Option<Timestamp>,
    /// The API failed in passing; else it answered, if only to ask for a slower pace.
    pub api_failed: bool,
}

impl Machine {
    /// A try failed in passing: another one follows, or the request ends.
    pub(super) fn retry_later(
        &mut self,
        id: JobId,
        retry: &Retry,
        failure: Failure,
        cx: &mut Context<'_>,
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
        let tried = Tried {
            attempts: job.carried.attempts,
            first_attempt_at,
            // Past its time it may still be asked about.
            not_after: request.not_after.filter(|_| !retry.leaves_open),
            not_before: retry.not_before,
        };
        if self.hold.cause().is_some() {
            self.send_away(id, Destination::Tail, DeferralReason::WorkerHeld, cx);
            return;
        }
        let next = self.retry.next(tried, cx.now, (cx.roll)());
        // It failed before at a time when its limits had been reached already.
        let spared = tried.attempts > self.retry.settings().max_attempts
            || failure
                .before
                .is_some_and(|at| self.retry.is_over(first_attempt_at, at));
        let reason = match next {
            Next::Wait(wait) => return self.wait(id, wait, DeferralReason::Retry, cx),
            Next::Exhausted | Next::PastDeadline
                if failure.api_failed
                    && self.hold.spares(job.fingerprint(), failure.before, spared) =>
            {
                let wait = self.retry.delay(tried.attempts, (cx.roll)());
                let wait = wait.max(retry.not_before.unwrap_or_default());
                return self.wait(id, wait, DeferralReason::Retry, cx);
            }
            Next::Exhausted => Reason::RetriesExhausted,
            Next::PastDeadline => Reason::DeadlineExceeded,
        };
        let verdict = if retry.leaves_open {
            Verdict::Failed(verdict::unknown(retry.what, retry.http_status))
        } else {
            let pending = Pending {
                reason,
                http_status: retry.http_status,
                detail: retry.what.into(),
            };
            verdict::failure(pending, job.carried.maybe_applied)
        };
        self.act_on(id, verdict, failure, cx);
    }

    /// The API refuses the credentials of the request's account: no attempt was spent, but its time
    /// runs.
    pub(super) fn credentials_refused(
        &mut self,
        id: JobId,
        http_status: Option<u16>,
        cx: &mut Context<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.carried.attempts = job.carried.attempts.saturating_sub(1);
        job.carried.refused_since.get_or_insert(cx.now);
        if self.is_out_of_time(id, cx.now) {
            self.end_uncalled(id, Brake::Credentials, http_status, cx);
        } else if self.hold.cause().is_some() || self.draining {
            self.send_away(id, Destination::Tail, DeferralReason::WorkerHeld, cx);
        } else {
            // The account is paused: the pacer says until when.
            self.make_ready(id);
        }
    }

    /// No call of its account may go before then.
    pub(super) fn kept_back(
        &mut self,
        id: JobId,
        until: Timestamp,
        brake: Brake,
        cx: &mut Context<'_>,
    ) {
        if brake == Brake::Credentials
            && let Some(job) = self.jobs.get_mut(&id)
        {
            job.carried.refused_since.get_or_insert(cx.now);
        }
        if brake != Brake::Rate && self.is_out_of_time(id, cx.now) {
            self.end_uncalled(id, brake, None, cx);
        } else {
            let wait = Duration::try_from(until.duration_since(cx.now)).unwrap_or_default();
            self.wait(id, wait, brake.into(), cx);
        }
    }

    /// Whether the account of the request is kept from being called for longer than any request is
    /// tried, while other accounts are answered.
    fn is_out_of_time(&self, id: JobId, now: Timestamp) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        let (Some(request), Some(since)) = (job.request.as_deref(), waits_since(job)) else {
            return false;
        };
        self.hold.cause().is_none()
            && self.retry.is_over(since, now)
            && self.hold.answers_others(&request.account_id, since, now)
    }

    /// Ends a request whose account is kept from being called, so that nothing can be asked either.
    fn end_uncalled(
        &mut self,
        id: JobId,
        brake: Brake,
        http_status: Option<u16>,
        cx: &mut Context<'_>,
    ) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (reason, what) = match brake {
            Brake::Credentials => (
                Reason::Forbidden,
                "the API refused the account's credentials for as long as a request is tried",
            ),
            Brake::Throttle | Brake::Rate => (
                Reason::RetriesExhausted,
                "the API asked the account to slow down for as long as a request is tried",
            ),
        };
        let pending = if job.carried.unclear {
            verdict::unknown(what, http_status)
        } else {
            job.closing.clone().unwrap_or_else(|| Pending {
                reason,
                http_status,
                detail: what.into(),
            })
        };
        self.act_on(id, Verdict::Failed(pending), Failure::default(), cx);
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

impl From<Brake> for DeferralReason {
    fn from(brake: Brake) -> Self {
        match brake {
            Brake::Rate => Self::RateLimit,
            Brake::Throttle => Self::Throttled,
            Brake::Credentials => Self::AccountHeld,
        }
    }
}
