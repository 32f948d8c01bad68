//! What was asked of the sandbox, counted by kind and by what the caller was told.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use serde::{Serialize, Serializer};
use tokio::sync::Notify;

use super::locked;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxCallKind {
    Rename,
    /// A self-rename.
    Confirm,
    Token,
    /// A path or method that Dintero's endpoint does not have.
    Other,
}

/// What a caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallOutcome {
    Status(u16),
    /// The connection was broken, before an answer or within it.
    Reset,
    /// Nothing, for as long as the fault lasts.
    Silence,
    /// The caller went away before it was told anything.
    Abandoned,
}

impl fmt::Display for CallOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Reset => f.write_str("reset"),
            Self::Silence => f.write_str("silence"),
            Self::Abandoned => f.write_str("abandoned"),
        }
    }
}

impl Serialize for CallOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The counts at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CallLog {
    pub ended: BTreeMap<SandboxCallKind, BTreeMap<CallOutcome, u64>>,
    /// Calls begun and not yet ended; one that waits at a gate or in a latency is here.
    pub in_flight: u64,
    pub most_in_flight: u64,
}

impl CallLog {
    /// Calls of this kind that were told this.
    #[must_use]
    pub fn count_of(&self, kind: SandboxCallKind, outcome: CallOutcome) -> u64 {
        let of_kind = self.ended.get(&kind);
        of_kind
            .and_then(|of_kind| of_kind.get(&outcome))
            .copied()
            .unwrap_or(0)
    }

    /// Calls of this kind that were answered with this status.
    #[must_use]
    pub fn status(&self, kind: SandboxCallKind, status: u16) -> u64 {
        self.count_of(kind, CallOutcome::Status(status))
    }

    /// Ended calls of this kind.
    #[must_use]
    pub fn of(&self, kind: SandboxCallKind) -> u64 {
        self.ended.get(&kind).map_or(0, |told| told.values().sum())
    }

    /// Ended calls of every kind.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ended.values().flat_map(BTreeMap::values).sum()
    }
}

#[derive(Debug, Default)]
pub(super) struct CallCounter {
    calls: Mutex<CallLog>,
    changed: Notify,
}

impl CallCounter {
    /// Counts a call in; what it returns counts it out.
    pub(super) fn begin(&self, kind: SandboxCallKind) -> CallGuard<'_> {
        {
            let calls = &mut *locked(&self.calls);
            calls.in_flight += 1;
            calls.most_in_flight = calls.most_in_flight.max(calls.in_flight);
        }
        self.changed.notify_waiters();
        CallGuard {
            counter: self,
            kind,
            outcome: CallOutcome::Abandoned,
        }
    }

    pub(super) fn now(&self) -> CallLog {
        locked(&self.calls).clone()
    }

    /// Waits until the counts are such.
    pub(super) async fn until(&self, mut such: impl FnMut(&CallLog) -> bool) -> CallLog {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let now = self.now();
            if such(&now) {
                return now;
            }
            changed.await;
        }
    }
}

/// A call under way. Dropped untold, its caller has gone away.
#[derive(Debug)]
pub(super) struct CallGuard<'a> {
    counter: &'a CallCounter,
    kind: SandboxCallKind,
    outcome: CallOutcome,
}

impl CallGuard<'_> {
    pub(super) fn end(mut self, outcome: CallOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        {
            let calls = &mut *locked(&self.counter.calls);
            calls.in_flight -= 1;
            let of_kind = calls.ended.entry(self.kind).or_default();
            *of_kind.entry(self.outcome).or_default() += 1;
        }
        self.counter.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_in_flight_until_it_is_told_and_abandoned_when_it_never_is() {
        let counter = CallCounter::default();
        let first = counter.begin(SandboxCallKind::Rename);
        let second = counter.begin(SandboxCallKind::Rename);
        assert_eq!(counter.now().in_flight, 2);
        first.end(CallOutcome::Status(200));
        drop(second);
        let calls = counter.now();
        assert_eq!((calls.in_flight, calls.most_in_flight), (0, 2));
        assert_eq!(calls.status(SandboxCallKind::Rename, 200), 1);
        assert_eq!(
            calls.count_of(SandboxCallKind::Rename, CallOutcome::Abandoned),
            1
        );
        assert_eq!((calls.of(SandboxCallKind::Rename), calls.total()), (2, 2));
        insta::assert_snapshot!(
            serde_json::to_string(&calls).unwrap(),
            @r#"{"ended":{"rename":{"200":1,"abandoned":1}},"in_flight":0,"most_in_flight":2}"#
        );
    }

    #[tokio::test]
    async fn whoever_waits_for_calls_is_woken_by_the_last_of_them() {
        let counter = CallCounter::default();
        let wait = counter.until(|calls| calls.of(SandboxCallKind::Token) == 3);
        let ((), calls) = tokio::join!(
            async {
                for _ in 0..3 {
                    counter
                        .begin(SandboxCallKind::Token)
                        .end(CallOutcome::Reset);
                    tokio::task::yield_now().await;
                }
            },
            wait
        );
        assert_eq!(
            calls.count_of(SandboxCallKind::Token, CallOutcome::Reset),
            3
        );
    }
}
