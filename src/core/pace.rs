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

use super::request::AccountId;

type Limiter = RateLimiter<
    AccountId,
    HashMapStateStore<AccountId>,
    FakeRelativeClock,
    NoOpMiddleware<<FakeRelativeClock as Clock>::Instant>,
>;

/// Whether a call may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Go,
    NotBefore(Timestamp),
}

/// The pace of every account.
#[derive(Debug)]
pub struct Pacer {
    limiter: Option<(Limiter, FakeRelativeClock)>,
    clock_at: Option<Timestamp>,
    paused: HashMap<AccountId, Timestamp>,
}

/// A try may take two calls, so a lesser burst would never let it go.
const LEAST_BURST: NonZeroU32 = NonZeroU32::new(2).unwrap();

impl Pacer {
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
        }
    }

    /// Asks for `calls` calls of this account; a `Go` spends them.
    pub fn ask(&mut self, account: &AccountId, calls: NonZeroU32, now: Timestamp) -> Pace {
        if let Some(&until) = self.paused.get(account) {
            if now < until {
                return Pace::NotBefore(until);
            }
            self.paused.remove(account);
        }
        self.set_clock(now);
        let Some((limiter, clock)) = &self.limiter else {
            return Pace::Go;
        };
        match limiter.check_key_n(account, calls.min(LEAST_BURST)) {
            Ok(Ok(())) | Err(_) => Pace::Go,
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(clock.now());
                Pace::NotBefore(super::retry::later(now, wait))
            }
        }
    }

    /// The API asked this account to slow down: nothing of it goes before `until`.
    pub fn pause(&mut self, account: &AccountId, until: Timestamp, now: Timestamp) {
        self.paused.retain(|_, &mut until| now < until);
        let paused = self.paused.entry(account.clone()).or_insert(until);
        *paused = until.max(*paused);
    }

    /// Drops what is kept for accounts that have been quiet.
    pub fn shrink(&mut self) {
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
