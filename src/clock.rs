//! The one place that asks for the time and for chance, so that everything else takes them as
//! arguments.
//!
//! `clippy.toml` forbids the clocks of `std` and `jiff` and `rand::random` everywhere but here.
//! Spans are measured with `tokio::time::Instant`, which tests can pause.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

static CLOCK: Mutex<Option<Clock>> = Mutex::new(None);

/// The time of day, which never goes back, whatever becomes of the machine's clock.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that everybody else is told to ask"
)]
pub fn now() -> Timestamp {
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let (wall, at) = (Timestamp::now(), Instant::now());
    clock.get_or_insert(Clock { told: wall, at }).tell(wall, at)
}

/// A number from 0 to 1, for delays that must not fall together.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the die that everybody else is told to ask for"
)]
pub fn chance() -> f64 {
    rand::random()
}

/// What was told last, and when that was.
///
/// Waits end at a time of day. Were that to jump back by an hour, as a machine's clock does when it
/// is set, a backoff of a second would take an hour longer. So time goes on at half its speed until
/// the machine's clock has caught up: waits take twice as long at most.
#[derive(Debug)]
struct Clock {
    told: Timestamp,
    at: Instant,
}

impl Clock {
    fn tell(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        if wall < self.told {
            let passed = at.saturating_duration_since(self.at);
            let later = self.told.saturating_add(passed / 2);
            self.told = later.unwrap_or(Timestamp::MAX);
        } else {
            self.told = wall;
        }
        self.at = at;
        self.told
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a span's beginning can be had from the clock only"
)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// Tells the time when the wall's clock shows `wall` seconds, `passed` seconds after the start.
    fn tell(clock: &mut Clock, start: Instant, wall: i64, passed: u64) -> i64 {
        let wall = Timestamp::from_second(wall).unwrap();
        clock
            .tell(wall, start + Duration::from_secs(passed))
            .as_second()
    }

    fn clock(wall: i64) -> (Clock, Instant) {
        let at = Instant::now();
        let told = Timestamp::from_second(wall).unwrap();
        (Clock { told, at }, at)
    }

    #[test]
    fn it_tells_what_the_machines_clock_shows_and_jumps_ahead_with_it() {
        let (mut clock, start) = clock(10_000);
        assert_eq!(tell(&mut clock, start, 10_001, 1), 10_001);
        assert_eq!(tell(&mut clock, start, 13_602, 2), 13_602);
    }

    #[test]
    fn after_a_jump_back_it_goes_on_at_half_speed_until_it_is_caught_up() {
        let (mut clock, start) = clock(10_000);
        let back = i64::try_from(HOUR.as_secs()).unwrap();
        // Asked in steps of 10 s over three hours.
        let mut last = 10_000;
        for passed in (10..=3 * HOUR.as_secs()).step_by(10) {
            let wall = 10_000 - back + i64::try_from(passed).unwrap();
            let told = tell(&mut clock, start, wall, passed);
            assert!(told >= last, "it never goes back");
            let half = 10_000 + i64::try_from(passed).unwrap() / 2;
            let behind = half.max(wall) - told;
            assert!((0..=5).contains(&behind), "half speed, to the step");
            last = told;
        }
    }
}
