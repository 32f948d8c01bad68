//! What happens, each told once: a struct or a verb here both logs and counts.
//!
//! No line carries a token or a secret, and none a username unless `log.usernames` asks for it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use jiff::Timestamp;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::metrics::{EventType, Metrics, UndeliverableCause};
use crate::config::Usernames;
use crate::core::consume_plan::ConsumeScope;
use crate::core::hold::Cause;
use crate::core::machine::{Ended, Note, Told};
use crate::core::outcome::{Outcome, Reason};
use crate::core::removal::RemovalCause;
use crate::core::request::{AccountId, RenameRequest};

/// Tells logs and metrics.
#[derive(Debug, Clone)]
pub struct Reporter {
    metrics: Metrics,
    usernames: Usernames,
    /// Names of the ladder's steps.
    ladder: Box<[String]>,
}

/// A request has ended and its outcome is with the broker.
#[derive(Debug)]
pub struct RequestEnded<'a> {
    pub ended: &'a Ended,
    /// Nothing where the message was no valid request.
    pub request: Option<&'a RenameRequest>,
    /// As far as they could be read, also of what was no valid request.
    pub request_id: Option<Uuid>,
    pub account: Option<&'a AccountId>,
    pub asked_at: Option<Timestamp>,
    pub trace_id: Option<&'a str>,
    pub now: Timestamp,
}

impl Reporter {
    #[must_use]
    pub fn new(metrics: Metrics, usernames: Usernames, ladder: Vec<String>) -> Self {
        Self {
            metrics,
            usernames,
            ladder: ladder.into(),
        }
    }

    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// One line an outcome.
    pub fn request_ended(&self, end: &RequestEnded<'_>) {
        let RequestEnded { ended, request, .. } = end;
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

    pub fn note(&self, note: Note) {
        match note {
            Note::Deferred { step } => {
                self.metrics.deferred(step);
                debug!(delay = self.ladder.get(step), "deferred a request");
            }
            Note::GivenBack => debug!("gave a request back to the queue's tail"),
            Note::Confirmation(result) => self.metrics.confirmation(result),
            Note::Held(cause, Told { gist, account }) => {
                self.metrics.set_hold(Some(cause));
                let account = account.as_str();
                warn!(cause = cause.as_str(), account, answer = %gist, "{}", why_held(cause));
            }
            Note::ProbeFailed(cause, Told { gist, account }) => {
                self.metrics.set_hold(Some(cause));
                let (cause, account) = (cause.as_str(), account.as_str());
                info!(cause, account, answer = %gist, "the probe failed; still holding");
            }
            Note::Resumed => {
                self.metrics.set_hold(None);
                info!("the API answers again; consuming");
            }
            Note::ConsumeScope(ConsumeScope::DueOnly) => warn!(
                "consumer.max_deferred requests are waiting in the wait queues: no new ones are \
                 taken until some have come back"
            ),
            Note::ConsumeScope(ConsumeScope::All) => info!("new requests are taken again"),
            Note::AccountPaused(Told { gist, account }) => warn!(
                account = account.as_str(),
                answer = %gist,
                "the API refuses one account's credentials while others' work: \
                 that account's requests wait"
            ),
        }
    }

    pub fn event_published(&self, kind: EventType, routed: bool) {
        self.metrics.event_published(kind);
        if !routed {
            self.metrics.event_unrouted(kind);
            debug!(event = kind.as_str(), "no queue is bound for this event");
        }
    }

    pub fn event_not_published(&self, kind: EventType) {
        self.metrics.event_publish_failed(kind);
        warn!(
            event = kind.as_str(),
            "the broker did not take an event; trying again"
        );
    }

    pub fn dead_lettered(&self, reason: Reason) {
        self.metrics.dead_letter(reason);
    }

    pub fn not_stored(&self, what: &'static str) {
        warn!(
            what,
            "the broker did not take a message; the request is kept, trying again"
        );
    }

    /// A message was read from `rename.undeliverable`.
    pub fn undeliverable(&self, cause: RemovalCause) {
        self.metrics
            .undeliverable(UndeliverableCause::Removed(cause));
    }

    /// A message there ends each connection that it is delivered on.
    pub fn unreadable(&self, why: &dyn std::fmt::Display) {
        self.metrics.undeliverable(UndeliverableCause::Unreadable);
        error!(
            %why,
            "a message in the undeliverable queue ends every connection that it is delivered on; \
             those behind it wait: read it with an AMQP 1.0 receiver, see docs/runbook.md"
        );
    }

    pub fn near_delivery_limit(&self, deliveries: u32, request: Option<&RenameRequest>) {
        self.metrics.near_delivery_limit();
        warn!(
            request_id = request.map(|request| tracing::field::display(request.request_id)),
            account = request.map(|request| request.account_id.as_str()),
            deliveries,
            "a request has been delivered again and again"
        );
    }

    pub fn connected(&self, epoch: u64) {
        self.metrics.broker_connected(true);
        if epoch > 1 {
            self.metrics.broker_reconnected();
        }
        info!(epoch, "connected to the broker");
    }

    pub fn disconnected(&self, why: &dyn std::fmt::Display) {
        self.metrics.broker_connected(false);
        warn!(%why, "lost the broker; unsettled requests will be delivered again");
    }

    pub fn connect_failed(&self, tries: u32, why: &dyn std::fmt::Display, again_in: Duration) {
        self.metrics.broker_connected(false);
        error!(tries, %why, again_in = ?again_in, "cannot work with the broker");
    }

    pub fn blocked(&self, blocked: bool) {
        if blocked {
            warn!("the broker takes no messages (memory or disk alarm); making no calls meanwhile");
        } else {
            info!("the broker takes messages again");
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
        match self.usernames {
            Usernames::Hidden => None,
            Usernames::Hashed => Some((hashed(old), hashed(new))),
            Usernames::Shown => Some((old.to_owned(), new.to_owned())),
        }
    }
}

const fn why_held(cause: Cause) -> &'static str {
    match cause {
        Cause::Api => "the API fails again and again; holding, and probing it",
        Cause::Credentials => {
            "the API refuses our credentials; holding, and probing it: check api.token or \
             api.client_id and api.client_secret"
        }
    }
}

/// Enough to tell two names apart and to find a line again, too little to read a name from. Not a
/// protection against somebody who guesses names.
fn hashed(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
