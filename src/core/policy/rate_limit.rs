//! How fast an account's calls may go: its share of calls a second, and its pause after a 429.
//!
//! `governor` counts the calls, on a clock that this module sets from the time it is told.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use jiff::Timestamp;

use crate::core::model::request::AccountId;

type AccountLimiter = RateLimiter<
    AccountId,
    HashMapStateStore<AccountId>,
    FakeRelativeClock,
    NoOpMiddleware<<FakeRelativeClock as Clock>::Instant>,
>;

/// Whether a call may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallPermit {
    Go,
    NotBefore(Timestamp, LimitKind),
}

/// What keeps an account's calls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// `api.requests_per_second`.
    Rate,
    /// The API asked for it by 429.
    Throttle,
}

/// The pace of every account.
#[derive(Debug)]
pub struct CallRateLimiter {
    limiter: Option<(AccountLimiter, FakeRelativeClock)>,
    clock_at: Option<Timestamp>,
    paused: HashMap<AccountId, Timestamp>,
    asked: u32,
}

/// After so many questions, what is kept for quiet accounts is dropped: seldom enough to cost nothing,
/// often enough that a stream of made-up accounts does not fill the memory.
const SHRINK_EVERY: u32 = 4096;

/// A try may take two calls, so a lesser burst would never let it go.
const LEAST_BURST: NonZeroU32 = NonZeroU32::new(2).unwrap();

impl CallRateLimiter {
    #[must_use]
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        let limiter = per_second.map(|rate| {
            let clock = FakeRelativeClock::default();
            let quota = Quota::per_second(rate).allow_burst(rate.max(LEAST_BURST));
            let state = HashMapStateStore::default();
            (RateLimiter::new(quota, state, clock.clone()), clock)
        });
        Self {
            limiter,
            clock_at: None,
            paused: HashMap::new(),
            asked: 0,
        }
    }

    /// Asks for `calls` calls of this account; a `Go` spends them.
    pub fn try_acquire(
        &mut self,
        account: &AccountId,
        calls: NonZeroU32,
        now: Timestamp,
    ) -> CallPermit {
        if let Some(&until) = self.paused.get(account) {
            if now < until {
                return CallPermit::NotBefore(until, LimitKind::Throttle);
            }
            self.paused.remove(account);
        }
        self.set_clock(now);
        self.asked = self.asked.wrapping_add(1);
        if self.asked.is_multiple_of(SHRINK_EVERY) {
            self.shrink();
        }
        let Some((limiter, clock)) = &self.limiter else {
            return CallPermit::Go;
        };
        match limiter.check_key_n(account, calls.min(LEAST_BURST)) {
            Ok(Ok(())) | Err(_) => CallPermit::Go,
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(clock.now());
                CallPermit::NotBefore(super::retry::saturating_add(now, wait), LimitKind::Rate)
            }
        }
    }

    /// The API asked that no call of this account goes before `until`.
    pub fn throttle(&mut self, account: &AccountId, until: Timestamp, now: Timestamp) {
        self.paused.retain(|_, &mut until| now < until);
        let paused = self.paused.entry(account.clone()).or_insert(until);
        *paused = until.max(*paused);
    }

    /// Drops what is kept for accounts that have been quiet.
    fn shrink(&self) {
        if let Some((limiter, _)) = &self.limiter {
            limiter.retain_recent();
        }
    }

    /// The limiter's clock only runs forward, as far as the time told does.
    fn set_clock(&mut self, now: Timestamp) {
        let Some((_, clock)) = &self.limiter else {
            return;
        };
        let before = *self.clock_at.get_or_insert(now);
        if let Ok(passed) = Duration::try_from(now.duration_since(before))
            && !passed.is_zero()
        {
            clock.advance(passed);
            self.clock_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn account(id: &str) -> AccountId {
        AccountId::parse(id).unwrap()
    }

    fn one_call(pacer: &mut CallRateLimiter, account: &AccountId, now: Timestamp) -> CallPermit {
        pacer.try_acquire(account, NonZeroU32::MIN, now)
    }

    #[test]
    fn without_a_rate_calls_go_at_once() {
        let mut pacer = CallRateLimiter::new(None);
        for _ in 0..1_000 {
            assert_eq!(
                one_call(&mut pacer, &account("T00000001"), at(0)),
                CallPermit::Go
            );
        }
    }

    #[test]
    fn an_account_that_was_asked_to_slow_down_pauses_and_the_others_do_not() {
        let mut pacer = CallRateLimiter::new(None);
        let (slow, other) = (account("T00000001"), account("P00000002"));
        pacer.throttle(&slow, at(5_000), at(0));
        // A shorter pause does not end a longer one.
        pacer.throttle(&slow, at(1_000), at(0));
        assert_eq!(
            one_call(&mut pacer, &slow, at(4_999)),
            CallPermit::NotBefore(at(5_000), LimitKind::Throttle)
        );
        assert_eq!(one_call(&mut pacer, &other, at(0)), CallPermit::Go);
        assert_eq!(one_call(&mut pacer, &slow, at(5_000)), CallPermit::Go);
    }

    #[test]
    fn two_calls_of_one_try_go_even_at_one_a_second() {
        let mut pacer = CallRateLimiter::new(NonZeroU32::new(1));
        let (account, two) = (account("T00000001"), NonZeroU32::new(2).unwrap());
        assert_eq!(pacer.try_acquire(&account, two, at(0)), CallPermit::Go);
        let CallPermit::NotBefore(then, LimitKind::Rate) = pacer.try_acquire(&account, two, at(0))
        else {
            panic!("both are spent")
        };
        assert_eq!(pacer.try_acquire(&account, two, then), CallPermit::Go);
    }

    proptest! {
        /// However calls come, no window of a second and its burst sees more than the rate allows,
        /// and whoever was told to wait goes when the time has come.
        #[test]
        fn an_account_never_goes_faster_than_its_rate(
            rate in 2u32..20, waits in proptest::collection::vec(0i64..400, 1..200),
        ) {
            let mut pacer = CallRateLimiter::new(NonZeroU32::new(rate));
            let account = account("T00000001");
            let (mut now, mut gone) = (0i64, Vec::new());
            for wait in waits {
                now += wait;
                match one_call(&mut pacer, &account, at(now)) {
                    CallPermit::Go => gone.push(now),
                    CallPermit::NotBefore(then, _) => {
                        prop_assert!(then > at(now));
                        prop_assert!(then <= at(now + 1_001));
                    }
                }
            }
            for (first, &from) in gone.iter().enumerate() {
                let within = gone[first..].iter().filter(|&&at| at < from + 1_000).count();
                prop_assert!(within <= 2 * rate as usize, "{within} in a second");
            }
        }
    }
}
