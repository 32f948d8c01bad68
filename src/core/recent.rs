//! Outcomes worth remembering: what is known needs no call.
//!
//! A message may have a twin: published twice by its sender, delivered again after a lost ack, or
//! copied for later by a worker that died before it acknowledged the original. A twin is told what
//! was told before instead of being tried again. For a failure without effect that holds only where
//! the message shows that it may be a twin: a fresh message is a new request to try.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::order::Identity;
use super::outcome::{Failed, Outcome, Renamed};
use super::retry::later;

/// Outcomes remembered of either kind: some seconds of full load, and about a megabyte.
const MOST: usize = 10_000;

/// How long a failure stands: as long as a copy may wait in the ladder, and its way back.
const FAILURE_STANDS: Duration = Duration::from_secs(2 * 3600);

/// The newest [`MOST`] entries.
#[derive(Debug, Clone)]
struct Bounded<V> {
    entries: HashMap<Identity, V>,
    oldest_first: VecDeque<Identity>,
}

impl<V> Default for Bounded<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            oldest_first: VecDeque::new(),
        }
    }
}

impl<V> Bounded<V> {
    fn insert(&mut self, identity: Identity, value: V) {
        self.entries.insert(identity, value);
        self.oldest_first.push_back(identity);
        while self.oldest_first.len() > MOST {
            let Some(oldest) = self.oldest_first.pop_front() else {
                break;
            };
            self.entries.remove(&oldest);
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Recent {
    renamed: Bounded<Renamed>,
    failed: Bounded<Failed>,
}

impl Recent {
    /// The outcome is known, told or not.
    pub fn remember(&mut self, identity: Identity, outcome: &Outcome) {
        match outcome {
            Outcome::Renamed(renamed) => self.renamed.insert(identity, renamed.clone()),
            Outcome::Failed(failed) => self.failed.insert(identity, failed.clone()),
        }
    }

    /// The request is tried anew: what was told of an earlier message of it says nothing of this one.
    pub fn forget_failure(&mut self, identity: Identity) {
        self.failed.entries.remove(&identity);
    }

    /// What is known of a message that arrives.
    #[must_use]
    pub fn known(&self, identity: Identity, maybe_twin: bool, now: Timestamp) -> Option<Outcome> {
        if let Some(renamed) = self.renamed.entries.get(&identity) {
            return Some(Outcome::Renamed(renamed.clone()));
        }
        self.failed
            .entries
            .get(&identity)
            .filter(|failed| maybe_twin || failed.may_have_taken_effect())
            .filter(|failed| now < later(failed.failed_at, FAILURE_STANDS))
            .map(|failed| Outcome::Failed(failed.clone()))
    }
}
