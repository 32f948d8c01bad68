//! The numbers of the copies that go away.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::policy::retry::saturating_add;

/// Numbers the copies that go away, so that each is known when it comes back, and when it was sent.
#[derive(Debug, Clone, Default)]
pub(super) struct CopyIds {
    /// A random number in the upper bits, so that no other worker numbers its copies alike.
    base: u64,
    since: Option<Timestamp>,
    last: u64,
}

impl CopyIds {
    /// Lower bits of a number: ticks since the worker's start, 17 years of them. With the 20 bits of
    /// the worker above, a number fits AMQP's signed ones.
    const TICK_BITS: u32 = 43;
    /// More copies than one a tick do not leave in a row for long.
    const TICKS_A_MILLISECOND: u64 = 16;

    pub(super) fn starting(random: f64, now: Timestamp) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the product is within 20 bits, for a number from 0 to 1"
        )]
        let worker = (random.clamp(0.0, 1.0) * f64::from(0xf_ffff)) as u64;
        let base = worker << Self::TICK_BITS;
        Self {
            base,
            since: Some(now),
            last: base,
        }
    }

    pub(super) fn next(&mut self, now: Timestamp) -> u64 {
        let since = *self.since.get_or_insert(now);
        let passed = u64::try_from(now.duration_since(since).as_millis()).unwrap_or(0);
        self.last = (self.base + passed * Self::TICKS_A_MILLISECOND).max(self.last + 1);
        self.last
    }

    /// When this worker sent the copy of that number.
    pub(super) fn sent_at(&self, number: u64) -> Option<Timestamp> {
        let ours = number > self.base && number <= self.last;
        let ticks = number.checked_sub(self.base).filter(|_| ours)?;
        let passed = Duration::from_millis(ticks / Self::TICKS_A_MILLISECOND);
        Some(saturating_add(self.since?, passed))
    }
}
