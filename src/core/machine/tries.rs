//! When a try starts, and what an answer does.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::answer::Answer;
use super::super::hold::{Cause, Change, Event};
use super::super::outcome::{Failed, How, Outcome, Reason, Renamed};
use super::super::pace::Pace;
use super::super::retry::{Next, Place, Tried, later};
use super::super::verdict::{self, Case, Pending, Retry, Sign, Step, Verdict};
use super::job::{Job, Phase};
use super::{Context, Destination, Effect, JobId, Machine, Note, Told};

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
            Some(verdict) => return self.act_on(id, verdict, None, cx),
        };
        let calls = if step == Step::Verify {
            NonZeroU32::MIN.saturating_add(1)
        } else {
            NonZeroU32::MIN
        };
        match self.pacer.ask(&request.account_id, calls, cx.now) {
            Pace::Go => {}
            Pace::NotBefore(_) if job.probe => {
                self.send_away(id, Destination::Tail, cx);
                return;
            }
            Pace::NotBefore(until) => {
                let wait = Duration::try_from(until.duration_since(cx.now)).unwrap_or_default();
                self.wait(id, wait, cx);
                return;
            }
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
                self.send_away(id, Destination::Tail, cx);
            } else {
                self.make_ready(id);
            }
            return;
        }
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
        match (sign, change) {
            (_, Change::PauseAccount(wait)) => {
                self.pacer.pause(&account, later(cx.now, wait), cx.now);
            }
            (Sign::Throttled(wait), _) => {
                let attempts = job.carried.attempts;
                let wait = wait.unwrap_or_else(|| self.retry.delay(attempts, (cx.roll)()));
                let wait = wait.min(self.retry.settings().max_delay);
                self.pacer.pause(&account, later(cx.now, wait), cx.now);
            }
            _ => {}
        }
        let was_probe = job.probe;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.probe = false;
            job.failed_at = (sign == Sign::Transient).then_some(cx.now);
        }
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
            self.send_away(id, Destination::Tail, cx);
        } else {
            self.act_on(id, verdict, Some(&step), cx);
        }
    }

    fn act_on(&mut self, id: JobId, verdict: Verdict, step: Option<&Step>, cx: &mut Context<'_>) {
        match verdict {
            Verdict::Ask(step) => self.call(id, step, cx),
            Verdict::Renamed {
                how,
                confirmed_by,
                user_id,
            } => {
                let Some(job) = self.jobs.get(&id) else {
                    return;
                };
                let outcome = renamed(job, how, confirmed_by, user_id, cx);
                self.tell(id, outcome, cx);
            }
            Verdict::Failed(pending) => {
                let Some(job) = self.jobs.get(&id) else {
                    return;
                };
                let outcome = failed(job, pending, cx);
                self.tell(id, outcome, cx);
            }
            Verdict::Retry(retry) => {
                let confirms = matches!(step, Some(Step::ConfirmOld(_) | Step::ConfirmNew(_)));
                self.retry_later(id, &retry, confirms, cx);
            }
            Verdict::BadCredentials => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.carried.attempts = job.carried.attempts.saturating_sub(1);
                }
                if self.hold.cause().is_some() || self.draining {
                    self.send_away(id, Destination::Tail, cx);
                } else {
                    // The account is paused: the pacer says until when.
                    self.make_ready(id);
                }
            }
        }
    }

    fn retry_later(&mut self, id: JobId, retry: &Retry, confirms: bool, cx: &mut Context<'_>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(request) = job.request.as_deref() else {
            return;
        };
        job.carried.maybe_applied |= retry.maybe_applied;
        let tried = Tried {
            attempts: job.carried.attempts,
            first_attempt_at: job.carried.first_attempt_at.unwrap_or(cx.now),
            not_after: request.not_after,
            not_before: retry.not_before,
        };
        let next = self.retry.next(tried, cx.now, (cx.roll)());
        let suspect = self.hold.suspects_the_api(job.fingerprint());
        if self.hold.cause().is_some() {
            self.send_away(id, Destination::Tail, cx);
            return;
        }
        match next {
            Next::Wait(wait) => self.wait(id, wait, cx),
            // It took effect or not, and only an answer can tell: until one comes, it is asked.
            Next::Exhausted | Next::PastDeadline if (confirms && !retry.undecidable) || suspect => {
                let wait = self.retry.delay(tried.attempts, (cx.roll)());
                self.wait(id, wait.max(retry.not_before.unwrap_or_default()), cx);
            }
            Next::Exhausted | Next::PastDeadline => {
                let reason = if next == Next::Exhausted {
                    Reason::RetriesExhausted
                } else {
                    Reason::DeadlineExceeded
                };
                let pending = Pending {
                    reason,
                    http_status: retry.http_status,
                    detail: retry.what.into(),
                };
                let verdict = if confirms {
                    Verdict::Failed(Pending {
                        detail: format!(
                            "{}; whether an earlier try took effect could not be found out",
                            retry.what
                        )
                        .into(),
                        ..pending
                    })
                } else {
                    verdict::failure(pending, job.carried.maybe_applied)
                };
                self.act_on(id, verdict, None, cx);
            }
        }
    }

    /// Waits in the worker if it is short and there is room, else in the ladder.
    fn wait(&mut self, id: JobId, wait: Duration, cx: &mut Context<'_>) {
        let here = self.retry.place(wait) == Place::Here && self.has_room() && !self.draining;
        if here {
            self.wait_here(id, wait, cx);
        } else if let Place::Ladder(step) = self.retry.step(wait) {
            self.send_away(id, Destination::Ladder(step), cx);
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

pub(super) fn renamed(
    job: &Job,
    how: How,
    confirmed_by: super::super::outcome::ConfirmedBy,
    user_id: Option<uuid::Uuid>,
    cx: &Context<'_>,
) -> Outcome {
    Outcome::Renamed(Renamed {
        how,
        confirmed_by,
        user_id,
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
