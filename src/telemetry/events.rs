//! What happens, each told once: a struct or a verb here both logs and counts.
//!
//! No line carries a token or a secret, and none a username unless `log.usernames` asks for it.
//!
//! No fault that lasts fills the log. Something that is away (the broker, the API, the broker's
//! memory) has a line at its begin, one at its end, and between them one after growing pauses of at
//! least a minute ([`OutageLog`]). Lines that each stand for themselves (a message that was not
//! taken, an account that is refused) come ten a minute at most, and the next one says how many were
//! left out ([`LineLimit`]). What is left out at `info` is there at `debug`. Requests that end have
//! one line each, whatever comes.

use std::time::Duration;

use jiff::Timestamp;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::logged_names::LoggedNames;
use super::metrics::{EventType, Metrics, UndeliverableCause};
use crate::clock;
use crate::core::model::outcome::{Outcome, Reason};
use crate::core::model::request::{AccountId, RenameRequest};
use crate::core::policy::fault_log::{FaultLine, FaultRecovery, LineLimit, OutageLog};
use crate::core::policy::hold::HoldCause;
use crate::core::policy::removal::RemovalCause;
use crate::core::scheduler::{CallReport, DeferralNote, Destination, Observation, RequestEnded};

/// Tells logs and metrics.
#[derive(Debug, Clone)]
pub struct EventReporter {
    metrics: Metrics,
    names: LoggedNames,
    lines: RepeatedLines,
}

/// Which lines are due.
#[derive(Debug, Clone, Default)]
struct RepeatedLines {
    broker: OutageLog,
    /// The API, or our credentials for it.
    api: OutageLog,
    /// The broker's alarms.
    alarm: OutageLog,
    account_held: LineLimit,
    event_not_published: LineLimit,
    not_stored: LineLimit,
    near_delivery_limit: LineLimit,
    deferred_too_many: LineLimit,
    unreadable: LineLimit,
}

/// A request has ended and its outcome is with the broker.
#[derive(Debug)]
pub struct RequestRecord<'a> {
    pub ended: &'a RequestEnded,
    /// Nothing where the message was no valid request.
    pub request: Option<&'a RenameRequest>,
    /// As far as they could be read, also of what was no valid request.
    pub request_id: Option<Uuid>,
    pub account: Option<&'a AccountId>,
    pub asked_at: Option<Timestamp>,
    pub trace_id: Option<&'a str>,
    pub now: Timestamp,
}

impl EventReporter {
    #[must_use]
    pub fn new(metrics: Metrics, names: LoggedNames) -> Self {
        Self {
            metrics,
            names,
            lines: RepeatedLines::default(),
        }
    }

    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// One line an outcome.
    pub fn request_ended(&self, end: &RequestRecord<'_>) {
        let RequestRecord { ended, request, .. } = end;
        let took = between(ended.first_receipt_at, end.now);
        let age = end.asked_at.map(|at| between(at, end.now));
        self.metrics.outcome(&ended.outcome, took, age);
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let request_id = end.request_id.map(tracing::field::display);
        let account = end.account.map(AccountId::as_str);
        let names = request.and_then(|request| self.names(request));
        let (username, new_username) = names.unzip();
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let trace_id = end.trace_id;
        match &ended.outcome {
            Outcome::Renamed(renamed) => info!(
                request_id,
                account,
                username,
                new_username,
                outcome = renamed.how.as_str(),
                confirmed_by = renamed.confirmed_by.as_str(),
                attempts = renamed.attempts,
                duration_ms,
                trace_id,
                "renamed"
            ),
            Outcome::Failed(failed) => info!(
                request_id,
                account,
                username,
                new_username,
                outcome = "failed",
                reason = failed.reason.as_str(),
                detail = &*failed.detail,
                http_status = failed.http_status,
                attempts = failed.attempts,
                duration_ms,
                trace_id,
                "rename failed"
            ),
        }
    }

    pub fn note(&mut self, note: Observation) {
        match note {
            Observation::Deferred(deferral) => self.deferred(&deferral),
            Observation::Confirmation(result) => self.metrics.confirmation(result),
            Observation::Held(cause, answer) | Observation::ProbeFailed(cause, answer) => {
                self.holding(cause, &answer);
            }
            Observation::Resumed => {
                self.metrics.set_hold(None);
                if let Some(FaultRecovery { lasted }) = self.lines.api.recovered(clock::now()) {
                    api_answers_again(lasted);
                } else {
                    debug!("the API answers again; consuming");
                }
            }
            Observation::TakesNew(false) => {
                if let Some(left_out) = self.lines.deferred_too_many.admit(clock::now()) {
                    warn!(
                        left_out = unless_none(left_out),
                        "consumer.max_deferred requests are waiting in the wait queues: no new ones \
                         are taken until some have come back"
                    );
                }
            }
            Observation::TakesNew(true) => debug!("new requests are taken again"),
            Observation::AccountHeld(cause, CallReport { gist, account }) => {
                if let Some(left_out) = self.lines.account_held.admit(clock::now()) {
                    warn!(
                        account = account.as_str(),
                        cause = cause.as_str(),
                        answer = %gist,
                        left_out = unless_none(left_out),
                        "holding one account: {}; its requests wait until a probe succeeds",
                        why_account_held(cause)
                    );
                }
            }
            Observation::AccountResumed(cause, CallReport { gist, account }) => info!(
                account = account.as_str(),
                cause = cause.as_str(),
                answer = %gist,
                "the account is answered again; its requests go on"
            ),
        }
    }

