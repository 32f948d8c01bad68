//! How many requests a session may take at a time, decided from how the sessions before it ended.
//! Pure.
//!
//! A message may end every session that it is delivered in: RabbitMQ or a proxy closes the connection
//! at it, or the process dies of it. Whatever was delivered along with it is returned with it, and
//! RabbitMQ counts a failed delivery for each. After twenty of those it moves all of them away,
//! though only one did anything. So after two sessions that ended young, and when a request arrives
//! that was already returned several times, requests are taken one at a time: then the count of the
//! culprit alone grows, until RabbitMQ moves it away or it has its outcome.

use std::time::Duration;

/// A session that had many requests at a time for this long shows that no message ends it.
const STABLE: Duration = Duration::from_secs(10);

/// Sessions in a row that may end young before requests are taken one at a time. One is nothing: a
/// broker restarts, a network drops.
const YOUNG_DEATHS: u32 = 2;

/// From this many failed deliveries on, a request may be what ends the worker; one or two happen to
/// any request.
const SUSPECT_FROM: u32 = 3;

/// How many requests a session may have unsettled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumeWindow {
    /// As many as the prefetch.
    Full,
    /// One, until everything that was returned has been taken.
    OneAtATime,
}

/// How a session ended that nobody asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionDeath {
    /// Something was delivered. A session without a delivery says nothing about any message.
    pub delivered: bool,
    /// How long it had been taking many requests at a time.
    pub full_for: Duration,
    /// It ended because a suspect was delivered among others.
    pub met_suspect: bool,
}

/// The sessions so far, in this process's memory: after a kill only RabbitMQ's own counts speak.
#[derive(Debug, Default)]
pub struct SessionHistory {
    young_deaths: u32,
}

impl SessionHistory {
    pub fn session_died(&mut self, death: SessionDeath) {
        if death.met_suspect {
            self.young_deaths = self.young_deaths.max(YOUNG_DEATHS);
        } else if death.full_for >= STABLE {
            self.young_deaths = 0;
        } else if death.delivered {
            self.young_deaths = self.young_deaths.saturating_add(1);
        }
    }

    /// The window that the next session begins with.
    pub const fn window(&self) -> ConsumeWindow {
        if self.young_deaths >= YOUNG_DEATHS {
            ConsumeWindow::OneAtATime
        } else {
            ConsumeWindow::Full
        }
    }
}

/// Whether a delivery may be what ends the worker, by the broker's count of its failed deliveries.
pub const fn is_suspect(delivery_count: u32) -> bool {
    delivery_count >= SUSPECT_FROM
}

#[cfg(test)]
mod tests {
    use super::ConsumeWindow::{Full, OneAtATime};
    use super::*;

    const YOUNG: SessionDeath = SessionDeath {
        delivered: true,
        full_for: Duration::from_secs(1),
        met_suspect: false,
    };

    fn window_after(deaths: &[SessionDeath]) -> ConsumeWindow {
        let mut history = SessionHistory::default();
        for &death in deaths {
            history.session_died(death);
        }
        history.window()
    }

    #[test]
    fn after_two_young_deaths_requests_are_taken_one_at_a_time() {
        let old = SessionDeath {
            full_for: STABLE,
            ..YOUNG
        };
        let empty = SessionDeath {
            delivered: false,
            ..YOUNG
        };
        let suspect = SessionDeath {
            met_suspect: true,
            ..YOUNG
        };
        // One that never left the narrow window, however long it lived.
        let narrow = SessionDeath {
            full_for: Duration::ZERO,
            ..YOUNG
        };
        for (deaths, window) in [
            (&[][..], Full),
            (&[YOUNG], Full),
            (&[YOUNG, YOUNG], OneAtATime),
            (&[YOUNG, empty, YOUNG], OneAtATime),
            (&[empty, empty, empty], Full),
            (&[YOUNG, old, YOUNG], Full),
            (&[YOUNG, YOUNG, narrow, narrow], OneAtATime),
            (&[YOUNG, YOUNG, old], Full),
            (&[suspect], OneAtATime),
            (&[old, suspect, old], Full),
        ] {
            assert_eq!(window_after(deaths), window, "{deaths:?}");
        }
    }

    #[test]
    fn one_or_two_failed_deliveries_make_no_suspect() {
        assert_eq!(
            [0, 1, 2, 3, 20].map(is_suspect),
            [false, false, false, true, true]
        );
    }
}
