//! Outcomes worth remembering: what is known needs no call.
//!
//! A message may have a twin: published twice by its sender, delivered again after a lost ack, or
//! copied for later by a worker that died before it acknowledged the original. A twin is told what
//! was told before instead of being tried again. For a failure without effect that holds only where
//! the message shows that it may be a twin: a fresh message is a new request to try.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::name_order::RequestIdentity;
use crate::core::model::outcome::{Failed, Outcome, Renamed};
use crate::core::policy::retry::saturating_add;

/// Outcomes remembered of either kind: some seconds of full load, and about a megabyte.
const CAPACITY: usize = 10_000;

/// How long a failure stands: as long as a copy may wait in the ladder, and its way back.
const FAILURE_TTL: Duration = Duration::from_secs(2 * 3600);

/// The newest [`CAPACITY`] entries.
#[derive(Debug, Clone)]
struct FifoMap<V> {
    entries: HashMap<RequestIdentity, V>,
    oldest_first: VecDeque<RequestIdentity>,
}

impl<V> Default for FifoMap<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            oldest_first: VecDeque::new(),
        }
    }
}

impl<V> FifoMap<V> {
    fn insert(&mut self, identity: RequestIdentity, value: V) {
        if self.entries.insert(identity, value).is_none() {
            self.oldest_first.push_back(identity);
        }
        while self.oldest_first.len() > CAPACITY {
            let Some(oldest) = self.oldest_first.pop_front() else {
                break;
            };
            self.entries.remove(&oldest);
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct OutcomeCache {
    renamed: FifoMap<Renamed>,
    failed: FifoMap<Failed>,
}

impl OutcomeCache {
    /// The outcome is known, told or not.
    pub fn remember(&mut self, identity: RequestIdentity, outcome: &Outcome) {
        match outcome {
            Outcome::Renamed(renamed) => self.renamed.insert(identity, renamed.clone()),
            Outcome::Failed(failed) => self.failed.insert(identity, failed.clone()),
        }
    }

    /// The request is tried anew: what was told of an earlier message of it says nothing of this one.
    pub fn forget_failure(&mut self, identity: RequestIdentity) {
        self.failed.entries.remove(&identity);
    }

    /// What is known of a message that arrives.
    #[must_use]
    pub fn get(
        &self,
        identity: RequestIdentity,
        maybe_twin: bool,
        now: Timestamp,
    ) -> Option<Outcome> {
        if let Some(renamed) = self.renamed.entries.get(&identity) {
            return Some(Outcome::Renamed(renamed.clone()));
        }
        self.failed
            .entries
            .get(&identity)
            .filter(|failed| maybe_twin || failed.may_have_taken_effect())
            .filter(|failed| now < saturating_add(failed.failed_at, FAILURE_TTL))
            .map(|failed| Outcome::Failed(failed.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::outcome::{APPLIED_TO_OTHER_USER, AppliedBy, ConfirmedBy, Reason};
    use crate::core::model::request::{AccountId, RenameRequest, Username};
    use uuid::Uuid;

    fn identity(number: u128) -> RequestIdentity {
        let request = RenameRequest {
            request_id: Uuid::from_u128(number),
            account_id: AccountId::parse("T12345678").unwrap(),
            username: Username::parse("old").unwrap(),
            new_username: Username::parse("new").unwrap(),
            user_id: None,
            requested_at: None,
            requested_by: None,
            not_after: None,
        };
        RequestIdentity::of(&request, None)
    }

    fn renamed() -> Outcome {
        Outcome::Renamed(Renamed {
            how: AppliedBy::Applied,
            confirmed_by: ConfirmedBy::Answer,
            user_id: None,
            username: None,
            attempts: 1,
            completed_at: Timestamp::UNIX_EPOCH,
        })
    }

    fn failed(reason: Reason, detail: &str) -> Outcome {
        Outcome::Failed(Failed {
            reason,
            detail: detail.into(),
            http_status: None,
            attempts: 1,
            first_attempt_at: None,
            failed_at: Timestamp::UNIX_EPOCH,
        })
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_rename_is_known_to_every_message_of_its_request() {
        let mut recent = OutcomeCache::default();
        recent.remember(identity(1), &renamed());
        for maybe_twin in [true, false] {
            assert_eq!(
                recent.get(identity(1), maybe_twin, at(1_000_000)),
                Some(renamed())
            );
        }
        assert_eq!(recent.get(identity(2), true, at(0)), None);
    }

    #[test]
    fn a_failure_is_known_to_twins_for_a_while_and_a_fresh_message_is_tried_anew() {
        let mut recent = OutcomeCache::default();
        let taken = failed(Reason::UsernameTaken, "taken");
        recent.remember(identity(1), &taken);
        assert_eq!(recent.get(identity(1), true, at(60)), Some(taken));
        assert_eq!(recent.get(identity(1), true, at(3 * 3600)), None);
        assert_eq!(recent.get(identity(1), false, at(60)), None);
        recent.forget_failure(identity(1));
        assert_eq!(recent.get(identity(1), true, at(60)), None);
    }

    #[test]
    fn a_failure_that_took_effect_on_another_user_is_not_tried_anew() {
        let mut recent = OutcomeCache::default();
        let mismatch = failed(Reason::UserMismatch, APPLIED_TO_OTHER_USER);
        recent.remember(identity(1), &mismatch);
        assert_eq!(recent.get(identity(1), false, at(60)), Some(mismatch));
    }

    #[test]
    fn the_oldest_are_forgotten_first_and_no_more_than_the_bound_is_kept() {
        let mut recent = OutcomeCache::default();
        let (bound, twice) = (CAPACITY as u128, 2 * CAPACITY as u128);
        for number in 0..twice {
            recent.remember(identity(number), &renamed());
            // Remembered again: it stays one entry.
            recent.remember(identity(number), &renamed());
        }
        assert!(recent.renamed.entries.len() <= CAPACITY);
        assert!(recent.renamed.oldest_first.len() <= CAPACITY);
        assert_eq!(recent.get(identity(bound - 1), true, at(0)), None);
        assert_eq!(
            recent.get(identity(twice - 1), true, at(0)),
            Some(renamed())
        );
    }
}
