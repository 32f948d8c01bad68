//! When a try starts, and what an answer does.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::answer::Answer;
use super::super::hold::{Cause, Change, Event};
use super::super::outcome::{ConfirmedBy, Failed, How, Outcome, Reason, Renamed};
use super::super::pace::{Brake, Pace};
use super::super::request::{AccountId, Username};
use super::super::retry::{Place, later};
use super::super::verdict::{self, Case, Pending, Sign, Step, Verdict};
use super::job::{Job, Phase};
use super::limits::Failure;
use super::{Context, DeferralReason, Destination, Effect, JobId, Machine, Note, Told};

impl Machine {
    pub(super) fn make_ready(&mut self, id: JobId) {
        self.enter(id, Phase::Ready);
        self.ready.push_back(id);
    }

    /// Starts as many of the ready ones as there are slots.
    pub(super) fn start_ready(&mut self, cx: &mut Context<'_>) {
        while self.connected
            && !self.blocked
            && self.counts.in_flight < self.rules.concurrency
            && let Some(id) = self.ready.pop_front()
        {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            if !matches!(job.phase, Phase::Ready) {
                continue;
            }
            self.start_try(id, cx);
        }
    }

    pub(super) fn start_try(&mut self, id: JobId, cx: &mut Context<'_>) {
        if self.tell_what_is_known(id, cx) {
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
            job.closing = Some(Pending {
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
            Some(verdict) => return self.act_on(id, verdict, Failure::default(), cx),
        };
        let calls = if step == Step::Verify {
            NonZeroU32::MIN.saturating_add(1)
        } else {
            NonZeroU32::MIN
        };
        match self.pacer.ask(&request.account_id, calls, cx.now) {
            Pace::Go => {}
            Pace::NotBefore(_, brake) if job.probe => {
                self.send_away(id, Destination::Tail, brake.into(), cx);
                return;
            }
            Pace::NotBefore(until, brake) => return self.kept_back(id, until, brake, cx),
        }
        job.carried.attempts = job.carried.attempts.saturating_add(1);
        job.carried.first_attempt_at.get_or_insert(cx.now);
        self.call(id, step, cx);
    }

    fn call(&mut self, id: JobId, step: Step, cx: &mut Context<'_>) {
        // A rename whose event could not be published must not be made. The try begins anew.
        if self.blocked && step == Step::Rename {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.carried.attempts = job.carried.attempts.saturating_sub(1);
            }
            if self.hold.cause().is_some() {
                self.send_away(id, Destination::Tail, DeferralReason::Blocked, cx);
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
        self.enter(id, Phase::Calling(step));
        cx.emit(Effect::Call {
            job: id,
            kind,
            path_name,
        });
    }

    pub(super) fn answered(&mut self, id: JobId, answer: &Answer, cx: &mut Context<'_>) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let (Phase::Calling(step), Some(request)) = (&job.phase, job.request.as_deref()) else {
            return;
        };
        let step = step.clone();
        if let Some(confirmation) = verdict::confirmation(&step, answer, request) {
            cx.emit(Effect::Note(Note::Confirmation(confirmation)));
        }
        let sign = verdict::sign(answer);
        let event = Event::Answered {
            sign,
            request: job.fingerprint(),
            account: &request.account_id,
            failed_before: job.failed_at,
            probe: job.probe,
        };
        // Answers are legal in every state of the hold.
        let change = self.hold.on(event, cx.now).unwrap_or(Change::None);
        let account = request.account_id.clone();
        let case = Case {
            request,
            maybe_applied: job.carried.maybe_applied,
            verify_before: self.rules.verify_before,
        };
        let verdict = verdict::judge(&step, answer, case);
        let attempts = job.carried.attempts;
        let was_probe = job.probe;
        let failed_before = job.failed_at;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.probe = false;
            if was_probe && sign == Sign::Transient {
                // It was sent to find out about the API, not because it was its turn.
                job.carried.attempts = job.carried.attempts.saturating_sub(1);
            }
            job.failed_at = (sign == Sign::Transient).then_some(cx.now);
        }
        self.slow_down(&account, sign, change, attempts, cx);
        let told = Told {
            gist: answer.gist(),
            account,
        };
        match change {
            Change::Held(cause) if was_probe => {
                cx.emit(Effect::Note(Note::ProbeFailed(cause, told)));
            }
            Change::Held(cause) => self.begin_hold(cause, told, cx),
            Change::Resumed => self.end_hold(cx),
            Change::PauseAccount(_) => cx.emit(Effect::Note(Note::AccountPaused(told))),
            Change::None => {}
        }
        let Some(id) = self.rightful(id, &verdict, cx) else {
            return;
        };
        // While it is our credentials that are refused, 403 says nothing of the request.
        let refused = sign == Sign::Forbidden && self.hold.cause() == Some(Cause::Credentials);
        if refused && matches!(verdict, Verdict::Failed(_)) {
            self.send_away(id, Destination::Tail, DeferralReason::WorkerHeld, cx);
        } else {
            let api_failed = sign == Sign::Transient;
            let failure = Failure {
                before: failed_before,
                api_failed,
            };
            self.act_on(id, verdict, failure, cx);
        }
    }

    /// What the answer asks of all calls of its account.
    fn slow_down(
        &mut self,
        account: &AccountId,
        sign: Sign,
        change: Change,
        attempts: u32,
        cx: &mut Context<'_>,
    ) {
        let (wait, brake) = match (sign, change) {
            (_, Change::PauseAccount(wait)) => (wait, Brake::Credentials),
            (Sign::Throttled(wait), _) => {
                let wait = wait.unwrap_or_else(|| self.retry.delay(attempts, (cx.roll)()));
                (wait.min(self.retry.settings().max_delay), Brake::Throttle)
            }
            _ => return,
        };
        self.pacer
            .pause(account, later(cx.now, wait), brake, cx.now);
    }

    pub(super) fn act_on(
        &mut self,
        id: JobId,
        verdict: Verdict,
        failure: Failure,
        cx: &mut Context<'_>,
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
                self.tell(id, outcome, cx);
            }
            Verdict::Failed(pending) => {
                let Some(job) = self.jobs.get(&id) else {
                    return;
                };
                let outcome = failed(job, pending, cx);
                self.tell(id, outcome, cx);
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
        cx: &mut Context<'_>,
    ) {
        let here = self.retry.place(wait) == Place::Here && self.has_room() && !self.draining;
        if here {
            self.wait_here(id, wait, cx);
        } else {
            self.send_away_for(id, wait, reason, cx);
        }
    }

    pub(super) fn wait_here(&mut self, id: JobId, wait: Duration, cx: &Context<'_>) {
        self.enter(id, Phase::Waiting);
        self.set_timer(id, later(cx.now, wait));
    }

    /// Whether one more request may wait in the worker.
    pub(super) fn has_room(&self) -> bool {
        self.counts.waiting + self.counts.blocked_by_order < self.rules.room()
    }

    pub(super) fn tell_failed(
        &mut self,
        id: JobId,
        reason: Reason,
        http_status: Option<u16>,
        detail: Box<str>,
        cx: &mut Context<'_>,
    ) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let outcome = failed(
            job,
            Pending {
                reason,
                http_status,
                detail,
            },
            cx,
        );
        self.tell(id, outcome, cx);
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
    how: How,
    confirmed_by: ConfirmedBy,
    (user_id, username): (Option<uuid::Uuid>, Option<Username>),
    cx: &Context<'_>,
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

fn failed(job: &Job, pending: Pending, cx: &Context<'_>) -> Outcome {
    Outcome::Failed(Failed {
        reason: pending.reason,
        detail: pending.detail,
        http_status: pending.http_status,
        attempts: job.carried.attempts,
        first_attempt_at: job.carried.first_attempt_at,
        failed_at: cx.now,
    })
}
