//! Which log lines of a standing fault are due, so that a fault that lasts for days does not fill
//! a disk. Pure: the time is an argument. What a line says is `telemetry`'s business.

use std::time::Duration;

use jiff::Timestamp;

/// The shortest time between two lines about one outage, and the first pause: an operator who looks
/// at the log sees a line of the last minutes.
const PAUSE_FIRST: Duration = Duration::from_mins(1);

/// The longest pause between two lines about one outage: a night of it is some fifty lines.
const PAUSE_MAX: Duration = Duration::from_mins(10);

/// A recovery that lasted this long ended the outage. One that lasted shorter belongs to it, or a
/// broker that takes and drops connections would be reported as lost and back each second.
const STABLE: Duration = Duration::from_mins(1);

/// The number of lines of one kind in [`WINDOW`]: enough to see the first ones of a fault in full.
const BURST: u64 = 10;

/// The window in which lines of one kind are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// The line that is due about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultLine {
    /// The outage begins.
    Began,
    /// It goes on, for this long by now, and this many failures since the last line had no line.
    Continues { lasted: Duration, left_out: u64 },
}

/// The line that is due about the end of an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRecovery {
    /// How long the outage lasted, interruptions included.
    pub lasted: Duration,
}

/// Follows something that can be away, such as the broker: one line when the outage begins, one
/// after growing pauses of at least a minute while it lasts, one when it is over.
#[derive(Debug, Clone, Default)]
pub struct OutageLog {
    state: FaultState,
}

#[derive(Debug, Clone, Copy, Default)]
enum FaultState {
    #[default]
    Working,
    Away(CurrentOutage),
    /// It works again, but not yet for [`STABLE`].
    Recovering {
        outage: CurrentOutage,
        recovered_at: Timestamp,
        reported: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct CurrentOutage {
    began_at: Timestamp,
    /// Whether a person has to change something, as far as the last failure showed.
    needs_action: bool,
    last_line_at: Option<Timestamp>,
    next_line_at: Timestamp,
    pause: Duration,
    left_out: u64,
    /// It had recovered before, for less than [`STABLE`].
    flapped: bool,
}

impl OutageLog {
    /// It was lost, or another try failed. `needs_action` says that a person has to change
    /// something; the first failure of that kind is news and does not wait for the pause to end.
    pub fn failed(&mut self, needs_action: bool, now: Timestamp) -> Option<FaultLine> {
        let mut outage = match self.state {
            FaultState::Working => None,
            FaultState::Away(outage) => Some(outage),
            FaultState::Recovering { recovered_at, .. } if since(recovered_at, now) >= STABLE => {
                None
            }
            FaultState::Recovering { outage, .. } => Some(CurrentOutage {
                flapped: true,
                ..outage
            }),
        };
        let line = match &mut outage {
            None => FaultLine::Began.into(),
            Some(outage) => outage.failed_again(needs_action, now),
        };
        self.state = FaultState::Away(outage.unwrap_or(CurrentOutage {
            began_at: now,
            needs_action,
            last_line_at: None,
            next_line_at: now + PAUSE_FIRST,
            pause: PAUSE_FIRST,
            left_out: 0,
            flapped: false,
        }));
        line
    }

    /// It works again.
    pub fn recovered(&mut self, now: Timestamp) -> Option<FaultRecovery> {
        let FaultState::Away(outage) = self.state else {
            return None;
        };
        let reported = !outage.flapped;
        self.state = FaultState::Recovering {
            outage,
            recovered_at: now,
            reported,
        };
        reported.then(|| FaultRecovery {
            lasted: since(outage.began_at, now),
        })
    }

    /// Time has passed. A recovery that was not reported, since the one before it did not last, is
    /// reported once it has lasted.
    pub fn tick(&mut self, now: Timestamp) -> Option<FaultRecovery> {
        let FaultState::Recovering {
            outage,
            recovered_at,
            reported,
        } = self.state
        else {
            return None;
        };
        if since(recovered_at, now) < STABLE {
            return None;
        }
        self.state = FaultState::Working;
        (!reported).then(|| FaultRecovery {
            lasted: since(outage.began_at, recovered_at),
        })
    }

    /// Whether an outage is under way.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self.state, FaultState::Away(_))
    }
}

impl CurrentOutage {
    fn failed_again(&mut self, needs_action: bool, now: Timestamp) -> Option<FaultLine> {
        let rested = self
            .last_line_at
            .is_none_or(|at| since(at, now) >= PAUSE_FIRST);
        let is_news = needs_action && !self.needs_action;
        self.needs_action = needs_action;
        if now < self.next_line_at && !(is_news && rested) {
            self.left_out += 1;
            return None;
        }
        if self.last_line_at.is_some() {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        self.last_line_at = Some(now);
        self.next_line_at = now + self.pause;
        Some(FaultLine::Continues {
            lasted: since(self.began_at, now),
            left_out: std::mem::take(&mut self.left_out),
        })
    }
}

/// Bounds the lines of one kind that each stand for themselves: [`BURST`] in a [`WINDOW`], and the
/// next one says how many were left out.
#[derive(Debug, Clone, Default)]
pub struct LineLimit {
    window_began_at: Option<Timestamp>,
    seen: u64,
}

impl LineLimit {
    /// Whether a line may be written now, and how many had to be left out before it.
    pub fn admit(&mut self, now: Timestamp) -> Option<u64> {
        let is_over = self
            .window_began_at
            .is_none_or(|at| since(at, now) >= WINDOW);
        let mut left_out = 0;
        if is_over {
            left_out = self.seen.saturating_sub(BURST);
            self.seen = 0;
            self.window_began_at = Some(now);
        }
        self.seen = self.seen.saturating_add(1);
        (self.seen <= BURST).then_some(left_out)
    }
}

/// None where the clock was set back.
fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
