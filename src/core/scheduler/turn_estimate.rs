//! How long the turn of a request is away, so that it waits elsewhere once or twice and not every few
//! seconds: estimated from how long the tries before it take.

use std::num::NonZeroUsize;
use std::time::Duration;

use jiff::Timestamp;
use lru::LruCache;

use super::accounts::blend;
use crate::core::model::request::AccountId;
use crate::core::policy::retry::saturating_add;

/// Accounts and names that are remembered, some 200 KB. One that is forgotten is estimated anew.
const MAX_KEPT: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

/// Requests come back after this share of the estimated time. Those that come early wait in the worker
/// or, where there is no room, go away once more; those that come late leave slots idle.
const EARLY: f64 = 0.7;

/// No wait for a turn is shorter, since a copy takes some time, too …
const MIN_WAIT: Duration = Duration::from_millis(200);
/// … and none is longer: the pace may change meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct TurnEstimate {
    /// When the turn comes of an account's next request that goes away for it.
    next_turns: LruCache<AccountId, Timestamp>,
    /// How long requests of a popular name take.
    name_times: LruCache<u64, Duration>,
}

impl Default for TurnEstimate {
    fn default() -> Self {
        Self {
            next_turns: LruCache::new(MAX_KEPT),
            name_times: LruCache::new(MAX_KEPT),
        }
    }
}

impl TurnEstimate {
    /// Assigns the account's next turn and says how long it is away. `interval` is the time from one
    /// end of its tries to the next; so many of its requests are in hand and come before.
    pub fn assign_turn(
        &mut self,
        account: &AccountId,
        interval: Duration,
        in_hand: usize,
        now: Timestamp,
    ) -> Duration {
        let interval = interval.mul_f64(EARLY);
        // Half of those in hand are to be left when it comes back, so that no slot is idle.
        let ahead = u32::try_from(in_hand / 2).unwrap_or(u32::MAX);
        let earliest = saturating_add(now, interval.saturating_mul(ahead).min(MAX_WAIT));
        let turn = match self.next_turns.get(account) {
            Some(&next) => next.clamp(earliest, saturating_add(now, MAX_WAIT).max(earliest)),
            None => earliest,
        };
        self.next_turns
            .put(account.clone(), saturating_add(turn, interval));
        within_bounds(Duration::try_from(turn.duration_since(now)).unwrap_or_default())
    }

    /// A request whose name others wait for has ended, so long after its try began.
    pub fn name_took(&mut self, name: u64, took: Duration) {
        let mean = self.name_times.peek(&name).copied();
        self.name_times.put(name, blend(mean, took));
    }

    /// How long requests of these names take, as far as any has ended for which others waited.
    #[must_use]
    pub fn name_time(&self, names: [u64; 2]) -> Option<Duration> {
        let times = names.map(|name| self.name_times.peek(&name).copied());
        times.into_iter().flatten().max()
    }
}

/// How long the turn is away behind this number of others, each of which takes `time`.
#[must_use]
pub fn wait_behind(before: usize, time: Duration) -> Duration {
    time.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX))
}

fn within_bounds(wait: Duration) -> Duration {
    wait.clamp(MIN_WAIT, MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account() -> AccountId {
        AccountId::parse("T12345678").unwrap()
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    #[test]
    fn each_request_that_goes_away_comes_back_after_the_one_before_it() {
        let mut estimate = TurnEstimate::default();
        let interval = Duration::from_millis(100);
        let mut assign = |now| {
            estimate
                .assign_turn(&account(), interval, 20, now)
                .as_millis()
        };
        assert_eq!([0; 4].map(|now| assign(at(now))), [700, 770, 840, 910]);
        // The turns that were assigned have passed unused.
        assert_eq!(assign(at(60_000)), 700);
    }

    #[test]
    fn a_turn_that_seems_far_away_is_looked_at_again_within_a_minute() {
        let mut estimate = TurnEstimate::default();
        for _ in 0..100 {
            let wait = estimate.assign_turn(&account(), Duration::from_secs(10), 200, at(0));
            assert_eq!(wait, MAX_WAIT);
        }
        // The account has become fast since.
        let wait = estimate.assign_turn(&account(), Duration::from_millis(1), 200, at(60_000));
        assert!(wait <= MAX_WAIT, "{wait:?}");
    }

    #[test]
    fn the_slower_name_decides() {
        let mut estimate = TurnEstimate::default();
        assert_eq!(estimate.name_time([1, 2]), None);
        estimate.name_took(1, Duration::from_millis(100));
        estimate.name_took(2, Duration::from_millis(300));
        assert_eq!(estimate.name_time([1, 2]), Some(Duration::from_millis(300)));
        assert_eq!(estimate.name_time([1, 3]), Some(Duration::from_millis(100)));
        assert_eq!(
            wait_behind(32, Duration::from_millis(100)),
            Duration::from_millis(3_200)
        );
    }

    proptest! {
        #[test]
        fn no_wait_is_out_of_bounds(
            steps in proptest::collection::vec((0u64..100_000, 0usize..1_000, 0i64..10_000), 1..50),
        ) {
            let mut estimate = TurnEstimate::default();
            let mut now = 0;
            for (interval, in_hand, passed) in steps {
                now += passed;
                let interval = Duration::from_millis(interval);
                let wait = estimate.assign_turn(&account(), interval, in_hand, at(now));
                prop_assert!((MIN_WAIT..=MAX_WAIT).contains(&wait));
            }
        }
    }
}
