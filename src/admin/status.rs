//! `/status`: how the worker is, as JSON for programs; `rename-worker status` prints it for people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::WatchedWorker;
use crate::core::scheduler::accounts;
use crate::telemetry::build::{REVISION, VERSION};
use crate::telemetry::metrics::RequestCounts;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub version: String,
    pub revision: String,
    pub started_at: Timestamp,
    pub now: Timestamp,
    pub broker: BrokerStatus,
    pub hold: HoldStatus,
    /// Accounts that are held while others go on, the longest held first; no more than a hundred.
    /// A worker of 0.1.0 has none.
    #[serde(default)]
    pub held_accounts: Vec<HeldAccountStatus>,
    /// How many there are.
    #[serde(default)]
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
    pub counts: RequestCounts,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    pub connected: bool,
    /// It takes no messages for now: memory or disk alarm.
    pub blocked: bool,
    /// How many sessions there have been.
    pub sessions: u64,
    pub queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    pub held: bool,
    /// `api` or `credentials`.
    pub cause: Option<String>,
    pub next_probe_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAccountStatus {
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

impl From<&accounts::HeldAccount> for HeldAccountStatus {
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

impl WorkerStatus {
    #[must_use]
    pub fn of(watched: &WatchedWorker, now: Timestamp) -> Self {
        let state = watched.state.borrow();
        Self {
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            started_at: watched.started_at,
            now,
            broker: BrokerStatus {
                connected: state.connected,
                blocked: state.blocked,
                sessions: state.epoch,
                queue: format!("{}.requests", watched.prefix),
            },
            hold: HoldStatus {
                held: state.held.is_some(),
                cause: state.held.map(|cause| cause.as_str().to_owned()),
                next_probe_at: state.probe_at,
            },
            held_accounts: state
                .held_accounts
                .iter()
                .map(HeldAccountStatus::from)
                .collect(),
            held_accounts_total: state.held_accounts_total,
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

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::admin::ask::BODY_MAX;
    use crate::core::model::api_response::{ResponseSummary, TransportError};
    use crate::core::model::request::AccountId;
    use crate::core::policy::hold::HoldCause;
    use crate::core::scheduler::accounts::MAX_LISTED;
    use crate::telemetry::metrics::{Metrics, StaticLabels};
    use crate::worker::WorkerState;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(1_800_000_000 + seconds, 123_456_789).unwrap()
    }

    /// The status of a worker that holds these accounts.
    fn status(held_accounts: Vec<accounts::HeldAccount>) -> WorkerStatus {
        let given = StaticLabels {
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            ladder: Vec::new(),
        };
        let state = WorkerState {
            held_accounts_total: held_accounts.len(),
            held_accounts,
            ..WorkerState::default()
        };
        let watched = WatchedWorker {
            metrics: Metrics::new(&given).unwrap(),
            state: watch::channel(state).1,
            concurrency: 64,
            prefix: "rename".to_owned(),
            started_at: at(0),
        };
        WorkerStatus::of(&watched, at(1))
    }

    fn held(number: u32) -> accounts::HeldAccount {
        accounts::HeldAccount {
            account: AccountId::parse(&format!("T{number:08}")).unwrap(),
            cause: HoldCause::Credentials,
            since: at(i64::from(number)),
            probe_at: Some(at(5_000)),
            last_answer: ResponseSummary::Silence(TransportError::Timeout),
            last_answer_at: at(4_000),
        }
    }

    #[test]
    fn a_held_account_is_shown_with_why_since_when_and_what_comes_next() {
        let probing = accounts::HeldAccount {
            probe_at: None,
            ..held(1)
        };
        let shown = serde_json::to_value(status(vec![held(0), probing])).unwrap();
        insta::assert_json_snapshot!(shown["held_accounts"]);
        assert_eq!(shown["held_accounts_total"], 2);
    }

    #[test]
    fn a_full_list_of_held_accounts_is_a_page_that_is_read_back() {
        let status = status((0..).map(held).take(MAX_LISTED).collect());
        let text = serde_json::to_vec(&status).unwrap();
        assert!(text.len() < BODY_MAX / 2, "{}", text.len());
    }

    #[test]
    fn the_status_of_a_worker_that_knows_no_held_accounts_is_read_too() {
        let mut old = serde_json::to_value(status(Vec::new())).unwrap();
        let fields = old.as_object_mut().unwrap();
        fields.remove("held_accounts").unwrap();
        fields.remove("held_accounts_total").unwrap();
        let read: WorkerStatus = serde_json::from_value(old).unwrap();
        assert_eq!((read.held_accounts.len(), read.held_accounts_total), (0, 0));
    }
}
