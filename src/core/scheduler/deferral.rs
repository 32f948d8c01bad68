//! A request leaves the worker without an outcome: where it waits, and why.

use std::time::Duration;

use uuid::Uuid;

use crate::core::model::request::AccountId;
use crate::core::policy::retry::{QueueStay, RetryPolicy};

/// Where a request waits outside the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The tail of `rename.due`.
    Tail,
    /// The wait queue of this step of the ladder, which it leaves after `wait`, or later if one before
    /// it in that queue has to stay longer.
    Ladder { step: usize, wait: Duration },
}

impl Destination {
    /// The wait queue for a wait of that length.
    #[must_use]
    pub fn for_wait(wait: Duration, retry: &RetryPolicy) -> Self {
        let step = retry.step(wait);
        Self::Ladder {
            step,
            wait: wait.min(retry.step_delay(step)),
        }
    }

    /// How long the message stays there, at least and at most.
    #[must_use]
    pub fn stay(self, retry: &RetryPolicy) -> Option<QueueStay> {
        match self {
            Self::Tail => None,
            Self::Ladder { step, wait } => Some(QueueStay {
                at_least: wait,
                at_most: retry.step_delay(step),
            }),
        }
    }
}

/// Why a request leaves the worker without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeferralReason {
    /// Its try failed in passing: it waits for the next one.
    Retry,
    /// `api.requests_per_second` of its account is used up.
    RateLimit,
    /// The API asked its account to slow down.
    Throttled,
    /// Its account is held.
    AccountHeld,
    /// Its account fills its share of what is in hand.
    AccountShare,
    /// Requests before it share a name with it.
    NameOrder,
    /// The whole worker is held.
    WorkerHeld,
    /// RabbitMQ takes no publishes, so that no rename may be made.
    Blocked,
    /// The worker is about to end.
    Drain,
}

impl DeferralReason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::RateLimit => "rate_limit",
            Self::Throttled => "throttled",
            Self::AccountHeld => "account_held",
            Self::AccountShare => "account_share",
            Self::NameOrder => "name_order",
            Self::WorkerHeld => "worker_held",
            Self::Blocked => "blocked",
            Self::Drain => "drain",
        }
    }
}

/// One request that leaves so, as the log and the metrics want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferralNote {
    pub request_id: Uuid,
    pub account: AccountId,
    pub destination: Destination,
    pub reason: DeferralReason,
    /// Attempts so far.
    pub attempts: u32,
}
