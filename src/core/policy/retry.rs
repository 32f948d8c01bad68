//! When to try again, where to wait until then, and when to give up.
//!
//! The only user of the `backoff` crate, for the exponential sequence. That crate is unmaintained
//! (RUSTSEC-2025-0012, see `deny.toml`); it runs once, when the policy is made, to fill a table.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use jiff::Timestamp;

/// The numbers of contract section 6.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySettings {
    pub initial_delay: Duration,
    pub multiplier: f64,
    /// The share of a delay by which it may be shorter or longer, 0 to 1.
    pub jitter: f64,
    pub max_delay: Duration,
    pub max_attempts: u32,
    pub max_elapsed: Duration,
    /// Up to this long a request waits in the worker.
    pub local_wait: Duration,
    /// The delays of the wait queues, ascending, at least one.
    pub ladder: Vec<Duration>,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_millis(500),
            multiplier: 2.0,
            jitter: 0.5,
            max_delay: Duration::from_secs(3600),
            max_attempts: 12,
            max_elapsed: Duration::from_secs(24 * 3600),
            local_wait: Duration::from_secs(2),
            ladder: [5, 30, 120, 600, 3600].map(Duration::from_secs).to_vec(),
        }
    }
}

/// The retry policy, ready to be asked.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    settings: RetrySettings,
    /// The delay without jitter after attempt 1, 2, 3 …; the last one repeats.
    delays: Vec<Duration>,
}

/// Where a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitLocation {
    /// In the worker, holding no call slot.
    Here,
    /// In the wait queue of this step of the ladder.
    Ladder(usize),
}

/// How long a message is in a wait queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueStay {
    pub at_least: Duration,
    pub at_most: Duration,
}

/// What comes after a try that failed in passing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    Wait(Duration),
    /// The attempts or the time are used up.
    Exhausted,
    /// No further try fits before `not_after`.
    PastDeadline,
}

/// What the policy needs to know of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptState {
    pub attempts: u32,
    pub first_attempt_at: Timestamp,
    pub not_after: Option<Timestamp>,
    /// `Retry-After` of the last answer.
    pub not_before: Option<Duration>,
}

impl RetryPolicy {
    #[must_use]
    pub fn new(settings: RetrySettings) -> Self {
        let delays = exponential(&settings);
        Self { settings, delays }
    }

    #[must_use]
    pub fn settings(&self) -> &RetrySettings {
        &self.settings
    }

    /// The delay before attempt `attempts + 1`; `roll` is random, from 0 to 1.
    #[must_use]
    pub fn delay(&self, attempts: u32, roll: f64) -> Duration {
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let base = self.delays[index.min(self.delays.len() - 1)];
        let factor = self
            .settings
            .jitter
            .mul_add(2.0f64.mul_add(roll, -1.0), 1.0);
        base.mul_f64(factor.max(0.0)).min(self.settings.max_delay)
    }

    #[must_use]
    pub fn next(&self, tried: AttemptState, now: Timestamp, roll: f64) -> RetryDecision {
        let wait = self.delay(tried.attempts, roll).max(
            tried
                .not_before
                .unwrap_or_default()
                .min(self.settings.max_delay),
        );
        let again_at = saturating_add(now, wait);
        if tried
            .not_after
            .is_some_and(|not_after| again_at >= not_after)
        {
            RetryDecision::PastDeadline
        } else if tried.attempts >= self.settings.max_attempts
            || again_at > saturating_add(tried.first_attempt_at, self.settings.max_elapsed)
        {
            RetryDecision::Exhausted
        } else {
            RetryDecision::Wait(wait)
        }
    }

    /// Whether `max_elapsed` has passed since then.
    #[must_use]
    pub fn is_over(&self, since: Timestamp, now: Timestamp) -> bool {
        now >= saturating_add(since, self.settings.max_elapsed)
    }

    /// Where to wait that long: in the worker, else in the shortest queue that is long enough.
    #[must_use]
    pub fn place(&self, wait: Duration) -> WaitLocation {
        if wait <= self.settings.local_wait {
            WaitLocation::Here
        } else {
            WaitLocation::Ladder(self.step(wait))
        }
    }

    /// The shortest step of the ladder that is long enough, else the longest there is.
    #[must_use]
    pub fn step(&self, wait: Duration) -> usize {
        let ladder = &self.settings.ladder;
        ladder
            .iter()
            .position(|&step| step >= wait)
            .unwrap_or(ladder.len().saturating_sub(1))
    }

    /// How long a message stays in the queue of a step.
    #[must_use]
    pub fn step_delay(&self, step: usize) -> Duration {
        self.settings.ladder.get(step).copied().unwrap_or_default()
    }
}

