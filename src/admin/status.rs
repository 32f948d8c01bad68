//! `/status`: how the worker is, as JSON for programs; `rename-worker status` prints it for people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Watched;
use crate::core::accounts;
use crate::telemetry::build::{REVISION, VERSION};
use crate::telemetry::metrics::Counts;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub revision: String,
    pub started_at: Timestamp,
    pub now: Timestamp,
    pub broker: Broker,
    pub hold: Hold,
    /// Accounts that are held while others go on, the longest held first; no more than a hundred.
    pub held_accounts: Vec<HeldAccount>,
    /// How many there are.
    pub held_accounts_total: usize,
    /// It has been told to stop and finishes what is in flight.
    pub draining: bool,
    pub in_flight: usize,
    pub concurrency: u16,
    /// In backoff, or waiting for their account's pace.
    pub waiting: usize,
    /// Waiting for an earlier request of the same name.
    pub blocked_by_order: usize,
    /// Everything that is not acknowledged yet, the above included.
    pub in_hand: usize,
    /// Since the start.
    pub counts: Counts,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    pub connected: bool,
    /// It takes no messages for now: memory or disk alarm.
    pub blocked: bool,
    /// How many sessions there have been.
    pub sessions: u64,
    pub queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub held: bool,
    /// `api` or `credentials`.
    pub cause: Option<String>,
    pub next_probe_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAccount {
    pub account: String,
    /// `api` or `credentials`.
    pub cause: String,
    pub since: Timestamp,
    /// `None` while a probe is under way.
    pub next_probe_at: Option<Timestamp>,
    /// In a few words, such as `status 401`.
    pub last_answer: String,
    pub last_answer_at: Timestamp,
}

impl From<&accounts::HeldAccount> for HeldAccount {
    fn from(held: &accounts::HeldAccount) -> Self {
        Self {
            account: held.account.as_str().to_owned(),
            cause: held.cause.as_str().to_owned(),
            since: held.since,
            next_probe_at: held.probe_at,
            last_answer: held.last_answer.to_string(),
            last_answer_at: held.last_answer_at,
        }
    }
}

/// Held accounts that are listed; a worker serves a few hundred.
const MAX_LISTED: usize = 100;

impl Status {
    #[must_use]
    pub fn of(watched: &Watched, now: Timestamp) -> Self {
        let state = watched.state.borrow();
        Self {
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            started_at: watched.started_at,
            now,
            broker: Broker {
                connected: state.connected,
                blocked: state.blocked,
                sessions: state.epoch,
                queue: format!("{}.requests", watched.prefix),
            },
            hold: Hold {
                held: state.held.is_some(),
                cause: state.held.map(|cause| cause.as_str().to_owned()),
                next_probe_at: state.probe_at,
            },
            held_accounts: state
                .held_accounts
                .iter()
                .take(MAX_LISTED)
                .map(HeldAccount::from)
                .collect(),
            held_accounts_total: state.held_accounts.len(),
            draining: state.draining,
            in_flight: state.counts.in_flight,
            concurrency: watched.concurrency,
            waiting: state.counts.waiting,
            blocked_by_order: state.counts.blocked_by_order,
            in_hand: state.counts.in_hand,
            counts: watched.metrics.counts(),
        }
    }
}