    fn deferred(&self, deferral: &DeferralNote) {
        let delay = match deferral.destination {
            Destination::Tail => Duration::ZERO,
            Destination::Ladder { step, wait } => {
                self.metrics.deferred(step);
                wait
            }
        };
        info!(
            request_id = %deferral.request_id,
            account = deferral.account.as_str(),
            reason = deferral.reason.as_str(),
            delay = %humantime::format_duration(Duration::from_millis(
                u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
            )),
            attempts = deferral.attempts,
            "deferred"
        );
    }

    /// The worker holds, or a probe has failed.
    fn holding(&mut self, cause: HoldCause, CallReport { gist, account }: &CallReport) {
        self.metrics.set_hold(Some(cause));
        let needs_action = cause == HoldCause::Credentials;
        let line = self.lines.api.failed(needs_action, clock::now());
        let (cause_label, account) = (cause.as_str(), account.as_str());
        match line {
            Some(FaultLine::Began) => {
                warn!(cause = cause_label, account, answer = %gist, "{}", why_held(cause));
            }
            Some(FaultLine::Continues { lasted, left_out }) => warn!(
                cause = cause_label,
                account,
                answer = %gist,
                held_for = %seconds(lasted),
                left_out = unless_none(left_out),
                "still holding: {}",
                why_held(cause)
            ),
            None => debug!(cause = cause_label, account, answer = %gist, "holding"),
        }
    }

    pub fn event_published(&self, kind: EventType, routed: bool) {
        self.metrics.event_published(kind);
        if !routed {
            self.metrics.event_unrouted(kind);
            debug!(event = kind.as_str(), "no queue is bound for this event");
        }
    }

    pub fn event_not_published(&mut self, kind: EventType, request: Option<Uuid>) {
        self.metrics.event_publish_failed(kind);
        if let Some(left_out) = self.lines.event_not_published.admit(clock::now()) {
            warn!(
                event = kind.as_str(),
                request_id = request.map(tracing::field::display),
                left_out = unless_none(left_out),
                "the broker rejected an event; retrying"
            );
        }
    }

    pub fn dead_lettered(&self, reason: Reason) {
        self.metrics.dead_letter(reason);
    }

    pub fn not_stored(&mut self, what: &'static str, request: Option<Uuid>) {
        if let Some(left_out) = self.lines.not_stored.admit(clock::now()) {
            warn!(
                what,
                request_id = request.map(tracing::field::display),
                left_out = unless_none(left_out),
                "the broker rejected the copy or dead letter of a request, which is kept; retrying"
            );
        }
    }

    /// A message was read from `rename.undeliverable`.
    pub fn undeliverable(&self, cause: RemovalCause) {
        self.metrics
            .undeliverable(UndeliverableCause::Removed(cause));
    }

    /// A message there cannot be read.
    pub fn unreadable(&mut self, why: &dyn std::fmt::Display) {
        self.metrics.undeliverable(UndeliverableCause::Unreadable);
        if let Some(left_out) = self.lines.unreadable.admit(clock::now()) {
            error!(
                %why,
                left_out = unless_none(left_out),
                "a message in the undeliverable queue cannot be read over AMQP 0-9-1, and those \
                 behind it may wait: see Undeliverable in docs/runbook.md"
            );
        }
    }

    pub fn near_delivery_limit(&mut self, deliveries: u32, request: Option<&RenameRequest>) {
        self.metrics.near_delivery_limit();
        if let Some(left_out) = self.lines.near_delivery_limit.admit(clock::now()) {
            warn!(
                request_id = request.map(|request| tracing::field::display(request.request_id)),
                account = request.map(|request| request.account_id.as_str()),
                deliveries,
                left_out = unless_none(left_out),
                "a request has been delivered again and again"
            );
        }
    }

    pub fn connected(&mut self, epoch: u64) {
        self.metrics.broker_connected(true);
        if epoch > 1 {
            self.metrics.broker_reconnected();
        }
        let was_away = self.lines.broker.is_away();
        match self.lines.broker.recovered(clock::now()) {
            Some(FaultRecovery { lasted }) => broker_is_back(lasted),
            None if was_away => debug!(epoch, "connected to the broker"),
            None => info!(epoch, "connected to the broker"),
        }
    }

