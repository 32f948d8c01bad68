//! The sides that are compared.

use std::fmt;

/// Requests a second in daily life: with an API that takes 30 ms they need 45 of the 64 slots, and those in
/// backoff would need 200 more if they held one while they wait.
pub const RATE: u32 = 1_500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    BareLoop,
    Worker,
    /// The worker with `log.level = off`.
    WithoutLog,
    /// The worker, and among the same requests 5 % more that are in backoff all the time.
    WithSick,
    /// The worker under a load of so many a second, as it is in daily life, at an API that takes
    /// its time.
    Steady,
    /// The same with 5 % more that are in backoff all the time. Did they hold a slot meanwhile, or
    /// use up what may be unacknowledged, there would be none left for the others.
    SteadyWithSick,
}

impl Side {
    pub const ALL: [Self; 6] = [
        Self::BareLoop,
        Self::Worker,
        Self::WithoutLog,
        Self::WithSick,
        Self::Steady,
        Self::SteadyWithSick,
    ];

    pub fn is_steady(self) -> bool {
        matches!(self, Self::Steady | Self::SteadyWithSick)
    }

    pub fn has_sick(self) -> bool {
        matches!(self, Self::WithSick | Self::SteadyWithSick)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_rate = format!("at {RATE} a second");
        f.pad(match self {
            Self::BareLoop => "bare loop",
            Self::Worker => "rename-worker",
            Self::WithoutLog => "without its log",
            Self::WithSick => "with 5 % more in backoff",
            Self::Steady => &at_rate,
            Self::SteadyWithSick => "  with 5 % more in backoff",
        })
    }
}