/// `at + wait`, or the end of time.
#[must_use]
pub fn saturating_add(at: Timestamp, wait: Duration) -> Timestamp {
    at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// The sequence up to the first delay that reaches the cap, or as many as there are attempts.
fn exponential(settings: &RetrySettings) -> Vec<Duration> {
    // Past this many doublings any delay is at its cap; it bounds the table for odd settings.
    const MAX_DELAY: u32 = 64;
    let mut sequence = backoff::ExponentialBackoff {
        current_interval: settings.initial_delay,
        initial_interval: settings.initial_delay,
        randomization_factor: 0.0,
        multiplier: settings.multiplier,
        max_interval: settings.max_delay,
        max_elapsed_time: None,
        ..backoff::ExponentialBackoff::default()
    };
    let mut delays = Vec::new();
    for _ in 0..settings.max_attempts.clamp(1, MAX_DELAY) {
        let delay = sequence.next_backoff().unwrap_or(settings.max_delay);
        delays.push(delay);
        if delay >= settings.max_delay {
            break;
        }
    }
    delays
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> RetryPolicy {
        RetryPolicy::new(RetrySettings::default())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_middle_of_the_delays_doubles_from_half_a_second() {
        let policy = policy();
        let middle = |attempts| policy.delay(attempts, 0.5).as_millis();
        assert_eq!([1, 2, 3, 4, 5].map(middle), [500, 1000, 2000, 4000, 8000]);
        assert_eq!(middle(12), 500 << 11);
    }

    #[test]
    fn a_request_waits_in_the_shortest_queue_that_is_long_enough() {
        let policy = policy();
        for (milliseconds, place) in [
            (0, WaitLocation::Here),
            (2000, WaitLocation::Here),
            (2001, WaitLocation::Ladder(0)),
            (5000, WaitLocation::Ladder(0)),
            (5001, WaitLocation::Ladder(1)),
            (120_000, WaitLocation::Ladder(2)),
            (600_001, WaitLocation::Ladder(4)),
            (9_000_000, WaitLocation::Ladder(4)),
        ] {
            assert_eq!(
                policy.place(Duration::from_millis(milliseconds)),
                place,
                "{milliseconds} ms"
            );
        }
    }

    #[test]
    fn attempts_time_and_deadline_end_the_tries() {
        let policy = policy();
        let tried = AttemptState {
            attempts: 1,
            first_attempt_at: at(0),
            not_after: None,
            not_before: None,
        };
        let next = |tried, now| policy.next(tried, now, 0.5);
        assert_eq!(
            next(tried, at(0)),
            RetryDecision::Wait(Duration::from_millis(500))
        );
        assert_eq!(
            next(
                AttemptState {
                    attempts: 11,
                    ..tried
                },
                at(0)
            ),
            RetryDecision::Wait(Duration::from_secs(512))
        );
        assert_eq!(
            next(
                AttemptState {
                    attempts: 12,
                    ..tried
                },
                at(0)
            ),
            RetryDecision::Exhausted
        );
        assert_eq!(
            next(
                AttemptState {
                    attempts: u32::MAX,
                    ..tried
                },
                at(0)
            ),
            RetryDecision::Exhausted
        );
        assert_eq!(next(tried, at(86_400)), RetryDecision::Exhausted);
        assert_eq!(
            next(
                AttemptState {
                    not_after: Some(at(0)),
                    ..tried
                },
                at(0)
            ),
            RetryDecision::PastDeadline
        );
        assert_eq!(
            next(
                AttemptState {
                    not_after: Some(at(1)),
                    ..tried
                },
                at(0)
            ),
            RetryDecision::Wait(Duration::from_millis(500))
        );
    }

    proptest! {
        #[test]
        fn a_delay_stays_within_jitter_and_cap(attempts in 0u32..10_000, roll in 0.0f64..=1.0) {
            let policy = policy();
            let delay = policy.delay(attempts, roll).as_secs_f64();
            let base = (0.5 * 2f64.powi(attempts.clamp(1, 12).cast_signed() - 1)).min(3600.0);
            prop_assert!(delay >= base * 0.5 - 1e-6);
            prop_assert!(delay <= (base * 1.5).min(3600.0) + 1e-6);
        }

        #[test]
        fn retry_after_is_never_undercut_and_always_capped(
            seconds in 0u64..100_000, attempts in 1u32..12, roll in 0.0f64..=1.0,
        ) {
            let tried = AttemptState {
                attempts,
                first_attempt_at: at(0),
                not_after: None,
                not_before: Some(Duration::from_secs(seconds)),
            };
            match policy().next(tried, at(0), roll) {
                RetryDecision::Wait(wait) => {
                    prop_assert!(wait >= Duration::from_secs(seconds.min(3600)));
                    prop_assert!(wait <= Duration::from_secs(3600));
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn a_step_is_long_enough_where_one_is(wait in 0u64..4_000_000) {
            let policy = policy();
            let wait = Duration::from_millis(wait);
            let step = policy.step(wait);
            prop_assert!(policy.step_delay(step) >= wait.min(Duration::from_secs(3600)));
            prop_assert!(step == 0 || policy.step_delay(step - 1) < wait);
        }
    }
}
