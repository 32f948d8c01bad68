//! How long to wait before the next try to connect. Pure: randomness is an argument.

use std::time::Duration;

use crate::broker::error::RetryClass;

/// The first wait after a passing fault: long enough not to spin, short enough not to be noticed.
const QUICK_FIRST: Duration = Duration::from_millis(100);
/// The longest wait after a passing fault. After a broker's restart we must be consuming within
/// 2 s of it accepting connections; this leaves another second for connecting and declaring.
const QUICK_MAX: Duration = Duration::from_secs(1);
/// The wait after a fault that a person must mend: seldom enough to spare the broker and the logs.
const SLOW: Duration = Duration::from_secs(10);
/// So many slow faults in a row are forgiven at the quick pace first, since a booting broker may
/// refuse what it grants a second later.
const FAST_RETRIES_BEFORE_SLOW: u32 = 2;
/// A session that lived this long was a good one: the counting starts anew.
const GOOD_SESSION: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(in crate::broker) struct ReconnectBackoff {
    tries: u32,
    slow_in_a_row: u32,
}

impl ReconnectBackoff {
    /// The wait after one more failure. `random` is from 0 to 1; it shortens the wait by up to
    /// half, so that many workers do not come back at once.
    pub(in crate::broker) fn next_delay(&mut self, pace: RetryClass, random: f64) -> Duration {
        let exponent = self.tries.min(16);
        self.tries = self.tries.saturating_add(1);
        self.slow_in_a_row = match pace {
            RetryClass::Quick => 0,
            RetryClass::Slow => self.slow_in_a_row.saturating_add(1),
        };
        let full = if self.slow_in_a_row > FAST_RETRIES_BEFORE_SLOW {
            // Slow waits are at least `SLOW`, so here the jitter lengthens.
            return SLOW + SLOW.mul_f64(random / 2.0);
        } else {
            QUICK_FIRST.saturating_mul(1 << exponent).min(QUICK_MAX)
        };
        full.mul_f64(1.0 - random / 2.0)
    }

    /// The tries since the last good session.
    pub(in crate::broker) const fn attempts(&self) -> u32 {
        self.tries
    }

    /// A session ended that had lived this long.
    pub(in crate::broker) fn reset_if_stable(&mut self, lived: Duration) {
        if lived >= GOOD_SESSION {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_fault_is_tried_again_within_a_second() {
        let mut patience = ReconnectBackoff::default();
        let waits: Vec<u128> = (0..6)
            .map(|_| patience.next_delay(RetryClass::Quick, 0.0).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(patience.next_delay(RetryClass::Quick, 1.0).as_millis(), 500);
    }

    #[test]
    fn a_fault_that_a_person_must_mend_is_tried_seldom() {
        let mut patience = ReconnectBackoff::default();
        assert!(patience.next_delay(RetryClass::Slow, 0.0) < SLOW);
        assert!(patience.next_delay(RetryClass::Slow, 0.0) < SLOW);
        assert_eq!(patience.next_delay(RetryClass::Slow, 0.0), SLOW);
        assert_eq!(
            patience.next_delay(RetryClass::Slow, 1.0),
            SLOW.mul_f64(1.5)
        );
        assert!(patience.next_delay(RetryClass::Quick, 0.0) <= QUICK_MAX);
    }

    #[test]
    fn only_a_session_that_lasted_starts_the_count_anew() {
        let mut patience = ReconnectBackoff::default();
        patience.next_delay(RetryClass::Slow, 0.0);
        patience.reset_if_stable(Duration::from_secs(1));
        assert_eq!(patience.attempts(), 1);
        patience.reset_if_stable(GOOD_SESSION);
        assert_eq!(patience.attempts(), 0);
    }
}
