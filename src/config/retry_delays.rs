//! The steps of the delay ladder and their names; which step a delay takes is `core`'s business.

use std::time::Duration;

/// Delays that have a queue of their own, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryDelays(Vec<Duration>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLadder {
    #[error("has no steps")]
    Empty,
    #[error("has more than 20 steps")]
    TooMany,
    #[error("does not ascend")]
    NotAscending,
    #[error("has a step that is not from 1ms to 24h, in whole milliseconds")]
    Step,
}

/// Each step is a queue on the broker; more would be clutter.
const MAX_STEPS: usize = 20;
const MAX_STEP: Duration = Duration::from_hours(24);

impl RetryDelays {
    pub fn new(steps: Vec<Duration>) -> Result<Self, BadLadder> {
        if steps.is_empty() {
            return Err(BadLadder::Empty);
        }
        if steps.len() > MAX_STEPS {
            return Err(BadLadder::TooMany);
        }
        // A queue's TTL is in milliseconds.
        let fits = |step: &Duration| {
            !step.is_zero() && *step <= MAX_STEP && step.subsec_nanos().is_multiple_of(1_000_000)
        };
        if !steps.iter().all(fits) {
            return Err(BadLadder::Step);
        }
        if !steps.is_sorted_by(|a, b| a < b) {
            return Err(BadLadder::NotAscending);
        }
        Ok(Self(steps))
    }

    /// Ascending, never empty.
    #[must_use]
    pub fn steps(&self) -> &[Duration] {
        &self.0
    }

    /// The step's name, as it ends its queue's: `5s`, `2m`, `1h`, `250ms`.
    #[must_use]
    pub fn label(step: Duration) -> String {
        let millis = step.as_millis();
        for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if millis >= unit && millis.is_multiple_of(unit) {
                return format!("{}{name}", millis / unit);
            }
        }
        format!("{millis}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_named_by_its_largest_whole_unit() {
        for (millis, name) in [
            (5_000, "5s"),
            (30_000, "30s"),
            (90_000, "90s"),
            (120_000, "2m"),
            (600_000, "10m"),
            (3_600_000, "1h"),
            (250, "250ms"),
            (1_500, "1500ms"),
        ] {
            assert_eq!(RetryDelays::label(Duration::from_millis(millis)), name);
        }
    }

    #[test]
    fn steps_ascend_and_fit_a_queue() {
        let seconds = |list: &[u64]| list.iter().map(|s| Duration::from_secs(*s)).collect();
        assert_eq!(RetryDelays::new(vec![]), Err(BadLadder::Empty));
        assert_eq!(
            RetryDelays::new(seconds(&[5, 5])),
            Err(BadLadder::NotAscending)
        );
        assert_eq!(RetryDelays::new(seconds(&[0, 5])), Err(BadLadder::Step));
        assert_eq!(
            RetryDelays::new(vec![Duration::from_micros(1500)]),
            Err(BadLadder::Step)
        );
        assert_eq!(
            RetryDelays::new((1..=21).map(Duration::from_secs).collect()),
            Err(BadLadder::TooMany)
        );
        assert_eq!(RetryDelays::new(seconds(&[1, 2])).unwrap().steps().len(), 2);
    }
}
