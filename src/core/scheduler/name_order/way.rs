//! The ways by which a request that is away comes back, and when.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::policy::consume_plan::SourceQueue;

/// One that follows another which should have come back already waits this long, so that it does not
/// turn in circles.
const FOLLOW_AFTER: Duration = Duration::from_millis(100);

/// How often one looks whether the request before it has been delivered again after a lost connection.
const LOOK_FOR_RETURNED: Duration = Duration::from_secs(1);

/// Which way a request that is away comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReturnPath {
    pub(super) by: ReturnRoute,
    /// It enters the due queue (or, of `Front`, its own) not before this.
    pub(super) earliest: Timestamp,
    /// How long that was to take when it left.
    pub(super) delay: Duration,
    /// It has entered that queue by then, at the latest.
    pub(super) latest: Timestamp,
}

impl ReturnPath {
    /// Whether it was in hand, from this queue, on the connection of this number.
    pub(super) fn is_of(self, from: SourceQueue, lost: u64) -> bool {
        matches!(self.by, ReturnRoute::Front { queue, cut, .. } if queue == from && cut == lost)
    }

    pub(super) fn due(self) -> DueReturn {
        match self.by {
            ReturnRoute::Tail | ReturnRoute::Ladder => DueReturn {
                at: self.earliest,
                delay: self.delay,
            },
            // It comes as soon as the broker knows that the connection is lost.
            ReturnRoute::Front { .. } => DueReturn {
                at: Timestamp::MAX,
                delay: LOOK_FOR_RETURNED,
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReturnRoute {
    /// The tail of the due queue.
    Tail,
    /// A wait queue, then the tail of the due queue.
    Ladder,
    /// Its delivery became void: the broker puts it back in front of this queue. `is_followed_up`: that
    /// the others that come back with it have come shows that it will not, see [`super::returns`].
    Front {
        queue: SourceQueue,
        is_followed_up: bool,
        /// The number of the lost connection that it was in hand on.
        cut: u64,
    },
}

/// When the last of those that are away may be back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueReturn {
    pub(super) at: Timestamp,
    /// The longest delay that one of them left with.
    pub(super) delay: Duration,
}

impl DueReturn {
    /// How long a request that follows them must wait. It leaves after them, so their own delay is
    /// always long enough, even if the clock was set back in between: were its wait to exceed that by
    /// a moment, each follower would land one step of the ladder further than the one before it.
    #[must_use]
    pub fn wait(self, now: Timestamp) -> Duration {
        match Duration::try_from(self.at.duration_since(now)) {
            Ok(left) if !left.is_zero() => left.min(self.delay),
            _ => FOLLOW_AFTER,
        }
    }

    /// Whether it is known when they come, and that is still to come. Else they may have gone to another
    /// worker, which shows by what comes back after them: a request that follows must go round, too.
    #[must_use]
    pub fn is_to_come(self, now: Timestamp) -> bool {
        self.at > now && self.at < Timestamp::MAX
    }

    pub(super) fn latest(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(Self {
                at: one.at.max(other.at),
                delay: one.delay.max(other.delay),
            }),
            (one, other) => one.or(other),
        }
    }
}
