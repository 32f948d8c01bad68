//! When a request was asked for, as far as what its publisher says of that can be true.
//!
//! `requested_at` and the AMQP timestamp are whatever a publisher wrote: a zero of somebody's epoch
//! (1, 1601, 1970, 1980, 2001), the year 9999 for "never", milliseconds where seconds belong. One of
//! them in the histogram of ages spoils its sum for good, and as the queue's head it raises an alarm.

use std::time::Duration;

use jiff::Timestamp;

/// How far a publisher's clock may be ahead of ours. Kerberos bears as much; a machine that is
/// further off has no time service.
const SKEW_MAX: Duration = Duration::from_mins(5);

/// The oldest request that is believed. It covers every zero of a known epoch and is far above the
/// oldest there should be: a dead letter that is replayed after a long holiday.
const AGE_MAX: Duration = Duration::from_hours(366 * 24);

/// The first of these times that can be true; one that is a little ahead of our clock counts as
/// now. None where none can: then nothing is measured.
#[must_use]
pub fn plausible(
    claimed: impl IntoIterator<Item = Option<Timestamp>>,
    now: Timestamp,
) -> Option<Timestamp> {
    let (oldest, newest) = (
        now.saturating_sub(AGE_MAX).ok()?,
        now.saturating_add(SKEW_MAX).ok()?,
    );
    claimed
        .into_iter()
        .flatten()
        .find(|at| (oldest..=newest).contains(at))
        .map(|at| at.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-24T10:00:00Z";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn only_times_that_can_be_true_are_measured() {
        for (claimed, measured) in [
            (NOW, Some(NOW)),
            ("2026-11-24T09:59:59.999Z", Some("2026-11-24T09:59:59.999Z")),
            ("2026-11-23T10:00:00Z", Some("2026-11-23T10:00:00Z")),
            ("2025-11-23T10:00:00Z", Some("2025-11-23T10:00:00Z")),
            ("2025-11-23T09:59:59Z", None),
            // Zeros: of Cocoa, GPS, Unix, Windows, .NET, and the year 0.
            ("2001-01-01T00:00:00Z", None),
            ("1980-01-06T00:00:00Z", None),
            ("1970-01-01T00:00:00Z", None),
            ("1601-01-01T00:00:00Z", None),
            ("0001-01-01T00:00:00Z", None),
            ("0000-01-01T00:00:00Z", None),
            ("-009999-01-02T01:59:59Z", None),
            // Ahead of our clock, by a little and by too much.
            ("2026-11-24T10:00:00.001Z", Some(NOW)),
            ("2026-11-24T10:05:00Z", Some(NOW)),
            ("2026-11-24T10:05:00.001Z", None),
            ("2027-01-01T00:00:00Z", None),
            ("2038-01-19T03:14:07Z", None),
            ("9999-12-30T22:00:00Z", None),
        ] {
            let found = plausible([Some(time(claimed))], time(NOW));
            assert_eq!(found, measured.map(time), "{claimed}");
        }
    }

    #[test]
    fn a_plausible_one_stands_in_for_one_that_is_not() {
        let (good, other, bad) = (
            Some(time("2026-11-24T09:00:00Z")),
            Some(time("2026-11-24T09:30:00Z")),
            Some(Timestamp::UNIX_EPOCH),
        );
        let now = time(NOW);
        for (claimed, measured) in [
            ([good, other], good),
            ([None, other], other),
            ([bad, good], good),
            ([good, bad], good),
            ([bad, bad], None),
            ([bad, None], None),
            ([None, None], None),
        ] {
            assert_eq!(plausible(claimed, now), measured, "{claimed:?}");
        }
    }

    #[test]
    fn at_the_ends_of_time_nothing_panics() {
        assert_eq!(
            plausible([Some(Timestamp::MAX)], Timestamp::MAX),
            Some(Timestamp::MAX)
        );
        assert_eq!(
            plausible([Some(Timestamp::MIN)], Timestamp::MIN),
            Some(Timestamp::MIN)
        );
        assert_eq!(plausible([Some(Timestamp::MIN)], Timestamp::MAX), None);
    }
}