    pub fn disconnected(&mut self, needs_action: bool, why: &dyn std::fmt::Display) {
        self.metrics.broker_connected(false);
        match self.lines.broker.failed(needs_action, clock::now()) {
            Some(FaultLine::Began) => {
                error!(%why, "lost the broker; unsettled requests will be delivered again");
            }
            Some(FaultLine::Continues { lasted, left_out }) => warn!(
                %why,
                away_for = %seconds(lasted),
                left_out = unless_none(left_out),
                "lost the broker again; unsettled requests will be delivered again"
            ),
            None => debug!(%why, "lost the broker"),
        }
    }

    pub fn connect_failed(
        &mut self,
        needs_action: bool,
        tries: u32,
        why: &dyn std::fmt::Display,
        again_in: Duration,
    ) {
        self.metrics.broker_connected(false);
        match self.lines.broker.failed(needs_action, clock::now()) {
            Some(FaultLine::Began) => {
                error!(tries, %why, again_in = ?again_in, "cannot work with the broker");
            }
            Some(FaultLine::Continues { lasted, left_out }) => warn!(
                tries,
                %why,
                again_in = ?again_in,
                away_for = %seconds(lasted),
                left_out = unless_none(left_out),
                "still cannot work with the broker"
            ),
            None => debug!(tries, %why, again_in = ?again_in, "cannot work with the broker"),
        }
    }

    pub fn blocked(&mut self, blocked: bool) {
        let now = clock::now();
        if !blocked {
            if let Some(FaultRecovery { lasted }) = self.lines.alarm.recovered(now) {
                alarm_is_over(lasted);
            } else {
                debug!("the broker takes messages again");
            }
            return;
        }
        match self.lines.alarm.failed(false, now) {
            Some(FaultLine::Began) => warn!(
                "the broker takes no messages (memory or disk alarm); making no calls meanwhile"
            ),
            Some(FaultLine::Continues { lasted, left_out }) => warn!(
                blocked_for = %seconds(lasted),
                left_out = unless_none(left_out),
                "the broker takes no messages again and again (memory or disk alarm)"
            ),
            None => debug!("the broker takes no messages (memory or disk alarm)"),
        }
    }

    /// Time has passed: a recovery may be due that did not last before. Called whenever the
    /// worker's loop turns.
    pub fn tick(&mut self, now: Timestamp) {
        if let Some(FaultRecovery { lasted }) = self.lines.broker.tick(now) {
            broker_is_back(lasted);
        }
        if let Some(FaultRecovery { lasted }) = self.lines.api.tick(now) {
            api_answers_again(lasted);
        }
        if let Some(FaultRecovery { lasted }) = self.lines.alarm.tick(now) {
            alarm_is_over(lasted);
        }
    }

    pub fn draining(&self, in_hand: usize) {
        info!(
            in_hand,
            "stopping: finishing what is in flight, giving back the rest"
        );
    }

    pub fn drain_timed_out(&self, in_hand: usize) {
        warn!(
            in_hand,
            "the drain took too long; what is left will be delivered again"
        );
    }

    fn names(&self, request: &RenameRequest) -> Option<(String, String)> {
        let (old, new) = (request.username.reveal(), request.new_username.reveal());
        Some((self.names.of(old)?, self.names.of(new)?))
    }
}

fn broker_is_back(away_for: Duration) {
    info!(away_for = %seconds(away_for), "connected to the broker again");
}

fn api_answers_again(held_for: Duration) {
    info!(held_for = %seconds(held_for), "the API answers again; consuming");
}

fn alarm_is_over(blocked_for: Duration) {
    info!(blocked_for = %seconds(blocked_for), "the broker takes messages again");
}

/// As people write it, to the tenth of a second.
fn seconds(duration: Duration) -> humantime::FormattedDuration {
    let tenths = duration.as_millis() / 100;
    humantime::format_duration(Duration::from_millis(
        u64::try_from(tenths).unwrap_or(u64::MAX / 100) * 100,
    ))
}

/// A count that is only worth a field where it is one.
fn unless_none(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

const fn why_account_held(cause: HoldCause) -> &'static str {
    match cause {
        HoldCause::Api => "its calls fail again and again",
        HoldCause::Credentials => "the API refuses its credentials",
    }
}

const fn why_held(cause: HoldCause) -> &'static str {
    match cause {
        HoldCause::Api => "the API fails again and again; holding, and probing it",
        HoldCause::Credentials => {
            "the API refuses our credentials; holding, and probing it: check api.token or \
             api.client_id and api.client_secret"
        }
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
